//! The table's rows about the cache and the queue: the same requests to Tenantry and to the bare handler, and beside them what
//! they come to in SQL through rusqlite in this process.

use serde_json::{Value, json};
use tenantry::cli::load::wire::{self, Caller};

use crate::alone::{self, CLAIMED};
use crate::client::{Line, ask};
use crate::local::{Which, cores};
use crate::results::Measured;
use crate::rows::{Side, both, of};
use crate::served::Answers;
use crate::site::{Site, Tenantry};

pub const CACHE: &str = "/v1/cache/limits";
pub const JOBS: &str = "/v1/queues/limits/jobs";
pub const CLAIM: &str = "/v1/queues/limits/claim";

pub const TEN: &[u8] = br#"{"max":10,"lease_s":600}"#;
pub const JOB: &[u8] = br#"{"payload":{"to":"somebody@example.com","template":"welcome"}}"#;

/// What the cache holds: 528 bytes.
pub const VALUE: &str = concat!(
    "the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy ",
    "dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the la",
    "zy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the",
    " lazy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog the quick brown fox jumps over ",
    "the lazy dog "
);

const NUMBER: &str = "/v1/cache/number";
const TWO: &[u8] = br#"{"max":2,"lease_s":600}"#;

/// Jobs that wait before a second of claiming is measured, over all tenants: several times what is claimed in it.
const WAITING_A_SECOND: f64 = 60_000.0;

/// And of each tenant at least.
const WAITING_LEAST: usize = 100;

/// Jobs in one request that adds some.
const BATCH: usize = 500;

/// One kind of request.
struct Ask {
    method: &'static str,
    path: &'static str,
    /// The path on the bare server that answers the same.
    bare: &'static str,
    body: &'static [u8],
    status: u16,
    is_right: fn(&[u8]) -> bool,
}

const GET: Ask = Ask { method: "GET", path: CACHE, bare: "/cached", body: b"", status: 200, is_right: |body| body == VALUE.as_bytes() };
const MISS: Ask = Ask {
    method: "GET",
    path: "/v1/cache/nothing",
    bare: "/miss",
    body: b"",
    status: 404,
    is_right: |body| body.starts_with(b"{\"code\":\"not_found\""),
};
const SET: Ask = Ask { method: "PUT", path: CACHE, bare: "/set", body: VALUE.as_bytes(), status: 204, is_right: <[u8]>::is_empty };
const INCREMENT: Ask = Ask {
    method: "POST",
    path: "/v1/cache/number/increment",
    bare: "/increment",
    body: b"{}",
    status: 200,
    is_right: |body| body.starts_with(b"{\"value\":"),
};
const ENQUEUE: Ask =
    Ask { method: "POST", path: JOBS, bare: "/enqueue", body: JOB, status: 201, is_right: |body| body.starts_with(b"{\"id\":") };

impl Ask {
    fn build(&self, request: &mut Vec<u8>, caller: &Caller, path: &str) {
        match self.method {
            "GET" => wire::get(request, caller, path),
            "PUT" => wire::put(request, caller, path, self.body),
            _ => wire::post(request, caller, path, self.body),
        }
    }

    async fn send(&self, line: &mut Line, caller: &Caller, side: Side) {
        self.build(&mut line.request, caller, if side == Side::Limit { self.bare } else { self.path });
        let is_right = line.ask(self.status, self.is_right).await;
        assert!(is_right, "{} {} was answered wrongly", self.method, self.path);
    }

    /// Requests a second by Tenantry's first `tenants` in turn, and by the bare handler.
    fn against_bare(&self, site: &Site, tenantry: &Tenantry, tenants: usize, round: usize) -> [f64; 2] {
        in_turn(site, tenantry, tenants, round, async |line, caller, side| self.send(line, caller, side).await)
    }
}

/// Requests a second by Tenantry and by the bare handler, each connection doing `work` on the first `tenants` in turn.
fn in_turn(
    site: &Site,
    tenantry: &Tenantry,
    tenants: usize,
    round: usize,
    work: impl AsyncFn(&mut Line, &Caller, Side) + Sync,
) -> [f64; 2] {
    both(round, |side| {
        let target = if side == Side::Limit { &site.bare.target } else { tenantry.target() };
        site.client.rate(target, async |line: &mut Line| {
            // Connections start far apart, so that they do not go from tenant to tenant together.
            let mut number = line.number * 7_919;
            while line.runs() {
                work(line, &tenantry.tenants[number % tenants].caller, side).await;
                number += 1;
            }
        })
    })
}

/// What Tenantry answers to one request of each kind, for the bare server, by path.
pub fn canned(tenantry: &Tenantry) -> Answers {
    const JSON: &str = "application/json";
    let caller = &tenantry.tenants[0].caller;
    let post = |path: &str, body: &[u8]| tenantry.sample(200, JSON, |request| wire::post(request, caller, path, body));
    let sample = |asked: &Ask| {
        let content_type = if asked.method == "POST" || asked.status >= 400 { JSON } else { "text/plain" };
        (asked.bare[1..].to_owned(), tenantry.sample(asked.status, content_type, |request| asked.build(request, caller, asked.path)))
    };
    let mut answers: Answers = [&SET, &GET, &MISS, &INCREMENT].map(sample).into();
    answers.extend((0..12).map(|_| sample(&ENQUEUE)));
    let (claimed, two) = (post(CLAIM, TEN), post(CLAIM, TWO));
    let jobs: Value = serde_json::from_str(&claimed.body).expect("JSON");
    let (ack, lease) = ack_of(&jobs["jobs"][0]);
    answers.extend([("claim", claimed), ("claim-two", two), ("ack", post(&ack, &lease))].map(|(name, canned)| (name.to_owned(), canned)));
    answers
}

pub fn cache_get(site: &mut Site, round: usize) -> Vec<Measured> {
    vec![of("cache-get", GET.against_bare(site, &site.tenantry, 1, round))]
}

/// On a Tenantry without memory in front of its files.
pub fn cache_get_file(site: &mut Site, round: usize) -> Vec<Measured> {
    let forgetful = site.forgetful.as_ref().expect("it runs where this row is wanted");
    forgetful.sample(SET.status, "text/plain", |request| SET.build(request, &forgetful.tenants[0].caller, CACHE));
    let [ours, bare] = GET.against_bare(site, forgetful, 1, round);
    let stats = get_json(forgetful, &forgetful.tenants[0].caller, "/v1/cache");
    assert!(stats["file_hits"].as_u64() > Some(0) && stats["memory_hits"] == 0, "every hit came from the file: {stats}");
    let alone = site.caches.rate(site.client.slice, Which::One, cores(), alone::get);
    vec![of("cache-get-file", [ours, bare]), of("cache-get-file / rusqlite", [ours, alone])]
}

pub fn cache_miss(site: &mut Site, round: usize) -> Vec<Measured> {
    let [ours, bare] = MISS.against_bare(site, &site.tenantry, 1, round);
    let alone = site.caches.rate(site.client.slice, Which::One, cores(), alone::miss);
    vec![of("cache-miss", [ours, bare]), of("cache-miss / rusqlite", [ours, alone])]
}

pub fn cache_set(site: &mut Site, round: usize) -> Vec<Measured> {
    let [ours, bare] = SET.against_bare(site, &site.tenantry, 1, round);
    let alone = site.caches.rate(site.client.slice, Which::One, 1, alone::set);
    vec![of("cache-set", [ours, bare]), of("cache-set / rusqlite", [ours, alone])]
}

pub fn cache_increment(site: &mut Site, round: usize) -> Vec<Measured> {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    let (tenantry, added) = (&site.tenantry, AtomicU64::new(0));
    let number = || {
        let (status, body) = ask(tenantry.target(), |request| wire::get(request, &tenantry.tenants[0].caller, NUMBER));
        assert_eq!(status, 200);
        String::from_utf8(body).expect("text").parse::<u64>().expect("a number")
    };
    let before = number();
    let [ours, bare] = in_turn(site, tenantry, 1, round, async |line, caller, side| {
        INCREMENT.send(line, caller, side).await;
        added.fetch_add(u64::from(side == Side::Tenantry), Relaxed);
    });
    assert_eq!(number(), before + added.into_inner(), "each increment counts once");
    let alone = site.caches.rate(site.client.slice, Which::One, 1, alone::increment);
    vec![of("cache-increment", [ours, bare]), of("cache-increment / rusqlite", [ours, alone])]
}

pub fn enqueue(site: &mut Site, round: usize) -> Vec<Measured> {
    let [ours, bare] = ENQUEUE.against_bare(site, &site.tenantry, 1, round);
    let alone = site.queues.rate(site.client.slice, Which::One, 1, alone::enqueue);
    vec![of("enqueue", [ours, bare]), of("enqueue / rusqlite", [ours, alone])]
}

pub fn enqueue_many(site: &mut Site, round: usize) -> Vec<Measured> {
    let tenants = site.tenantry.tenants.len();
    warm(site);
    let [ours, bare] = ENQUEUE.against_bare(site, &site.tenantry, tenants, round);
    let alone = site.queues.rate(site.client.slice, Which::All, cores(), alone::enqueue);
    vec![of("enqueue-many", [ours, bare]), of("enqueue-many / rusqlite", [ours, alone])]
}

pub fn claim_ack(site: &mut Site, round: usize) -> Vec<Measured> {
    let [pair, beside] = claiming(site, 1, round);
    vec![of("claim-ack", pair), of("claim-ack / rusqlite", beside)]
}

pub fn claim_ack_many(site: &mut Site, round: usize) -> Vec<Measured> {
    let [pair, beside] = claiming(site, site.tenantry.tenants.len(), round);
    vec![of("claim-ack-many", pair), of("claim-ack-many / rusqlite", beside)]
}

/// Batches of ten: a claim, and an acknowledgement of each job.
fn claiming(site: &Site, tenants: usize, round: usize) -> [[f64; 2]; 2] {
    let waiting = WAITING_LEAST.max((WAITING_A_SECOND * site.client.slice.as_secs_f64() / tenants as f64) as usize);
    site.client.each(site.tenantry.target(), tenants, async |line: &mut Line, at| {
        fill(line, &site.tenantry.tenants[at].caller, waiting).await;
    });
    let pair = in_turn(site, &site.tenantry, tenants, round, async |line, caller, side| {
        let on_bare = side == Side::Limit;
        wire::post(&mut line.request, caller, if on_bare { "/claim" } else { CLAIM }, TEN);
        assert!(acknowledge(line, caller, on_bare.then_some("/ack")).await > 0, "the queue ran dry");
    });
    let (which, threads) = if tenants == 1 { (Which::One, 1) } else { (Which::All, cores()) };
    let mut held = site.queues.hold(which, threads, &|conn, at| {
        alone::fill(conn, 2 * waiting);
        alone::claim_and_ack(conn, at);
    });
    let alone = held.rate(site.client.slice, usize::MAX, &alone::claim_and_ack);
    [pair, [pair[0], alone * (CLAIMED + 1) as f64]]
}

/// Nine requests on each tenant, of which one claims up to two jobs, and their acknowledgements.
pub fn mixed_many(site: &mut Site, round: usize) -> Vec<Measured> {
    let tenants = site.tenantry.tenants.len();
    warm(site);
    let pair = in_turn(site, &site.tenantry, tenants, round, async |line, caller, side| {
        for asked in [&SET, &GET, &GET, &ENQUEUE, &SET, &GET, &GET, &ENQUEUE] {
            asked.send(line, caller, side).await;
        }
        let on_bare = side == Side::Limit;
        wire::post(&mut line.request, caller, if on_bare { "/claim-two" } else { CLAIM }, TWO);
        // Another connection may have been faster.
        assert!(acknowledge(line, caller, on_bare.then_some("/ack")).await <= 2, "it asked for two");
    });
    vec![of("mixed-many", pair)]
}

/// Sends the claim that is in the request, and acknowledges its jobs one by one, each at its own path unless one is given.
/// Their number.
pub async fn acknowledge(line: &mut Line, caller: &Caller, path: Option<&str>) -> usize {
    let jobs: Value = line.ask(200, |body| serde_json::from_slice(body).expect("JSON")).await;
    let jobs = jobs["jobs"].as_array().expect("jobs");
    for job in jobs {
        let (own, body) = ack_of(job);
        wire::post(&mut line.request, caller, path.unwrap_or(&own), &body);
        let is_done = line.ask(200, |body| String::from_utf8_lossy(body).contains("\"state\":\"done\"")).await;
        assert!(is_done, "a job is done");
    }
    jobs.len()
}

/// Path and body that acknowledge a claimed job.
fn ack_of(job: &Value) -> (String, Vec<u8>) {
    let text = |name: &str| job[name].as_str().expect("a member of a job");
    let body = format!(r#"{{"lease_token":"{}"}}"#, text("lease_token"));
    (format!("/v1/jobs/{}/ack", text("id")), body.into_bytes())
}

/// Adds jobs until so many are ready.
async fn fill(line: &mut Line, caller: &Caller, waiting: usize) {
    // One more, so that the queue is there.
    ENQUEUE.send(line, caller, Side::Tenantry).await;
    wire::get(&mut line.request, caller, "/v1/queues/limits");
    let depth: Value = line.ask(200, |body| serde_json::from_slice(body).expect("JSON")).await;
    let mut missing = waiting.saturating_sub(depth["jobs"]["ready"].as_u64().expect("a number") as usize);
    let job: Value = serde_json::from_slice(JOB).expect("JSON");
    while missing > 0 {
        let jobs = vec![&job; missing.min(BATCH)];
        missing -= jobs.len();
        wire::post(&mut line.request, caller, JOBS, json!({ "jobs": jobs }).to_string().as_bytes());
        line.ask(200, |_| ()).await;
    }
}

/// The answer to one request.
fn get_json(tenantry: &Tenantry, caller: &Caller, path: &str) -> Value {
    let (_, body) = ask(tenantry.target(), |request| wire::get(request, caller, path));
    serde_json::from_slice(&body).expect("JSON")
}

/// Every tenant's files open, its statements prepared, its token known.
fn warm(site: &Site) {
    site.client.each(site.tenantry.target(), site.tenantry.tenants.len(), async |line: &mut Line, at| {
        for asked in [&SET, &ENQUEUE] {
            asked.send(line, &site.tenantry.tenants[at].caller, Side::Tenantry).await;
        }
    });
}
