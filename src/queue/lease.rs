//! What the holder of a lease may do: finish the job, give it up, put it off, hold it longer, leave word of how far it
//! is. Each looks for the lease first and changes nothing when the token is stale. Whoever lets a job with a `limit` go
//! makes place for one that is blocked by it.

use rusqlite::params;
use uuid::Uuid;

use super::history::kept_ms;
use super::id::not_found;
use super::job::{Backoff, DELAY_MAX_S, within};
use super::limit::unblock;
use super::pace::Event;
use super::wait::Bell;
use super::workflow::{self, STATE};
use super::{JobId, State};
use crate::clock::Millis;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Reader, WriteTx};

/// The longest error text of a try, in bytes.
pub const ERROR_BYTES: usize = 4 << 10;

/// The longest `progress` and `result`, in bytes of JSON.
pub const NOTE_BYTES: usize = 64 << 10;

/// How a worker gives a job up.
#[derive(Debug, Default)]
pub struct Nack {
    delay_ms: Option<Millis>,
    error: Option<String>,
    dead: bool,
}

impl Nack {
    /// `delay_s` instead of the job's backoff; `dead`: no further try. Errors: `bad_request` outside the bounds.
    pub fn new(delay_s: Option<i64>, error: Option<String>, dead: bool) -> Result<Nack> {
        if error.as_ref().is_some_and(|error| error.len() > ERROR_BYTES) {
            return Err(Error::bad_request(format!("error is longer than {ERROR_BYTES} bytes")).hint("Keep the whole text elsewhere."));
        }
        let delay_ms = delay_s.map(|s| within("delay_s", s, 0, DELAY_MAX_S)).transpose()?.map(|s| s * 1_000);
        Ok(Nack { delay_ms, error, dead })
    }
}

/// Where a worker's word has brought its job.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub state: State,
    /// Of a leased job.
    pub lease_until: Option<Millis>,
    /// Of a scheduled job.
    pub run_at: Option<Millis>,
    /// Somebody asked the worker to stop.
    pub cancelled: bool,
}

/// A job in the hands of whoever showed its token.
struct Held {
    queue: i64,
    attempt: i64,
    max_attempts: i64,
    since: Millis,
    lease_until: Millis,
    cancelled: bool,
    limit_key: Option<String>,
    /// Others wait for its end.
    is_followed: bool,
}

/// What the server works on itself has a token that tells so: a UUID of version 8, where a worker's has version 4.
pub(super) fn new_token(own: bool) -> Uuid {
    let random = Uuid::new_v4();
    if own { uuid::Builder::from_custom_bytes(random.into_bytes()).into_uuid() } else { random }
}

/// Ends the leases that the server itself has: those of an earlier process, as this one has not claimed anything.
pub(super) fn end_left(tx: &WriteTx<'_>, bell: &mut Bell, now: Millis) -> Result<()> {
    if tx.execute(END_LEFT, [now])? > 0 {
        bell.look_at(now);
    }
    Ok(())
}

/// Reads a token. Errors: `lease_lost` for what never was one.
pub(super) fn token(id: JobId, text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| lease_lost(id))
}

pub(super) fn ack(tx: &WriteTx<'_>, id: JobId, token: Uuid, result: Option<&str>, bell: &mut Bell, now: Millis) -> Result<()> {
    let Some(held) = find(tx, id, token, now)? else { return Ok(()) };
    tx.execute(FINISH, params![id.seq(), now, now + kept_ms(State::Done)])?;
    bell.count(held.queue, Event::Done, 1);
    if let Some(result) = result {
        note(tx, id, None, Some(result))?;
    }
    if held.is_followed {
        workflow::ended(tx, id.seq(), State::Done, bell, now)?;
    }
    make_place(tx, &held, bell, now)
}

pub(super) fn nack(tx: &WriteTx<'_>, id: JobId, token: Uuid, nack: &Nack, chance: u32, bell: &mut Bell, now: Millis) -> Result<Step> {
    let held = find_held(tx, id, token, now)?;
    tx.execute(RECORD, params![id.seq(), held.attempt, held.since, now, nack.error])?;
    let state = if held.cancelled {
        State::Cancelled
    } else if nack.dead || held.attempt >= held.max_attempts {
        State::Dead
    } else {
        State::Scheduled
    };
    let delay_ms = match nack.delay_ms {
        Some(delay) => delay,
        None if state == State::Scheduled => backoff(tx, id)?.wait(held.attempt, chance),
        None => 0,
    };
    bell.count(held.queue, Event::Failed, 1);
    bell.count(held.queue, Event::Dead, usize::from(state == State::Dead));
    let_go(tx, id, &held, state, delay_ms, bell, now)
}

pub(super) fn snooze(tx: &WriteTx<'_>, id: JobId, token: Uuid, delay_ms: Millis, bell: &mut Bell, now: Millis) -> Result<Step> {
    let held = find_held(tx, id, token, now)?;
    let state = if held.cancelled { State::Cancelled } else { State::Scheduled };
    let unspent = Held { attempt: held.attempt - 1, ..held };
    let_go(tx, id, &unspent, state, delay_ms, bell, now)
}

pub(super) fn extend(
    tx: &WriteTx<'_>,
    id: JobId,
    token: Uuid,
    lease_ms: Option<Millis>,
    progress: Option<&str>,
    now: Millis,
) -> Result<Step> {
    let held = find_held(tx, id, token, now)?;
    let lease_until = match lease_ms {
        Some(lease_ms) => {
            let timeout: Option<Millis> = tx.row(TIMEOUT, [id.seq()], |row| row.get(0))?.flatten();
            let until = timeout.map_or(now + lease_ms, |timeout| (held.since + timeout).min(now + lease_ms));
            tx.execute(EXTEND, params![id.seq(), until])?;
            until
        }
        None => held.lease_until,
    };
    if progress.is_some() {
        note(tx, id, progress, None)?;
    }
    Ok(Step { state: State::Leased, lease_until: Some(lease_until), run_at: None, cancelled: held.cancelled })
}

/// Until when the token holds the job; `None` when it has finished it.
pub(super) fn held_until(reader: &Reader<'_>, id: JobId, token: Uuid, now: Millis) -> Result<Option<Millis>> {
    Ok(find(reader, id, token, now)?.map(|held| held.lease_until))
}

/// Whether nobody will work on the job any more.
pub(super) fn is_over(reader: &Reader<'_>, id: JobId) -> Result<bool> {
    let state = reader.row(STATE, params![id.seq(), id.created_at(), id.salt()], |row| Ok(State::of(row.get(0)?)))?;
    Ok(state.is_none_or(|state| state.is_finished() && state != State::Dead))
}

/// `None` when the token has finished the job.
fn find(tx: &Reader<'_>, id: JobId, token: Uuid, now: Millis) -> Result<Option<Held>> {
    let found = tx.row(FIND, params![id.seq(), id.created_at(), id.salt(), token.as_bytes(), now], |row| {
        let (is_held, is_done): (bool, bool) = (row.get(0)?, row.get(1)?);
        if !is_held {
            return Ok((None, is_done));
        }
        let held = Held {
            queue: row.get(2)?,
            attempt: row.get(3)?,
            max_attempts: row.get(4)?,
            since: row.get(5)?,
            lease_until: row.get(6)?,
            cancelled: row.get(7)?,
            limit_key: row.get(8)?,
            is_followed: row.get(9)?,
        };
        Ok((Some(held), is_done))
    })?;
    match found {
        None => Err(not_found(id)),
        Some((None, false)) => Err(lease_lost(id)),
        Some((held, _)) => Ok(held),
    }
}

fn find_held(tx: &WriteTx<'_>, id: JobId, token: Uuid, now: Millis) -> Result<Held> {
    find(tx, id, token, now)?.ok_or_else(|| lease_lost(id))
}

/// Takes the job out of its holder's hands, with `held.attempt` tries spent.
fn let_go(tx: &WriteTx<'_>, id: JobId, held: &Held, state: State, delay_ms: Millis, bell: &mut Bell, now: Millis) -> Result<Step> {
    let run_at = now + delay_ms;
    let state = if state == State::Scheduled && delay_ms == 0 { State::Ready } else { state };
    let keep_until = state.is_finished().then(|| now + kept_ms(state));
    tx.execute(LET_GO, params![id.seq(), state as i64, run_at, held.attempt, keep_until, now])?;
    make_place(tx, held, bell, now)?;
    if !state.is_finished() {
        bell.ring_number(tx, held.queue, run_at, now)?;
    } else if held.is_followed {
        workflow::ended(tx, id.seq(), state, bell, now)?;
    }
    let run_at = (state == State::Scheduled).then_some(run_at);
    Ok(Step { state, lease_until: None, run_at, cancelled: held.cancelled })
}

fn make_place(tx: &WriteTx<'_>, held: &Held, bell: &mut Bell, now: Millis) -> Result<()> {
    let Some(key) = &held.limit_key else { return Ok(()) };
    if unblock(tx, held.queue, key, now)? {
        bell.ring_number(tx, held.queue, now, now)?;
    }
    Ok(())
}

fn backoff(tx: &WriteTx<'_>, id: JobId) -> Result<Backoff> {
    let backoff = tx.row(BACKOFF, [id.seq()], |row| Ok(Backoff { kind: row.get(0)?, base_ms: row.get(1)?, max_ms: row.get(2)? }))?;
    backoff.ok_or_else(|| Error::internal("a job has no body", &id))
}

fn note(tx: &WriteTx<'_>, id: JobId, progress: Option<&str>, result: Option<&str>) -> Result<()> {
    tx.execute(NOTE, params![id.seq(), progress, result]).map(drop)
}

fn lease_lost(id: JobId) -> Error {
    Error::new(Code::LeaseLost, format!("this lease token does not hold job {id} (any more)"))
        .hint("The lease ended, or the job was finished. Drop what was done, or make it safe to do twice; then claim again.")
}

pub(super) const FIND: &str = "SELECT lease_token IS ?4 AND lease_until > ?5, done_token IS ?4, queue, attempt, max_attempts, since,
         lease_until, cancel_at IS NOT NULL, limit_key, followed
     FROM jobs WHERE seq = ?1 AND created_at = ?2 AND salt = ?3";

pub(super) const FINISH: &str = "UPDATE jobs SET state = 10, done_token = lease_token, lease_token = NULL, lease_until = NULL,
     since = ?2, keep_until = ?3
     WHERE seq = ?1";

pub(super) const LET_GO: &str = "UPDATE jobs SET state = ?2, due_at = ?3, attempt = ?4, keep_until = ?5, since = ?6,
     lease_token = NULL, lease_until = NULL
     WHERE seq = ?1";

/// A token's seventh byte begins with its version.
pub(super) const END_LEFT: &str = "UPDATE jobs INDEXED BY jobs_running SET lease_until = ?1
     WHERE state = 4 AND queue IN (SELECT queue FROM webhooks UNION ALL SELECT queue FROM queues WHERE name = '_behind')
       AND lease_until > ?1 AND substr(lease_token, 7, 1) BETWEEN x'80' AND x'8f'";

const EXTEND: &str = "UPDATE jobs SET lease_until = ?2 WHERE seq = ?1";

/// A try that was snoozed has the number of the one after it.
const RECORD: &str = "INSERT OR REPLACE INTO job_attempts (seq, attempt, started_at, ended_at, outcome, error)
     VALUES (?1, ?2, ?3, ?4, 'failed', ?5)";

const NOTE: &str = "INSERT INTO job_notes (seq, progress, result) VALUES (?1, ?2, ?3)
     ON CONFLICT (seq) DO UPDATE SET progress = coalesce(?2, progress), result = coalesce(?3, result)";

const BACKOFF: &str = "SELECT backoff, backoff_ms, backoff_max_ms FROM job_bodies WHERE seq = ?1";

const TIMEOUT: &str = "SELECT timeout_ms FROM job_bodies WHERE seq = ?1";
