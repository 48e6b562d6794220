// @supabase/postgrest-js as published: everything it can ask of a function.

import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { PostgrestClient } from "@supabase/postgrest-js";

import { column, data, refused, reset, token, url } from "./bookshop.mjs";

const shop = new PostgrestClient(`${url}/rest/v1`, { headers: { Authorization: `Bearer ${token}` } });

beforeEach(reset);

for (const get of [false, true]) {
  describe(get ? "with GET" : "with POST", () => {
    const call = (name, args, options) => shop.rpc(name, args, { get, ...options });
    test("a value", async () => assert.equal(await data(call("add_up", { a: 2, b: 3 })), 5));
    test("a default", async () => assert.equal(await data(call("add_up", { a: 2 })), 3));
    test("an argument that is undefined is none", async () => assert.equal(await data(call("add_up", { a: 2, b: undefined })), 3));
    test("values", async () => assert.deepEqual(await data(call("years")), [1931, 1954, 1990]));
    test("rows of its own", async () => {
      assert.deepEqual(await data(call("rated", { least: 4 }).order("title", { ascending: false })), [{ title: "The Glass Orchard", stars: 4 }, { title: "North Water", stars: 4 }]);
    });
    test("rows of a table: select, embedded tables, filters, order, limit, count", async () => {
      const { data: rows, count, error } = await call("books_of", { author: "%e%" }, { count: "exact" })
        .select("title, written_by(name)")
        .gt("price", 1)
        .order("id", { ascending: false })
        .limit(1);
      assert.deepEqual([rows, count, error], [[{ title: "Paper, Lanterns", written_by: { name: "Chen Wei" } }], 2, null]);
    });
    test("one of its rows, and none", async () => {
      const of = (author) => call("books_of", { author }).select("id");
      assert.deepEqual(await data(of("Ada%").single()), { id: 1 });
      assert.equal(await data(of("nobody").maybeSingle()), null);
      await refused(of("nobody").single(), 406, "PGRST116");
    });
    test("csv", async () => assert.equal(await data(call("books_of", { author: "Ada%" }).select("id,title").csv()), "id,title\n1,The Glass Orchard"));
    test("an unknown function, with one that is near", async () => {
      assert.match((await refused(call("add_ups", { a: 1 }), 404, "PGRST202")).hint, /add_up/);
    });
    test("an argument that it does not have, or that is of another type", async () => {
      await refused(call("add_up", { a: 1, c: 2 }), 404, "PGRST202");
      await refused(call("add_up", { a: "one" }), 400, "22P02");
    });
  });
}

test("a document, as it is", async () => {
  const document = { a: [1, { b: null }], c: 'q" \\' };
  assert.deepEqual(await data(shop.rpc("echo", { document })), document);
});

test("head: only the count", async () => {
  const { data: rows, error, count } = await shop.rpc("books_of", { author: "Chen%" }, { head: true, count: "exact" });
  assert.deepEqual([rows, error, count], [null, null, 2]);
});

test("what writes is not called with GET", async () => {
  assert.deepEqual(await data(shop.rpc("restock", { book: 2, copies: 5 })), [{ id: 2, stock: 5 }]);
  await refused(shop.rpc("restock", { book: 2, copies: 5 }, { get: true }), 405, "25006");
  assert.deepEqual(await column(shop.from("books").select("stock").eq("id", 2)), [5]);
});

test("what returns nothing", async () => {
  const { data: rows, error, status } = await shop.rpc("forget", { review: 1 });
  assert.deepEqual([rows, error, status], [null, null, 204]);
  assert.deepEqual(await column(shop.from("reviews").select("id").order("id")), [2, 3, 4]);
});

test("throwOnError", async () => {
  await assert.rejects(async () => await shop.rpc("nothing").throwOnError(), { name: "PostgrestError", code: "PGRST202" });
});
