//! The goals of the limits, row by row.

use crate::results::Bound::{AtLeast, AtMost, None as Free};
use crate::results::{Goal, goal};

pub const GOALS: &[Goal] = &[
    goal("read-one", "point read, one warm tenant / bare handler", AtLeast(0.75)),
    goal("read-one / rusqlite", "the same / rusqlite in process, a thread per core", Free),
    goal("read-many", "point read over all tenants / bare handler", AtLeast(0.65)),
    goal("page", "page of 20 / bare handler", AtLeast(0.50)),
    goal("page / rusqlite", "the same / rusqlite in process, a thread per core", Free),
    goal("rest-read", "rows: point read / by SQL", AtLeast(0.85)),
    goal("rest-read / bare", "the same / bare handler", Free),
    goal("rest-read / rusqlite", "the same / rusqlite that makes the JSON, a thread per core", Free),
    goal("rest-page", "rows: page of 20 / by SQL", AtLeast(0.85)),
    goal("rest-page / bare", "the same / bare handler", Free),
    goal("rest-page / rusqlite", "the same / rusqlite that makes the JSON, a thread per core", Free),
    goal("rest-embed", "rows: 20 with 5 embedded in each / by SQL", AtLeast(0.85)),
    goal("rest-embed / bare", "the same / bare handler", Free),
    goal("rest-embed / rusqlite", "the same / rusqlite that makes the JSON, a thread per core", Free),
    goal("rest-insert", "rows: insert, FULL / by SQL", AtLeast(0.85)),
    goal("rest-insert / bare", "the same / bare handler", Free),
    goal("cache-get", "cache get / bare handler", AtLeast(0.85)),
    goal("insert-one", "insert, one tenant, FULL / bare handler", AtLeast(0.40)),
    goal("insert-one / fsync each", "the same / rusqlite, one flush per insert", AtLeast(10.0)),
    goal("insert-many / rusqlite", "insert over all tenants, FULL / rusqlite, a thread per core", AtLeast(2.0)),
    goal("insert-many-normal", "insert over all tenants, NORMAL / bare handler", AtLeast(0.40)),
    goal("enqueue", "enqueue, FULL / bare handler", AtLeast(0.40)),
    goal("claim-ack", "claim of 10 and their acks, FULL / bare handler", AtLeast(0.40)),
    goal("cold, median ms", "first request to a closed tenant / rusqlite open + statement", AtMost(1.5)),
    goal("cold, p99 ms", "the same at the 99th percentile", AtMost(4.0)),
    goal("cold, and a new token, median ms", "the same with a token not seen before", Free),
    goal("provision", "tenants made / three flushed copies of the templates", AtLeast(0.5)),
];
