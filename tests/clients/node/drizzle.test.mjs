// Drizzle on top of @libsql/client, as an application uses it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { count, eq, relations, sql, sum } from "drizzle-orm";
import { drizzle } from "drizzle-orm/libsql";
import { blob, integer, real, sqliteTable, text } from "drizzle-orm/sqlite-core";

import { withClient } from "./tenant.mjs";

const people = sqliteTable("people", {
  id: integer("id").primaryKey({ autoIncrement: true }),
  name: text("name").notNull().unique(),
  admin: integer("admin", { mode: "boolean" }).notNull().default(false),
  joined: integer("joined", { mode: "timestamp" }).notNull(),
  settings: text("settings", { mode: "json" }),
  photo: blob("photo", { mode: "buffer" }),
});

const orders = sqliteTable("orders", {
  id: integer("id").primaryKey(),
  person: integer("person").notNull().references(() => people.id),
  total: real("total").notNull(),
});

const peopleRelations = relations(people, ({ many }) => ({ orders: many(orders) }));
const ordersRelations = relations(orders, ({ one }) => ({ person: one(people, { fields: [orders.person], references: [people.id] }) }));

const joined = new Date("2026-01-02T03:04:05Z");

const it = (name, use) =>
  test(name, () =>
    withClient(async (client) => {
      const db = drizzle(client, { schema: { people, orders, peopleRelations, ordersRelations } });
      await db.run(sql`DROP TABLE IF EXISTS orders`);
      await db.run(sql`DROP TABLE IF EXISTS people`);
      await db.run(sql`CREATE TABLE people (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
        admin INTEGER NOT NULL DEFAULT 0, joined INTEGER NOT NULL, settings TEXT, photo BLOB)`);
      await db.run(sql`CREATE TABLE orders (id INTEGER PRIMARY KEY, person INTEGER NOT NULL REFERENCES people (id), total REAL NOT NULL)`);
      await db.insert(people).values([{ name: "ann", joined, admin: true }, { name: "bob", joined }]);
      await db.insert(orders).values([{ person: 1, total: 10.5 }, { person: 1, total: 2 }, { person: 2, total: 7 }]);
      await use(db);
    }),
  );

it("columns of every kind come back as what they were", async (db) => {
  const given = { name: "cleo", joined, admin: true, settings: { theme: "dark", sizes: [1, 2] }, photo: Buffer.from([0, 255, 1]) };
  const [inserted] = await db.insert(people).values(given).returning();
  const found = await db.query.people.findFirst({ where: eq(people.name, "cleo") });
  assert.deepEqual(found, { id: 3, ...given });
  assert.deepEqual(inserted, found);
});

it("joins and aggregates", async (db) => {
  const totals = await db
    .select({ name: people.name, orders: count(orders.id), total: sum(orders.total).mapWith(Number) })
    .from(people)
    .leftJoin(orders, eq(orders.person, people.id))
    .groupBy(people.id)
    .orderBy(people.name);
  assert.deepEqual(totals, [{ name: "ann", orders: 2, total: 12.5 }, { name: "bob", orders: 1, total: 7 }]);
});

it("relations are loaded in one query", async (db) => {
  const found = await db.query.people.findMany({ columns: { name: true }, with: { orders: { columns: { total: true } } }, orderBy: people.name });
  assert.deepEqual(found, [{ name: "ann", orders: [{ total: 10.5 }, { total: 2 }] }, { name: "bob", orders: [{ total: 7 }] }]);
});

it("updates, deletes and upserts", async (db) => {
  const updated = await db.update(people).set({ admin: true }).where(eq(people.name, "bob"));
  assert.equal(updated.rowsAffected, 1);
  await db.insert(people).values({ name: "bob", joined }).onConflictDoUpdate({ target: people.name, set: { settings: { merged: true } } });
  assert.deepEqual(await db.select({ admin: people.admin, settings: people.settings }).from(people).where(eq(people.name, "bob")), [
    { admin: true, settings: { merged: true } },
  ]);
  assert.deepEqual(await db.delete(orders).where(eq(orders.person, 1)).returning({ id: orders.id }), [{ id: 1 }, { id: 2 }]);
});

it("a transaction commits", async (db) => {
  const id = await db.transaction(async (tx) => {
    const [person] = await tx.insert(people).values({ name: "dora", joined }).returning({ id: people.id });
    await tx.insert(orders).values({ person: person.id, total: 1 });
    assert.equal(await tx.$count(orders), 4);
    return person.id;
  });
  assert.equal(await db.$count(orders, eq(orders.person, id)), 1);
});

it("a transaction rolls back, by wish and by an error", async (db) => {
  const insert = (tx, name) => tx.insert(people).values({ name, joined });
  const byWish = db.transaction(async (tx) => {
    await insert(tx, "eve");
    tx.rollback();
  });
  await assert.rejects(byWish, { name: "DrizzleError" });
  const byError = db.transaction(async (tx) => {
    await insert(tx, "eve");
    await insert(tx, "ann");
  });
  await assert.rejects(byError, (error) => /UNIQUE constraint failed: people\.name/.test(error.cause?.message ?? error.message));
  assert.equal(await db.$count(people), 2);
});

it("a transaction in a transaction is rolled back alone", async (db) => {
  await db.transaction(async (tx) => {
    await tx.insert(people).values({ name: "fay", joined });
    await assert.rejects(
      tx.transaction(async (inner) => {
        await inner.insert(people).values({ name: "gus", joined });
        inner.rollback();
      }),
    );
  });
  assert.deepEqual((await db.select({ name: people.name }).from(people).orderBy(people.id)).map(({ name }) => name), ["ann", "bob", "fay"]);
});

it("a batch is one transaction", async (db) => {
  const [inserted, all] = await db.batch([db.insert(people).values({ name: "hal", joined }).returning({ id: people.id }), db.select({ n: count() }).from(people)]);
  assert.deepEqual([inserted, all], [[{ id: 3 }], [{ n: 3 }]]);
  await assert.rejects(db.batch([db.insert(people).values({ name: "ida", joined }), db.insert(people).values({ name: "ann", joined })]));
  assert.equal(await db.$count(people), 3);
});
