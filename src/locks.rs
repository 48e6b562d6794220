//! A [`Lock`] is a name that one holder has at a time, until it is released or its time has passed. [`Locks`] are those of
//! one tenant. They stand in its queue's file, not in the cache's: that one commits with a flush and is never thrown away,
//! so an acknowledged lock survives a power cut, and no flush releases it.
//!
//! - A lock is a token and an instant. From the instant on the token is worth nothing, whether or not somebody else has
//!   the lock by then. A token is random, and new each time.
//! - A lock has a *fence*, a number that only rises: over all names, restarts and expiries. Who is handed work with a
//!   fence refuses it after having seen a higher one; so a holder that slept past its time does no harm. It is the last
//!   one and one more, kept with the locks; and never below the clock's milliseconds, so that it rises even when the file
//!   is put back from an older copy.
//! - Taking with an [`IdempotencyKey`] takes once: the key, kept with the token in the transaction that takes the lock, finds it
//!   as long as it is held, and takes no other.
//! - At most [`LOCKS_MAX`] at a time; those whose time has passed are swept by later ones.

mod name;
mod wait;

use std::sync::Arc;

use rusqlite::params;
use uuid::Uuid;

pub use name::LockName;
pub use wait::{WAITING_MAX, Waiting, WaitingForLocks};

use crate::clock::{Millis, now_ms, rfc3339};
use crate::error::{Code, Error, Result};
use crate::sqlite::{Database, Idempotency, IdempotencyKey, Limits, Reader, WriteTx};
use wait::Bell;

/// The longest that a lock is held without being extended, in seconds.
pub const HELD_MAX_S: i64 = 86_400;

/// Locks of a tenant at the same time.
pub const LOCKS_MAX: i64 = 10_000;

/// The longest name of an owner, in bytes.
pub const OWNER_BYTES: usize = 255;

/// Locks whose time has passed deleted by each that is taken: more than one, so that sweeping gains.
const SWEPT: u32 = 8;

/// Beside those of enqueueing.
const ANSWERS: Idempotency = Idempotency::kept_in("idempotency_keys");

/// The locks in one file. Borrows the file for a call; the file keeps everything there is to know.
pub struct Locks<'a> {
    file: &'a Arc<Database>,
    waiting: &'a Arc<WaitingForLocks>,
    limits: Limits,
}

/// A lock that is held.
#[derive(Clone, Debug, PartialEq)]
pub struct Lock {
    pub fence: i64,
    pub owner: String,
    pub taken_at: Millis,
    pub until: Millis,
}

/// An `Idempotency-Key` of a token's subject.
#[derive(Clone, Debug)]
pub struct Key {
    pub by: String,
    pub key: IdempotencyKey,
}

/// What trying to take a lock came to.
#[derive(Debug)]
pub enum Taken {
    Mine(Mine),
    /// Somebody else has it.
    Theirs(Lock),
}

/// A lock that was taken.
#[derive(Debug)]
pub struct Mine {
    pub token: Uuid,
    pub lock: Lock,
    /// By an earlier call with the same `Idempotency-Key`.
    pub replayed: bool,
}

impl<'a> Locks<'a> {
    /// `waiting` is told what is released.
    pub fn new(file: &'a Arc<Database>, waiting: &'a Arc<WaitingForLocks>) -> Self {
        Locks { file, waiting, limits: Limits::default() }
    }

    /// Takes the lock for `held_s` seconds, if nobody has it, or finds the one that was taken with the same key. Errors: `too_many_requests` past [`LOCKS_MAX`]; `conflict` when the key came with another request,
    /// `lease_lost` when the lock it took is over.
    pub async fn take(&self, name: &LockName, owner: &str, held_s: i64, key: Option<Key>) -> Result<Taken> {
        let held_ms = held_ms(held_s)?;
        if owner.len() > OWNER_BYTES {
            return Err(Error::bad_request(format!("an owner has at most {OWNER_BYTES} bytes, this one has {}", owner.len())));
        }
        // Who only finds it taken, as most who wait do, does not keep the file's writer busy.
        if key.is_none()
            && let Some(lock) = self.look(name).await?
        {
            return Ok(Taken::Theirs(lock));
        }
        let (name, owner, token) = (name.clone(), owner.to_owned(), Uuid::new_v4());
        self.file.write(self.limits, move |tx| take_once(tx, &name, &owner, token, held_ms, key.as_ref(), now_ms())).await
    }

    /// Holds the lock for `held_s` seconds from now on. Errors: `lease_lost` when `token` does not hold it (any more).
    pub async fn extend(&self, name: &LockName, token: Uuid, held_s: i64) -> Result<Lock> {
        let (name, held_ms) = (name.clone(), held_ms(held_s)?);
        self.file.write(self.limits, move |tx| extend(tx, &name, token, held_ms, now_ms())).await
    }

    /// Frees the lock; who has waited longest is told. Errors: `lease_lost` when `token` does not hold it (any more).
    pub async fn release(&self, name: &LockName, token: Uuid) -> Result<()> {
        let (name, bell) = (name.clone(), Bell::new(self.waiting, self.file, name));
        let job = move |tx: &WriteTx<'_>| {
            // Heard when the job is dropped: after the commit, also when nobody waits for its answer.
            let _ = &bell;
            release(tx, &name, token, now_ms())
        };
        self.file.write(self.limits, job).await
    }

    /// Who has the lock, if anybody.
    pub async fn look(&self, name: &LockName) -> Result<Option<Lock>> {
        let name = name.clone();
        self.file.read_brief(self.limits, 0, move |reader| held(reader, &name, now_ms())).await
    }
}

fn held_ms(held_s: i64) -> Result<Millis> {
    if (1..=HELD_MAX_S).contains(&held_s) {
        return Ok(held_s * 1_000);
    }
    Err(Error::bad_request(format!("ttl_s is {held_s}, but must lie between 1 and {HELD_MAX_S}")))
}

fn take_once(
    tx: &WriteTx<'_>,
    name: &LockName,
    owner: &str,
    token: Uuid,
    held_ms: Millis,
    key: Option<&Key>,
    now: Millis,
) -> Result<Taken> {
    let Some(Key { by, key }) = key else { return take(tx, name, owner, token, held_ms, now) };
    let Some(token) = ANSWERS.answered(tx, by, key)? else {
        let taken = take(tx, name, owner, token, held_ms, now)?;
        if let Taken::Mine(mine) = &taken {
            ANSWERS.keep(tx, by, key, mine.token.as_bytes())?;
        }
        return Ok(taken);
    };
    let token = Uuid::from_slice(&token).map_err(|error| Error::internal("a token kept for an Idempotency-Key", &error))?;
    let over = || {
        Error::new(Code::LeaseLost, format!("the lock {} that this Idempotency-Key took is over", name.as_str()))
            .hint("Its time has passed, or it was released. Take a new key to take it again.")
    };
    let lock = tx.row(HELD_BY, params![name.as_str(), token.as_bytes(), now], lock)?.ok_or_else(over)?;
    Ok(Taken::Mine(Mine { token, lock, replayed: true }))
}

fn take(tx: &WriteTx<'_>, name: &LockName, owner: &str, token: Uuid, held_ms: Millis, now: Millis) -> Result<Taken> {
    if let Some(lock) = held(tx, name, now)? {
        return Ok(Taken::Theirs(lock));
    }
    if tx.row(COUNT, [LOCKS_MAX], |row| row.get::<_, i64>(0))?.unwrap_or(0) >= LOCKS_MAX && tx.row(ENDED, [now], |_| Ok(()))?.is_none() {
        return Err(Error::new(Code::TooManyRequests, "too many locks of this tenant are held")
            .hint(format!("At most {LOCKS_MAX} at once. Release them, or let them end sooner.")));
    }
    tx.execute(SWEEP, params![now, SWEPT])?;
    tx.execute(RISE, [now])?;
    let fence = tx.row(FENCE, [], |row| row.get(0))?.ok_or_else(|| Error::internal("a queue file has no fence", &"no row"))?;
    let lock = Lock { fence, owner: owner.to_owned(), taken_at: now, until: now + held_ms };
    tx.execute(TAKE, params![name.as_str(), token.as_bytes(), fence, owner, now, lock.until])?;
    Ok(Taken::Mine(Mine { token, lock, replayed: false }))
}

fn extend(tx: &WriteTx<'_>, name: &LockName, token: Uuid, held_ms: Millis, now: Millis) -> Result<Lock> {
    match tx.execute(EXTEND, params![name.as_str(), token.as_bytes(), now, now + held_ms])? {
        0 => Err(lost(tx, name, now)?),
        _ => held(tx, name, now)?.ok_or_else(|| Error::internal("an extended lock is not there", &name.as_str())),
    }
}

fn release(tx: &WriteTx<'_>, name: &LockName, token: Uuid, now: Millis) -> Result<()> {
    match tx.execute(RELEASE, params![name.as_str(), token.as_bytes(), now])? {
        0 => Err(lost(tx, name, now)?),
        _ => Ok(()),
    }
}

fn held(reader: &Reader<'_>, name: &LockName, now: Millis) -> Result<Option<Lock>> {
    reader.row(HELD, params![name.as_str(), now], lock)
}

fn lock(row: &rusqlite::Row<'_>) -> rusqlite::Result<Lock> {
    Ok(Lock { fence: row.get(0)?, owner: row.get(1)?, taken_at: row.get(2)?, until: row.get(3)? })
}

fn lost(reader: &Reader<'_>, name: &LockName, now: Millis) -> Result<Error> {
    let error = Error::new(Code::LeaseLost, format!("this token does not hold the lock {} (any more)", name.as_str()))
        .hint("Its time has passed, or it was released. Stop what it protects, and take it again.");
    Ok(match held(reader, name, now)? {
        Some(other) => error.detail("fence", other.fence).detail("until", rfc3339(other.until)),
        None => error,
    })
}

const HELD: &str = "SELECT fence, owner, taken_at, until FROM locks WHERE name = ?1 AND until > ?2";

const HELD_BY: &str = "SELECT fence, owner, taken_at, until FROM locks WHERE name = ?1 AND token = ?2 AND until > ?3";

const COUNT: &str = "SELECT count(*) FROM (SELECT 1 FROM locks LIMIT ?1)";

const ENDED: &str = "SELECT 1 FROM locks WHERE until <= ?1 LIMIT 1";

const SWEEP: &str = "DELETE FROM locks WHERE name IN (SELECT name FROM locks WHERE until <= ?1 ORDER BY until LIMIT ?2)";

const RISE: &str = "UPDATE lock_clock SET fence = max(fence + 1, ?1) WHERE one = 1";

const FENCE: &str = "SELECT fence FROM lock_clock WHERE one = 1";

/// Over one whose time has passed.
const TAKE: &str = "INSERT OR REPLACE INTO locks (name, token, fence, owner, taken_at, until) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const EXTEND: &str = "UPDATE locks SET until = ?4 WHERE name = ?1 AND token = ?2 AND until > ?3";

const RELEASE: &str = "DELETE FROM locks WHERE name = ?1 AND token = ?2 AND until > ?3";

#[cfg(test)]
mod tests;
