//! What a plan limits is limited, with a code that says which limit it was, and nothing else is.

use std::time::Instant;

use crate::support::*;

#[test]
fn a_full_database_refuses_writes_and_still_reads_and_deletes() {
    let server = Server::with(|c| {
        c.set("plans.tiny.database_bytes", 512 << 10);
    });
    let tenant = server.tenant_on("tiny", "full");
    tenant.script("CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB)");
    let insert = "INSERT INTO t (x) VALUES (randomblob(20000))";
    let refused = (0..200).map(|_| tenant.sql(insert, json!([]))).find(|answer| answer.status != 200).expect("it fills up");
    refused.refused(507, "quota_exceeded");
    let stored = tenant.rows("SELECT count(*) FROM t", json!([]))[0][0].as_i64().unwrap();
    assert!(stored >= 5, "{stored} rows of 20 kB in 512 KiB");
    assert!(std::fs::metadata(server.file(&tenant.id, "database")).unwrap().len() <= 512 << 10);
    // A refused write leaves nothing, and its neighbours in the same script neither.
    tenant
        .post("/v1/sql", json!({ "script": "CREATE TABLE late (x); INSERT INTO late VALUES (randomblob(400000));" }))
        .refused(507, "quota_exceeded");
    tenant.sql("SELECT * FROM late", json!([])).refused(400, "sql_error");
    tenant.sql("DELETE FROM t WHERE id <= 10", json!([])).expect(200);
    tenant.sql(insert, json!([])).expect(200);
    // The other two files are not full.
    tenant.post("/v1/queues/q/jobs", json!({ "payload": 1 })).expect(201);
}

#[test]
fn a_full_queue_says_so_and_can_still_be_worked_off() {
    let server = Server::with(|c| {
        c.set("plans.tiny.queue_bytes", 512 << 10);
    });
    let tenant = server.tenant_on("tiny", "full");
    let payload = "x".repeat(20_000);
    let enqueue = || tenant.post("/v1/queues/q/jobs", json!({ "payload": payload }));
    let refused = (0..200).map(|_| enqueue()).find(|answer| answer.status != 201).expect("it fills up");
    refused.refused(507, "quota_exceeded");
    let claimed = tenant.post("/v1/queues/q/claim", json!({ "max": 1, "lease_s": 30 })).expect(200).json();
    let job = &claimed["jobs"][0];
    tenant.post(&format!("/v1/jobs/{}/ack", job["id"].as_str().unwrap()), json!({ "lease_token": job["lease_token"] })).expect(200);
    tenant.sql("CREATE TABLE t (x)", json!([])).expect(200);
}

#[test]
fn a_full_cache_makes_room() {
    let server = Server::with(|c| {
        c.set("plans.tiny.cache_bytes", 512 << 10);
    });
    let tenant = server.tenant_on("tiny", "full");
    // Nothing that could be compressed.
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    });
    let noise: Vec<u8> = noise.take(20_000).collect();
    for i in 0..100 {
        let put = tenant.call("PUT", &format!("/v1/cache/k{i}")).bytes("application/octet-stream", noise.clone()).send();
        assert!([200, 201, 204].contains(&put.status), "put {i}: {} {}", put.status, put.text());
    }
    tenant.get("/v1/cache/k99").expect(200);
    tenant.get("/v1/cache/k0").refused(404, "not_found");
}

#[test]
fn a_statement_that_never_ends_is_stopped() {
    let server = Server::with(|c| {
        // Were a lane not free again, nothing after would be answered.
        c.set("plans.short.statement_ms", 500).set("executor.read_lanes", 1).set("executor.write_lanes", 1);
    });
    let tenant = server.tenant_on("short", "bomb");
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (1);");
    let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";
    for sql in [
        format!("{endless} SELECT count(*) FROM c"),
        format!("{endless} SELECT x FROM c WHERE x < 0"),
        format!("{endless} INSERT INTO t SELECT x FROM c WHERE x < 0"),
        format!("UPDATE t SET x = ({endless} SELECT count(*) FROM c)"),
    ] {
        tenant.sql(&sql, json!([])).refused(422, "statement_timeout");
        // It freed its lane and left nothing.
        assert_eq!(tenant.rows("SELECT x FROM t", json!([])), json!([[1]]));
        tenant.sql("UPDATE t SET x = 1", json!([])).expect(200);
    }
}

/// One call to a function never reaches the progress handler; what it makes must be bounded instead.
#[test]
fn one_huge_function_call_is_stopped_too() {
    let server = Server::with(|c| {
        c.set("plans.short.statement_ms", 500);
    });
    let tenant = server.tenant_on("short", "bomb");
    for sql in [
        "SELECT length(hex(randomblob(4e8)))",
        "SELECT length(printf('%.*c', 2000000000, 'x'))",
        "SELECT length(replace(hex(zeroblob(1e7)), '0', hex(zeroblob(1000))))",
        "SELECT length(group_concat(hex(randomblob(1e6)))) FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 10000) SELECT x FROM c)",
    ] {
        let answer = tenant.sql(sql, json!([]));
        assert!([400, 413, 422].contains(&answer.status), "{sql}: {} {}", answer.status, answer.text());
    }
    assert_eq!(tenant.rows("SELECT 1", json!([])), json!([[1]]));
}

#[test]
fn an_answer_is_bounded_in_rows_and_bytes() {
    let server = Server::with(|c| {
        c.set("plans.narrow.result_rows", 10).set("plans.narrow.result_bytes", 20_000);
    });
    let tenant = server.tenant_on("narrow", "narrow");
    let rows = |n: u32| format!("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {n}) SELECT x FROM c");
    assert_eq!(tenant.rows(&rows(10), json!([])).as_array().unwrap().len(), 10);
    tenant.sql(&rows(11), json!([])).refused(422, "result_too_large");
    // All statements of a request count together.
    let two = json!({ "statements": [{ "sql": rows(6) }, { "sql": rows(6) }] });
    tenant.post("/v1/sql", two).refused(422, "result_too_large");
    tenant.sql("SELECT hex(zeroblob(5000))", json!([])).expect(200);
    tenant.sql("SELECT hex(zeroblob(15000))", json!([])).refused(422, "result_too_large");
    // A write whose answer is too large is not done.
    tenant.script("CREATE TABLE t (x)");
    let sql = format!("INSERT INTO t {} RETURNING x", rows(11));
    tenant.sql(&sql, json!([])).refused(422, "result_too_large");
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[0]]));
}

#[test]
fn requests_per_second_are_limited_after_the_burst() {
    let server = Server::with(|c| {
        c.set("plans.slow.requests_per_s", 1).set("plans.slow.burst", 5);
    });
    let (slow, other) = (server.tenant_on("slow", "slow"), server.tenant_on("slow", "other"));
    let begun = Instant::now();
    let statuses: Vec<_> = (0..20).map(|_| slow.sql("SELECT 1", json!([])).status).collect();
    let served = statuses.iter().filter(|&&status| status == 200).count() as u64;
    // The burst, and one for each second that it took.
    assert!(served >= 5 && served <= 6 + begun.elapsed().as_secs(), "{statuses:?}");
    let refused =
        eventually("a refusal", || at_once(10, |_| slow.sql("SELECT 1", json!([]))).into_iter().find(|answer| answer.status == 429));
    let wait: u64 = refused.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    refused.refused(429, "too_many_requests");
    other.sql("SELECT 1", json!([])).expect(200);
    eventually("served again", || (slow.sql("SELECT 1", json!([])).status == 200).then_some(()));
}

#[test]
fn statements_at_once_are_limited() {
    let server = Server::with(|c| {
        c.set("plans.lone.concurrent_statements", 1).set("plans.lone.statement_ms", 2_000);
    });
    let (lone, other) = (server.tenant_on("lone", "lone"), server.tenant_on("lone", "other"));
    let bomb = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
    let answers = at_once(12, |i| if i == 0 { other.sql("SELECT 1", json!([])) } else { lone.sql(bomb, json!([])) });
    assert_eq!(answers[0].status, 200, "the neighbour is not counted");
    let refused: Vec<_> = answers.into_iter().skip(1).filter(|answer| answer.status != 422).collect();
    assert!(!refused.is_empty(), "eleven statements of two seconds cannot all run under a limit of one");
    for answer in refused {
        assert!(answer.header("retry-after").is_some(), "{}", answer.text());
        answer.refused(429, "too_many_requests");
    }
    eventually("served again", || (lone.sql("SELECT 1", json!([])).status == 200).then_some(()));
}

#[test]
fn the_operator_sees_the_plans() {
    let server = Server::with(|c| {
        c.set("plans.tiny.result_rows", 7);
    });
    let plans = server.admin().get("/admin/v1/plans").expect(200).json();
    let text = plans.to_string();
    assert!(text.contains("tiny") && text.contains("default") && text.contains("\"result_rows\":7"), "{text}");
}

#[test]
fn a_plan_changed_under_a_request_holds_for_every_request_after_it() {
    use std::io::{Read, Write};
    let server = Server::with(|c| {
        c.set("plans.few.result_rows", 10);
    });
    let tenant = server.tenant("moving");
    let body = json!({ "statements": [{ "sql": "SELECT 1" }] }).to_string();
    let mut slow = server.connect();
    let head = format!(
        "POST /v1/sql HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        tenant.token,
        body.len()
    );
    slow.write_all(head.as_bytes()).unwrap();
    slow.write_all(&body.as_bytes()[..5]).unwrap();
    // Its tenant is looked up, under the old plan, before the operator comes.
    std::thread::sleep(std::time::Duration::from_millis(300));
    server.admin().patch(&format!("/admin/v1/tenants/{}", tenant.id), json!({ "plan": "few" })).expect(200);
    slow.write_all(&body.as_bytes()[5..]).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let fifty = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i FROM n";
    for _ in 0..3 {
        tenant.sql(fifty, json!([])).refused(422, "result_too_large");
    }
}

#[test]
fn whose_answer_has_no_room_beside_those_that_wait_to_be_read_is_refused_before_the_commit() {
    use std::io::Write;
    let server = Server::with(|c| {
        c.set("http.unread_bytes", 80_000_000);
    });
    let deaf = server.tenant("deaf");
    deaf.script("CREATE TABLE t (x TEXT)");
    let read = json!({ "statements": [{ "sql": "SELECT hex(zeroblob(7000000))" }] }).to_string();
    let unread = |tenant: &TenantClient| {
        let mut stream = server.connect();
        let head = format!(
            "POST /v1/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{read}",
            tenant.token,
            read.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    // A tenant's share is a quarter: the one that waits is under it, and with a second one it is over.
    // A tenant's share is a quarter: the one that waits is under it, and with a second one it would be over.
    let first = unread(&deaf);
    eventually("an answer waits", || (server.metric("tenantry_answer_bytes") > 14_000_000).then_some(()));
    let refused = deaf.sql("SELECT hex(zeroblob(7000000))", json!([]));
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").is_some() && refused.text().contains("http.unread_bytes"), "{}", refused.text());
    refused.refused(429, "too_many_requests");
    // What has no room for its answer is not committed; what has is, and is answered.
    let large = "INSERT INTO t VALUES (hex(zeroblob(7000000))) RETURNING x";
    deaf.sql(large, json!([])).refused(429, "too_many_requests");
    deaf.sql("INSERT INTO t VALUES (hex(zeroblob(7000000))) RETURNING length(x)", json!([])).expect(200);
    assert_eq!(deaf.rows("SELECT count(*) FROM t", json!([])), json!([[1]]));
    drop(first);
    eventually("there is room again", || (server.metric("tenantry_answer_bytes") == 0).then_some(()));
    deaf.sql(large, json!([])).expect(200);
    assert_eq!(deaf.rows("SELECT count(*) FROM t", json!([])), json!([[2]]));
}
