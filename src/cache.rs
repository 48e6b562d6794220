//! A [`Cache`] is a tenant's cache file, with the process's [`Memory`] in front of it, seen as keys and [`Entry`]s:
//! bytes with a content type, until they expire. Everything in it can be made again, so its file commits without waiting for the disk.
//!
//! - Reading writes nothing, but that a sliding entry of which a quarter of the time has passed begins anew. An expired
//!   entry is a miss at once, or stale for its grace; later writes sweep it, a few at a time.
//! - An entry lives no longer in one tier than in the other: each has its expiry with it.
//! - An entry's [`Etag`] is never given to another content, also when the whole file was made anew.
//! - What was thrown away stays so, also when a power cut takes back the commit that said it: see [`boot`].
//! - What is thrown away together ([`Thrown`]) costs one row, however many entries it is.
//! - A file that fails, or whose disk is full, costs what it held and no more: it is made anew, and a write is done in the new
//!   one. Where that cannot be either, nothing is left of the file, so the write has nothing to overtake: it is answered as
//!   one that was evicted at once.
//! - The file stays inside its plan: a write that finds too little room deletes what expires soonest and
//!   then what was written longest ago, but for what was read lately ([`evict`]), in several small commits, and gives up after [`ROUNDS`] of them. A value that
//!   could never fit evicts nothing.
//!
//! A write is a row of [`Op`]s, done one after the other in one transaction, or in several when room has to be made.

mod boot;
mod change;
mod entry;
mod etag;
mod evict;
mod fill;
mod invalidate;
mod key;
mod memory;
mod packing;
mod remember;
mod stats;
mod store;
mod terms;
mod uses;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub use change::Change;
pub use entry::{Entry, Found, Tier};
pub use etag::{Conditions, Etag, Etags};
pub use fill::{FILL_MAX_S, FILL_WAITS_MAX, FILLS_MAX, FillLease, Waiting};
pub use invalidate::Thrown;
pub use key::{KEY_BYTES, Key, NAMESPACE_BYTES, Namespace};
pub use memory::{Counts, Memory};
pub use packing::Packing;
pub use remember::{Making, QueryId, Recalled};
pub use stats::{COUNTED, Stats};
pub use store::{Done, Op, Put};
pub use terms::{Freshness, Life, SECONDS_MAX, Seconds, TAG_BYTES, TAGS_MAX, Tag, Terms, Wanted};

use crate::clock::now_ms;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Database, Limits, WriteTx};
use evict::Made;
use fill::{Ending, Turn};

/// The longest value, in bytes. Larger things belong into an object store, with their address in here.
pub const VALUE_BYTES: usize = 1 << 20;

/// The longest content type, in bytes.
pub const CONTENT_TYPE_BYTES: usize = 255;

/// Operations of one call.
pub const OPS_MAX: usize = 100;

/// Commits that make room for one operation before it is refused.
const ROUNDS: u32 = 64;

/// How often a write that the file could not take is tried again while the file is made anew, and after how long.
const RENEWALS: u32 = 50;
const RENEWAL: Duration = Duration::from_millis(20);

/// Files that a write may find damaged: the one that was there, and the new one.
const DAMAGED: u32 = 2;

/// The cache engine over one file. Borrows the file for a call; the file keeps everything there is to know.
pub struct Cache<'a> {
    file: &'a Arc<Database>,
    memory: &'a Arc<Memory>,
    limits: Limits,
}

/// What [`Cache::get_or_fill`] came to.
pub enum Answer {
    Found(Found),
    /// The caller is to make the entry, and has this while it does.
    Fill(FillLease, Option<Found>),
    /// Somebody else is making it.
    Wait(Waiting),
}

impl<'a> Cache<'a> {
    pub fn new(file: &'a Arc<Database>, memory: &'a Arc<Memory>) -> Self {
        Cache { file, memory, limits: Limits::default() }
    }

    /// What `key` holds, fresh or, in its `swr` grace, stale.
    pub async fn get(&self, key: Key) -> Result<Option<Found>> {
        let found = self.look(key).await?;
        Ok(found.filter(|found| matches!(found.freshness, Freshness::Fresh | Freshness::Stale)))
    }

    /// The same for who could not make it anew: in its `sie` grace too.
    pub async fn get_if_error(&self, key: Key) -> Result<Option<Found>> {
        self.look(key).await
    }

    /// What `key` holds if it is fresh. Else one caller gets the right to make it, for `lease`, with what is stale if there is
    /// something; the others get what is stale, or somebody to wait for. Errors: `too_many_requests` past
    /// [`FILLS_MAX`] or [`FILL_WAITS_MAX`].
    pub async fn get_or_fill(&self, key: Key, lease: Seconds) -> Result<Answer> {
        let found = self.get(key.clone()).await?;
        match found {
            Some(found) if found.freshness == Freshness::Fresh => Ok(Answer::Found(found)),
            stale => match (self.memory.fills().begin(self.file, &key, lease, now_ms())?, stale) {
                (Turn::Mine(lease), _) => self.still_to_be_made(key, lease).await,
                (Turn::Theirs(_), Some(stale)) => Ok(Answer::Found(stale)),
                (Turn::Theirs(waiting), None) => Ok(Answer::Wait(waiting)),
            },
        }
    }

    /// Whoever had the turn before may have made it between the caller's look and his turn.
    async fn still_to_be_made(&self, key: Key, lease: FillLease) -> Result<Answer> {
        match self.get(key.clone()).await {
            Ok(Some(found)) if found.freshness == Freshness::Fresh => {
                // A fill that is lost already keeps nobody waiting either.
                let _ = self.give_up(&key, lease.token);
                Ok(Answer::Found(found))
            }
            Ok(stale) => Ok(Answer::Fill(lease, stale)),
            Err(error) => {
                let _ = self.give_up(&key, lease.token);
                Err(error)
            }
        }
    }

    /// Sets a key, if its conditions hold; `None` where it could not be stored, and the key holds nothing now. With the token of
    /// a fill only if nothing has overtaken that; the fill is over then, in any case. Errors: `precondition_failed`;
    /// `lease_lost`; `quota_exceeded` when the plan's bytes leave no room after evicting.
    pub async fn put(&self, mut put: Put, token: Option<Uuid>) -> Result<Option<Etag>> {
        put.fill = match token {
            Some(token) => Some(Arc::new(self.ending(&put.key, token)?)),
            None => None,
        };
        match self.one(Op::Put(put)).await? {
            Done::Put(etag) => Ok(etag),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends a fill with nothing put. Errors: `lease_lost`.
    pub fn give_up(&self, key: &Key, token: Uuid) -> Result<()> {
        self.ending(key, token).map(drop)
    }

    /// Forgets `key`, if it is there and the conditions hold. Errors: `precondition_failed`.
    pub async fn delete(&self, key: Key, conditions: Conditions) -> Result<()> {
        self.one(Op::Delete { key, conditions }).await.map(drop)
    }

    /// Adds `by` to the number that `key` holds, and returns the sum; a missing key starts at `initial`, under `terms`. Without
    /// an ETag where it could not be stored. Errors: `conflict` for what is no number, and for a sum that is no 64-bit integer; `quota_exceeded`.
    pub async fn increment(&self, key: Key, by: i64, initial: i64, terms: Terms) -> Result<(i64, Option<Etag>)> {
        match self.one(Op::Increment { key, by, initial, terms }).await? {
            Done::Counted(value, etag) => Ok((value, etag)),
            other => Err(unexpected(&other)),
        }
    }

    /// Does all of them, in their order, each with an outcome of its own. A [`Op::Get`] among writes sees those before it.
    pub async fn apply(&self, ops: Vec<Op>) -> Result<Vec<Done>> {
        if ops.iter().all(|op| matches!(op, Op::Get(_))) {
            let mut done = Vec::with_capacity(ops.len());
            for op in ops {
                done.push(Done::Found(self.get(op.key().clone()).await?.map(|found| (*found).clone())));
            }
            return Ok(done);
        }
        let keys = written(&ops);
        let filled = ops.iter().any(|op| matches!(op, Op::Put(put) if put.fill.is_some()));
        let _overtaken = (!filled).then(|| self.memory.fills().overtake(self.file, &keys));
        self.run(ops, keys).await
    }

    /// Does all of them, and leaves the fills of `keys`, which they write, alone.
    async fn run(&self, ops: Vec<Op>, keys: Arc<[Key]>) -> Result<Vec<Done>> {
        let _answered = self.memory.forgetting(self.file.serial(), keys.clone());
        let (ops, shelf): (Arc<[Op]>, _) = (ops.into(), self.memory.shelf(self.file.serial()));
        let packer = self.memory.packer(self.file);
        let (mut done, mut round) = (Vec::with_capacity(ops.len()), 0);
        while done.len() < ops.len() {
            let from = done.len();
            let attempt = || {
                let (ops, shelf, packer) = (ops.clone(), shelf.clone(), packer.clone());
                self.write(&keys, move |tx| store::apply(tx, shelf.evictor(), &packer, &ops[from..], now_ms()))
            };
            let Some(step) = self.persist(attempt).await? else {
                let now = now_ms();
                done.extend(ops[from..].iter().map(|op| op.unkept(now)));
                break;
            };
            shelf.made_room(step.made);
            shelf.put(step.done.iter().filter(|done| matches!(done, Done::Put(_) | Done::Counted(..))).count());
            round = if step.done.is_empty() { round + 1 } else { 0 };
            done.extend(step.done);
            if round == ROUNDS {
                done.push(Done::Refused(store::full()));
                round = 0;
            }
        }
        Ok(done)
    }

    /// Throws away everything that is there of it now. Errors: `quota_exceeded` when room for the row cannot be made.
    pub async fn throw(&self, what: Thrown) -> Result<()> {
        let fills = self.memory.fills();
        let _overtaken = match &what {
            Thrown::Tag(tag) => fills.overtake_tag(self.file, tag),
            Thrown::Prefix(prefix) => fills.overtake_prefix(self.file, prefix),
            Thrown::Everything => fills.overtake_prefix(self.file, b""),
        };
        let serial = self.file.serial();
        let (shelf, _answered) = (self.memory.shelf(serial), self.memory.doubting(serial));
        for _ in 0..ROUNDS {
            let attempt = || {
                let (what, shelf, over) = (what.clone(), shelf.clone(), self.memory.doubting(serial));
                let job = move |tx: &WriteTx<'_>| {
                    let _ = &over;
                    let mut made = Made::default();
                    invalidate::throw(tx, shelf.evictor(), &what, &mut made).map(|done| (done, made))
                };
                self.file.write(self.limits, job)
            };
            let Some((done, made)) = self.persist(attempt).await? else { return Ok(()) };
            shelf.made_room(made);
            if done {
                return Ok(());
            }
        }
        Err(store::full())
    }

    /// How much there is, and what the tiers did since this process opened the file. A file that cannot be served has nothing.
    pub async fn stats(&self) -> Result<Stats> {
        let counts = self.memory.shelf(self.file.serial()).counts();
        self.file.read(self.limits, move |reader| stats::stats(reader, counts)).await.or_else(|error| match error.code() {
            Code::TenantUnavailable => Ok(Stats { entries: 0, bytes: 0, counts }),
            _ => Err(error),
        })
    }

    /// What `key` holds, if it is of use to anybody. A file that cannot be served has nothing.
    async fn look(&self, key: Key) -> Result<Option<Found>> {
        self.look_up(key).await.or_else(|error| match error.code() {
            Code::TenantUnavailable => {
                self.memory.shelf(self.file.serial()).missed();
                Ok(None)
            }
            _ => Err(error),
        })
    }

    async fn look_up(&self, key: Key) -> Result<Option<Found>> {
        let (serial, now) = (self.file.serial(), now_ms());
        let (held, tier) = match self.memory.get(serial, &key, now) {
            Some(held) => (held, Tier::Memory),
            None => {
                let mut reading = self.memory.reading(serial, &key);
                if !reading.is_trusted() {
                    self.trust().await?;
                    reading = self.memory.reading(serial, &key);
                }
                let (asked, packer) = (key.clone(), self.memory.packer(self.file));
                let kind = self.memory.class(serial, &key);
                match self.file.read_brief(self.limits, kind, move |r| store::find(r, &packer, &asked, now)).await? {
                    Some(entry) => (self.memory.fill(serial, key.clone(), entry, reading), Tier::File),
                    None => {
                        reading.missed();
                        return Ok(None);
                    }
                }
            }
        };
        if let Some(slid) = held.entry.life.slides_to(now) {
            self.slide(key, &held.entry, slid).await;
        }
        let freshness = held.entry.life.at(now);
        Ok(Some(Found { held, tier, freshness, at: now }))
    }

    /// Before a file is used for the first time: what may have been taken back by a power cut is thrown away.
    async fn trust(&self) -> Result<()> {
        let shelf = self.memory.shelf(self.file.serial());
        if shelf.is_trusted() {
            return Ok(());
        }
        let boot = self.memory.boot().clone();
        if !self.file.read_brief(self.limits, 0, move |reader| boot.wrote(reader)).await? {
            let boot = self.memory.boot().clone();
            self.file.write(self.limits, move |tx| boot.begin(tx)).await?;
        }
        shelf.trust();
        Ok(())
    }

    /// Writes until a file has taken it: one that fails is made anew meanwhile, as soon as nobody is in it any more. `None`
    /// where a new one could not take it either; then none is left, and nothing that was there before is answered again.
    async fn persist<T, F: Future<Output = Result<T>>>(&self, mut attempt: impl FnMut() -> F) -> Result<Option<T>> {
        let (mut damaged, mut renewals) = (0, 0);
        loop {
            let outcome = match self.trust().await {
                Ok(()) => attempt().await,
                Err(error) => Err(error),
            };
            let mut error = match outcome {
                Ok(value) => return Ok(Some(value)),
                Err(error) if error.code() != Code::TenantUnavailable => return Err(error),
                Err(error) => error,
            };
            self.memory.shelf(self.file.serial()).distrust();
            damaged += u32::from(error.is_withheld());
            if damaged >= DAMAGED {
                match self.file.give_up().await {
                    Ok(()) => return Ok(None),
                    Err(refused) => error = refused,
                }
            }
            if renewals == RENEWALS {
                return Err(error);
            }
            renewals += 1;
            tokio::time::sleep(RENEWAL).await;
        }
    }

    /// That it was read moves its expiry. A cache that cannot write that down only loses the entry sooner.
    async fn slide(&self, key: Key, entry: &Entry, expires_at: i64) {
        let (etag, life) = (entry.etag, Life { expires_at: Some(expires_at), ..entry.life });
        if let Err(error) = self.write(&[key].into(), move |tx| store::slide(tx, etag, life)).await {
            tracing::debug!(%error, "a sliding entry was read, but will expire as if it was not");
        }
    }

    async fn one(&self, op: Op) -> Result<Done> {
        match self.apply(vec![op]).await?.pop() {
            Some(Done::Refused(error)) => Err(error),
            Some(done) => Ok(done),
            None => Err(Error::internal("one operation has no outcome", &"none")),
        }
    }

    fn ending(&self, key: &Key, token: Uuid) -> Result<Ending> {
        self.memory.fills().ending(self.file, key, token)
    }

    /// Memory forgets the keys before the write, and with the job, which may outlive whoever asked for it.
    async fn write<T: Send + 'static>(
        &self,
        keys: &Arc<[Key]>,
        mut step: impl FnMut(&WriteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let over = self.memory.forgetting(self.file.serial(), keys.clone());
        let job = move |tx: &WriteTx<'_>| {
            let _ = &over;
            step(tx)
        };
        self.file.write(self.limits, job).await
    }
}

/// The keys that operations write.
fn written(ops: &[Op]) -> Arc<[Key]> {
    ops.iter().filter(|op| !matches!(op, Op::Get(_))).map(|op| op.key().clone()).collect()
}

fn unexpected(done: &Done) -> Error {
    Error::internal("an operation came to what it cannot", &format!("{done:?}"))
}

#[cfg(test)]
mod tests;
