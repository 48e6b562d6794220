"""libsql (the Rust client's binding, over HTTP) and libsql-client (over WebSocket), as published."""

import asyncio
import os
import unittest

import libsql
import libsql_client

URL = os.environ["TENANT_URL"]
TOKEN = os.environ["TENANT_TOKEN"]


class Binding(unittest.TestCase):
    """`libsql`, with the interface of Python's sqlite3."""

    def setUp(self):
        self.connection = libsql.connect(URL, auth_token=TOKEN)
        self.connection.executescript("DROP TABLE IF EXISTS t; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT UNIQUE, b BLOB)")
        self.connection.commit()

    def rows(self, sql, *parameters):
        return self.connection.execute(sql, parameters).fetchall()

    def test_values_come_back_as_they_were(self):
        values = (None, 1, -(2**31), 0.5, "žluťoučký", b"\x00\xff")
        self.assertEqual(self.rows("SELECT ?, ?, ?, ?, ?, ?", *values), [values])
        # As a parameter this client sends it as a float.
        self.assertEqual(self.rows("SELECT 9223372036854775807, -9223372036854775807 - 1"), [(2**63 - 1, -(2**63))])

    def test_what_is_committed_is_seen_by_another_connection(self):
        self.connection.execute("INSERT INTO t (v, b) VALUES (?, ?)", ("a", b"x"))
        self.connection.commit()
        other = libsql.connect(URL, auth_token=TOKEN)
        self.assertEqual(other.execute("SELECT v, b FROM t").fetchall(), [("a", b"x")])

    def test_what_is_rolled_back_is_gone(self):
        self.connection.execute("INSERT INTO t (v) VALUES ('a')")
        self.assertEqual(self.rows("SELECT count(*) FROM t"), [(1,)])
        self.connection.rollback()
        self.assertEqual(self.rows("SELECT count(*) FROM t"), [(0,)])

    def test_many_and_their_order(self):
        self.connection.executemany("INSERT INTO t (v) VALUES (?)", [(str(i),) for i in range(50)])
        self.connection.commit()
        cursor = self.connection.execute("SELECT id FROM t ORDER BY id")
        self.assertEqual([cursor.fetchone(), len(cursor.fetchmany(9)), len(cursor.fetchall())], [(1,), 9, 40])

    def test_an_error_has_sqlites_words(self):
        self.connection.execute("INSERT INTO t (v) VALUES ('a')")
        self.connection.commit()
        with self.assertRaisesRegex(Exception, "UNIQUE constraint failed: t.v"):
            self.connection.execute("INSERT INTO t (v) VALUES ('a')")


class Client(unittest.TestCase):
    """`libsql-client`, over a WebSocket."""

    def run_with(self, use):
        async def run():
            async with libsql_client.create_client(URL.replace("http", "ws", 1), auth_token=TOKEN) as client:
                await client.batch(["DROP TABLE IF EXISTS t", "CREATE TABLE t (a UNIQUE)"])
                await use(client)

        asyncio.run(run())

    def test_execute_and_batch(self):
        async def use(client):
            result = await client.execute("SELECT ? AS a, :b AS b", [1, "two"])
            self.assertEqual((result.columns, tuple(result.rows[0])), (("a", "b"), (1, "two")))
            named = await client.execute("SELECT :a, $b", {"a": b"\x00\xff\x01", "b": None})
            self.assertEqual(tuple(named.rows[0]), (b"\x00\xff\x01", None))
            results = await client.batch(["INSERT INTO t VALUES (1), (2)", "SELECT sum(a) FROM t"])
            self.assertEqual((results[0].rows_affected, results[1].rows[0][0]), (2, 3))

        self.run_with(use)

    def test_a_batch_that_fails_leaves_nothing(self):
        async def use(client):
            with self.assertRaises(libsql_client.LibsqlError) as caught:
                await client.batch(["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"])
            self.assertEqual(caught.exception.code, "SQLITE_CONSTRAINT")
            self.assertEqual((await client.execute("SELECT count(*) FROM t")).rows[0][0], 0)

        self.run_with(use)

    def test_transactions(self):
        async def use(client):
            committed = client.transaction()
            await committed.execute("INSERT INTO t VALUES (1)")
            await committed.commit()
            rolled_back = client.transaction()
            await rolled_back.execute("INSERT INTO t VALUES (2)")
            await rolled_back.rollback()
            closed = client.transaction()
            await closed.execute("INSERT INTO t VALUES (3)")
            closed.close()
            self.assertEqual([row[0] for row in (await client.execute("SELECT a FROM t")).rows], [1])

        self.run_with(use)


if __name__ == "__main__":
    unittest.main()
