// @supabase/postgrest-js as published: everything it can ask of a table. Each row of a table of cases is what is asked
// and what comes back.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";

import { PostgrestClient } from "@supabase/postgrest-js";

import { column, data, refused, reset, token, url } from "./bookshop.mjs";

const headers = { Authorization: `Bearer ${token}` };
const shop = new PostgrestClient(`${url}/rest/v1`, { headers });
const authors = (columns, options) => shop.from("authors").select(columns, options).order("id");
const books = (columns, options) => shop.from("books").select(columns, options).order("id");

before(reset);

/** Books whose ids come back. */
const ids = (cases) => {
  for (const [name, filter, expected] of cases) {
    test(name, async () => assert.deepEqual(await column(filter(books("id"))), expected));
  }
};

/** Queries whose data comes back. */
const answers = (cases) => {
  for (const [name, query, expected] of cases) test(name, async () => assert.deepEqual(await data(query()), expected));
};

describe("filters", () => {
  ids([
    ["eq", (q) => q.eq("title", "Paper, Lanterns"), [4]],
    ["neq", (q) => q.neq("author_id", 3), [1, 2, 5]],
    ["gt", (q) => q.gt("price", 9), [1, 3]],
    ["gte", (q) => q.gte("price", 9), [1, 2, 3]],
    ["lt", (q) => q.lt("published", "1980-01-01"), [1, 2]],
    ["lte", (q) => q.lte("stock", 1), [2, 5]],
    ["like", (q) => q.like("title", "%a%e%"), [2, 4]],
    ["like with its own wildcards escaped", (q) => q.like("title", "100\\%%"), [5]],
    ["ilike", (q) => q.ilike("title", "%MAP%"), [3]],
    ["likeAllOf", (q) => q.likeAllOf("title", ["%a%", "%r%"]), [1, 2, 4]],
    ["likeAnyOf", (q) => q.likeAnyOf("title", ["North%", "%Rain"]), [2, 3]],
    ["ilikeAllOf", (q) => q.ilikeAllOf("title", ["%a%", "%MAP%"]), [3]],
    ["ilikeAnyOf", (q) => q.ilikeAnyOf("title", ["north%", "%RAIN"]), [2, 3]],
    ["regexMatch", (q) => q.regexMatch("title", "^[A-N]"), [2, 3]],
    ["regexIMatch", (q) => q.regexIMatch("title", "water$|wool$"), [2, 5]],
    ["is null", (q) => q.is("price", null), [5]],
    ["is true", (q) => q.is("in_print", true), [1, 3, 4]],
    ["is false", (q) => q.is("in_print", false), [2]],
    ["isDistinct", (q) => q.isDistinct("translator_id", 1), [1, 4, 5]],
    ["in", (q) => q.in("id", [1, 5, 9]), [1, 5]],
    ["in, with what needs quotes", (q) => q.in("title", ["Paper, Lanterns", "100% Wool"]), [4, 5]],
    ["in, of nothing", (q) => q.in("id", []), []],
    ["notIn", (q) => q.notIn("id", [1, 5]), [2, 3, 4]],
    ["contains an array", (q) => q.contains("tags", ["sea"]), [2, 3]],
    ["contains an object", (q) => q.contains("details", { size: { w: 12 } }), [1]],
    ["contains, as text", (q) => q.contains("tags", '["sea","cold"]'), [2]],
    ["containedBy", (q) => q.containedBy("tags", ["sea", "cold", "maps"]), [2, 3, 5]],
    ["overlaps", (q) => q.overlaps("tags", ["glass", "maps"]), [1, 3]],
    ["match", (q) => q.match({ author_id: 3, in_print: true }), [3, 4]],
    ["not", (q) => q.not("in_print", "is", null), [1, 2, 3, 4]],
    ["not in", (q) => q.not("id", "in", "(1,2)"), [3, 4, 5]],
    ["or", (q) => q.or("price.lt.8,and(stock.eq.0,in_print.is.false)"), [2, 4]],
    ["or, with not and a quoted text", (q) => q.or('title.eq."Paper, Lanterns",not.and(id.lt.5,stock.gte.0)'), [4, 5]],
    ["filter", (q) => q.filter("id", "in", "(2,3)").filter("stock", "not.eq", 0), [3]],
    ["filters are all to hold", (q) => q.gt("id", 1).lt("id", 4).eq("author_id", 2), [2]],
    ["a path into JSON, as text", (q) => q.eq("details->>isbn", "222"), [2]],
    ["a path into JSON, as a number", (q) => q.gt("details->pages", 200), [1, 2]],
    ["a path of several steps", (q) => q.eq("details->size->>h", 19), [1]],
    ["an element of an array", (q) => q.eq("tags->>0", "sea"), [2, 3]],
  ]);
});

describe("full text", () => {
  const pages = (use) => column(use(shop.from("pages").select("title").order("title")));
  for (const [name, use, expected] of [
    ["fts", (q) => q.textSearch("body", "'fat' & 'cat'"), ["Cats"]],
    ["fts, or", (q) => q.textSearch("body", "fat | ran"), ["Cats", "Rats"]],
    ["fts, not", (q) => q.textSearch("body", "cat & !fat"), ["Both"]],
    ["plain", (q) => q.textSearch("body", "rat cat", { type: "plain" }), ["Both"]],
    ["phrase", (q) => q.textSearch("body", "fat cat", { type: "phrase" }), ["Cats"]],
    ["websearch", (q) => q.textSearch("body", "cat -fat", { type: "websearch" }), ["Both"]],
    ["with a configuration", (q) => q.textSearch("body", "ran", { type: "plain", config: "simple" }), ["Rats"]],
    ["of the whole table", (q) => q.textSearch("pages", "both", { type: "plain" }), ["Both"]],
  ]) {
    test(name, async () => assert.deepEqual(await pages(use), expected));
  }
});

describe("columns", () => {
  const one = (columns) => shop.from("books").select(columns).eq("id", 1).single();
  answers([
    ["all of them", () => shop.from("biographies").select().eq("author_id", 2), [{ author_id: 2, text: "Sailed." }]],
    ["some, with spaces", () => one("id, title"), { id: 1, title: "The Glass Orchard" }],
    ["an alias", () => one("name:title"), { name: "The Glass Orchard" }],
    ["a cast", () => one("id::text, price::integer"), { id: "1", price: 13 }],
    ["values of every type", () => one("in_print, price, published, tags"), { in_print: true, price: 12.5, published: "1961-03-01", tags: ["trees", "glass"] }],
    ["paths into JSON", () => one("details->pages, w:details->size->w, isbn:details->>isbn"), { pages: 210, w: 12, isbn: "111" }],
    ["names that need quotes", () => shop.from("odd names").select('id, "two words", "with,comma", "select"').eq('"with,comma"', "c,d"),
      [{ id: 1, "two words": "a b", "with,comma": "c,d", select: "e" }]],
    ["a text that is a backslash", () => shop.from("odd names").select("select").eq("id", 2), [{ select: "\\" }]],
    ["a view", () => shop.from("books_in_print").select("title").lt("price", 10), [{ title: "Paper, Lanterns" }]],
    ["a cast leaves integers past 2^53 alone", () => shop.from("numbers").select("big::integer").eq("id", 1).csv(), "big\n9007199254740993"],
    ["bytes", () => shop.from("numbers").select("bytes").eq("id", 1), [{ bytes: "AP8Q" }]],
    ["integers past 2^53, as text", () => shop.from("numbers").select("big::text").eq("id", 1), [{ big: "9007199254740993" }]],
    ["stripped of nulls", () => books("id, price, translator_id").eq("id", 5).stripNulls(), [{ id: 5 }]],
    ["one, stripped of nulls", () => shop.from("books").select("id, price").eq("id", 5).single().stripNulls(), { id: 5 }],
  ]);
  test("a filter for an integer past 2^53 finds exactly it", async () => {
    const found = (value) => column(shop.from("numbers").select("id").eq("big", value));
    assert.deepEqual([await found("9007199254740993"), await found(9007199254740993n), await found("9007199254740992")], [[1], [1], []]);
  });
});

describe("embedded tables", () => {
  answers([
    ["many to one", () => books("title, written_by(name)").eq("id", 2), [{ title: "North Water", written_by: { name: "Bo Lindqvist" } }]],
    ["many to one, by hint", () => books("id, translator:authors!translated_by(name)").gt("id", 3), [{ id: 4, translator: { name: "Dora Ink" } }, { id: 5, translator: null }]],
    ["many to one, by its column", () => books("id, author:author_id(name)").eq("id", 1), [{ id: 1, author: { name: "Ada Quill" } }]],
    ["one to many", () => authors("name, books!written_by(title)").eq("id", 3), [{ name: "Chen Wei", books: [{ title: "A Map of Rain" }, { title: "Paper, Lanterns" }] }]],
    ["one to many, empty", () => books("id, reviews(stars)").eq("id", 5), [{ id: 5, reviews: [] }]],
    ["one to one", () => authors("id, biographies(text)").lt("id", 4),
      [{ id: 1, biographies: { text: "Wrote every morning." } }, { id: 2, biographies: { text: "Sailed." } }, { id: 3, biographies: null }]],
    ["many to many", () => books("id, genres(name)").in("id", [2, 4]), [{ id: 2, genres: [{ name: "novel" }, { name: "travel" }] }, { id: 4, genres: [] }]],
    ["a table to itself, up", () => authors("name, mentor:mentor_id(name)").eq("id", 4), [{ name: "Dora Ink", mentor: { name: "Bo Lindqvist" } }]],
    ["a table to itself, down", () => authors("name, pupils:authors!mentor(name)").eq("id", 1), [{ name: "Ada Quill", pupils: [{ name: "Bo Lindqvist" }, { name: "Chen Wei" }] }]],
    ["nested", () => shop.from("reviews").select("stars, books(title, written_by(name, biographies(text)))").eq("id", 3),
      [{ stars: 4, books: { title: "North Water", written_by: { name: "Bo Lindqvist", biographies: { text: "Sailed." } } } }]],
    ["inner", () => books("id, reviews!inner(stars)").gt("reviews.stars", 3), [{ id: 1, reviews: [{ stars: 5 }] }, { id: 2, reviews: [{ stars: 4 }] }]],
    ["left", () => books("id, reviews!left(stars)").eq("reviews.stars", 5).lt("id", 3), [{ id: 1, reviews: [{ stars: 5 }] }, { id: 2, reviews: [] }]],
    ["empty, as a condition", () => books("id, reviews!inner()").order("id"), [{ id: 1 }, { id: 2 }, { id: 3 }]],
    ["is null", () => books("id, reviews()").is("reviews", null), [{ id: 4 }, { id: 5 }]],
    ["is not null", () => books("id, reviews()").not("reviews", "is", null), [{ id: 1 }, { id: 2 }, { id: 3 }]],
    ["or over embedded tables", () => books("id, reviews(), translated_by()").or("reviews.is.null,translated_by.not.is.null"), [{ id: 2 }, { id: 3 }, { id: 4 }, { id: 5 }]],
    ["their order and limit", () => books("id, reviews(stars)").eq("id", 1).order("stars", { referencedTable: "reviews" }).limit(1, { referencedTable: "reviews" }), [{ id: 1, reviews: [{ stars: 3 }] }]],
    ["their range", () => authors("id, books!written_by(id)").eq("id", 3).order("id", { referencedTable: "books", ascending: false }).range(1, 1, { referencedTable: "books" }), [{ id: 3, books: [{ id: 3 }] }]],
    ["their or", () => books("id, reviews(id)").or("stars.eq.3,text.eq.Luminous", { referencedTable: "reviews" }).lt("id", 3), [{ id: 1, reviews: [{ id: 1 }, { id: 2 }] }, { id: 2, reviews: [] }]],
    ["ordered by one of theirs", () => shop.from("books").select("id, written_by(name)").order("written_by(name)", { ascending: false }).order("id").limit(2),
      [{ id: 5, written_by: { name: "Dora Ink" } }, { id: 3, written_by: { name: "Chen Wei" } }]],
    ["spread, to one", () => books("id, ...written_by(author:name, country)").eq("id", 2), [{ id: 2, author: "Bo Lindqvist", country: "SE" }]],
    ["spread, to many", () => books("id, ...reviews(stars)").lt("id", 3), [{ id: 1, stars: [5, 3] }, { id: 2, stars: [4] }]],
    ["spread in a junction", () => books("id, book_genres(...genres(name))").eq("id", 2), [{ id: 2, book_genres: [{ name: "novel" }, { name: "travel" }] }]],
  ]);
  test("two ways to one table are told", async () => {
    const error = await refused(books("id, authors(name)"), 300, "PGRST201");
    assert.match(error.hint, /authors!written_by/);
  });
  test("no way to a table is told", () => refused(books("id, numbers(id)"), 400, "PGRST200"));
});

describe("aggregates", () => {
  answers([
    ["count", () => shop.from("books").select("count"), [{ count: 5 }]],
    ["count()", () => shop.from("books").select("count()"), [{ count: 5 }]],
    ["of columns", () => shop.from("books").select("stock.sum(), price.max(), price.min(), lowest:stock.min()"), [{ sum: 23, max: 20, min: 7.25, lowest: 0 }]],
    ["grouped", () => shop.from("books").select("author_id, id.count(), stock.avg()").order("author_id").lt("author_id", 4),
      [{ author_id: 1, count: 1, avg: 3 }, { author_id: 2, count: 1, avg: 0 }, { author_id: 3, count: 2, avg: 9.5 }]],
    ["with a cast", () => shop.from("books").select("stock.sum()::text"), [{ sum: "23" }]],
    ["of embedded rows", () => books("id, reviews(count)").lt("id", 3), [{ id: 1, reviews: [{ count: 2 }] }, { id: 2, reviews: [{ count: 1 }] }]],
    ["of embedded rows, grouped", () => books("id, reviews(stars, count())").eq("id", 1).order("stars", { referencedTable: "reviews" }), [{ id: 1, reviews: [{ stars: 3, count: 1 }, { stars: 5, count: 1 }] }]],
  ]);
});

describe("order and pages", () => {
  const by = (...args) => shop.from("books").select("id").order(...args);
  for (const [name, query, expected] of [
    ["ascending: nulls last", () => by("price"), [4, 2, 1, 3, 5]],
    ["descending: nulls first", () => by("price", { ascending: false }), [5, 3, 1, 2, 4]],
    ["nulls first", () => by("price", { nullsFirst: true }), [5, 4, 2, 1, 3]],
    ["nulls last", () => by("price", { ascending: false, nullsFirst: false }), [3, 1, 2, 4, 5]],
    ["by two columns", () => by("author_id", { ascending: false }).order("id", { ascending: false }), [5, 4, 3, 2, 1]],
    ["by a path into JSON", () => by("details->pages", { nullsFirst: false }).lt("id", 4), [3, 1, 2]],
    ["limit", () => by("id").limit(2), [1, 2]],
    ["range", () => by("id").range(1, 3), [2, 3, 4]],
    ["range past the end", () => by("id").range(4, 9), [5]],
  ]) {
    test(name, async () => assert.deepEqual(await column(query()), expected));
  }
});

describe("counts", () => {
  for (const count of ["exact", "planned", "estimated"]) {
    test(count, async () => {
      const { data: rows, count: counted, status } = await books("id", { count }).range(0, 1);
      assert.deepEqual([rows, counted, status], [[{ id: 1 }, { id: 2 }], 5, count === "exact" ? 206 : status]);
    });
  }
  test("with filters", async () => assert.equal((await books("id", { count: "exact" }).gt("id", 3)).count, 2));
  test("with an inner table", async () => assert.equal((await books("id, reviews!inner()", { count: "exact" }).gt("reviews.stars", 3)).count, 2));
  test("head: only the count", async () => {
    const { data: rows, error, count, status } = await books("id", { head: true, count: "exact" }).lt("id", 5);
    assert.deepEqual([rows, error, count, status], [null, null, 4, 200]);
  });
  test("a page that is not there is refused", () => refused(books("id", { count: "exact" }).range(9, 12), 416, "PGRST103"));
});

describe("single, maybeSingle, csv, explain", () => {
  const of = (...values) => shop.from("books").select("id").in("id", values);
  test("single", async () => assert.deepEqual(await data(of(1).single()), { id: 1 }));
  test("single of none", async () => assert.match((await refused(of(9).single(), 406, "PGRST116")).details, /0 rows/));
  test("single of two", async () => assert.match((await refused(of(1, 2).single(), 406, "PGRST116")).details, /2 rows/));
  test("maybeSingle", async () => assert.deepEqual(await data(of(1).maybeSingle()), { id: 1 }));
  test("maybeSingle of none", async () => assert.equal(await data(of(9).maybeSingle()), null));
  test("maybeSingle of two", () => refused(of(1, 2).maybeSingle(), 406, "PGRST116"));
  test("csv", async () => {
    const text = await data(books("id, title, in_print, price").gt("id", 3).csv());
    assert.equal(text, 'id,title,in_print,price\n4,"Paper, Lanterns",true,7.25\n5,100% Wool,,');
  });
});

describe("the client's own switches", () => {
  test("schema public", async () => assert.deepEqual(await column(shop.schema("public").from("genres").select("id").limit(1)), [1]));
  test("another schema", () => refused(shop.schema("private").from("genres").select(), 406, "PGRST106"));
  test("throwOnError", async () => {
    await assert.rejects(async () => await shop.from("nothing").select().throwOnError(), { name: "PostgrestError", code: "PGRST205" });
    assert.deepEqual((await shop.from("genres").select("id").eq("id", 1).throwOnError()).data, [{ id: 1 }]);
  });
  test("abortSignal", async () => {
    const { error, status } = await shop.from("books").select().abortSignal(AbortSignal.abort());
    assert.match(error.message, /AbortError/);
    assert.equal(status, 0);
  });
  test("setHeader", async () => {
    const { data: rows } = await shop.from("books").select("id").order("id").setHeader("Range", "1-2");
    assert.deepEqual(rows, [{ id: 2 }, { id: 3 }]);
  });
  test("returns and overrideTypes change nothing", async () => {
    assert.deepEqual(await data(shop.from("genres").select("id").eq("id", 2).overrideTypes()), [{ id: 2 }]);
    assert.deepEqual(await data(shop.from("genres").select("id").eq("id", 2).returns()), [{ id: 2 }]);
  });
  test("getOpenApiSpec", async () => {
    const spec = await data(shop.getOpenApiSpec());
    assert.equal(spec.swagger, "2.0");
    assert.ok(spec.paths["/books"] && spec.definitions.books.properties.title);
  });
});

describe("refusals", () => {
  test("an unknown table, with one that is near", async () => {
    const error = await refused(shop.from("book").select(), 404, "PGRST205");
    assert.match(error.hint, /books/);
  });
  test("an unknown column", () => refused(books("nope"), 400, "42703"));
  test("a value that is not of the column's type", () => refused(books("id").eq("id", "one"), 400, "22P02"));
  test("an unknown cast", () => refused(books("id::money"), 400, "42704"));
  test("what SQLite has not", async () => {
    const { rangeGt, rangeGte, rangeLt, rangeLte, rangeAdjacent } = books("id").constructor.prototype;
    for (const range of [rangeGt, rangeGte, rangeLt, rangeLte, rangeAdjacent]) {
      await refused(range.call(books("id"), "published", "[2000-01-01,2001-01-01)"), 400, "PGRST127");
    }
    await refused(books("id").geojson(), 406, "PGRST107");
  });
  test("no token, and a wrong one", async () => {
    const stranger = (authorization) => new PostgrestClient(`${url}/rest/v1`, { headers: authorization }).from("books").select();
    for (const authorization of [{}, { Authorization: "Bearer nonsense" }]) {
      const { status, error, data: rows } = await stranger(authorization);
      assert.deepEqual([status, error.code, rows], [401, "unauthenticated", null]);
    }
  });
});
