// @supabase/supabase-js as published: `createClient(url, key)` with nothing but the tenant's address and a token of its.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { createClient } from "@supabase/supabase-js";
import ws from "ws";

import { column, data, refused, reset, token, url } from "./bookshop.mjs";

// Before version 22 Node has no WebSocket of its own, and this client wants one whether it is used or not.
const realtime = { transport: globalThis.WebSocket ?? ws };
const options = { auth: { persistSession: false, autoRefreshToken: false }, realtime };
const supabase = createClient(url, token, options);

beforeEach(reset);

test("from: reading", async () => {
  const { data: rows, count, error } = await supabase
    .from("books")
    .select("title, written_by(name), genres(name)", { count: "exact" })
    .eq("written_by.country", "GB")
    .not("genres", "is", null)
    .order("id")
    .limit(1);
  assert.equal(error, null);
  assert.deepEqual([rows, count], [[{ title: "The Glass Orchard", written_by: { name: "Ada Quill" }, genres: [{ name: "novel" }] }], 4]);
});

test("from: a whole life of a row", async () => {
  const { id } = await data(supabase.from("genres").insert({ name: "saga" }).select("id").single());
  assert.deepEqual(await data(supabase.from("genres").upsert({ id, name: "epic" }).select().single()), { id, name: "epic" });
  assert.deepEqual(await data(supabase.from("genres").update({ name: "lay" }).eq("id", id).select("name")), [{ name: "lay" }]);
  assert.equal((await supabase.from("genres").delete().eq("id", id)).status, 204);
  assert.equal(await data(supabase.from("genres").select().eq("id", id).maybeSingle()), null);
});

test("rpc", async () => {
  assert.equal(await data(supabase.rpc("add_up", { a: 40, b: 2 })), 42);
  assert.deepEqual(await column(supabase.rpc("books_of", { author: "Bo%" }, { get: true }).select("title")), ["North Water"]);
});

test("schema", async () => {
  assert.deepEqual(await column(supabase.schema("public").from("genres").select("name").eq("id", 4)), ["poetry"]);
  await refused(supabase.schema("auth").from("users").select(), 406, "PGRST106");
});

test("accessToken: a token for each request, as an identity provider gives them", async () => {
  let asked = false;
  const accessToken = async () => ((asked = true), token);
  const bringing = createClient(url, "what the project is called", { accessToken, realtime });
  assert.deepEqual(await column(bringing.from("genres").select("id").lt("id", 3).order("id")), [1, 2]);
  assert.ok(asked);
});

test("a key that is no token is refused", async () => {
  const stranger = createClient(url, "nonsense", options);
  const { error, status } = await stranger.from("books").select();
  assert.deepEqual([status, error.code], [401, "unauthenticated"]);
});

test("global headers and fetch", async () => {
  const seen = [];
  const watched = createClient(url, token, {
    ...options,
    global: { headers: { "X-Of-The-App": "1" }, fetch: (address, init) => (seen.push([new URL(address).pathname, new Headers(init.headers).get("x-of-the-app")]), fetch(address, init)) },
  });
  await data(watched.from("genres").select());
  assert.deepEqual(seen, [["/rest/v1/genres", "1"]]);
});
