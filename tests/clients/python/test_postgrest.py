"""postgrest-py as published: what it can ask of a table and do to it. The client is written twice, for asyncio and
without, so each case runs on both: it builds the request, and the class that runs it sends it."""

import asyncio
import datetime
import unittest
import uuid

from postgrest import APIError, AsyncPostgrestClient, CountMethod, ReturnMethod, SyncPostgrestClient

from bookshop import HEADERS, REST, reset


class Requests:
    """The cases; a subclass says how a request is sent."""

    @classmethod
    def setUpClass(cls):
        reset()

    def table(self, name):
        return self.client.from_(name)

    def data(self, request):
        return self.send(request).data

    def ids(self, use):
        return [row["id"] for row in self.data(use(self.table("books").select("id")).order("id"))]

    def refused(self, request, code):
        with self.assertRaises(APIError) as caught:
            self.send(request)
        self.assertEqual(caught.exception.code, code, caught.exception.json())
        return caught.exception


class Reading(Requests):
    def test_filters(self):
        for name, use, expected in [
            ("eq", lambda q: q.eq("title", "Paper, Lanterns"), [4]),
            ("neq", lambda q: q.neq("author_id", 3), [1, 2, 5]),
            ("gt", lambda q: q.gt("price", 9), [1, 3]),
            ("gte", lambda q: q.gte("price", 9), [1, 2, 3]),
            ("lt", lambda q: q.lt("published", "1980-01-01"), [1, 2]),
            ("lte", lambda q: q.lte("stock", 1), [2, 5]),
            ("is_ null", lambda q: q.is_("price", None), [5]),
            ("is_ true", lambda q: q.is_("in_print", True), [1, 3, 4]),
            ("not_ is_", lambda q: q.not_.is_("in_print", "null"), [1, 2, 3, 4]),
            ("not_ in_", lambda q: q.not_.in_("id", [1, 2]), [3, 4, 5]),
            ("like", lambda q: q.like("title", "%a%e%"), [2, 4]),
            ("ilike", lambda q: q.ilike("title", "%MAP%"), [3]),
            ("like_all_of", lambda q: q.like_all_of("title", "*a*,*r*"), [1, 2, 4]),
            ("like_any_of", lambda q: q.like_any_of("title", "North*,*Rain"), [2, 3]),
            ("ilike_all_of", lambda q: q.ilike_all_of("title", "*a*,*MAP*"), [3]),
            ("ilike_any_of", lambda q: q.ilike_any_of("title", "north*,*RAIN"), [2, 3]),
            ("in_", lambda q: q.in_("title", ["Paper, Lanterns", "100% Wool"]), [4, 5]),
            ("cs", lambda q: q.cs("tags", ["sea"]), [2, 3]),
            ("cd", lambda q: q.cd("tags", ["sea", "cold", "maps"]), [2, 3, 5]),
            ("ov", lambda q: q.ov("tags", ["glass", "maps"]), [1, 3]),
            ("contains a list", lambda q: q.contains("tags", ["sea", "cold"]), [2]),
            ("contains a dict", lambda q: q.contains("details", {"size": {"w": 12}}), [1]),
            ("contained_by", lambda q: q.contained_by("tags", ["sea", "maps"]), [3, 5]),
            ("overlaps", lambda q: q.overlaps("tags", ["trees"]), [1]),
            ("match", lambda q: q.match({"author_id": 3, "in_print": True}), [3, 4]),
            ("or_", lambda q: q.or_("price.lt.8,and(stock.eq.0,in_print.is.false)"), [2, 4]),
            ("not_ or_", lambda q: q.not_.or_("id.eq.1,id.eq.2"), [3, 4, 5]),
            ("filter", lambda q: q.filter("stock", "not.eq", "0").filter("id", "lt", "4"), [1, 3]),
            ("a path into JSON", lambda q: q.eq("details->size->>h", 19), [1]),
        ]:
            with self.subTest(name):
                self.assertEqual(self.ids(use), expected)

    def test_full_text(self):
        for name, use, expected in [
            ("fts", lambda q: q.fts("body", "fat & cat"), ["Cats"]),
            ("plfts", lambda q: q.plfts("body", "rat cat"), ["Both"]),
            ("phfts", lambda q: q.phfts("body", "fat cat"), ["Cats"]),
            ("wfts", lambda q: q.wfts("body", "cat -fat"), ["Both"]),
            ("text_search", lambda q: q.text_search("body", "ran", {"type": "plain", "config": "simple"}), ["Rats"]),
        ]:
            with self.subTest(name):
                self.assertEqual([row["title"] for row in self.data(use(self.table("pages").select("title")))], expected)

    def test_columns_of_every_type(self):
        one = self.data(self.table("books").select("id::text", "title", "in_print", "price", "tags", "w:details->size->w").eq("id", 1).single())
        self.assertEqual(one, {"id": "1", "title": "The Glass Orchard", "in_print": True, "price": 12.5, "tags": ["trees", "glass"], "w": 12})
        # Python's integers have no end, so this one needs no cast.
        self.assertEqual(self.data(self.table("numbers").select("big", "bytes").eq("id", 1)), [{"big": 9007199254740993, "bytes": "AP8Q"}])
        odd = self.table("odd names").select("id", '"two words"', '"with,comma"').eq('with,comma', "c,d")
        self.assertEqual(self.data(odd), [{"id": 1, "two words": "a b", "with,comma": "c,d"}])

    def test_strip_nulls(self):
        self.assertEqual(self.data(self.table("books").select("id", "price").eq("id", 5).strip_nulls()), [{"id": 5}])

    def test_embedded_tables(self):
        embedded = self.table("books").select("title", "written_by(name)", "reviews!inner(stars)", "genres(name)").eq("id", 2)
        expected = {"title": "North Water", "written_by": {"name": "Bo Lindqvist"}, "reviews": [{"stars": 4}], "genres": [{"name": "novel"}, {"name": "travel"}]}
        self.assertEqual(self.data(embedded), [expected])
        spread = self.table("books").select("id", "...written_by(author:name)").eq("id", 2)
        self.assertEqual(self.data(spread), [{"id": 2, "author": "Bo Lindqvist"}])
        ordered = self.table("books").select("id", "reviews(stars)").eq("id", 1).order("stars", foreign_table="reviews").limit(1, foreign_table="reviews")
        self.assertEqual(self.data(ordered), [{"id": 1, "reviews": [{"stars": 3}]}])
        page = self.table("authors").select("id", "books!written_by(id)").eq("id", 3).range(1, 1, foreign_table="books")
        self.assertEqual(self.data(page), [{"id": 3, "books": [{"id": 4}]}])
        either = self.table("books").select("id", "reviews!inner(id)").or_("stars.eq.3,text.eq.Lost", reference_table="reviews").order("id")
        self.assertEqual(self.data(either), [{"id": 1, "reviews": [{"id": 2}]}, {"id": 3, "reviews": [{"id": 4}]}])
        neither = self.table("books").select("id", "reviews(id)").not_.or_("stars.gt.3,stars.lt.3", reference_table="reviews").lt("id", 3).order("id")
        self.assertEqual(self.data(neither), [{"id": 1, "reviews": [{"id": 2}]}, {"id": 2, "reviews": []}])

    def test_aggregates(self):
        grouped = self.table("books").select("author_id", "stock.sum()", "id.count()").order("author_id").gt("author_id", 2)
        self.assertEqual(self.data(grouped), [{"author_id": 3, "sum": 19, "count": 2}, {"author_id": 4, "sum": 1, "count": 1}])

    def test_order_and_pages(self):
        select = lambda: self.table("books").select("id")
        for name, request, expected in [
            ("ascending", select().order("price"), [4, 2, 1, 3, 5]),
            ("descending, nulls last", select().order("price", desc=True, nullsfirst=False), [3, 1, 2, 4, 5]),
            ("two", select().order("author_id", desc=True).order("id", desc=True), [5, 4, 3, 2, 1]),
            ("limit and offset", select().order("id").limit(2).offset(1), [2, 3]),
            ("range", select().order("id").range(1, 3), [2, 3, 4]),
        ]:
            with self.subTest(name):
                self.assertEqual([row["id"] for row in self.data(request)], expected)

    def test_counts(self):
        for count in CountMethod:
            with self.subTest(count):
                answer = self.send(self.table("books").select("id", count=count).order("id").range(0, 1))
                self.assertEqual((answer.data, answer.count), ([{"id": 1}, {"id": 2}], 5))
        head = self.send(self.table("books").select("*", count=CountMethod.exact, head=True).lt("id", 5))
        self.assertEqual((head.data, head.count), ([], 4))

    def test_single_and_csv(self):
        of = lambda *values: self.table("books").select("id").in_("id", values)
        self.assertEqual(self.data(of(1).single()), {"id": 1})
        self.refused(of(9).single(), "PGRST116")
        self.refused(of(1, 2).single(), "PGRST116")
        self.assertEqual(self.data(of(1).maybe_single()), {"id": 1})
        self.assertIsNone(self.send(of(9).maybe_single()))
        self.refused(of(1, 2).maybe_single(), "406")
        self.assertEqual(self.data(self.table("books").select("id", "title").gt("id", 3).csv()), 'id,title\n4,"Paper, Lanterns"\n5,100% Wool')

    def test_functions(self):
        self.assertEqual(self.data(self.client.rpc("add_up", {"a": 2, "b": 3})), 5)
        self.assertEqual(self.data(self.client.rpc("add_up", {"a": 2}, get=True)), 3)
        self.assertEqual(self.data(self.client.rpc("echo", {"document": {"a": [1, None]}})), {"a": [1, None]})
        self.assertEqual(self.data(self.client.rpc("echo", {"document": {"a": [1, None]}}, get=True)), {"a": [1, None]})
        of = lambda author, **options: self.client.rpc("books_of", {"author": author}, **options)
        answer = self.send(of("%e%", count=CountMethod.exact, get=True).select("title", "written_by(name)").gt("price", 1).order("id", desc=True).limit(1))
        self.assertEqual((answer.data, answer.count), ([{"title": "Paper, Lanterns", "written_by": {"name": "Chen Wei"}}], 2))
        self.assertEqual(self.data(of("Chen%").select("id").order("id").range(1, 1)), [{"id": 4}])
        self.assertEqual(self.data(of("Ada%").select("id").single()), {"id": 1})
        self.assertIsNone(self.send(of("nobody").maybe_single()))
        self.assertEqual(self.data(of("Ada%").select("id,title").csv()), "id,title\n1,The Glass Orchard")
        head = self.send(of("Chen%", head=True, count=CountMethod.exact))
        self.assertEqual((head.data, head.count), ([], 2))
        self.refused(self.client.rpc("nothing", {}), "PGRST202")

    def test_another_schema(self):
        self.assertEqual(self.data(self.client.schema("public").from_("genres").select("id").eq("id", 1)), [{"id": 1}])
        self.refused(self.client.schema("private").from_("genres").select("id"), "PGRST106")

    def test_refusals(self):
        self.assertIn("books", self.refused(self.table("book").select("*"), "PGRST205").hint)
        self.refused(self.table("books").select("nope"), "42703")
        self.refused(self.table("books").select("id").eq("id", "one"), "22P02")
        # An answer to HEAD has no body: its code is in a header.
        self.refused(self.table("books").select("nope", head=True), "42703")
        for range_of in ["range_gt", "range_gte", "range_lt", "range_lte", "range_adjacent"]:
            self.refused(getattr(self.table("books").select("id"), range_of)("published", ["2000-01-01", "2001-01-01"]), "PGRST127")


class Writing(Requests):
    def setUp(self):
        super().setUp()
        reset()

    def counts(self):
        return [row["n"] for row in self.data(self.table("counts").select("n").order("shop").order("book_id"))]

    def test_insert(self):
        self.assertEqual(self.data(self.table("counts").insert({"shop": "Bath", "book_id": 3})), [{"shop": "Bath", "book_id": 3, "n": 1, "note": "counted"}])
        self.assertEqual(self.data(self.table("genres").insert({"name": "saga"}, returning=ReturnMethod.minimal)), [])
        many = self.send(self.table("genres").insert([{"name": "x"}, {"name": "y"}], count=CountMethod.exact).select("name"))
        self.assertEqual((many.data, many.count), ([{"name": "x"}, {"name": "y"}], 2))
        self.assertEqual(self.data(self.table("genres").insert({"name": "z"}).select("id").single()), {"id": 8})

    def test_insert_with_what_is_missing(self):
        rows = [{"shop": "Bath", "book_id": 1, "note": "new"}, {"shop": "Bath", "book_id": 2}]
        self.assertEqual([row["note"] for row in self.data(self.table("counts").insert(rows))], ["new", None])
        reset()
        self.assertEqual([row["note"] for row in self.data(self.table("counts").insert(rows, default_to_null=False))], ["new", "counted"])

    def test_values_of_python(self):
        made = self.data(self.table("numbers").insert({"big": 2**63 - 1, "bytes": b"\x00\xff"}).select("big", "bytes").single())
        self.assertEqual(made, {"big": 2**63 - 1, "bytes": "AP8="})
        when, name = datetime.datetime(2026, 11, 21, 6, 30, tzinfo=datetime.timezone.utc), uuid.uuid4()
        book = {"title": str(name), "author_id": 1, "published": when, "tags": ("a", "b"), "details": {"at": when.date(), "id": name}}
        made = self.data(self.table("books").insert(book).select("published", "tags", "details").single())
        self.assertEqual(made, {"published": when.isoformat(), "tags": ["a", "b"], "details": {"at": "2026-11-21", "id": str(name)}})

    def test_upsert(self):
        self.assertEqual(self.data(self.table("genres").upsert([{"id": 4, "name": "verse"}, {"id": 5, "name": "fable"}]))[0], {"id": 4, "name": "verse"})
        kept = self.table("books").upsert({"title": "North Water", "author_id": 2, "stock": 99}, on_conflict="title").select("id", "stock", "price")
        self.assertEqual(self.data(kept), [{"id": 2, "stock": 99, "price": 9}])
        self.send(self.table("counts").upsert({"shop": "Leeds", "book_id": 1, "n": 50}, on_conflict="shop,book_id", returning=ReturnMethod.minimal))
        self.assertEqual(self.counts(), [50, 5, 4])
        self.assertEqual(self.data(self.table("genres").upsert({"id": 1, "name": "?"}, ignore_duplicates=True)), [])
        self.assertEqual(self.data(self.table("genres").insert({"id": 1, "name": "tale"}, upsert=True)), [{"id": 1, "name": "tale"}])
        rows = [{"shop": "Rome", "book_id": 1, "n": 3}, {"shop": "Rome", "book_id": 2}]
        self.assertEqual([row["n"] for row in self.data(self.table("counts").upsert(rows, default_to_null=False))], [3, 1])

    def test_update(self):
        changed = self.send(self.table("books").update({"stock": 5}, count=CountMethod.exact).eq("author_id", 3).select("id"))
        self.assertEqual((changed.data, changed.count), ([{"id": 3}, {"id": 4}], 2))
        self.assertEqual(self.data(self.table("genres").update({"name": "x"}, returning=ReturnMethod.minimal).eq("id", 1)), [])
        self.assertEqual(self.data(self.table("genres").update({"name": "y"}).eq("id", 1).max_affected(1)), [{"id": 1, "name": "y"}])
        self.refused(self.table("genres").update({"name": "z"}).gt("id", 0).max_affected(1), "PGRST124")
        self.assertEqual(self.data(self.table("genres").select("id").eq("name", "z")), [])

    def test_delete(self):
        self.assertEqual(self.data(self.table("counts").delete().eq("shop", "Leeds").select("book_id")), [{"book_id": 1}, {"book_id": 2}])
        self.assertEqual(self.data(self.table("books").delete(returning=ReturnMethod.minimal).eq("id", 4)), [])
        self.assertEqual(self.send(self.table("reviews").delete(count=CountMethod.exact).eq("book_id", 1)).count, 2)

    def test_functions_that_write(self):
        self.assertEqual(self.data(self.client.rpc("restock", {"book": 2, "copies": 5})), [{"id": 2, "stock": 5}])
        self.refused(self.client.rpc("restock", {"book": 2, "copies": 5}, get=True), "25006")
        self.assertEqual(self.data(self.client.rpc("forget", {"review": 1})), [])

    def test_refusals(self):
        for request, code in [
            (lambda: self.table("genres").insert([{"id": 8, "name": "ok"}, {"id": 1, "name": "twice"}]), "23505"),
            (lambda: self.table("reviews").insert({"book_id": 77, "stars": 1}), "23503"),
            (lambda: self.table("reviews").insert({"book_id": 1, "stars": 6}), "23514"),
            (lambda: self.table("genres").insert({"name": None}), "23502"),
            (lambda: self.table("genres").insert({"nome": "typo"}), "PGRST204"),
            (lambda: self.table("authors").delete().eq("id", 1), "23503"),
        ]:
            with self.subTest(code):
                self.refused(request(), code)
        self.assertEqual(self.data(self.table("genres").select("id").eq("id", 8)), [])


class WithoutAsyncio:
    def setUp(self):
        self.client = SyncPostgrestClient(REST, headers=HEADERS)
        self.addCleanup(self.client.aclose)

    def send(self, request):
        return request.execute()


class WithAsyncio:
    def setUp(self):
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)
        self.client = AsyncPostgrestClient(REST, headers=HEADERS)
        self.addCleanup(lambda: self.loop.run_until_complete(self.client.aclose()))

    def send(self, request):
        return self.loop.run_until_complete(request.execute())


class SyncReading(WithoutAsyncio, Reading, unittest.TestCase):
    pass


class SyncWriting(Writing, WithoutAsyncio, unittest.TestCase):
    pass


class AsyncReading(WithAsyncio, Reading, unittest.TestCase):
    pass


class AsyncWriting(Writing, WithAsyncio, unittest.TestCase):
    def test_many_at_once(self):
        async def insert_all():
            return await asyncio.gather(*(self.table("genres").insert({"id": 100 + i, "name": f"g{i}"}).execute() for i in range(40)))

        made = self.loop.run_until_complete(insert_all())
        self.assertEqual([answer.data for answer in made], [[{"id": 100 + i, "name": f"g{i}"}] for i in range(40)])


if __name__ == "__main__":
    unittest.main()
