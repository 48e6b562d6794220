//! Nobody reads, writes or learns of another tenant, whatever they send; and one tenant's trouble is its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::support::*;

const SECRET: &str = "a-shared-secret-of-an-identity-provider-in-tests";

/// A server that also takes an identity provider's HS256 tokens, so that tests can claim what they like.
fn server_with_issuer() -> Server {
    Server::with(|c| {
        let scopes = r#"["sql:read", "sql:write", "sql:schema", "cache", "queue:produce", "queue:consume"]"#;
        c.set("auth.issuers", format!(r#"[{{issuer = "idp", audience = "tests", hs256_secret = "{SECRET}", default_scopes = {scopes}}}]"#));
    })
}

/// A valid signature over any claim.
fn claim(tenant: Value) -> String {
    let claims = json!({ "iss": "idp", "aud": "tests", "sub": "user", "exp": tenantry::clock::now_s() + 600, "tenant_id": tenant });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256), &claims, &key).unwrap()
}

#[test]
fn each_tenant_sees_its_own_rows_and_nothing_else() {
    let server = Server::shared();
    let (a, b) = (server.tenant("a"), server.tenant("b"));
    for tenant in [&a, &b] {
        tenant.script(&format!("CREATE TABLE t (owner); INSERT INTO t VALUES ('{}');", tenant.slug));
        tenant.call("PUT", "/v1/cache/k").bytes("text/plain", tenant.slug.as_bytes()).send();
        tenant.post("/v1/queues/q/jobs", json!({ "payload": tenant.slug })).expect(201);
    }
    for tenant in [&a, &b] {
        assert_eq!(tenant.rows("SELECT owner FROM t", json!([])), json!([[tenant.slug]]));
        assert_eq!(tenant.get("/v1/cache/k").text(), tenant.slug);
        let jobs = tenant.post("/v1/queues/q/claim", json!({ "max": 10, "lease_s": 30 })).expect(200).json();
        assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1);
        assert_eq!(jobs["jobs"][0]["payload"], tenant.slug.as_str());
    }
}

#[test]
fn nothing_but_the_token_names_the_tenant() {
    let server = Server::shared();
    let (a, b) = (server.tenant("a"), server.tenant("b"));
    b.script("CREATE TABLE only_b (x)");
    let body = json!({ "statements": [{ "sql": "SELECT count(*) FROM sqlite_schema WHERE name = 'only_b'" }] });
    for (name, value) in [("X-Tenant-Id", b.id.as_str()), ("X-Tenant", &b.slug), ("Host", &b.slug), ("Cookie", &format!("tenant={}", b.id))]
    {
        let seen = a.call("POST", "/v1/sql").header(name, value).json(&body).send().expect(200).json();
        assert_eq!(seen["results"][0]["rows"], json!([[0]]), "{name}");
    }
    // Of a job in b's queue, a learns only what it would of one that never was.
    let job = b.post("/v1/queues/q/jobs", json!({ "payload": 1 })).expect(201).json();
    let ack = |id: &str| {
        let answer = a.post(&format!("/v1/jobs/{id}/ack"), json!({ "lease_token": "guess" }));
        (answer.status, answer.text().replace(id, "…"))
    };
    assert_eq!(ack(job["id"].as_str().unwrap()), ack("0195f000-0000-7000-8000-000000000000"));
}

#[test]
fn unknown_deleted_purged_and_forged_are_the_same_bytes() {
    let server = server_with_issuer();
    let admin = server.admin();
    let (deleted, purged) = (server.tenant("deleted"), server.tenant("purged"));
    for tenant in [&deleted, &purged] {
        admin.delete(&format!("/admin/v1/tenants/{}", tenant.id)).expect(200);
    }
    admin.post(&format!("/admin/v1/tenants/{}/purge", purged.id), json!({})).succeeds();
    let look = |token: &str| {
        let answer = server.anyone().bearer(token).post("/v1/sql", json!({ "script": "SELECT 1" }));
        let mut headers: Vec<_> = answer.headers.iter().map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect();
        // `connection` says whether the request's body had arrived when it was answered: a matter of packets.
        headers.retain(|(name, _)| !["date", "x-request-id", "connection"].contains(&name.as_str()));
        headers.sort();
        (answer.status, headers, answer.text())
    };
    let unknown = look(&claim(json!("0195f000-0000-7000-8000-000000000000")));
    assert_eq!(unknown.0, 401);
    assert_eq!(look(&claim(json!(deleted.id))), unknown, "deleted");
    assert_eq!(look(&claim(json!(purged.id))), unknown, "purged");
    assert_eq!(look(&deleted.token), unknown, "our own token of a deleted tenant");
    assert_eq!(look(&format!("{}x", purged.token)), unknown, "a broken signature");
    assert_eq!(look("not.a.token"), unknown, "no token at all");
}

/// Alike in time too: what differs must drown in the noise of a request, or a token tells tenants apart.
#[test]
fn unknown_and_deleted_take_the_same_time() {
    let server = server_with_issuer();
    let deleted = server.tenant("deleted");
    server.admin().delete(&format!("/admin/v1/tenants/{}", deleted.id)).expect(200);
    let client = |id: Value| server.anyone().bearer(&claim(id));
    let clients = [client(json!("0195f000-0000-7000-8000-000000000000")), client(json!(deleted.id))];
    // In turns, so that whatever else the machine does meets both.
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..202 {
        let asked = Instant::now();
        clients[round % 2].post("/v1/sql", json!({ "script": "SELECT 1" })).refused(401, "unauthenticated");
        times[round % 2].push(asked.elapsed());
    }
    let [unknown, known] = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    println!("401 for an unknown tenant in {unknown:?}, for a deleted one in {known:?}");
    assert!(unknown.abs_diff(known) < unknown.max(known) / 2 + Duration::from_micros(500), "{unknown:?} and {known:?}");
}

#[test]
fn a_tenant_id_that_is_none_opens_no_file_anywhere() {
    let server = server_with_issuer();
    let real = server.tenant("real");
    real.script("CREATE TABLE t (x)");
    let before = server.files();
    let long = "a".repeat(300);
    let upper = real.id.to_uppercase();
    let hostile = [
        "../x",
        "..%2f",
        "..",
        "/",
        "/etc/passwd",
        "%00",
        "\u{0}",
        "a\u{0}b",
        &long,
        "file:x?mode=memory",
        ":memory:",
        "",
        " ",
        "system",
        "trash",
        "0195f000",
        "{0195f000-0000-7000-8000-000000000000}",
        "urn:uuid:0195f000-0000-7000-8000-000000000000",
        &real.id.replace('-', ""),
        &upper,
        &format!(" {}", real.id),
        &format!("{}\n", real.id),
        &format!("{}/../x", real.id),
        "٠١٩٥f000-0000-7000-8000-000000000000",
    ];
    for id in hostile {
        let token = claim(json!(id));
        for answer in [
            server.anyone().bearer(&token).post("/v1/sql", json!({ "script": "CREATE TABLE x (y)" })),
            server.anyone().bearer(&token).call("PUT", "/v1/cache/k").bytes("text/plain", "v").send(),
            server.anyone().bearer(&token).post("/v1/queues/q/jobs", json!({ "payload": 1 })),
        ] {
            assert!([400, 401].contains(&answer.status), "{id:?}: {} {}", answer.status, answer.text());
        }
        // And where a path names it.
        for path in ["", "/tokens", "/purge"] {
            let path = format!("/admin/v1/tenants/{}{path}", segment(id));
            let answer = server.admin().call("GET", &path).send();
            assert!([200, 400, 404, 405].contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
            assert!(answer.status != 200 || id.is_empty() || id == upper, "{path}: {}", answer.text());
        }
    }
    for id in [json!(null), json!([real.id]), json!({ "id": real.id }), json!(7), json!(true)] {
        let token = claim(id);
        server.anyone().bearer(&token).post("/v1/sql", json!({ "script": "SELECT 1" })).refused(401, "unauthenticated");
    }
    let after: Vec<_> = server.files().into_iter().filter(|file| !before.contains(file)).collect();
    assert!(after.is_empty(), "files appeared: {after:?}");
}

#[test]
fn a_symbolic_link_in_a_files_place_is_refused() {
    let mut server = Server::start();
    let (victim, thief, folder) = (server.tenant("victim"), server.tenant("thief"), server.tenant("folder"));
    victim.script("CREATE TABLE secret (x); INSERT INTO secret VALUES ('seen');");
    server.stop();
    let link = server.file(&thief.id, "database");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(server.file(&victim.id, "database"), &link).unwrap();
    // A whole folder that is a link.
    std::fs::rename(server.folder(&folder.id), server.dir().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(server.dir().join("elsewhere"), server.folder(&folder.id)).unwrap();
    server.start_again();
    thief.sql("SELECT x FROM secret", json!([])).refused(503, "tenant_unavailable");
    folder.sql("SELECT 1", json!([])).refused(503, "tenant_unavailable");
    assert_eq!(victim.rows("SELECT x FROM secret", json!([])), json!([["seen"]]));
}

#[test]
fn tenant_sql_cannot_leave_its_file() {
    let server = Server::shared();
    let tenant = server.tenant("caged");
    tenant.script("CREATE TABLE t (x)");
    let before = server.files().len();
    for sql in [
        "ATTACH DATABASE 'other.sqlite' AS other",
        "ATTACH ':memory:' AS m",
        "DETACH DATABASE main",
        "VACUUM INTO 'copy.sqlite'",
        "SELECT load_extension('x')",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = 1",
        "PRAGMA synchronous = OFF",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA max_page_count = 1000000000",
        "UPDATE sqlite_schema SET sql = ''",
        "DELETE FROM _tenantry_migrations",
        "INSERT INTO _tenantry_idempotency VALUES ('a', 'b', 'c', 'd', 1)",
        "DROP TABLE _tenantry_idempotency",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('x', 'y')",
    ] {
        let answer = tenant.sql(sql, json!([]));
        assert!([400, 403].contains(&answer.status), "{sql}: {} {}", answer.status, answer.text());
        let script = tenant.post("/v1/sql", json!({ "script": format!("SELECT 1; {sql};") }));
        assert!([400, 403].contains(&script.status), "{sql} in a script: {} {}", script.status, script.text());
    }
    tenant.sql("ATTACH ':memory:' AS m", json!([])).refused(403, "sql_denied");
    assert_eq!(server.files().iter().filter(|file| file.contains("other") || file.contains("copy")).count(), 0, "of {before}");
    assert_eq!(tenant.rows("PRAGMA table_info(t)", json!([]))[0][1], "x", "harmless pragmas work");
}

#[test]
fn a_corrupt_file_is_its_tenants_trouble_alone() {
    let mut server = Server::start();
    let (broken, missing, fine) = (server.tenant("broken"), server.tenant("missing"), server.tenant("fine"));
    for tenant in [&broken, &missing, &fine] {
        tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (1);");
    }
    server.stop();
    std::fs::write(server.file(&broken.id, "database"), vec![0x42; 64 << 10]).unwrap();
    std::fs::remove_file(server.file(&missing.id, "database")).unwrap();
    server.start_again();
    for _ in 0..3 {
        broken.sql("SELECT x FROM t", json!([])).refused(503, "tenant_unavailable");
        missing.sql("SELECT x FROM t", json!([])).refused(503, "tenant_unavailable");
        assert_eq!(fine.rows("SELECT x FROM t", json!([])), json!([[1]]));
    }
    assert!(!server.file(&missing.id, "database").exists(), "a missing file is not made anew: that would be losing it quietly");
    server.anyone().get("/readyz").expect(200);
}

#[test]
fn a_flood_of_slow_statements_leaves_the_neighbour_served() {
    let mut server = Server::with(|c| {
        // Whoever had to wait for one of them to end would wait for longer than a client does.
        c.set("plans.default.statement_ms", 3_600_000);
    });
    let (noisy, quiet) = (server.tenant("noisy"), server.tenant("quiet"));
    quiet.script("CREATE TABLE t (x); INSERT INTO t VALUES (1);");
    let bomb =
        json!({ "statements": [{ "sql": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c" }] });
    let scan = "SELECT count(*) FROM t, (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 20000) SELECT x FROM c)";
    std::thread::scope(|scope| {
        let ended: Vec<_> =
            (0..40).map(|_| scope.spawn(|| noisy.call("POST", "/v1/sql").json(&bomb).try_send().map(|answer| answer.status))).collect();
        server.until_at_work();
        for _ in 0..20 {
            // A brief read, one that needs a lane, and a write.
            assert_eq!(quiet.rows("SELECT x FROM t", json!([])), json!([[1]]));
            assert_eq!(quiet.rows(scan, json!([])), json!([[20_000]]));
            quiet.sql("UPDATE t SET x = x", json!([])).expect(200);
        }
        server.kill9();
        for status in ended.into_iter().filter_map(|bomb| bomb.join().unwrap().ok()) {
            assert!([429, 503].contains(&status), "{status}: refused, or at work to the end");
        }
    });
}

#[test]
fn a_statement_that_hoards_memory_is_stopped() {
    let server = Server::with(|c| {
        c.set("sqlite.heap_max_bytes", 256 << 20);
    });
    let (greedy, quiet) = (server.tenant("greedy"), server.tenant("quiet"));
    // Each would take 3 GB: to tell rows apart, to sort them.
    let hoards = [
        "WITH RECURSIVE c(x, b) AS (SELECT 1, zeroblob(5000000) UNION SELECT x + 1, zeroblob(5000000) FROM c LIMIT 600) SELECT count(*) FROM c",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 600)
            SELECT count(*) FROM (SELECT x, zeroblob(5000000 + x) AS b FROM c ORDER BY b DESC LIMIT -1 OFFSET 5) WHERE length(b) > 0",
    ];
    let most = std::thread::scope(|scope| {
        let threads: Vec<_> = hoards
            .iter()
            .map(|&sql| {
                let greedy = &greedy;
                scope.spawn(move || {
                    let answer = greedy.sql(sql, json!([]));
                    assert!([400, 422, 503].contains(&answer.status), "{}: {}", answer.status, answer.text());
                })
            })
            .collect();
        let mut most = 0;
        while !threads.iter().all(|thread| thread.is_finished()) {
            assert_eq!(quiet.rows("SELECT 1", json!([])), json!([[1]]));
            most = most.max(memory(&server, "VmRSS") >> 20);
        }
        most
    });
    println!("two statements that hoard: at most {most} MB");
    assert!(most < 1_000, "{most} MB");
}

#[test]
fn what_large_answers_took_is_given_back() {
    let server = Server::start();
    let tenants: Vec<_> = (0..4).map(|n| server.tenant(&format!("large-{n}"))).collect();
    let large = |at: usize| assert_eq!(tenants[at].sql("SELECT hex(zeroblob(4000000))", json!([])).status, 200);
    large(0);
    let before = memory(&server, "VmRSS") >> 20;
    for _ in 0..4 {
        std::thread::scope(|scope| {
            (0..16).for_each(|at| {
                drop(scope.spawn({
                    let large = &large;
                    move || large(at % 4)
                }))
            });
        });
    }
    eventually("given back", || (memory(&server, "VmRSS") >> 20 < before + 60).then_some(()));
}

/// A connection of one who asks and reads nothing: the kernel takes little of the answer for him.
fn deaf(server: &Server, tenant: &TenantClient, method: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = server.connect();
    // SAFETY: an open socket, and a setting of the size that is said.
    unsafe {
        let bytes: libc::c_int = 16 << 10;
        let size = size_of_val(&bytes) as libc::socklen_t;
        assert_eq!(libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, (&raw const bytes).cast(), size), 0);
    }
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        tenant.token,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn answers_that_are_made_or_that_nobody_reads_are_bounded() {
    const BOUND: u64 = 32 << 20;
    let server = Server::with(|c| {
        c.set("http.unread_bytes", BOUND);
    });
    let (tenants, quiet): (Vec<_>, _) = ((0..8).map(|_| server.tenant("deaf")).collect(), server.tenant("quiet"));
    for tenant in &tenants {
        tenant.script("CREATE TABLE texts (id INTEGER PRIMARY KEY, t TEXT); INSERT INTO texts (t) VALUES (hex(zeroblob(3000000)))");
    }
    quiet.script("CREATE TABLE done (t TEXT)");
    // By every way that rows go out. (Hrana tells a refusal inside of what it answers.)
    let sql = json!({ "statements": [{ "sql": "SELECT t FROM texts" }] }).to_string();
    let hrana = json!({ "requests": [{ "type": "execute", "stmt": { "sql": "SELECT t FROM texts" } }] }).to_string();
    let ways = [("POST", "/v1/sql", &*sql), ("GET", "/rest/v1/texts", ""), ("POST", "/v3/pipeline", &*hrana)];
    let asked = (0..24).map(|at| {
        let (method, path, body) = ways[at % 3];
        deaf(&server, &tenants[at / 3], method, path, body)
    });
    let mut waiting: Vec<_> = asked.collect();
    let (mut unread, mut refused) = (Vec::new(), 0);
    eventually("each is answered or refused, within the bound", || {
        let bytes = server.metric("tenantry_answer_bytes");
        assert!(bytes <= BOUND, "{bytes}");
        for mut stream in std::mem::take(&mut waiting) {
            let mut first = [0; 1_000];
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            match stream.read(&mut first) {
                Err(_) => waiting.push(stream),
                Ok(read) => {
                    let head = String::from_utf8_lossy(&first[..read]);
                    match head.get(9..12) {
                        Some("200") => unread.push(stream),
                        Some("429" | "503") if head.contains("retry-after: 1") && head.contains("http.unread_bytes") => refused += 1,
                        _ => panic!("{head}"),
                    }
                }
            }
        }
        waiting.is_empty().then_some(())
    });
    let bytes = server.metric("tenantry_answer_bytes");
    println!("{refused} of 24 refused; {bytes} of {BOUND} bytes wait to be read");
    // Four of those of 6 MB find room.
    assert!(refused > 0 && (BOUND / 2..=BOUND).contains(&bytes), "{refused}, {bytes}");
    assert_eq!(quiet.rows("SELECT 1", json!([])), json!([[1]]), "what is small needs no room");
    quiet.sql("SELECT hex(zeroblob(4000000))", json!([])).refused(503, "overloaded");
    // What nobody will read is in nobody's way.
    quiet.post("/v1/queues/q/jobs", json!({ "payload": 1 })).succeeds();
    let job = quiet.post("/v1/queues/q/claim", json!({ "max": 1 })).expect(200).json()["jobs"][0].clone();
    let done = json!([{ "sql": "INSERT INTO done VALUES (hex(zeroblob(4000000))) RETURNING t" }]);
    let ack = format!("/v1/jobs/{}/ack", job["id"].as_str().unwrap());
    quiet.post(&ack, json!({ "lease_token": job["lease_token"], "statements": done })).expect(200);
    drop(unread);
    eventually("all is given back", || (server.metric("tenantry_answer_bytes") == 0).then_some(()));
    quiet.sql("SELECT hex(zeroblob(8000000))", json!([])).expect(200);
}
