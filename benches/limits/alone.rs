//! What the cache and the queue do for one request, as the least SQL that does it, through rusqlite on a file of the same kind:
//! no clients, no tokens, no checks, and each write flushed for itself where the file flushes.

use std::cell::Cell;

use rusqlite::{Connection, params};

use crate::engines::{JOB, VALUE};

/// Jobs in one claim.
pub const CLAIMED: usize = 10;

/// What every file of the queue's kind holds before anything is measured.
pub fn make_queue(conn: &Connection) {
    conn.execute_batch("INSERT INTO queues (queue, name, created_at) VALUES (1, 'limits', 0)").expect("a queue");
}

/// Adds jobs until so many are ready.
pub fn fill(conn: &Connection, jobs: usize) {
    let ready: i64 = conn.query_row("SELECT count(*) FROM jobs WHERE state = 2", [], |row| row.get(0)).expect("a count");
    let missing = jobs as i64 - ready;
    let add = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
         INSERT INTO jobs (salt, queue, state, due_at, created_at, since) SELECT 7, 1, 2, 0, 0, 0 FROM n WHERE i <= ?1";
    let bodies = "INSERT INTO job_bodies (seq, backoff, backoff_ms, backoff_max_ms, enqueued_by, payload)
         SELECT seq, 2, 1000, 3600000, 'bench', ?1 FROM jobs WHERE state = 2 AND seq NOT IN (SELECT seq FROM job_bodies)";
    transaction(conn, || {
        conn.execute(add, [missing.max(0)]).expect("jobs");
        conn.execute(bodies, [JOB]).expect("bodies");
    });
}

pub fn enqueue(conn: &Connection, number: usize) {
    transaction(conn, || {
        let job = "INSERT INTO jobs (salt, queue, state, due_at, created_at, since) VALUES (?1, 1, 2, 0, 0, 0)";
        execute(conn, job, params![number as i64]);
        let body = "INSERT INTO job_bodies (seq, backoff, backoff_ms, backoff_max_ms, enqueued_by, payload) VALUES (?1, 2, 1000, 3600000, 'bench', ?2)";
        execute(conn, body, params![conn.last_insert_rowid(), JOB]);
    });
}

/// A claim and an acknowledgement of each of its jobs: so many transactions and one more.
pub fn claim_and_ack(conn: &Connection, number: usize) {
    let token = (number as u128).to_le_bytes();
    let claimed: Cell<Vec<i64>> = Cell::default();
    transaction(conn, || {
        let best = "SELECT j.seq, b.payload FROM jobs j INDEXED BY jobs_ready CROSS JOIN job_bodies b ON b.seq = j.seq
             WHERE j.state = 2 AND j.group_key IS NULL AND j.queue = 1 ORDER BY j.priority DESC, j.seq LIMIT ?1";
        let mut best = conn.prepare_cached(best).expect("a statement");
        let jobs = best.query_map([CLAIMED as i64], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).expect("jobs");
        let jobs: Vec<_> = jobs.collect::<Result<_, _>>().expect("jobs");
        assert!(jobs.len() == CLAIMED && jobs.iter().all(|(_, payload)| payload == JOB), "the queue ran dry");
        let lease = "UPDATE jobs SET state = 4, attempt = attempt + 1, lease_token = ?2, lease_until = 600000, since = 1 WHERE seq = ?1";
        jobs.iter().for_each(|(seq, _)| execute(conn, lease, params![seq, token]));
        claimed.set(jobs.into_iter().map(|(seq, _)| seq).collect());
    });
    for seq in claimed.into_inner() {
        let ack =
            "UPDATE jobs SET state = 10, done_token = lease_token, lease_token = NULL, lease_until = NULL, since = 2, keep_until = 3600002
             WHERE seq = ?1 AND lease_token = ?2";
        execute(conn, ack, params![seq, token]);
    }
}

/// What every file of the cache's kind holds before anything is measured.
pub fn make_cache(conn: &Connection) {
    set(conn, 0);
    let number =
        "INSERT INTO entries (version, key, created_at, size, value) VALUES (?1, CAST('/number' AS BLOB), 0, 1, CAST('0' AS BLOB))";
    execute(conn, number, [tick(conn)]);
}

pub fn get(conn: &Connection, _number: usize) {
    assert!(found(conn, b"/limits") == Some(VALUE.as_bytes().to_vec()), "it holds the value");
}

pub fn miss(conn: &Connection, _number: usize) {
    assert!(found(conn, b"/nothing").is_none(), "nothing is there");
}

fn found(conn: &Connection, key: &[u8]) -> Option<Vec<u8>> {
    let mut find = conn.prepare_cached("SELECT version, gone_at, content_type, value FROM entries WHERE key = ?1").expect("a statement");
    let mut rows = find.query([key]).expect("rows");
    rows.next().expect("a row").map(|row| row.get(3).expect("a value"))
}

pub fn set(conn: &Connection, _number: usize) {
    transaction(conn, || {
        let put =
            "INSERT OR REPLACE INTO entries (version, key, created_at, size, content_type, value) VALUES (?1, ?2, 0, ?3, 'text/plain', ?4)";
        execute(conn, put, params![tick(conn), b"/limits", VALUE.len() as i64, VALUE.as_bytes()]);
    });
}

pub fn increment(conn: &Connection, _number: usize) {
    transaction(conn, || {
        let more = "UPDATE entries SET version = ?1, value = CAST(CAST(CAST(value AS TEXT) AS INTEGER) + 1 AS BLOB)
             WHERE key = CAST('/number' AS BLOB)";
        execute(conn, more, [tick(conn)]);
    });
}

fn tick(conn: &Connection) -> i64 {
    let mut tick = conn.prepare_cached("UPDATE clock SET version = version + 1 WHERE one = 1 RETURNING version").expect("a statement");
    tick.query_row([], |row| row.get(0)).expect("a version")
}

fn transaction(conn: &Connection, work: impl FnOnce()) {
    let run = |sql| conn.prepare_cached(sql).and_then(|mut statement| statement.execute([])).expect("a transaction");
    run("BEGIN IMMEDIATE");
    work();
    run("COMMIT");
}

/// Changes one row.
fn execute(conn: &Connection, sql: &str, params: impl rusqlite::Params) {
    assert_eq!(conn.prepare_cached(sql).expect("a statement").execute(params).expect("a row"), 1, "{sql}");
}
