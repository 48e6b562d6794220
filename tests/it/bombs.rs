//! Bombs: requests made to take all there is. Each ends within its tenant's limits, with a clear code; the server
//! lives on and its memory stays below a bound; a neighbour that reads and writes all the while is answered every
//! time. How long it waited, beside how long it waits when all is quiet, is printed.

mod wire;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::*;

/// What the server may take while a bomb goes off, over what it had before.
const MEMORY: u64 = 700 << 20;

/// A tenant that goes about its work.
struct Neighbour {
    tenant: TenantClient,
    quiet: Duration,
}

impl Neighbour {
    fn of(server: &Server) -> Neighbour {
        let tenant = server.tenant("neighbour");
        tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, y); INSERT INTO t VALUES (1, 'one'), (2, 'two');");
        let mut neighbour = Neighbour { tenant, quiet: Duration::ZERO };
        let until = Instant::now() + Duration::from_millis(500);
        neighbour.quiet = neighbour.works(|| Instant::now() < until).0;
        neighbour
    }

    /// Reads and writes as long as `go_on` says; the 99th percentile of its waits, and their number. Each is answered.
    fn works(&self, go_on: impl Fn() -> bool) -> (Duration, usize) {
        let mut waits = Vec::new();
        while go_on() || waits.len() < 20 {
            let asked = Instant::now();
            assert_eq!(self.tenant.rows("SELECT x, y FROM t ORDER BY x", json!([])), json!([[1, "one"], [2, "two"]]));
            waits.push(asked.elapsed());
            let asked = Instant::now();
            self.tenant.sql("UPDATE t SET y = y WHERE x = 1", json!([])).expect(200);
            waits.push(asked.elapsed());
        }
        waits.sort();
        (waits[waits.len() * 99 / 100], waits.len())
    }

    /// Sets the bomb off while the neighbour works; what the bomb came to.
    fn beside<T: Send>(&self, name: &str, server: &Server, bomb: impl FnOnce() -> T + Send) -> T {
        // The most memory so far begins anew.
        std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
        let before = memory(server, "VmRSS");
        let over = AtomicBool::new(false);
        let began = Instant::now();
        let (outcome, took, (wait, waits)) = std::thread::scope(|scope| {
            let bomb = scope.spawn(|| {
                // However it ends, the neighbour stops.
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(bomb));
                over.store(true, Relaxed);
                (outcome, began.elapsed())
            });
            let waited = self.works(|| !over.load(Relaxed));
            let (outcome, took) = bomb.join().unwrap();
            (outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), took, waited)
        });
        let most = memory(server, "VmHWM").saturating_sub(before);
        println!(
            "{name}: over in {:.1} s; the neighbour's p99 {:.1} ms of {waits}, {:.1} × quiet; at most {} MB more",
            took.as_secs_f64(),
            wait.as_secs_f64() * 1e3,
            wait.as_secs_f64() / self.quiet.as_secs_f64(),
            most >> 20
        );
        assert!(most < MEMORY, "{name}: {} MB", most >> 20);
        outcome
    }
}

const ENDLESS: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";

/// Name, statement, what may come of it. `…` stands for something long.
fn bombs() -> Vec<(&'static str, String, &'static [&'static str])> {
    let stopped: &[&str] = &["statement_timeout"];
    let refused: &[&str] = &["sql_error", "statement_timeout"];
    let bounded: &[&str] = &["statement_timeout", "sql_error"];
    let soon: &[&str] = &["200", "statement_timeout"];
    let zeros = "0".repeat(120);
    vec![
        ("an endless recursive CTE", format!("{ENDLESS} SELECT count(*) FROM c"), stopped),
        ("an endless insert", format!("INSERT INTO t (y) {ENDLESS} SELECT x FROM c"), &["statement_timeout", "quota_exceeded"]),
        ("an endless join", "SELECT count(*) FROM n a, n b, n c, n d WHERE a.x + b.x + c.x + d.x = 0".to_owned(), stopped),
        ("hex(randomblob(4e8))", "SELECT hex(randomblob(4e8))".to_owned(), refused),
        ("printf('%.*c', 1e9, 'x')", "SELECT printf('%.*c', 1000000000, 'x')".to_owned(), refused),
        ("zeroblob(2e9)", "SELECT zeroblob(2000000000)".to_owned(), refused),
        ("replace that grows", "SELECT length(replace(hex(zeroblob(8e6)), '0', hex(zeroblob(4000))))".to_owned(), refused),
        ("LIKE over a long haystack", "SELECT hex(zeroblob(8000000)) LIKE '%0%0%0%0%0%0%0%0%0%0%0%0%1'".to_owned(), soon),
        ("LIKE with gaps over a long haystack", "SELECT hex(zeroblob(4000000)) LIKE '%0_0%0_0%0_0%0_0%0_0_1_'".to_owned(), soon),
        ("LIKE with a long needle", format!("SELECT hex(zeroblob(1000000)) LIKE '%{zeros}1'"), soon),
        ("GLOB with a long needle", format!("SELECT hex(zeroblob(1000000)) GLOB '*{zeros}1'"), soon),
        ("GLOB over a long haystack", "SELECT hex(zeroblob(4000000)) GLOB '*0*0*0*0*0*0*0*0*[^0]'".to_owned(), soon),
        ("instr over a long haystack", "SELECT instr(hex(zeroblob(8000000)), hex(zeroblob(4000000)) || '1')".to_owned(), soon),
        (
            "a sort of gigabytes",
            "SELECT a.x, zeroblob(2000 + a.x) AS b FROM n a, n b, n c ORDER BY b DESC, a.x LIMIT -1 OFFSET 9".to_owned(),
            bounded,
        ),
        (
            "a DISTINCT of gigabytes",
            format!("SELECT count(*) FROM (SELECT DISTINCT randomblob(100000) FROM ({ENDLESS} SELECT x FROM c))"),
            bounded,
        ),
        (
            "a group of gigabytes",
            format!("SELECT length(group_concat(hex(randomblob(100000)))) FROM ({ENDLESS} SELECT x FROM c)"),
            &["sql_error", "statement_timeout"],
        ),
        ("a JSON that grows", format!("SELECT length(json_group_array(hex(zeroblob(100000)))) FROM ({ENDLESS} SELECT x FROM c)"), bounded),
        (
            "an index of gigabytes",
            "CREATE INDEX i ON n (hex(zeroblob(100000 + x)))".to_owned(),
            &["statement_timeout", "quota_exceeded", "sql_error"],
        ),
        (
            "a materialized CTE",
            format!("WITH m AS MATERIALIZED ({ENDLESS} SELECT x, zeroblob(10000) AS b FROM c) SELECT count(*) FROM m a, m b"),
            bounded,
        ),
        (
            "a window over all",
            format!("SELECT max(length(b)) FROM (SELECT group_concat(x) OVER (ORDER BY x) AS b FROM ({ENDLESS} SELECT x FROM c))"),
            bounded,
        ),
        ("a million rows", format!("{ENDLESS} SELECT x FROM c LIMIT 1000000"), &["result_too_large", "statement_timeout"]),
        ("rows without end", format!("{ENDLESS} SELECT hex(zeroblob(100000)) FROM c"), &["result_too_large", "statement_timeout"]),
        ("1,000 nested parentheses", format!("SELECT {}1{}", "(".repeat(1_000), ")".repeat(1_000)), &["200", "sql_error"]),
        ("1 MB of additions", format!("SELECT 1{}", " + 1".repeat(250_000)), refused),
        ("1 MB of NOT", format!("SELECT {}1", "NOT ".repeat(250_000)), refused),
        ("1 MB of UNION", format!("SELECT 1{}", " UNION SELECT 1".repeat(66_000)), refused),
        ("1 MB of joins", format!("SELECT 1 FROM n{}", ", n".repeat(330_000)), refused),
        ("1 MB of columns", format!("SELECT 1{}", ", 1".repeat(330_000)), refused),
    ]
}

#[test]
fn a_bomb_of_a_statement_ends_within_its_limits_beside_a_neighbour() {
    let server = Server::with(|c| {
        c.set("plans.short.statement_ms", 700).set("plans.short.database_bytes", 64 << 20);
        // Four at once, and their answers.
        c.set("sqlite.statement_memory_bytes", 100 << 20);
    });
    let neighbour = Neighbour::of(&server);
    let tenant = server.tenant_on("short", "bomb");
    tenant.script(&format!(
        "CREATE TABLE t (y); CREATE TABLE n (x INTEGER PRIMARY KEY); INSERT INTO n {ENDLESS} SELECT x FROM c LIMIT 2000;"
    ));
    let mut wrong = Vec::new();
    for (name, sql, codes) in bombs() {
        let began = Instant::now();
        // Four at once, so that they would add up.
        let answers = neighbour.beside(name, &server, || at_once(4, |_| tenant.sql(&sql, json!([]))));
        for answer in answers {
            let code = if answer.status == 200 { "200".to_owned() } else { answer.json()["code"].as_str().unwrap().to_owned() };
            if !codes.contains(&code.as_str()) {
                wrong.push(format!("{name}: {}", answer.text().chars().take(300).collect::<String>()));
            }
        }
        if began.elapsed() > SOON {
            wrong.push(format!("{name}: over after {:?}", began.elapsed()));
        }
        assert_eq!(tenant.rows("SELECT count(*) FROM n", json!([])), json!([[2000]]), "after {name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// Together they would take all the memory that SQLite may have, and a neighbour would be refused his; each has a
/// bound of its own far below.
#[test]
fn statements_that_hoard_memory_fail_and_their_neighbour_does_not() {
    let server = Server::with(|c| {
        c.set("sqlite.heap_max_bytes", 300 << 20).set("sqlite.statement_memory_bytes", 48 << 20);
        c.set("plans.short.statement_ms", 2_000).set("plans.long.statement_ms", 110_000);
    });
    let neighbour = Neighbour::of(&server);
    let [short, long] = ["short", "long"].map(|plan| server.tenant_on(plan, "greedy"));
    let endless = format!("({ENDLESS} SELECT x FROM c)");
    // What takes long to gather much may be stopped for its time before; of what is large, a few rows are too many.
    for (name, tenant, sql) in [
        ("DISTINCT of much that is small", &short, format!("SELECT count(*) FROM (SELECT DISTINCT x || 'some more text' FROM {endless})")),
        (
            "a CTE kept of much that is small",
            &short,
            format!("WITH m AS MATERIALIZED (SELECT x, hex(x) AS b FROM {endless}) SELECT count(*) FROM m a, m b"),
        ),
        ("JSON of what is large", &short, format!("SELECT length(json_group_array(hex(zeroblob(100000)))) FROM {endless}")),
        ("DISTINCT of what is large", &long, format!("SELECT count(*) FROM (SELECT DISTINCT randomblob(1000000) FROM {endless})")),
        ("a sort of what is large", &long, format!("SELECT x, zeroblob(100000 + x) AS b FROM {endless} ORDER BY b DESC, x")),
        ("a write of a sort", &long, format!("INSERT INTO t SELECT zeroblob(100000 + x) AS b FROM {endless} ORDER BY b DESC")),
    ] {
        tenant.script("CREATE TABLE IF NOT EXISTS t (y)");
        for answer in neighbour.beside(name, &server, || at_once(4, |_| tenant.sql(&sql, json!([])))) {
            match answer.json()["code"].as_str() {
                Some("sql_error") if answer.text().contains("sqlite.statement_memory_bytes") => {}
                Some("statement_timeout") if std::ptr::eq(tenant, &short) => {}
                _ => panic!("{name}: {}", answer.text()),
            }
        }
        assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[0]]), "{name}");
    }
}
