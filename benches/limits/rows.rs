//! The table's rows: what is measured, against what. A measurement is one round's, both sides; which one comes first
//! alternates.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::Value;
use tenantry::cli::load::wire::{self, Caller};

use crate::client::{Line, runtime};
use crate::local::{self, ROWS as TABLE_ROWS, cores};
use crate::results::Measured;
use crate::served::{Answers, Canned};
use crate::site::{Site, Tenantry};

pub struct RowDef {
    pub name: &'static str,
    pub measure: fn(&mut Site, usize) -> Vec<Measured>,
}

pub const ROWS: &[RowDef] = &[
    RowDef { name: "read-one", measure: read_one },
    RowDef { name: "read-many", measure: read_many },
    RowDef { name: "page", measure: page },
    RowDef { name: "cache-get", measure: cache_get },
    RowDef { name: "insert-one", measure: insert_one },
    RowDef { name: "insert-many", measure: insert_many },
    RowDef { name: "insert-many-normal", measure: insert_many_normal },
    RowDef { name: "enqueue", measure: enqueue },
    RowDef { name: "claim-ack", measure: claim_ack },
    RowDef { name: "cold", measure: cold },
    RowDef { name: "provision", measure: provision },
];

pub const SQL: &str = "/v1/sql";
pub const CACHE: &str = "/v1/cache/limits";
pub const JOBS: &str = "/v1/queues/limits/jobs";
pub const CLAIM: &str = "/v1/queues/limits/claim";

pub const TEN: &[u8] = br#"{"max":10,"lease_s":600}"#;
pub const INSERT: &[u8] = br#"{"statements":[{"sql":"INSERT INTO w (v) VALUES (?1)","params":["the quick brown fox"]}]}"#;
pub const JOB: &[u8] = br#"{"payload":{"to":"somebody@example.com","template":"welcome"}}"#;

/// What the cache holds: 528 bytes.
pub const VALUE: &str = concat!(
    "the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy ",
    "dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the la",
    "zy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the",
    " lazy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over ",
    "the lazy dog "
);

/// Tenants made in one round of `provision`.
const PROVISIONED: usize = 100;

/// What Tenantry answers to one request of each kind, for the bare server, by path.
pub fn canned(tenantry: &Tenantry) -> Answers {
    const JSON: &str = "application/json";
    let caller = &tenantry.tenants[0].caller;
    let post = |path: &str, body: &[u8]| tenantry.sample(JSON, |request| wire::post(request, caller, path, body));
    tenantry.sample(JSON, |request| wire::put(request, caller, CACHE, VALUE.as_bytes()));
    let enqueued: Vec<Canned> = (0..10).map(|_| post(JOBS, JOB)).collect();
    let claimed = post(CLAIM, TEN);
    let jobs: Value = serde_json::from_str(&claimed.body).expect("JSON");
    let (ack, lease) = ack_of(&jobs["jobs"][0]);
    [
        ("read", post(SQL, &read_body(7))),
        ("page", post(SQL, &page_body(7))),
        ("cached", tenantry.sample("text/plain", |request| wire::get(request, caller, CACHE))),
        ("insert", post(SQL, INSERT)),
        ("enqueue", enqueued[0].clone()),
        ("claim", claimed),
        ("ack", post(&ack, &lease)),
    ]
    .map(|(name, canned)| (name.to_owned(), canned))
    .into()
}

/// One kind of request, sent over and over.
struct Call {
    path: &'static str,
    /// The path on the bare server that answers the same.
    bare: &'static str,
    status: u16,
    /// How many tenants it goes to in turn.
    tenants: usize,
    body: Body,
}

enum Body {
    /// It is a `GET`.
    None,
    Same(&'static [u8]),
    /// In turn.
    Each(Vec<Vec<u8>>),
}

impl Call {
    fn insert(tenants: usize) -> Call {
        Call { path: SQL, bare: "/insert", status: 200, tenants, body: Body::Same(INSERT) }
    }

    fn enqueue() -> Call {
        Call { path: JOBS, bare: "/enqueue", status: 201, tenants: 1, body: Body::Same(JOB) }
    }

    fn read(tenants: usize) -> Call {
        Call { path: SQL, bare: "/read", status: 200, tenants, body: Body::Each((0..TABLE_ROWS).map(read_body).collect()) }
    }

    /// Requests a second that one side answers.
    fn rate(&self, site: &Site, tenantry: &Tenantry, side: Side) -> f64 {
        let (target, path) = match side {
            Side::Tenantry => (tenantry.target(), self.path),
            Side::Limit => (&site.bare.target, self.bare),
        };
        site.client.rate(target, async |line: &mut Line| {
            // Connections start far apart, so that they do not go from tenant to tenant together.
            let mut number = line.number * 7_919;
            while line.runs() {
                let caller = &tenantry.tenants[number % self.tenants].caller;
                match &self.body {
                    Body::None => wire::get(&mut line.request, caller, path),
                    Body::Same(body) => wire::post(&mut line.request, caller, path, body),
                    Body::Each(bodies) => wire::post(&mut line.request, caller, path, &bodies[number % bodies.len()]),
                }
                line.ask(self.status, |_| ()).await;
                number += 1;
            }
        })
    }

    /// Both servers' rates.
    fn against_bare(&self, site: &Site, tenantry: &Tenantry, round: usize) -> [f64; 2] {
        both(round, |side| self.rate(site, tenantry, side))
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Side {
    Tenantry,
    Limit,
}

/// Tenantry's figure and the limit's, measured in turns that alternate by round.
pub fn both(round: usize, mut measure: impl FnMut(Side) -> f64) -> [f64; 2] {
    if round.is_multiple_of(2) {
        let limit = measure(Side::Limit);
        [measure(Side::Tenantry), limit]
    } else {
        [measure(Side::Tenantry), measure(Side::Limit)]
    }
}

pub fn of(goal: &'static str, [ours, limit]: [f64; 2]) -> Measured {
    Measured { goal, ours, limit: Some(limit) }
}

fn read_one(site: &mut Site, round: usize) -> Vec<Measured> {
    let [ours, bare] = Call::read(1).against_bare(site, &site.tenantry, round);
    let alone = site.files.rate(site.client.slice, true, cores(), local::read_point);
    vec![of("read-one", [ours, bare]), of("read-one / rusqlite", [ours, alone])]
}

fn read_many(site: &mut Site, round: usize) -> Vec<Measured> {
    touch_all(&site.tenantry);
    vec![of("read-many", Call::read(site.tenantry.tenants.len()).against_bare(site, &site.tenantry, round))]
}

fn page(site: &mut Site, round: usize) -> Vec<Measured> {
    let bodies = (0..TABLE_ROWS - 20).map(page_body).collect();
    let call = Call { path: SQL, bare: "/page", status: 200, tenants: 1, body: Body::Each(bodies) };
    let [ours, bare] = call.against_bare(site, &site.tenantry, round);
    let alone = site.files.rate(site.client.slice, true, cores(), local::read_page);
    vec![of("page", [ours, bare]), of("page / rusqlite", [ours, alone])]
}

fn cache_get(site: &mut Site, round: usize) -> Vec<Measured> {
    let call = Call { path: CACHE, bare: "/cached", status: 200, tenants: 1, body: Body::None };
    vec![of("cache-get", call.against_bare(site, &site.tenantry, round))]
}

fn insert_one(site: &mut Site, round: usize) -> Vec<Measured> {
    let [ours, bare] = Call::insert(1).against_bare(site, &site.tenantry, round);
    let alone = site.files.rate(site.client.slice, true, 1, local::insert);
    vec![of("insert-one", [ours, bare]), of("insert-one / fsync each", [ours, alone])]
}

fn insert_many(site: &mut Site, round: usize) -> Vec<Measured> {
    touch_all(&site.tenantry);
    let call = Call::insert(site.tenantry.tenants.len());
    let rates = both(round, |side| match side {
        Side::Tenantry => call.rate(site, &site.tenantry, side),
        Side::Limit => site.files.rate(site.client.slice, false, cores(), local::insert),
    });
    vec![of("insert-many / rusqlite", rates)]
}

fn insert_many_normal(site: &mut Site, round: usize) -> Vec<Measured> {
    let normal = site.normal.as_ref().expect("it runs where this row is wanted");
    touch_all(normal);
    vec![of("insert-many-normal", Call::insert(normal.tenants.len()).against_bare(site, normal, round))]
}

fn enqueue(site: &mut Site, round: usize) -> Vec<Measured> {
    vec![of("enqueue", Call::enqueue().against_bare(site, &site.tenantry, round))]
}

/// Batches of ten: a claim, and an acknowledgement of each job.
fn claim_ack(site: &mut Site, round: usize) -> Vec<Measured> {
    // Acknowledging a job costs about what adding it does, so two slices of adding are enough for one of this.
    for _ in 0..2 {
        Call::enqueue().rate(site, &site.tenantry, Side::Tenantry);
    }
    let caller = &site.tenantry.tenants[0].caller;
    let rate = |side: Side| {
        let on_bare = side == Side::Limit;
        let (target, claim) = if on_bare { (&site.bare.target, "/claim") } else { (site.tenantry.target(), CLAIM) };
        site.client.rate(target, async |line: &mut Line| {
            while line.runs() {
                wire::post(&mut line.request, caller, claim, TEN);
                acknowledge(line, caller, on_bare.then_some("/ack")).await;
            }
        })
    };
    vec![of("claim-ack", both(round, rate))]
}

/// Sends the claim that is in the request, and acknowledges its jobs one by one, each at its own path unless one is given.
pub async fn acknowledge(line: &mut Line, caller: &Caller, path: Option<&str>) {
    let jobs: Value = line.ask(200, |body| serde_json::from_slice(body).expect("JSON")).await;
    let jobs = jobs["jobs"].as_array().expect("jobs");
    assert!(!jobs.is_empty(), "the queue ran dry");
    for job in jobs {
        let (own, body) = ack_of(job);
        wire::post(&mut line.request, caller, path.unwrap_or(&own), &body);
        line.ask(200, |_| ()).await;
    }
}

/// The first request to each tenant after a start, one after the other, against opening its file and the same statement.
fn cold(site: &mut Site, _round: usize) -> Vec<Measured> {
    site.tenantry.stop();
    let mut alone = local::cold_opens(site.tenantry.tenants.iter().map(|member| &member.database));
    site.tenantry.start();
    let (mut strangers, mut known) = runtime().block_on(async {
        let mut wire = wire::Wire::new(site.tenantry.target(), Duration::from_secs(30));
        let (mut request, mut took) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (at, member) in site.tenantry.tenants.iter().enumerate() {
            if at % 2 == 1 {
                // Refused for its body: the token is known then, and no file is open.
                wire::post(&mut request, &member.caller, SQL, b"{}");
                assert_eq!(wire.call(&request).await.expect("an answer").status, 400);
            }
            wire::post(&mut request, &member.caller, SQL, &read_body(7));
            let began = Instant::now();
            let answer = wire.call(&request).await.expect("an answer");
            took[at % 2].push(began.elapsed());
            assert_eq!(answer.status, 200);
        }
        took.into()
    });
    let at = |share: f64, took: &mut Vec<Duration>| {
        took.sort_unstable();
        took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3
    };
    vec![
        of("cold, median ms", [at(0.5, &mut known), at(0.5, &mut alone)]),
        of("cold, p99 ms", [at(0.99, &mut known), at(0.99, &mut alone)]),
        of("cold, and a new token, median ms", [at(0.5, &mut strangers), at(0.5, &mut alone)]),
    ]
}

/// Tenants a second.
fn provision(site: &mut Site, round: usize) -> Vec<Measured> {
    thread_local! { static NEXT: Cell<usize> = const { Cell::new(0) }; }
    let measure = |side| match side {
        Side::Tenantry => {
            let slugs: Vec<String> = (0..PROVISIONED).map(|_| format!("made-{}", NEXT.replace(NEXT.get() + 1))).collect();
            let began = Instant::now();
            assert_eq!(site.tenantry.provision(&slugs).len(), PROVISIONED);
            PROVISIONED as f64 / began.elapsed().as_secs_f64()
        }
        Side::Limit => local::copies(&site.scratch.path().join("copies"), PROVISIONED),
    };
    vec![of("provision", both(round, measure))]
}

/// Every tenant warm: its file open, its statement prepared, its token known.
fn touch_all(tenantry: &Tenantry) {
    runtime().block_on(async {
        let mut wire = wire::Wire::new(tenantry.target(), Duration::from_secs(30));
        let mut request = Vec::new();
        for member in &tenantry.tenants {
            wire::post(&mut request, &member.caller, SQL, &read_body(7));
            assert_eq!(wire.call(&request).await.expect("an answer").status, 200);
        }
    });
}

pub fn read_body(number: usize) -> Vec<u8> {
    let row = 1 + number % TABLE_ROWS;
    format!(r#"{{"statements":[{{"sql":"SELECT v FROM t WHERE id = ?1","params":[{row}]}}]}}"#).into_bytes()
}

fn page_body(after: usize) -> Vec<u8> {
    format!(r#"{{"statements":[{{"sql":"SELECT id, v FROM t WHERE id > ?1 ORDER BY id LIMIT 20","params":[{after}]}}]}}"#).into_bytes()
}

/// Path and body that acknowledge a claimed job.
fn ack_of(job: &Value) -> (String, Vec<u8>) {
    let text = |name: &str| job[name].as_str().expect("a member of a job");
    let body = format!(r#"{{"lease_token":"{}"}}"#, text("lease_token"));
    (format!("/v1/jobs/{}/ack", text("id")), body.into_bytes())
}
