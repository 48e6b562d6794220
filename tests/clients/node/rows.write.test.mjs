// @supabase/postgrest-js as published: everything it can do to a table. Each test begins with the seed's rows.

import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { PostgrestClient } from "@supabase/postgrest-js";

import { column, data, refused, reset, token, url } from "./bookshop.mjs";

const shop = new PostgrestClient(`${url}/rest/v1`, { headers: { Authorization: `Bearer ${token}` } });
const from = (table) => shop.from(table);
const counts = () => data(from("counts").select("shop, book_id, n, note").order("shop").order("book_id"));

beforeEach(reset);

describe("insert", () => {
  test("a row; nothing comes back", async () => {
    const { data: rows, error, status, count } = await from("genres").insert({ id: 9, name: "fable" });
    assert.deepEqual([rows, error, status, count], [null, null, 201, null]);
    assert.deepEqual(await column(from("genres").select("name").eq("id", 9)), ["fable"]);
  });
  test("a row, and what it became", async () => {
    const made = await data(from("counts").insert({ shop: "Bath", book_id: 3 }).select());
    assert.deepEqual(made, [{ shop: "Bath", book_id: 3, n: 1, note: "counted" }]);
  });
  test("a row, and one column of it, as one", async () => {
    const made = await data(from("genres").insert({ name: "saga" }).select("id").single());
    assert.deepEqual(made, { id: 5 });
  });
  test("a row with what it refers to", async () => {
    const made = await data(from("reviews").insert({ book_id: 2, stars: 1 }).select("stars, books(title, written_by(name))").single());
    assert.deepEqual(made, { stars: 1, books: { title: "North Water", written_by: { name: "Bo Lindqvist" } } });
  });
  test("many rows, counted", async () => {
    const { data: rows, count, status } = await from("genres").insert([{ name: "x" }, { name: "y" }], { count: "exact" }).select("name");
    assert.deepEqual([rows, count, status], [[{ name: "x" }, { name: "y" }], 2, 201]);
  });
  test("no rows", async () => {
    assert.deepEqual(await data(from("genres").insert([]).select()), []);
  });
  test("what some rows lack is null, or the default", async () => {
    const rows = [{ shop: "Bath", book_id: 1, note: "new" }, { shop: "Bath", book_id: 2 }];
    assert.deepEqual(await column(from("counts").insert(rows).select("note")), ["new", null]);
    await reset();
    assert.deepEqual(await column(from("counts").insert(rows, { defaultToNull: false }).select("note")), ["new", "counted"]);
  });
  test("values of every type come back as they were", async () => {
    const book = {
      id: 6, title: 'A "q", \\ and ☃', author_id: 1, translator_id: null, price: 0.5, stock: -2, in_print: false,
      published: "2026-11-21", tags: ["a,b", "{c}"], details: { n: 1.5, deep: [{ t: true }], nil: null },
    };
    assert.deepEqual(await data(from("books").insert(book).select().single()), book);
    assert.deepEqual(await column(from("books").select("id").eq("title", book.title)), [6]);
  });
  test("integers past 2^53, which JSON.parse would round", async () => {
    const made = await data(from("numbers").insert({ big: 9223372036854775807n }).select("big::text").single());
    assert.deepEqual(made, { big: "9223372036854775807" });
  });
  test("names that need quotes", async () => {
    const row = { "two words": "w", "with,comma": "c", select: "s" };
    assert.deepEqual(await data(from("odd names").insert([row]).select('"two words", "with,comma", select').single()), row);
  });
  test("all or nothing, and why", async () => {
    await refused(from("genres").insert([{ id: 8, name: "ok" }, { id: 1, name: "twice" }]), 409, "23505");
    assert.deepEqual(await data(from("genres").select().eq("id", 8)), []);
    await refused(from("reviews").insert({ book_id: 77, stars: 1 }), 409, "23503");
    await refused(from("reviews").insert({ book_id: 1, stars: 6 }), 400, "23514");
    await refused(from("genres").insert({ id: 8, name: null }), 400, "23502");
    await refused(from("genres").insert({ nome: "typo" }), 400, "PGRST204");
    await refused(from("reviews").insert({ book_id: "one", stars: 1 }), 400, "22P02");
  });
});

describe("upsert", () => {
  test("by the primary key", async () => {
    const rows = [{ id: 4, name: "verse" }, { id: 5, name: "fable" }];
    assert.deepEqual(await data(from("genres").upsert(rows).select()), rows);
    assert.equal((await from("genres").select("*", { count: "exact", head: true })).count, 5);
  });
  test("by other columns", async () => {
    const kept = await data(from("books").upsert({ title: "North Water", author_id: 2, stock: 99 }, { onConflict: "title" }).select("id, stock, price"));
    assert.deepEqual(kept, [{ id: 2, stock: 99, price: 9 }]);
  });
  test("by a key of two columns", async () => {
    await data(from("counts").upsert([{ shop: "Leeds", book_id: 1, n: 50 }, { shop: "Oslo", book_id: 2, n: 60 }], { onConflict: "shop,book_id" }));
    assert.deepEqual((await counts()).map(({ n }) => n), [50, 5, 4, 60]);
  });
  test("ignoring what is there", async () => {
    const { data: rows, count } = await from("genres").upsert([{ id: 1, name: "?" }, { id: 7, name: "new" }], { ignoreDuplicates: true, count: "exact" }).select();
    assert.deepEqual([rows, count], [[{ id: 7, name: "new" }], 1]);
    assert.deepEqual(await column(from("genres").select("name").eq("id", 1)), ["novel"]);
  });
  test("with defaults for what is missing", async () => {
    const rows = [{ shop: "Rome", book_id: 1, n: 3 }, { shop: "Rome", book_id: 2 }];
    assert.deepEqual(await column(from("counts").upsert(rows, { defaultToNull: false }).select("n")), [3, 1]);
  });
  test("by columns that are no key", () => refused(from("genres").upsert({ id: 1, name: "x" }, { onConflict: "name" }), 400, "42P10"));
});

describe("update", () => {
  test("nothing comes back", async () => {
    const { data: rows, error, status } = await from("genres").update({ name: "tale" }).eq("id", 1);
    assert.deepEqual([rows, error, status], [null, null, 204]);
  });
  test("what changed comes back, counted", async () => {
    const { data: rows, count, status } = await from("books").update({ stock: 5, tags: null }, { count: "exact" }).eq("author_id", 3).select("id, stock, tags").order("id");
    assert.deepEqual([rows, count, status], [[{ id: 3, stock: 5, tags: null }, { id: 4, stock: 5, tags: null }], 2, 200]);
  });
  test("with every kind of filter, and an embedded table in the answer", async () => {
    const changed = await data(from("books").update({ price: 1 }).or("stock.eq.0,title.ilike.*rain").not("id", "eq", 3).select("id, reviews(stars)"));
    assert.deepEqual(changed, [{ id: 2, reviews: [{ stars: 4 }] }]);
  });
  test("a key can change", async () => {
    assert.deepEqual(await data(from("genres").update({ id: 40 }).eq("id", 4).select()), [{ id: 40, name: "poetry" }]);
  });
  test("of nothing", async () => {
    assert.deepEqual(await data(from("genres").update({ name: "x" }).eq("id", 77).select()), []);
    assert.equal(await data(from("genres").update({ name: "x" }).eq("id", 77).select().maybeSingle()), null);
  });
  test("single: more than one is refused and undone", async () => {
    await refused(from("genres").update({ name: "same" }).gt("id", 0).select().single(), 406, "PGRST116");
    assert.deepEqual(await column(from("genres").select("name").order("id").limit(1)), ["novel"]);
  });
  test("maxAffected: more is refused and undone", async () => {
    await refused(from("genres").update({ name: "same" }).gt("id", 0).maxAffected(2), 400, "PGRST124");
    assert.deepEqual(await data(from("genres").update({ name: "ok" }).eq("id", 1).maxAffected(2).select("name")), [{ name: "ok" }]);
    assert.deepEqual(await data(from("genres").select("id").eq("name", "same")), []);
  });
  test("what breaks a rule is undone", async () => {
    await refused(from("books").update({ price: -1 }).gt("id", 0), 400, "23514");
    await refused(from("books").update({ title: "same" }).gt("id", 0), 409, "23505");
    assert.deepEqual(await column(from("books").select("price").eq("id", 1)), [12.5]);
  });
});

describe("delete", () => {
  test("nothing comes back; what hangs on it goes too", async () => {
    const { data: rows, status } = await from("books").delete().eq("id", 1);
    assert.deepEqual([rows, status], [null, 204]);
    assert.deepEqual(await column(from("reviews").select("id").order("id")), [3, 4]);
  });
  test("what was deleted comes back, counted", async () => {
    const { data: rows, count } = await from("counts").delete({ count: "exact" }).eq("shop", "Leeds").select("book_id").order("book_id");
    assert.deepEqual([rows, count], [[{ book_id: 1 }, { book_id: 2 }], 2]);
    assert.equal((await counts()).length, 1);
  });
  test("as one", async () => {
    assert.deepEqual(await data(from("genres").delete().eq("id", 4).select("name").single()), { name: "poetry" });
  });
  test("what others refer to stays", async () => {
    await refused(from("authors").delete().eq("id", 1), 409, "23503");
    assert.deepEqual(await column(from("authors").select("id").eq("id", 1)), [1]);
  });
  test("maxAffected", async () => {
    await refused(from("counts").delete().gt("n", 0).maxAffected(1), 400, "PGRST124");
    assert.equal((await counts()).length, 3);
  });
  test("csv of what was deleted", async () => {
    assert.equal(await data(from("genres").delete().eq("id", 4).select("id, name").csv()), "id,name\n4,poetry");
  });
});

test("many at once, each answered with its own", async () => {
  const made = await Promise.all(Array.from({ length: 40 }, (_, i) => data(from("genres").insert({ id: 100 + i, name: `g${i}` }).select("name").single())));
  assert.deepEqual(made, Array.from({ length: 40 }, (_, i) => ({ name: `g${i}` })));
  assert.equal((await from("genres").select("*", { count: "exact", head: true }).gte("id", 100)).count, 40);
});
