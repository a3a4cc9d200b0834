// Carts kept with Emmett on PostgreSQL. `append` takes messages as JSON and says what came of each,
// `read` prints every stream as the library reads it, and what its consumer is handed, in order; of
// the database DATABASE_URL.
import { getPostgreSQLEventStore } from "@event-driven-io/emmett-postgresql";
import { readFileSync } from "node:fs";

const store = getPostgreSQLEventStore(process.env.DATABASE_URL);

const follow = async () => {
  const seen = [];
  const consumer = store.consumer({ stopWhen: { noMessagesLeft: true } });
  const eachMessage = ({ type, metadata }) => {
    seen.push([metadata.streamName, Number(metadata.streamPosition), type]);
  };
  consumer.reactor({ processorId: `tests-${process.pid}`, startFrom: "BEGINNING", eachMessage });
  await consumer.start();
  return seen;
};

const actions = {
  make: async () => {
    await store.schema.migrate();
  },

  append: async () => {
    const results = [];
    for (const { stream, type, data, metadata, expected } of JSON.parse(readFileSync(0))) {
      const event = metadata === null ? { type, data } : { type, data, metadata };
      const expectedStreamVersion = BigInt(expected);
      try {
        const done = await store.appendToStream(stream, [event], { expectedStreamVersion });
        results.push(Number(done.nextExpectedStreamVersion));
      } catch (error) {
        if (error.errorCode !== 412) throw error;
        results.push("refused");
      }
    }
    return results;
  },

  read: async () => {
    const streams = {};
    const order = await follow();
    for (const name of new Set(order.map(([stream]) => stream))) {
      const { events } = await store.readStream(name);
      streams[name] = events.map(({ type, data, metadata }) => {
        const { messageId, streamName, streamPosition, globalPosition, ...known } = metadata;
        if (streamName !== name) throw new Error(`${streamName} in ${name}`);
        return { position: Number(streamPosition), type, data, metadata: known, id: messageId };
      });
    }
    return { streams, order };
  },
};

console.log(JSON.stringify((await actions[process.argv[2]]()) ?? null));
process.exit();
