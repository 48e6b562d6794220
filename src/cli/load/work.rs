//! A [`Worker`] is one connection that does operations and checks their answers: it draws nothing and waits for
//! nobody, it is told what to do and from when on to count.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::fleet::Fleet;
use super::mix::Op;
use super::tally::{Miss, Tally, Trouble};
use super::truth::{self, PAGE, Truth};
use super::verdict::{Verdict, judge, note, shown};
use super::via::{Question, Via};
use super::wire::{self, Wire};

/// How long a claimed job belongs to its worker: longer than any run, so that none comes back.
const LEASE_S: u32 = 43_200;

/// How long a counter in the cache is kept: longer than any run, and not for good.
const COUNTED_S: u32 = 172_800;

/// What all workers of a run share.
pub struct Shared<'a> {
    pub fleet: &'a Fleet,
    pub truth: &'a Truth,
    pub trouble: &'a Trouble,
    pub connections: usize,
    /// How rows are asked for.
    pub via: Via,
    /// Jobs in one claim.
    pub batch: usize,
    /// Path of the run's queue for adding, and for claiming.
    pub jobs_path: String,
    pub claim_path: String,
    /// Whether the first tenant is the hot one.
    pub has_hot: bool,
    /// Operations answered rightly so far, and those refused.
    pub done: AtomicU64,
    pub refused: AtomicU64,
}

impl<'a> Shared<'a> {
    pub fn new(
        (fleet, truth, trouble): (&'a Fleet, &'a Truth, &'a Trouble),
        connections: usize,
        via: Via,
        batch: usize,
        has_hot: bool,
    ) -> Self {
        let queue = truth.queue();
        let (jobs_path, claim_path) = (format!("/v1/queues/{queue}/jobs"), format!("/v1/queues/{queue}/claim"));
        let (done, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Shared { fleet, truth, trouble, connections, via, batch, jobs_path, claim_path, has_hot, done, refused }
    }
}

pub struct Worker<'a> {
    shared: &'a Shared<'a>,
    tally: &'a RefCell<Tally>,
    /// Which connection this is: it alone writes what is its own.
    connection: usize,
    wire: Wire,
    question: Question,
    /// By tenant and row.
    counters: HashMap<(usize, usize), Counter>,
    /// By tenant: in its cache.
    cached_counters: HashMap<usize, Counter>,
    /// Jobs claimed and not acknowledged yet: id and lease token.
    claimed: Vec<(String, String)>,
    /// The next row of its own to be counted up.
    turn: usize,
    /// When the call under way was sent.
    asked: Instant,
}

/// When an operation began (with a rate: when it was due), and whether it counts: what is answered from an instant on
/// does, wherever it began. So throughput is what came out, and an operation that was due long ago brings all its
/// lateness along.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    pub at: Instant,
    pub counts_from: Option<Instant>,
}

impl Began {
    fn counts(&self) -> bool {
        self.counts_from.is_some_and(|from| Instant::now() >= from)
    }
}

impl<'a> Worker<'a> {
    pub fn new(shared: &'a Shared<'a>, tally: &'a RefCell<Tally>, connection: usize, patience: Duration) -> Worker<'a> {
        let wire = Wire::new(&shared.fleet.target, patience);
        Worker {
            shared,
            tally,
            connection,
            wire,
            question: Question::new(shared.via),
            counters: HashMap::new(),
            cached_counters: HashMap::new(),
            claimed: Vec::new(),
            turn: 0,
            asked: Instant::now(),
        }
    }

    /// Does one operation on one tenant; `pick` chooses among its rows or keys. Returns how long the server asked to
    /// be left alone. A claim's jobs are acknowledged at once, each as an operation of its own.
    pub async fn run(&mut self, op: Op, tenant: usize, pick: usize, began: Began) -> Option<Duration> {
        self.asked = Instant::now();
        let mut wait = match op {
            Op::Read => self.read(tenant, pick, began).await,
            Op::Page => self.page(tenant, pick, began).await,
            Op::Insert => self.insert(tenant, began).await,
            Op::Update => self.update(tenant, began).await,
            Op::CacheGet => self.cache_get(tenant, pick, began).await,
            Op::CacheSet => self.cache_set(tenant, began).await,
            Op::CacheMiss => self.cache_miss(tenant, pick, began).await,
            Op::CacheIncrement => self.cache_increment(tenant, began).await,
            Op::Enqueue => self.enqueue(tenant, began).await,
            Op::Claim | Op::Ack => self.claim(tenant, self.shared.batch, began).await,
        };
        while let Some((id, lease)) = self.claimed.pop() {
            self.asked = Instant::now();
            let began = Began { at: self.asked, ..began };
            wait = self.ack(tenant, &id, &lease, began).await.or(wait);
        }
        wait
    }

    async fn read(&mut self, tenant: usize, pick: usize, began: Began) -> Option<Duration> {
        let row = 1 + pick % self.shared.truth.rows;
        let of = &self.shared.fleet.tenants[tenant];
        self.question.read(&of.caller, of.number, row);
        self.rows(Op::Read, tenant, began).await
    }

    async fn page(&mut self, tenant: usize, pick: usize, began: Began) -> Option<Duration> {
        let rows = self.shared.truth.rows;
        let after = pick % rows.saturating_sub(PAGE).max(1);
        let of = &self.shared.fleet.tenants[tenant];
        self.question.page(&of.caller, of.number, after, rows);
        self.rows(Op::Page, tenant, began).await
    }

    /// Sends the question, whose answer holds the rows that are expected.
    async fn rows(&mut self, op: Op, tenant: usize, began: Began) -> Option<Duration> {
        let question = &self.question;
        let verdict = judge(self.wire.call(&question.request).await, 200, |body| match question.fits(body) {
            true => Ok(()),
            false => Err(format!("expected {}…, got {}", shown(question.expected()), shown(body))),
        });
        self.settle(op, tenant, began, verdict)
    }

    async fn insert(&mut self, tenant: usize, began: Began) -> Option<Duration> {
        let stamp = self.shared.truth.stamp();
        let id = self.shared.truth.first_id() + stamp as i64;
        let of = &self.shared.fleet.tenants[tenant];
        self.question.insert(&of.caller, id, &truth::inserted(of.number, stamp));
        let question = &self.question;
        let verdict = judge(self.wire.call(&question.request).await, question.via().created(), |body| match question.says_one_row(body) {
            true => Ok(()),
            false => Err(format!("expected one row written, got {}", shown(body))),
        });
        let inserts = &self.shared.truth.of(tenant).inserts;
        note(&verdict, || inserts.acknowledge(stamp), || inserts.lose_sight_of(stamp));
        self.settle(Op::Insert, tenant, began, verdict)
    }

    async fn update(&mut self, tenant: usize, began: Began) -> Option<Duration> {
        let (connections, rows) = (self.shared.connections, self.shared.truth.rows);
        let own = (rows - self.connection).div_ceil(connections);
        let row = 1 + self.connection + connections * (self.turn % own);
        self.turn = self.turn.wrapping_add(1);
        let before = self.counters.get(&(tenant, row)).copied().unwrap_or_default();
        if before.unknown > 0 && self.shared.via == Via::Rows {
            // Rows set what follows a value, and nobody knows it of this one.
            return None;
        }
        self.question.count_up(&self.shared.fleet.tenants[tenant].caller, row, before.value);
        let question = &self.question;
        let mut now = None;
        let verdict = judge(self.wire.call(&question.request).await, 200, |body| {
            now = question.counted(body);
            before.check(now, body)
        });
        let updates = &self.shared.truth.of(tenant).updates;
        self.counters.insert((tenant, row), before.after(&verdict, now));
        note(&verdict, || updates.acknowledge(1), || updates.lose_sight_of(1));
        self.settle(Op::Update, tenant, began, verdict)
    }

    async fn cache_get(&mut self, tenant: usize, pick: usize, began: Began) -> Option<Duration> {
        let truth = self.shared.truth;
        // Seeding has set some.
        let key = truth.cached_key(tenant, pick % self.shared.connections)?;
        let at_least = truth.cached(tenant, key);
        let number = self.number(tenant);
        wire::get(&mut self.question.request, &self.shared.fleet.tenants[tenant].caller, &cache_path(key));
        let verdict = judge(self.wire.call(&self.question.request).await, 200, |body| match truth.cached_stamp(number, key, body) {
            Some(stamp) if stamp >= at_least => Ok(()),
            Some(stamp) => Err(format!("key {key} held stamp {at_least} when it was asked for, got the older {stamp}")),
            None => Err(format!("key {key} never held {}", shown(body))),
        });
        // Nothing here expires, and no plan is so small that it had to make room: a miss loses what was acknowledged.
        let verdict = match verdict {
            Verdict::Missed { code, .. } if code == "not_found" => {
                Verdict::Wrong(format!("key {key} holds stamp {at_least} and was not found"))
            }
            other => other,
        };
        self.settle(Op::CacheGet, tenant, began, verdict)
    }

    async fn cache_set(&mut self, tenant: usize, began: Began) -> Option<Duration> {
        let verdict = self.set(tenant, self.connection).await;
        self.settle(Op::CacheSet, tenant, began, verdict)
    }

    async fn cache_miss(&mut self, tenant: usize, pick: usize, began: Began) -> Option<Duration> {
        let path = format!("/v1/cache/load-nothing-{}", pick % self.shared.connections);
        wire::get(&mut self.question.request, &self.shared.fleet.tenants[tenant].caller, &path);
        let verdict = judge(self.wire.call(&self.question.request).await, 404, |body| {
            let answer: Value = serde_json::from_slice(body).unwrap_or_default();
            if answer["code"] == "not_found" { Ok(()) } else { Err(format!("expected not_found, got {}", shown(body))) }
        });
        self.settle(Op::CacheMiss, tenant, began, verdict)
    }

    /// Counts up a key of the connection's own, which this run began.
    async fn cache_increment(&mut self, tenant: usize, began: Began) -> Option<Duration> {
        let before = self.cached_counters.get(&tenant).copied().unwrap_or_default();
        let path = format!("/v1/cache/load-count-{}-{}/increment", self.shared.truth.run, self.connection);
        let body = format!("{{\"ttl\":{COUNTED_S}}}");
        wire::post(&mut self.question.request, &self.shared.fleet.tenants[tenant].caller, &path, body.as_bytes());
        let mut now = None;
        let verdict = judge(self.wire.call(&self.question.request).await, 200, |body| {
            now = serde_json::from_slice::<Value>(body).ok().and_then(|answer| answer["value"].as_u64());
            before.check(now, body)
        });
        self.cached_counters.insert(tenant, before.after(&verdict, now));
        self.settle(Op::CacheIncrement, tenant, began, verdict)
    }

    async fn set(&mut self, tenant: usize, key: usize) -> Verdict {
        let truth = self.shared.truth;
        let stamp = truth.stamp();
        let text = truth.cached_text(self.number(tenant), key, stamp);
        wire::put(&mut self.question.request, &self.shared.fleet.tenants[tenant].caller, &cache_path(key), text.as_bytes());
        let verdict = judge(self.wire.call(&self.question.request).await, 204, |_| Ok(()));
        // One that got no answer may come to pass at any later time, so of its key nothing is known any more.
        note(&verdict, || truth.cache(tenant, key, stamp), || truth.give_up_cached(tenant, key));
        verdict
    }

    async fn enqueue(&mut self, tenant: usize, began: Began) -> Option<Duration> {
        let stamp = self.shared.truth.stamp();
        let number = self.number(tenant);
        self.question.body.clear();
        let _ = write!(self.question.body, "{{\"payload\":{{\"tenant\":{number},\"stamp\":{stamp},\"to\":\"somebody@example.com\"}}}}");
        wire::post(&mut self.question.request, &self.shared.fleet.tenants[tenant].caller, &self.shared.jobs_path, &self.question.body);
        let verdict = judge(self.wire.call(&self.question.request).await, 201, |_| Ok(()));
        let jobs = &self.shared.truth.of(tenant).jobs;
        note(&verdict, || jobs.acknowledge(stamp), || jobs.lose_sight_of(stamp));
        self.settle(Op::Enqueue, tenant, began, verdict)
    }

    /// Claims up to `max` jobs and keeps them for acknowledging.
    pub async fn claim(&mut self, tenant: usize, max: usize, began: Began) -> Option<Duration> {
        let truth = self.shared.truth;
        self.question.body.clear();
        let _ = write!(self.question.body, "{{\"max\":{max},\"lease_s\":{LEASE_S}}}");
        wire::post(&mut self.question.request, &self.shared.fleet.tenants[tenant].caller, &self.shared.claim_path, &self.question.body);
        let number = self.number(tenant);
        let claimed = &mut self.claimed;
        let verdict = judge(self.wire.call(&self.question.request).await, 200, |body| {
            let jobs = serde_json::from_slice::<Claimed>(body).map_err(|error| format!("{error} in {}", shown(body)))?.jobs;
            if jobs.len() > max {
                return Err(format!("asked for {max} jobs, got {}", jobs.len()));
            }
            for Job { id, attempt, lease_token, payload } in jobs {
                if payload.tenant != number {
                    return Err(format!("job {id} is of tenant {}", payload.tenant));
                }
                if attempt != 1 || !truth.hand_out(tenant, payload.stamp) {
                    return Err(format!("job {id} was handed out twice (try {attempt})"));
                }
                claimed.push((id, lease_token));
            }
            Ok(())
        });
        if let Verdict::Missed { sure: false, .. } = verdict {
            // Up to so many jobs are leased and nobody knows which.
            (0..max).for_each(|_| truth.of(tenant).handed_out.lose_sight_of(0));
        }
        self.settle(Op::Claim, tenant, began, verdict)
    }

    async fn ack(&mut self, tenant: usize, id: &str, lease: &str, began: Began) -> Option<Duration> {
        self.question.body.clear();
        let _ = write!(self.question.body, "{{\"lease_token\":\"{lease}\"}}");
        wire::post(
            &mut self.question.request,
            &self.shared.fleet.tenants[tenant].caller,
            &format!("/v1/jobs/{id}/ack"),
            &self.question.body,
        );
        let verdict = judge(self.wire.call(&self.question.request).await, 200, |body| {
            let answer: Value = serde_json::from_slice(body).unwrap_or_default();
            let done = answer["job"]["id"] == id && answer["job"]["state"] == "done";
            if done { Ok(()) } else { Err(format!("job {id} should be done, got {}", shown(body))) }
        });
        self.settle(Op::Ack, tenant, began, verdict)
    }

    /// Claims and acknowledges what is left of the tenant's jobs; true when nothing is.
    pub async fn drain(&mut self, tenant: usize) -> bool {
        let began = || Began { at: Instant::now(), counts_from: None };
        let wait = self.claim(tenant, 100, began()).await;
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        let dry = self.claimed.is_empty() && wait.is_none();
        while let Some((id, lease)) = self.claimed.pop() {
            self.ack(tenant, &id, &lease, began()).await;
        }
        dry
    }

    /// Sets the connection's own cache key, before the run.
    pub async fn warm_cache(&mut self, tenant: usize) -> Result<(), String> {
        match self.set(tenant, self.connection).await {
            Verdict::Right => Ok(()),
            Verdict::Wrong(what) => Err(what),
            Verdict::Missed { code, .. } => Err(code),
        }
    }

    fn number(&self, tenant: usize) -> usize {
        self.shared.fleet.tenants[tenant].number
    }

    /// Counts how it went.
    fn settle(&self, op: Op, tenant: usize, began: Began, verdict: Verdict) -> Option<Duration> {
        match verdict {
            Verdict::Right => {
                self.shared.done.fetch_add(1, Relaxed);
                if began.counts() {
                    let hot = self.shared.has_hot.then_some(tenant == 0);
                    self.tally.borrow_mut().answered(op, began.at.elapsed(), hot);
                }
                None
            }
            Verdict::Wrong(what) => {
                self.shared.trouble.wrong(format!("{} of {}: {what}", op.name(), self.shared.fleet.tenants[tenant].slug()));
                None
            }
            Verdict::Missed { miss, code, wait, .. } => {
                self.shared.refused.fetch_add(u64::from(miss == Miss::Refused), Relaxed);
                // A failure matters whenever it happens; a refusal is part of what is measured.
                if began.counts() || miss == Miss::Failed {
                    self.tally.borrow_mut().missed(op, miss, &code, self.asked.elapsed());
                }
                wait
            }
        }
    }
}

/// What only one connection counts up: its value, and additions that nobody knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counter {
    value: u64,
    unknown: u64,
}

impl Counter {
    /// Whether it may be `now`, having been counted up, as the answer in `body` says.
    fn check(self, now: Option<u64>, body: &[u8]) -> Result<(), String> {
        let next = self.value + 1;
        match now {
            Some(now) if (next..=next + self.unknown).contains(&now) => Ok(()),
            _ => Err(format!("what was {} is {next} now, got {}", self.value, shown(body))),
        }
    }

    /// What it is after an addition that came to this.
    fn after(self, verdict: &Verdict, now: Option<u64>) -> Counter {
        match (verdict, now) {
            // What nobody knew of and is not in there yet may still come.
            (Verdict::Right, Some(now)) => Counter { value: now, unknown: (self.value + 1 + self.unknown).saturating_sub(now) },
            (Verdict::Missed { sure: false, .. }, _) => Counter { unknown: self.unknown + 1, ..self },
            _ => self,
        }
    }
}

fn cache_path(key: usize) -> String {
    format!("/v1/cache/load-{key}")
}

#[derive(Deserialize)]
struct Claimed {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    id: String,
    attempt: u32,
    lease_token: String,
    payload: Payload,
}

#[derive(Deserialize)]
struct Payload {
    tenant: usize,
    stamp: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_may_hold_what_nobody_knows_of_and_never_less_than_what_was_told() {
        let lost = || Verdict::Missed { miss: Miss::Failed, code: "no_answer".to_owned(), wait: None, sure: false };
        let refused = Verdict::Missed { miss: Miss::Refused, code: "overloaded".to_owned(), wait: None, sure: true };
        let counter = Counter::default().after(&Verdict::Right, Some(1)).after(&lost(), None).after(&lost(), None).after(&refused, None);
        assert_eq!(counter, Counter { value: 1, unknown: 2 });
        let may_be = |now| counter.check(Some(now), b"").is_ok();
        assert_eq!([1, 2, 3, 4, 5].map(may_be), [false, true, true, true, false]);
        assert!(counter.check(None, b"").is_err());
        assert_eq!(counter.after(&Verdict::Right, Some(3)), Counter { value: 3, unknown: 1 });
    }
}
