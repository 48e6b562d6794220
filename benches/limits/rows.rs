//! The table's rows: what is measured, against what. A measurement is one round's, both sides; which one comes first
//! alternates.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tenantry::cli::load::wire;

use crate::client::{Line, runtime};
use crate::dialect;
use crate::engines;
use crate::local::{self, ROWS as TABLE_ROWS, Which, cores};
use crate::results::Measured;
use crate::served::Answers;
use crate::site::{Site, Tenantry};

pub struct RowDef {
    pub name: &'static str,
    pub measure: fn(&mut Site, usize) -> Vec<Measured>,
}

pub const ROWS: &[RowDef] = &[
    RowDef { name: "read-one", measure: read_one },
    RowDef { name: "read-many", measure: read_many },
    RowDef { name: "page", measure: page },
    RowDef { name: "rest-read", measure: dialect::read },
    RowDef { name: "rest-page", measure: dialect::page },
    RowDef { name: "rest-embed", measure: dialect::embed },
    RowDef { name: "rest-insert", measure: dialect::insert },
    RowDef { name: "insert-one", measure: insert_one },
    RowDef { name: "insert-many", measure: insert_many },
    RowDef { name: "insert-many-normal", measure: insert_many_normal },
    RowDef { name: "cache-get", measure: engines::cache_get },
    RowDef { name: "cache-get-file", measure: engines::cache_get_file },
    RowDef { name: "cache-miss", measure: engines::cache_miss },
    RowDef { name: "cache-set", measure: engines::cache_set },
    RowDef { name: "cache-increment", measure: engines::cache_increment },
    RowDef { name: "enqueue", measure: engines::enqueue },
    RowDef { name: "enqueue-many", measure: engines::enqueue_many },
    RowDef { name: "claim-ack", measure: engines::claim_ack },
    RowDef { name: "claim-ack-many", measure: engines::claim_ack_many },
    RowDef { name: "mixed-many", measure: engines::mixed_many },
    RowDef { name: "cold", measure: cold },
    RowDef { name: "provision", measure: provision },
];

pub const SQL: &str = "/v1/sql";
pub const INSERT: &[u8] = br#"{"statements":[{"sql":"INSERT INTO w (v) VALUES (?1)","params":["the quick brown fox"]}]}"#;

/// Tenants made in one round of `provision`.
const PROVISIONED: usize = 100;

/// What Tenantry answers to one request of each kind, for the bare server, by path.
pub fn canned(tenantry: &Tenantry) -> Answers {
    let caller = &tenantry.tenants[0].caller;
    let post = |body: &[u8]| tenantry.sample(200, "application/json", |request| wire::post(request, caller, SQL, body));
    [("read", post(&read_body(7))), ("page", post(&page_body(7))), ("insert", post(INSERT))]
        .map(|(name, canned)| (name.to_owned(), canned))
        .into_iter()
        .chain(dialect::canned(tenantry))
        .chain(engines::canned(tenantry))
        .collect()
}

/// One kind of request by SQL, sent over and over.
struct Call {
    /// The path on the bare server that answers the same.
    bare: &'static str,
    /// How many tenants it goes to in turn.
    tenants: usize,
    body: Body,
}

enum Body {
    Same(&'static [u8]),
    /// In turn.
    Each(Vec<Vec<u8>>),
}

impl Call {
    fn insert(tenants: usize) -> Call {
        Call { bare: "/insert", tenants, body: Body::Same(INSERT) }
    }

    fn read(tenants: usize) -> Call {
        Call { bare: "/read", tenants, body: Body::Each((0..TABLE_ROWS).map(read_body).collect()) }
    }

    /// Requests a second that one side answers.
    fn rate(&self, site: &Site, tenantry: &Tenantry, side: Side) -> f64 {
        let (target, path) = match side {
            Side::Tenantry => (tenantry.target(), SQL),
            Side::Limit => (&site.bare.target, self.bare),
        };
        site.client.rate(target, async |line: &mut Line| {
            // Connections start far apart, so that they do not go from tenant to tenant together.
            let mut number = line.number * 7_919;
            while line.runs() {
                let caller = &tenantry.tenants[number % self.tenants].caller;
                match &self.body {
                    Body::Same(body) => wire::post(&mut line.request, caller, path, body),
                    Body::Each(bodies) => wire::post(&mut line.request, caller, path, &bodies[number % bodies.len()]),
                }
                line.ask(200, |_| ()).await;
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
    let alone = site.files.rate(site.client.slice, Which::One, cores(), local::read_point);
    vec![of("read-one", [ours, bare]), of("read-one / rusqlite", [ours, alone])]
}

fn read_many(site: &mut Site, round: usize) -> Vec<Measured> {
    touch_all(site, &site.tenantry);
    let [ours, bare] = Call::read(site.tenantry.tenants.len()).against_bare(site, &site.tenantry, round);
    let alone = site.files.rate(site.client.slice, Which::All, cores(), local::read_point);
    vec![of("read-many", [ours, bare]), of("read-many / floor", [ours, together(bare, alone)])]
}

fn page(site: &mut Site, round: usize) -> Vec<Measured> {
    let bodies = (0..TABLE_ROWS - 20).map(page_body).collect();
    let call = Call { bare: "/page", tenants: 1, body: Body::Each(bodies) };
    let [ours, bare] = call.against_bare(site, &site.tenantry, round);
    let alone = site.files.rate(site.client.slice, Which::One, cores(), local::read_page);
    vec![of("page", [ours, bare]), of("page / rusqlite", [ours, alone])]
}

fn insert_one(site: &mut Site, round: usize) -> Vec<Measured> {
    let [ours, bare] = Call::insert(1).against_bare(site, &site.tenantry, round);
    let alone = site.files.rate(site.client.slice, Which::One, 1, local::insert);
    vec![of("insert-one", [ours, bare]), of("insert-one / fsync each", [ours, alone])]
}

fn insert_many(site: &mut Site, round: usize) -> Vec<Measured> {
    touch_all(site, &site.tenantry);
    let call = Call::insert(site.tenantry.tenants.len());
    let rates = both(round, |side| match side {
        Side::Tenantry => call.rate(site, &site.tenantry, side),
        Side::Limit => site.files.rate(site.client.slice, Which::All, cores(), local::insert),
    });
    vec![of("insert-many / rusqlite", rates)]
}

fn insert_many_normal(site: &mut Site, round: usize) -> Vec<Measured> {
    let normal = site.normal.as_ref().expect("it runs where this row is wanted");
    touch_all(site, normal);
    let [ours, bare] = Call::insert(normal.tenants.len()).against_bare(site, normal, round);
    let alone = site.files.at("NORMAL").rate(site.client.slice, Which::All, cores(), local::insert);
    vec![of("insert-many-normal", [ours, bare]), of("insert-many-normal / floor", [ours, together(bare, alone)])]
}

/// What a server would reach that takes the bare handler's time for a request, and rusqlite's for its statement, and none of its own.
pub fn together(bare: f64, alone: f64) -> f64 {
    1.0 / (1.0 / bare + 1.0 / alone)
}

/// The first request to each tenant after a start, one after the other, against opening its file and the same statement.
fn cold(site: &mut Site, _round: usize) -> Vec<Measured> {
    site.tenantry.stop();
    // They stay open meanwhile: closing removes two files each, and a file system that looks past those removed lately
    // makes the next ones more slowly.
    let (mut alone, _open): (Vec<_>, Vec<_>) = site.files.opened().into_iter().unzip();
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
fn touch_all(site: &Site, tenantry: &Tenantry) {
    site.client.each(tenantry.target(), tenantry.tenants.len(), async |line: &mut Line, at| {
        wire::post(&mut line.request, &tenantry.tenants[at].caller, SQL, &read_body(7));
        line.ask(200, |_| ()).await;
    });
}

pub fn read_body(number: usize) -> Vec<u8> {
    let row = 1 + number % TABLE_ROWS;
    format!(r#"{{"statements":[{{"sql":"SELECT v FROM t WHERE id = ?1","params":[{row}]}}]}}"#).into_bytes()
}

pub fn page_body(after: usize) -> Vec<u8> {
    format!(r#"{{"statements":[{{"sql":"SELECT id, v FROM t WHERE id > ?1 ORDER BY id LIMIT 20","params":[{after}]}}]}}"#).into_bytes()
}
