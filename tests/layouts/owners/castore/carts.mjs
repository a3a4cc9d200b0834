// Carts kept with Castore. `append` takes messages as JSON and says what came of each, `read`
// prints every stream as the library reads it; of the database DATABASE_URL.
import { EventStore, EventType, isEventAlreadyExistsError } from "@castore/core";
import { PostgresEventStorageAdapter } from "@castore/event-storage-adapter-postgres";
import { readFileSync } from "node:fs";

const connectionString = process.env.DATABASE_URL;
const tableName = process.env.TABLE ?? "event";
const carts = new EventStore({
  eventStoreId: "CART",
  eventTypes: ["Opened", "Added", "Seen", "Closed"].map((type) => new EventType({ type })),
  reducer: (cart, event) => ({ aggregateId: event.aggregateId, version: event.version }),
  eventStorageAdapter: new PostgresEventStorageAdapter({ connectionString, tableName }),
});

const actions = {
  make: async () => {
    const aggregateId = process.env.TEXT_IDS ? { type: "VARCHAR", length: 64 } : { type: "UUID" };
    await PostgresEventStorageAdapter.createEventTable({ connectionString, tableName, aggregateId });
  },

  append: async () => {
    const results = [];
    for (const { stream, type, data, metadata, expected } of JSON.parse(readFileSync(0))) {
      const event = { aggregateId: stream.slice("CART-".length), version: expected + 1, type };
      if (data !== null) event.payload = data;
      if (metadata !== null) event.metadata = metadata;
      try {
        results.push((await carts.pushEvent(event)).event.version);
      } catch (error) {
        if (!isEventAlreadyExistsError(error)) throw error;
        results.push("refused");
      }
    }
    return results;
  },

  read: async () => {
    const streams = {};
    const { aggregateIds } = await carts.listAggregateIds();
    for (const { aggregateId } of aggregateIds) {
      const { events } = await carts.getEvents(aggregateId);
      streams[`CART-${aggregateId}`] = events.map((event) => ({
        position: event.version,
        type: event.type,
        data: event.payload ?? null,
        metadata: event.metadata ?? null,
        time: event.timestamp,
      }));
    }
    return { streams, order: null }; // it has no way to read all of them in order
  },
};

console.log(JSON.stringify((await actions[process.argv[2]]()) ?? null));
process.exit();
