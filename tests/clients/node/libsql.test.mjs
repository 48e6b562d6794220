// @libsql/client as published: what its own test suite expects of a server, and what applications do with it.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { createClient } from "@libsql/client";

import { authToken, coded, fresh, rowsOf, url, withClient } from "./tenant.mjs";

const it = (name, use, options) => test(name, () => withClient(use, options));

describe("execute", () => {
  it("answers rows by position and by name", async (c) => {
    const result = await c.execute("SELECT 1 AS one, 'two' AS two, 0.5 AS three, NULL AS four");
    assert.deepEqual(result.columns, ["one", "two", "three", "four"]);
    assert.deepEqual(result.columnTypes, ["", "", "", ""]);
    assert.deepEqual(rowsOf(result), [[1, "two", 0.5, null]]);
    assert.equal(result.rows[0].two, "two");
  });

  it("tells declared types", async (c) => {
    await fresh(c, "CREATE TABLE t (i INTEGER, f FLOAT, s TEXT, b BLOB, o FURRY BUNNY)");
    await c.execute("INSERT INTO t VALUES (42, 0.5, 'foo', X'626172', 1)");
    const result = (await c.execute("SELECT i, f, s, b, o FROM t")).toJSON();
    assert.deepEqual(result.columnTypes, ["INTEGER", "FLOAT", "TEXT", "BLOB", "FURRY BUNNY"]);
    assert.deepEqual(result.rows, [[42, 0.5, "foo", "YmFy", 1]]);
  });

  it("counts affected rows and tells the last rowid", async (c) => {
    await fresh(c, "CREATE TABLE t (a)");
    const inserted = await c.execute("INSERT INTO t VALUES (1), (2), (3)");
    assert.deepEqual([inserted.rowsAffected, inserted.lastInsertRowid], [3, 3n]);
    assert.equal((await c.execute("WITH x(a) AS (SELECT 2 * a FROM t) INSERT INTO t SELECT a + 1 FROM x")).rowsAffected, 3);
    assert.equal((await c.execute("DELETE FROM t WHERE a >= 3")).rowsAffected, 4);
    const large = await c.execute("INSERT INTO t (rowid, a) VALUES (9223372036854775807, 1)");
    assert.equal(large.lastInsertRowid, 9223372036854775807n);
    assert.equal((await c.execute("SELECT * FROM t")).rowsAffected, 0);
  });

  it("answers RETURNING", async (c) => {
    await fresh(c, "CREATE TABLE t (a)");
    const result = await c.execute("INSERT INTO t VALUES (1) RETURNING 42 AS x, 'foo' AS y");
    assert.deepEqual([result.columns, rowsOf(result)], [["x", "y"], [[42, "foo"]]]);
  });

  it("runs many at once", async (c) => {
    await fresh(c, "CREATE TABLE t (a)");
    await Promise.all(Array.from({ length: 100 }, (_, a) => c.execute({ sql: "INSERT INTO t VALUES (?)", args: [a] })));
    assert.deepEqual(rowsOf(await c.execute("SELECT count(*), sum(a) FROM t")), [[100, 4950]]);
  });

  it("answers large results whole", async (c) => {
    const sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) SELECT i, hex(zeroblob(20)) FROM n";
    const result = await c.execute(sql);
    assert.equal(result.rows.length, 20_000);
    assert.equal(result.rows[19_999].i, 20_000);
  });
});

describe("arguments", () => {
  const select = async (c, sql, args) => rowsOf(await c.execute({ sql, args }))[0];

  it("by position", async (c) => {
    assert.deepEqual(await select(c, "SELECT ?, ?", ["one", "two"]), ["one", "two"]);
    assert.deepEqual(await select(c, "SELECT ?2, ?3, ?1", ["one", "two", "three"]), ["two", "three", "one"]);
    assert.deepEqual(await select(c, "SELECT ?3, ?1", ["one", "two", "three"]), ["three", "one"]);
    assert.deepEqual(await select(c, "SELECT ?2, ?, ?3", ["one", "two", "three"]), ["two", "three", "three"]);
  });

  for (const sign of [":", "@", "$"]) {
    it(`by name after ${sign}`, async (c) => {
      const args = { a: "one", [`${sign}b`]: "two" };
      assert.deepEqual(await select(c, `SELECT ${sign}b, ${sign}a, ${sign}b || ${sign}a`, args), ["two", "one", "twoone"]);
      assert.deepEqual(await select(c, `SELECT ${sign}b, ${sign}a, ?1`, args), ["two", "one", "two"]);
    });
  }

  it("that are too few or of no parameter are an error", async (c) => {
    await assert.rejects(c.execute({ sql: "SELECT ?, ?", args: [1] }), coded("SQL_ERROR"));
    await assert.rejects(c.execute({ sql: "SELECT :a", args: { b: 1 } }), coded("SQL_ERROR"));
  });
});

describe("values", () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i ^ 0xab);
  const trips = [
    ["text", "boomerang", "boomerang"],
    ["text with odd characters", "a\n\r\t \u0000 \u2028\"\\", "a\n\r\t \u0000 \u2028\"\\"],
    ["text beyond ASCII", "žluťoučký kůň 🐎", "žluťoučký kůň 🐎"],
    ["zero", 0, 0],
    ["a fraction", 12.345, 12.345],
    ["a large number", 1e18, 1e18],
    ["the largest number", Number.MAX_VALUE, Number.MAX_VALUE],
    ["the smallest number", Number.MIN_VALUE, Number.MIN_VALUE],
    ["null", null, null],
    ["true", true, 1],
    ["a date", new Date("2023-01-02T12:34:56Z"), 1672662896000],
    ["the largest safe integer", 9007199254740991n, 9007199254740991, "number"],
    ["a bigint", -42n, -42n, "bigint"],
    ["the largest integer", 9223372036854775807n, 9223372036854775807n, "bigint"],
    ["the smallest integer", -9223372036854775808n, -9223372036854775808n, "bigint"],
    ["an integer as text", 9223372036854775807n, "9223372036854775807", "string"],
    ["bytes", bytes, bytes.buffer],
    ["no bytes", new Uint8Array(0), new ArrayBuffer(0)],
  ];
  for (const [name, given, wanted, intMode] of trips) {
    const options = intMode ? { intMode } : {};
    it(`${name} comes back as it was`, async (c) => {
      assert.deepEqual((await c.execute({ sql: "SELECT ?", args: [given] })).rows[0][0], wanted);
    }, options);
  }

  it("an integer that a number cannot hold is not rounded", async (c) => {
    await assert.rejects(c.execute("SELECT 9007199254740993"), RangeError);
    assert.equal((await c.execute({ sql: "SELECT ? || ''", args: [9223372036854775807n] })).rows[0][0], "9223372036854775807");
  });

  it("an infinity comes back as one", async (c) => {
    assert.deepEqual(rowsOf(await c.execute("SELECT 9e999, -9e999")), [[Infinity, -Infinity]]);
  });

  it("a blob of a megabyte comes back as it was", async (c) => {
    const large = new Uint8Array(1 << 20).map((_, i) => (i * 7) % 251);
    assert.deepEqual((await c.execute({ sql: "SELECT ?", args: [large] })).rows[0][0], large.buffer);
  });
});

describe("batch", () => {
  for (const mode of ["read", "write", "deferred"]) {
    it(`answers each statement in mode ${mode}`, async (c) => {
      const statements = ["SELECT 1 + 1", { sql: "SELECT ?", args: ["x"] }, { sql: "VALUES (:a), (:b)", args: { a: 1, b: 2 } }];
      assert.deepEqual((await c.batch(statements, mode)).map(rowsOf), [[[2]], [["x"]], [[1], [2]]]);
    });
  }

  it("writes in modes write and deferred", async (c) => {
    await fresh(c, "CREATE TABLE t (a)");
    const results = await c.batch(["INSERT INTO t VALUES (21) RETURNING 2 * a", "SELECT count(*) FROM t"], "write");
    assert.deepEqual(results.map(rowsOf), [[[42]], [[1]]]);
    const deferred = await c.batch(["SELECT count(*) FROM t", "DROP TABLE t", "CREATE TABLE t (a)", "SELECT count(*) FROM t"], "deferred");
    assert.deepEqual([rowsOf(deferred[0]), rowsOf(deferred[3])], [[[1]], [[0]]]);
  });

  it("does not write in mode read", async (c) => {
    await fresh(c, "CREATE TABLE t (a)");
    await assert.rejects(c.batch(["SELECT 1", "INSERT INTO t VALUES (1)"], "read"), (error) => error.statementIndex === 1);
    assert.deepEqual(rowsOf(await c.execute("SELECT count(*) FROM t")), [[0]]);
  });

  for (const mode of ["read", "write", "deferred"]) {
    it(`says which statement failed in mode ${mode}`, async (c) => {
      await assert.rejects(c.batch(["SELECT 1", "SELECT 2", "SELECT nope", "SELECT 3"], mode), (error) => {
        assert.deepEqual([error.name, error.statementIndex, error.code], ["LibsqlBatchError", 2, "SQLITE_ERROR"]);
        return true;
      });
    });
  }

  it("is rolled back whole by an error", async (c) => {
    await fresh(c, "CREATE TABLE t (a UNIQUE)", "INSERT INTO t VALUES (1)");
    const failing = ["INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (3)"];
    for (const mode of ["write", "deferred"]) {
      await assert.rejects(c.batch(failing, mode), coded("SQLITE_CONSTRAINT", /UNIQUE constraint failed: t\.a/));
      assert.deepEqual(rowsOf(await c.execute("SELECT a FROM t")), [[1]]);
    }
  });

  it("is one transaction among many at once", async (c) => {
    await fresh(c, "CREATE TABLE t (a)", "CREATE TABLE u (a)");
    const one = async (i) => {
      const results = await c.batch(
        [
          { sql: "INSERT INTO t VALUES (?)", args: [i] },
          { sql: "INSERT INTO u VALUES (?)", args: [i * 10] },
          "SELECT (SELECT sum(a) FROM t) * 10 - (SELECT sum(a) FROM u)",
        ],
        "write",
      );
      assert.equal(results[2].rows[0][0], 0);
    };
    await Promise.all(Array.from({ length: 100 }, (_, i) => one(i)));
    assert.deepEqual(rowsOf(await c.execute("SELECT sum(a) FROM u")), [[49_500]]);
  });

  it("takes a thousand different statements, and thousands of the same", async (c) => {
    const different = await c.batch(Array.from({ length: 1_000 }, (_, i) => `SELECT ${i}`), "read");
    assert.equal(different[999].rows[0][0], 999);
    const same = await c.batch(Array.from({ length: 4_000 }, (_, i) => ({ sql: "SELECT ?", args: [i] })), "read");
    assert.equal(same[3_999].rows[0][0], 3_999);
  });

  it("that is empty answers nothing", async (c) => {
    assert.deepEqual(await c.batch([], "write"), []);
  });
});

describe("an interactive transaction", () => {
  const counted = async (c) => (await c.execute("SELECT count(*) FROM t")).rows[0][0];

  for (const mode of ["write", "deferred"]) {
    it(`in mode ${mode} commits`, async (c) => {
      await fresh(c, "CREATE TABLE t (a)");
      const tx = await c.transaction(mode);
      assert.equal(rowsOf(await tx.execute("SELECT count(*) FROM t"))[0][0], 0);
      await tx.execute({ sql: "INSERT INTO t VALUES (?)", args: ["one"] });
      await tx.batch(["INSERT INTO t VALUES ('two')", "INSERT INTO t VALUES ('three')"]);
      assert.equal(rowsOf(await tx.execute("SELECT count(*) FROM t"))[0][0], 3, "it sees what it wrote");
      assert.equal(tx.closed, false);
      await tx.commit();
      assert.equal(tx.closed, true);
      assert.equal(await counted(c), 3);
      await assert.rejects(tx.execute("SELECT 1"), coded("TRANSACTION_CLOSED"));
    });

    it(`in mode ${mode} rolls back`, async (c) => {
      await fresh(c, "CREATE TABLE t (a)");
      const tx = await c.transaction(mode);
      await tx.execute("INSERT INTO t VALUES ('one')");
      await tx.rollback();
      assert.equal(await counted(c), 0);
    });

    it(`in mode ${mode} that is closed in the middle is rolled back, and others write`, async (c) => {
      await fresh(c, "CREATE TABLE t (a)");
      const tx = await c.transaction(mode);
      await tx.execute("INSERT INTO t VALUES ('one')");
      tx.close();
      assert.equal(tx.closed, true);
      await c.execute("INSERT INTO t VALUES ('two')");
      assert.deepEqual(rowsOf(await c.execute("SELECT a FROM t")), [["two"]]);
    });
  }

  it("in mode read reads one snapshot and does not write", async (c) => {
    await fresh(c, "CREATE TABLE t (a)");
    const tx = await c.transaction("read");
    assert.equal(rowsOf(await tx.execute("SELECT count(*) FROM t"))[0][0], 0);
    await c.execute("INSERT INTO t VALUES (1)");
    assert.equal(rowsOf(await tx.execute("SELECT count(*) FROM t"))[0][0], 0, "what others commit is not seen");
    await assert.rejects(tx.execute("INSERT INTO t VALUES (2)"));
    tx.close();
    assert.equal(await counted(c), 1);
  });

  it("goes on after a statement that failed", async (c) => {
    await fresh(c, "CREATE TABLE t (a UNIQUE)");
    const tx = await c.transaction("write");
    await assert.rejects(tx.execute("SELECT nope"), coded("SQLITE_ERROR", /no such column: nope/));
    await tx.execute("INSERT INTO t VALUES (1)");
    await assert.rejects(tx.batch(["INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (3)"]), (error) => error.statementIndex === 1);
    await tx.commit();
    assert.deepEqual(rowsOf(await c.execute("SELECT a FROM t")), [[1], [2]]);
  });

  it("runs scripts", async (c) => {
    const tx = await c.transaction("write");
    await tx.executeMultiple("DROP TABLE IF EXISTS t; CREATE TABLE t (a UNIQUE); INSERT INTO t VALUES (1), (2), (4);");
    await assert.rejects(tx.executeMultiple("INSERT INTO t VALUES (8); INSERT INTO t VALUES (1); INSERT INTO t VALUES (16);"));
    assert.deepEqual(rowsOf(await tx.execute("SELECT sum(a) FROM t")), [[15]]);
    tx.close();
  });

  it("with savepoints keeps what is released", async (c) => {
    await fresh(c, "CREATE TABLE t (a)");
    const tx = await c.transaction("write");
    for (const sql of ["SAVEPOINT one", "INSERT INTO t VALUES (1)", "SAVEPOINT two", "INSERT INTO t VALUES (2)", "ROLLBACK TO two", "RELEASE one"]) {
      await tx.execute(sql);
    }
    await tx.commit();
    assert.deepEqual(rowsOf(await c.execute("SELECT a FROM t")), [[1]]);
  });

  it("ends with an OR ROLLBACK that fails", async (c) => {
    await fresh(c, "CREATE TABLE t (a UNIQUE)", "INSERT INTO t VALUES (1)");
    const tx = await c.transaction("write");
    await tx.execute("INSERT INTO t VALUES (2)");
    await assert.rejects(tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)"), coded("SQLITE_CONSTRAINT"));
    await assert.rejects(tx.commit());
    assert.deepEqual(rowsOf(await c.execute("SELECT a FROM t")), [[1]]);
  });

  it("that did nothing commits and rolls back", async (c) => {
    await (await c.transaction("read")).commit();
    await (await c.transaction("write")).rollback();
  });

  it("waits for the one before it", async (c) => {
    await fresh(c, "CREATE TABLE t (a)");
    const one = async (a) => {
      const tx = await c.transaction("write");
      const before = (await tx.execute("SELECT count(*) FROM t")).rows[0][0];
      await tx.execute({ sql: "INSERT INTO t VALUES (?)", args: [a] });
      assert.equal((await tx.execute("SELECT count(*) FROM t")).rows[0][0], before + 1, "nobody else wrote meanwhile");
      await tx.commit();
    };
    await Promise.all(Array.from({ length: 10 }, (_, a) => one(a)));
    assert.equal(await counted(c), 10);
  });

  it("of a client that goes away does not hold up the others", async (c) => {
    await fresh(c, "CREATE TABLE t (a)");
    const leaving = createClient({ url, authToken });
    const tx = await leaving.transaction("write");
    await tx.execute("INSERT INTO t VALUES ('lost')");
    leaving.close();
    await c.execute("INSERT INTO t VALUES ('kept')");
    assert.deepEqual(rowsOf(await c.execute("SELECT a FROM t")), [["kept"]]);
  });
});

describe("executeMultiple", () => {
  it("runs every statement", async (c) => {
    await c.executeMultiple("DROP TABLE IF EXISTS t; CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (4), (8); -- the end");
    assert.deepEqual(rowsOf(await c.execute("SELECT sum(a) FROM t")), [[15]]);
  });

  it("stops at an error and keeps what came before", async (c) => {
    const script = "DROP TABLE IF EXISTS t; CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (4); INSERT INTO t VALUES (foo()); INSERT INTO t VALUES (8)";
    await assert.rejects(c.executeMultiple(script), coded("SQLITE_ERROR", /no such function: foo/));
    assert.deepEqual(rowsOf(await c.execute("SELECT sum(a) FROM t")), [[7]]);
  });

  it("takes transactions inside", async (c) => {
    await c.executeMultiple("DROP TABLE IF EXISTS t; CREATE TABLE t (a); BEGIN; INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); COMMIT;");
    assert.deepEqual(rowsOf(await c.execute("SELECT sum(a) FROM t")), [[3]]);
    await assert.rejects(c.executeMultiple("BEGIN; INSERT INTO t VALUES (4); INSERT INTO t VALUES (foo()); COMMIT;"));
    assert.deepEqual(rowsOf(await c.execute("SELECT sum(a) FROM t")), [[3]]);
  });
});

describe("migrate", () => {
  it("changes a table that others refer to", async (c) => {
    await fresh(c, "CREATE TABLE t (id INTEGER PRIMARY KEY, a)", "CREATE TABLE u (t REFERENCES t (id) ON DELETE CASCADE)", "INSERT INTO t VALUES (1, 'x')", "INSERT INTO u VALUES (1)");
    await c.migrate(["CREATE TABLE t2 (id INTEGER PRIMARY KEY, a TEXT NOT NULL)", "INSERT INTO t2 SELECT * FROM t", "DROP TABLE t", "ALTER TABLE t2 RENAME TO t"]);
    assert.deepEqual(rowsOf(await c.execute("SELECT count(*) FROM u")), [[1]], "foreign keys were off meanwhile");
    await assert.rejects(c.execute("INSERT INTO u VALUES (99)"), coded("SQLITE_CONSTRAINT", /FOREIGN KEY/));
  });

  it("that fails leaves everything as it was", async (c) => {
    await fresh(c, "CREATE TABLE t (a)");
    await assert.rejects(c.migrate(["ALTER TABLE t ADD COLUMN b", "ALTER TABLE nope ADD COLUMN b"]));
    assert.deepEqual((await c.execute("SELECT * FROM t")).columns, ["a"]);
  });
});

describe("errors", () => {
  it("have SQLite's codes and words", async (c) => {
    await fresh(c, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL UNIQUE, b INTEGER CHECK (b > 0)) STRICT");
    await c.execute("INSERT INTO t VALUES (1, 'a', 1)");
    for (const [sql, words] of [
      ["INSERT INTO t VALUES (1, 'b', 1)", /UNIQUE constraint failed: t\.id/],
      ["INSERT INTO t VALUES (2, 'a', 1)", /UNIQUE constraint failed: t\.a/],
      ["INSERT INTO t VALUES (2, NULL, 1)", /NOT NULL constraint failed: t\.a/],
      ["INSERT INTO t VALUES (2, 'b', 0)", /CHECK constraint failed/],
    ]) {
      await assert.rejects(c.execute(sql), coded("SQLITE_CONSTRAINT", words));
    }
    await assert.rejects(c.execute("SELEC 1"), coded("SQLITE_ERROR", /syntax error/));
    await assert.rejects(c.execute("SELECT * FROM nope"), coded("SQLITE_ERROR", /no such table: nope/));
  });

  it("name what is not allowed", async (c) => {
    for (const sql of ["ATTACH 'x.db' AS x", "SELECT load_extension('x')", "PRAGMA journal_mode = DELETE", "VACUUM INTO 'x.db'"]) {
      await assert.rejects(c.execute(sql), (error) => /SQL_DENIED|SQLITE_AUTH|SQLITE_ERROR/.test(error.code), sql);
    }
  });

  it("stop an endless query", async (c) => {
    const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    await assert.rejects(c.execute(endless), coded("SQLITE_INTERRUPT"));
    assert.deepEqual(rowsOf(await c.execute("SELECT 1")), [[1]]);
  });

  it("tell a token that does not serve", async (c) => {
    await assert.rejects(c.execute("SELECT 1"), (error) => error.code.toUpperCase() === "UNAUTHENTICATED");
  }, { authToken: "no.such.token" });
});

describe("a client", () => {
  it("that was closed in the middle of its work rejects, and can be made anew", async () => {
    const closing = createClient({ url, authToken });
    const pending = Array.from({ length: 20 }, () => closing.execute("SELECT 1"));
    closing.close();
    const outcomes = await Promise.allSettled(pending);
    assert.ok(outcomes.every((outcome) => outcome.status === "fulfilled" || outcome.reason.code), "each has an answer or an error");
    await assert.rejects(closing.execute("SELECT 1"), (error) => /closed/i.test(error.message));
    await withClient((c) => c.execute("SELECT 1"));
  });
});
