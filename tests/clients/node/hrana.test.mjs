// @libsql/hrana-client as published, for what @libsql/client does not use: version 3 on sockets with its cursors,
// conditions, describe, stored texts.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as hrana from "@libsql/hrana-client";

import { authToken, isSocket, url } from "./tenant.mjs";

const versions = isSocket ? [2, 3] : [2];

for (const version of versions) {
  const it = (name, use) =>
    test(name, async () => {
      const client = isSocket ? hrana.openWs(url, authToken, version) : hrana.openHttp(url, authToken, undefined, undefined, version);
      try {
        assert.equal(await client.getVersion(), version);
        await use(client.openStream(), client);
      } finally {
        client.close();
      }
    });

  describe(`version ${version}`, () => {
    it("describes statements", async (s) => {
      const parameters = await s.describe("SELECT ?, ?3, :one, $two, @three");
      assert.deepEqual(parameters.paramNames, [undefined, undefined, "?3", ":one", "$two", "@three"]);
      await s.sequence("BEGIN; DROP TABLE IF EXISTS t; CREATE TABLE t (a TEXT, b int NOT NULL, c FURRY BUNNY)");
      assert.deepEqual((await s.describe("SELECT a, b, c, a + b AS sum FROM t")).columns, [
        { name: "a", decltype: "TEXT" },
        { name: "b", decltype: "INT" },
        { name: "c", decltype: "FURRY BUNNY" },
        { name: "sum", decltype: undefined },
      ]);
      for (const [sql, isExplain, isReadonly] of [
        ["SELECT 1", false, true],
        ["EXPLAIN QUERY PLAN SELECT 1", true, true],
        ["UPDATE t SET a = 'x'", false, false],
        ["DROP TABLE t", false, false],
        ["COMMIT", false, true],
      ]) {
        const described = await s.describe(sql);
        assert.deepEqual([described.isExplain, described.isReadonly], [isExplain, isReadonly], sql);
      }
      await assert.rejects(s.describe("SELECT nope"), hrana.ResponseError);
      await s.run("ROLLBACK");
    });

    it("runs sequences, of nothing too", async (s) => {
      await s.sequence("  \n-- a comment\n");
      await s.sequence("BEGIN; DROP TABLE IF EXISTS t; CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3);");
      assert.equal((await s.queryValue("SELECT count(*) FROM t")).value, 3);
      await s.run("ROLLBACK");
    });

    it("keeps texts and takes their ids", async (s, client) => {
      const owner = isSocket ? client : s;
      const [one, two, described] = ["SELECT ?", "SELECT 'one', 'two'", "SELECT :a, $b"].map((sql) => owner.storeSql(sql));
      assert.equal((await s.queryValue([one, [42]])).value, 42);
      const batch = s.batch();
      const row = batch.step().queryRow(two);
      await batch.execute();
      assert.deepEqual(Array.from((await row).row), ["one", "two"]);
      assert.deepEqual((await s.describe(described)).paramNames, [":a", "$b"]);
      one.close();
      assert.equal((await s.queryValue("SELECT 1")).value, 1);
    });

    it("keeps streams apart", async (s, client) => {
      await s.sequence("DROP TABLE IF EXISTS t; CREATE TABLE t (n); INSERT INTO t VALUES (1)");
      const other = client.openStream();
      await s.run("BEGIN");
      await other.run("BEGIN");
      await other.run("INSERT INTO t VALUES (10)");
      assert.equal((await s.queryValue("SELECT sum(n) FROM t")).value, 1);
      assert.equal((await other.queryValue("SELECT sum(n) FROM t")).value, 11);
      await other.run("ROLLBACK");
      await s.run("ROLLBACK");
    });

    it("runs the requests on a stream in their order", async (s, client) => {
      await s.sequence("DROP TABLE IF EXISTS t; CREATE TABLE t (stream, value)");
      const one = async (id) => {
        const stream = client.openStream();
        const answers = [stream.run(["INSERT INTO t VALUES (?, '')", [id]])];
        for (let i = 0; i < 10; i += 1) {
          answers.push(stream.queryValue(["UPDATE t SET value = value || ? WHERE stream = ? RETURNING value", [String(i), id]]));
        }
        stream.closeGracefully();
        const [, ...values] = await Promise.all(answers);
        assert.deepEqual(values.map(({ value }) => value), Array.from({ length: 10 }, (_, i) => "0123456789".slice(0, i + 1)));
      };
      await Promise.all(Array.from({ length: 10 }, (_, id) => one(id)));
    });

    for (const cursor of version === 3 ? [false, true] : [false]) {
      describe(cursor ? "a batch by a cursor" : "a batch", () => {
        it("skips the steps whose conditions do not hold", async (s) => {
          const { ok, error, not, and, or } = hrana.BatchCond;
          const batch = s.batch(cursor);
          const good = batch.step();
          const bad = batch.step();
          const fine = good.queryValue("SELECT 1");
          const failing = assert.rejects(bad.queryValue("SELECT nope"), hrana.ResponseError);
          const skipped = batch.step().condition(ok(bad));
          const never = skipped.queryValue("SELECT 0");
          const conditions = [
            [ok(good), true],
            [error(good), false],
            [ok(bad), false],
            [error(bad), true],
            [ok(skipped), false],
            [error(skipped), false],
            [not(ok(bad)), true],
            [and(batch, [ok(good), error(bad)]), true],
            [and(batch, [ok(good), ok(bad)]), false],
            [and(batch, []), true],
            [or(batch, [ok(bad), ok(good)]), true],
            [or(batch, [ok(bad), error(good)]), false],
            [or(batch, []), false],
          ];
          const answers = conditions.map(([condition]) => batch.step().condition(condition).queryValue("SELECT 'yes'"));
          await batch.execute();
          await failing;
          assert.equal((await fine).value, 1);
          assert.equal(await never, undefined);
          assert.deepEqual((await Promise.all(answers)).map((answer) => answer?.value === "yes"), conditions.map(([, holds]) => holds));
        });

        it("answers many steps, and many rows", async (s) => {
          const batch = s.batch(cursor);
          const sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, 'some text' FROM n LIMIT ?";
          const answers = Array.from({ length: 100 }, (_, i) => batch.step().query([sql, [10 * i]]));
          await batch.execute();
          assert.deepEqual((await Promise.all(answers)).map(({ rows }) => rows.length), answers.map((_, i) => 10 * i));
        });

        it("is not cut off by a close that waits", async (s) => {
          const batch = s.batch(cursor);
          const answers = Array.from({ length: 100 }, (_, i) => batch.step().queryValue(["SELECT ?", [i]]));
          const done = batch.execute();
          s.closeGracefully();
          assert.equal((await answers[99]).value, 99);
          await done;
        });
      });
    }

    if (version === 3) {
      it("tells whether a transaction is open", async (s) => {
        await s.sequence("DROP TABLE IF EXISTS t; CREATE TABLE t (a UNIQUE)");
        assert.equal(await s.getAutocommit(), true);
        await s.run("BEGIN");
        assert.equal(await s.getAutocommit(), false);
        await s.run("INSERT INTO t VALUES (1)");
        await assert.rejects(s.run("INSERT OR ROLLBACK INTO t VALUES (1)"), hrana.ResponseError);
        assert.equal(await s.getAutocommit(), true);
      });

      it("knows in a condition whether a transaction is open", async (s) => {
        const batch = s.batch();
        const outside = batch.step().condition(hrana.BatchCond.isAutocommit(batch)).queryValue("SELECT 1");
        batch.step().run("BEGIN");
        const inside = batch.step().condition(hrana.BatchCond.isAutocommit(batch)).queryValue("SELECT 1");
        await batch.execute();
        assert.deepEqual([(await outside)?.value, await inside], [1, undefined]);
        await s.run("ROLLBACK");
      });
    }
  });
}
