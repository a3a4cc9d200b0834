// Carts kept with Emmett on SQLite, in the version EMMETT. `append` takes messages as JSON and says
// what came of each, `read` prints every stream as the library reads it, and what its consumer is
// handed, in order; of the file DATABASE_FILE.
import { readFileSync } from "node:fs";

const library = { 0.38: "emmett-sqlite-0.38", 0.42: "@event-driven-io/emmett-sqlite" };
const { getSQLiteEventStore } = await import(library[process.env.EMMETT]);
const store = getSQLiteEventStore({ fileName: process.env.DATABASE_FILE });

const follow = async () => {
  const seen = [];
  const consumer = store.consumer();
  consumer.processor({
    processorId: `tests-${process.pid}`,
    startFrom: "BEGINNING",
    eachMessage: ({ type, metadata }) => {
      seen.push([metadata.streamName, Number(metadata.streamPosition), type]);
    },
    stopAfter: ({ metadata }) => metadata.globalPosition === BigInt(process.env.LAST),
  });
  await consumer.start();
  return seen;
};

const actions = {
  make: async () => {
    await store.readStream("none"); // whatever comes first makes its tables
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
        if (error.code === "SQLITE_BUSY") break; // the rest is appended by another process
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

console.log = () => {}; // the library prints its errors there
try {
  process.stdout.write(`${JSON.stringify((await actions[process.argv[2]]()) ?? null)}\n`);
} catch (error) {
  // Now and then its COMMIT comes before its driver is done with a SELECT, and is rolled back.
  if (error.code !== "SQLITE_BUSY") throw error;
  process.exit(75);
}
process.exit();
