//! What a write does to the file, inside its transaction: operations one after the other, and the room they need.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rusqlite::params;

use super::entry::{Read, entry_columns};
use super::evict::{Evictor, Made, Room};
use super::fill::Ending;
use super::invalidate::{Clock, dead, sweep_thrown};
use super::packing::{Packer, Place};
use super::remember::Source;
use super::terms::{Freshness, Life};
use super::{Conditions, Entry, Etag, Key, Tag, Terms, VALUE_BYTES};
use crate::clock::Millis;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Reader, WriteTx, give_back};

/// Expired entries deleted by each write: more than one, so that sweeping gains on writing.
pub(super) const SWEPT: u32 = 8;

/// Pages kept free beside a value's own: for its row, its index entry and the splits they may cause.
pub(super) const SPARE_PAGES: u64 = 16;

/// What is done to a key.
pub enum Op {
    Get(Key),
    Put(Put),
    Delete {
        key: Key,
        conditions: Conditions,
    },
    /// Adds `by`; a missing key starts at `initial`, under `terms`. One that is there keeps its own.
    Increment {
        key: Key,
        by: i64,
        initial: i64,
        terms: Terms,
    },
}

/// An entry to set.
pub struct Put {
    pub key: Key,
    /// `None`: known not to exist.
    pub value: Option<Bytes>,
    pub content_type: Option<String>,
    pub terms: Terms,
    pub conditions: Conditions,
    pub(super) chance: u32,
    /// What the value was compressed to, once that was tried.
    pub(super) squeezed: OnceLock<Option<Bytes>>,
    /// Of a remembered answer.
    pub(super) source: Option<Arc<Source>>,
    /// It was made under this fill, and is put only if nothing has overtaken that.
    pub(super) fill: Option<Arc<Ending>>,
}

/// What an operation came to. What could not be stored has no ETag.
#[derive(Debug)]
pub enum Done {
    Found(Option<Entry>),
    Put(Option<Etag>),
    /// Whether or not it was there.
    Deleted,
    Counted(i64, Option<Etag>),
    Refused(Error),
}

/// What one commit came to.
pub(super) struct Step {
    /// Of the first operations; when it is not all, room had to be made, and not enough was made yet.
    pub done: Vec<Done>,
    pub made: Made,
}

impl Op {
    pub fn key(&self) -> &Key {
        match self {
            Op::Get(key) | Op::Delete { key, .. } | Op::Increment { key, .. } => key,
            Op::Put(put) => &put.key,
        }
    }

    /// What it comes to in a cache that has nothing, and keeps nothing.
    pub(super) fn unkept(&self, now: Millis) -> Done {
        let outcome = match self {
            Op::Get(_) => Ok(Done::Found(None)),
            Op::Put(put) => put.check_fill(now).and_then(|()| put.conditions.check(None)).map(|()| Done::Put(None)),
            Op::Delete { conditions, .. } => conditions.check(None).map(|()| Done::Deleted),
            Op::Increment { by, initial, .. } => initial.checked_add(*by).map(|sum| Done::Counted(sum, None)).ok_or_else(overflow),
        };
        outcome.unwrap_or_else(Done::Refused)
    }
}

impl Put {
    /// Under no conditions. Errors: `payload_too_large` past [`VALUE_BYTES`].
    pub fn new(key: Key, value: Option<Bytes>, content_type: Option<String>, terms: Terms) -> Result<Put> {
        if value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES) {
            return Err(Error::new(Code::PayloadTooLarge, format!("a cached value has at most {VALUE_BYTES} bytes"))
                .hint("Keep large things in an object store and cache their address."));
        }
        let chance = terms.chance();
        Ok(Put {
            key,
            value,
            content_type,
            terms,
            conditions: Conditions::default(),
            chance,
            squeezed: OnceLock::new(),
            source: None,
            fill: None,
        })
    }

    pub fn only_if(self, conditions: Conditions) -> Put {
        Put { conditions, ..self }
    }

    /// Whether the fill that it was made under still entitles to it.
    fn check_fill(&self, now: Millis) -> Result<()> {
        self.fill.as_ref().map_or(Ok(()), |fill| fill.fill().check(self.terms.tags(), now))
    }
}

/// Does operations from the first on until all are done or a commit is needed before there is room for the next.
pub(super) fn apply(tx: &WriteTx<'_>, evictor: &Evictor, packer: &Packer, ops: &[Op], now: Millis) -> Result<Step> {
    let bytes = ops.iter().map(|op| if let Op::Put(put) = op { put.value.as_ref().map_or(0, Bytes::len) } else { 0 }).sum();
    if tx.is_brief() && packer.is_slow(bytes) {
        return Err(later());
    }
    let mut run = Run { tx, evictor, packer, now, made: Made::default() };
    let mut done = Vec::with_capacity(ops.len());
    for op in ops {
        match run.run(op) {
            Ok(Some(one)) => done.push(one),
            Ok(None) => break,
            Err(Refusal::One(error)) => done.push(Done::Refused(error)),
            Err(Refusal::All(error)) => return Err(error),
        }
    }
    Ok(Step { done, made: run.made })
}

/// Operations at work in one transaction.
struct Run<'t> {
    tx: &'t WriteTx<'t>,
    evictor: &'t Evictor,
    packer: &'t Packer,
    now: Millis,
    made: Made,
}

/// What an entry is written with, beside its life.
struct Content<'c> {
    value: Option<&'c [u8]>,
    squeezed: Option<&'c [u8]>,
    content_type: Option<&'c str>,
    tags: &'c [Tag],
    source: Option<&'c Source>,
}

/// Why an operation is not done: for a reason of its own, before it has written anything, or with all of the transaction.
enum Refusal {
    One(Error),
    All(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::All(error)
    }
}

/// What an operation came to; `None` when room has to be made before it can be done.
type Outcome<T> = Result<Option<T>, Refusal>;

impl Run<'_> {
    fn run(&mut self, op: &Op) -> Outcome<Done> {
        match op {
            Op::Get(key) => {
                let found = find(self.tx, self.packer, key, self.now)?;
                let found = found.filter(|entry| matches!(entry.life.at(self.now), Freshness::Fresh | Freshness::Stale));
                found.is_some().then(|| self.evictor.uses().note(key));
                Ok(Some(Done::Found(found)))
            }
            Op::Put(put) => self.set(put),
            Op::Delete { key, conditions } => self.delete(key, conditions),
            Op::Increment { key, by, initial, terms } => self.increment(key, *by, *initial, terms),
        }
    }

    fn set(&mut self, put: &Put) -> Outcome<Done> {
        put.check_fill(self.now).map_err(Refusal::One)?;
        if !put.conditions.is_none() {
            // What is known not to exist can still be added.
            let held = self.fresh(&put.key)?.filter(|entry| entry.value.is_some() || put.conditions.if_match.is_some());
            put.conditions.check(held.map(|entry| entry.etag)).map_err(Refusal::One)?;
        }
        let life = put.terms.begin(self.now, put.chance);
        let content = Content {
            value: put.value.as_deref(),
            squeezed: put.squeezed.get_or_init(|| self.packer.squeeze(put.value.as_deref()?)).as_deref(),
            content_type: put.content_type.as_deref(),
            tags: put.terms.tags(),
            source: put.source.as_deref(),
        };
        let etag = self.store(&put.key, content, life)?;
        Ok(etag.map(|etag| Done::Put(Some(etag))))
    }

    fn delete(&mut self, key: &Key, conditions: &Conditions) -> Outcome<Done> {
        if !conditions.is_none() {
            conditions.check(self.fresh(key)?.map(|entry| entry.etag)).map_err(Refusal::One)?;
        }
        self.tx.execute(DELETE, params![key.as_bytes()])?;
        Ok(Some(Done::Deleted))
    }

    fn increment(&mut self, key: &Key, by: i64, initial: i64, terms: &Terms) -> Outcome<Done> {
        let held = match self.fresh(key)?.and_then(|entry| entry.value) {
            None => None,
            Some(value) => Some(number(&value).ok_or_else(|| Refusal::One(no_number()))?),
        };
        let sum = held.unwrap_or(initial).checked_add(by).ok_or_else(|| Refusal::One(overflow()))?;
        let text = sum.to_string();
        let etag = match held {
            None => {
                let content = Content {
                    value: Some(text.as_bytes()),
                    squeezed: None,
                    content_type: Some("text/plain"),
                    tags: terms.tags(),
                    source: None,
                };
                self.store(key, content, terms.begin(self.now, 0))?
            }
            Some(_) => self.recount(key, text.as_bytes())?,
        };
        Ok(etag.map(|etag| Done::Counted(sum, Some(etag))))
    }

    /// Writes a whole entry in the place of what the key held.
    fn store(&mut self, key: &Key, content: Content<'_>, life: Life) -> Outcome<Etag> {
        let Content { value, squeezed, content_type, tags, source } = content;
        self.tx.execute(SWEEP, params![self.now, SWEPT])?;
        let takes = squeezed.or(value).map_or(0, |bytes| self.packer.packed_len(bytes.len()));
        // An overflow page spends four bytes on the address of the next.
        let pages = (takes as u64).div_ceil(self.tx.page_bounds().0 - 4);
        if !self.has_room(pages + SPARE_PAGES)? {
            return Ok(None);
        }
        let clock = tick(self.tx)?;
        sweep_thrown(self.tx, &clock, SWEPT)?;
        let etag = Etag { version: clock.version, created_at: self.now };
        let place = Place { key: key.as_bytes(), etag, size: value.map_or(0, <[u8]>::len) as i64 };
        let packed = value.map(|value| self.packer.pack(value, squeezed, &place)).transpose()?;
        let Life { expires_at, ends_at, sliding_ms, swr_ms, sie_ms } = life;
        let tags = if tags.is_empty() { None } else { Some(serde_json::json!(tags).to_string()) };
        let written = params![
            etag.version,
            key.as_bytes(),
            self.now,
            expires_at,
            life.gone_at(),
            ends_at,
            sliding_ms,
            swr_ms,
            sie_ms,
            place.size,
            packed.as_ref().map_or(0, |packed| packed.encoding),
            content_type,
            tags,
            source.map(Source::to_bytes),
            packed.as_ref().map(|packed| &*packed.bytes)
        ];
        self.tx.execute(PUT, written)?;
        give_back(self.tx)?;
        Ok(Some(etag))
    }

    /// Another number in an entry that stays what it is otherwise.
    fn recount(&mut self, key: &Key, text: &[u8]) -> Outcome<Etag> {
        if !self.has_room(SPARE_PAGES)? {
            return Ok(None);
        }
        let etag = Etag { version: tick(self.tx)?.version, created_at: self.now };
        let place = Place { key: key.as_bytes(), etag, size: text.len() as i64 };
        let packed = self.packer.pack(text, None, &place)?;
        self.tx.execute(RECOUNT, params![place.key, etag.version, self.now, place.size, packed.encoding, &*packed.bytes])?;
        Ok(Some(etag))
    }

    fn fresh(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(find(self.tx, self.packer, key, self.now)?.filter(|entry| entry.life.at(self.now) == Freshness::Fresh))
    }

    /// Whether it can be written in this transaction; else, when there is something to evict, in a later one.
    fn has_room(&mut self, pages: u64) -> Result<bool, Refusal> {
        match self.evictor.room(self.tx, pages, &mut self.made)? {
            Room::Enough => Ok(true),
            Room::Evicted => Ok(false),
            Room::Never => Err(Refusal::One(full())),
        }
    }
}

/// What `key` holds, if it is of use to anybody.
pub(super) fn find(reader: &Reader<'_>, packer: &Packer, key: &Key, now: Millis) -> Result<Option<Entry>> {
    let brief = reader.is_brief();
    let read = |row: &rusqlite::Row<'_>| if row.get(0)? { Ok(Read::Nothing) } else { Entry::read(row, 1, packer, key, brief) };
    match reader.row(FIND, params![key.as_bytes(), now], read)? {
        Some(Read::Entry(entry)) => Ok(Some(entry)),
        Some(Read::Nothing) | None => Ok(None),
        Some(Read::Later) => Err(later()),
    }
}

/// The clock, one further.
pub(super) fn tick(tx: &WriteTx<'_>) -> Result<Clock> {
    tx.execute(TICK, [])?;
    Clock::read(tx)
}

/// A sliding entry was read: from now on its life is this.
pub(super) fn slide(tx: &WriteTx<'_>, etag: Etag, life: Life) -> Result<()> {
    tx.execute(SLIDE, params![etag.version, etag.created_at, life.expires_at, life.gone_at()]).map(drop)
}

fn number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// For nobody to see: what is not brief is done again on a lane.
fn later() -> Error {
    Error::new(Code::Overloaded, "a value takes too long to pack or unpack where it must be brief")
}

pub(super) fn full() -> Error {
    Error::new(Code::QuotaExceeded, "the cache has no room for this value under the tenant's plan")
        .hint("Store a smaller value, or give the tenant a plan with more cache_bytes.")
}

fn no_number() -> Error {
    Error::conflict("the key holds something else than a whole number")
        .hint("Only the decimal text of a 64-bit integer can be incremented.")
}

fn overflow() -> Error {
    Error::conflict("the sum is no 64-bit integer")
}

/// The first column says whether it was thrown away.
const FIND: &str = concat!(
    "SELECT ",
    dead!(),
    ", ",
    entry_columns!(),
    " FROM clock c CROSS JOIN entries e WHERE c.one = 1 AND e.key = ?1 AND (e.gone_at IS NULL OR e.gone_at > ?2)"
);

const DELETE: &str = "DELETE FROM entries WHERE key = ?1";

const SWEEP: &str = "DELETE FROM entries WHERE version IN
     (SELECT version FROM entries WHERE gone_at <= ?1 ORDER BY gone_at LIMIT ?2)";

const TICK: &str = "UPDATE clock SET version = version + 1 WHERE one = 1";

/// Replacing takes the old row away.
const PUT: &str = "INSERT OR REPLACE INTO entries
     (version, key, created_at, expires_at, gone_at, ends_at, sliding_ms, swr_ms, sie_ms, size, encoding, content_type,
      tags, source, value)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";

const RECOUNT: &str = "UPDATE entries SET version = ?2, created_at = ?3, size = ?4, encoding = ?5, value = ?6 WHERE key = ?1";

const SLIDE: &str = "UPDATE entries SET expires_at = ?3, gone_at = ?4 WHERE version = ?1 AND created_at = ?2 AND expires_at < ?3";
