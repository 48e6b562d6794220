//! A [`Schedule`] adds a job to its queue at each run of a [`Calendar`]. A run is enqueued in the transaction that moves
//! the schedule past it, so each is enqueued once, however often that transaction is begun and wherever it is cut off.
//! `next_at` is the first run that was not fired; the runs from there to now are those that are due, and when they are
//! more than one, or late, [`Misfire`] says which of them count.

use rusqlite::{Row, params};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::batch::Batch;
use super::calendar::Calendar;
use super::enqueue::{Enqueued, Outcome, enqueue, queue_of};
use super::job::{JobRequest, NewJob};
use super::name::plain;
use super::wait::Bell;
use super::{JobId, QueueName};
use crate::clock::{Millis, rfc3339};
use crate::error::{Error, Result};
use crate::sqlite::{Reader, WriteTx};

/// Schedules of one file.
pub const SCHEDULES_MAX: i64 = 1_000;

/// Runs shown of what is to come.
pub const RUNS_SHOWN: usize = 5;

/// The newest runs that are fired of those missed, with [`Misfire::All`].
pub const CAUGHT_UP_MAX: usize = 100;

/// A run is late after so long, in milliseconds: a minute.
pub const LATE_MS: Millis = 60_000;

/// Schedules looked at by one transaction that fires; it ends earlier once it has enqueued [`CAUGHT_UP_MAX`] jobs.
const FIRED_MAX: usize = 16;

/// Which runs count of those that were not fired in time: the server was down, the tenant suspended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Misfire {
    /// None that is late.
    Skip = 0,
    /// The last one, for all.
    #[default]
    Once = 1,
    /// Each, but of more than [`CAUGHT_UP_MAX`] the newest.
    All = 2,
}

impl Misfire {
    pub const fn as_str(self) -> &'static str {
        match self {
            Misfire::Skip => "skip",
            Misfire::Once => "once",
            Misfire::All => "all",
        }
    }

    fn of(number: i64) -> Misfire {
        [Misfire::Skip, Misfire::Once, Misfire::All].into_iter().find(|known| *known as i64 == number).unwrap_or_default()
    }

    /// The runs to fire at `now`, oldest first; `next_at` has come.
    fn runs(self, calendar: &Calendar, next_at: Millis, now: Millis) -> Vec<Millis> {
        let last = calendar.until(now).map_or(next_at, |last| last.max(next_at));
        match self {
            Misfire::Skip if now - last > LATE_MS => Vec::new(),
            Misfire::Skip | Misfire::Once => vec![last],
            Misfire::All => {
                let earlier = |at: &Millis| calendar.until(at - 1).filter(|at| *at >= next_at);
                let mut runs: Vec<_> = std::iter::successors(Some(last), earlier).take(CAUGHT_UP_MAX).collect();
                runs.reverse();
                runs
            }
        }
    }
}

/// What somebody wants to be enqueued, and when.
#[derive(Debug)]
pub struct NewSchedule {
    cron: String,
    time_zone: String,
    calendar: Calendar,
    misfire: Misfire,
    paused: bool,
    /// As a request for one job has it.
    job: String,
}

#[derive(Clone, Debug)]
pub struct Schedule {
    pub queue: String,
    pub name: String,
    pub cron: String,
    pub time_zone: String,
    pub misfire: Misfire,
    /// JSON, as it was sent.
    pub job: String,
    pub set_by: String,
    pub paused_at: Option<Millis>,
    /// The next ones, [`RUNS_SHOWN`] at most; none while it is paused.
    pub next_runs: Vec<Millis>,
    pub last_at: Option<Millis>,
    pub last_job: Option<String>,
    /// JSON: why the last run has no job.
    pub last_error: Option<String>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl NewSchedule {
    /// Errors: `bad_request` for what cannot be read or never runs, and those of the job.
    pub fn new(cron: String, time_zone: String, misfire: Misfire, paused: bool, job: &RawValue, now: Millis) -> Result<NewSchedule> {
        let calendar = Calendar::parse(&cron, &time_zone, now)?;
        read_job(job.get())?;
        Ok(NewSchedule { cron, time_zone, calendar, misfire, paused, job: job.get().to_owned() })
    }
}

/// Errors: `bad_request` for what is no job, and for one that has its own time.
fn read_job(json: &str) -> Result<NewJob> {
    let request: JobRequest = serde_json::from_str(json).map_err(|error| Error::bad_request(format!("job: {error}")))?;
    if request.run_at.is_some() {
        return Err(Error::bad_request("job.run_at is for the calendar to say").hint("delay_s puts each job off after its run."));
    }
    request.check()
}

pub(super) fn put(
    tx: &WriteTx<'_>,
    queue: &QueueName,
    name: &str,
    new: &NewSchedule,
    by: &str,
    bell: &mut Bell,
    now: Millis,
) -> Result<Schedule> {
    plain("schedule", name)?;
    let (number, _) = queue_of(tx, queue, now)?;
    let before = tx.row(TIMES, params![number, name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?)))?;
    if before.is_none() && tx.row(COUNT, [], |row| row.get::<_, i64>(0))?.unwrap_or(0) >= SCHEDULES_MAX {
        return Err(
            Error::conflict(format!("there are {SCHEDULES_MAX} schedules, the most there can be")).hint("Delete one that is not used.")
        );
    }
    let next_at = match before {
        _ if new.paused => None,
        // Said again, as applications do when they start: a run that is due stays due.
        Some((cron, zone, Some(next_at))) if cron == new.cron && zone == new.time_zone => Some(next_at),
        _ => new.calendar.after(now),
    };
    let paused_at = new.paused.then_some(now);
    tx.execute(PUT, params![number, name, new.cron, new.time_zone, new.misfire as i64, new.job, by, paused_at, next_at, now])?;
    bell.look_at(next_at.unwrap_or(Millis::MAX));
    get(tx, queue, name, now)
}

/// Pauses it, or lets it run again from now on: what it missed while it was paused is not fired.
pub(super) fn pause(tx: &WriteTx<'_>, queue: &QueueName, name: &str, paused: bool, bell: &mut Bell, now: Millis) -> Result<Schedule> {
    let schedule = get(tx, queue, name, now)?;
    if schedule.paused_at.is_some() != paused {
        let next_at = if paused { None } else { Calendar::read(&schedule.cron, &schedule.time_zone)?.after(now) };
        tx.execute(PAUSE, params![queue.as_str(), name, paused.then_some(now), next_at, now])?;
        bell.look_at(next_at.unwrap_or(Millis::MAX));
    }
    get(tx, queue, name, now)
}

pub(super) fn delete(tx: &WriteTx<'_>, queue: &QueueName, name: &str) -> Result<()> {
    if tx.execute(DELETE, params![queue.as_str(), name])? == 0 { Err(no_schedule(queue, name)) } else { Ok(()) }
}

/// Enqueues the job now; the runs to come stay as they are.
pub(super) fn run_now(tx: &WriteTx<'_>, queue: &QueueName, name: &str, bell: &mut Bell, now: Millis) -> Result<Enqueued> {
    let schedule = get(tx, queue, name, now)?;
    match enqueue_run(tx, queue, name, &schedule.job, now, bell, now)? {
        Outcome::Enqueued(made) => Ok(made),
        Outcome::Refused(error) => Err(error),
    }
}

pub(super) fn get(reader: &Reader<'_>, queue: &QueueName, name: &str, now: Millis) -> Result<Schedule> {
    let found = reader.row(ONE, params![queue.as_str(), name], |row| schedule(row, now))?;
    found.ok_or_else(|| no_schedule(queue, name))
}

/// Those of a queue, by name.
pub(super) fn list(reader: &Reader<'_>, queue: &QueueName, limit: i64, after: &str, now: Millis) -> Result<Vec<Schedule>> {
    reader.rows(LIST, params![queue.as_str(), after, limit], |row| schedule(row, now))
}

/// Enqueues what is due, and says whether there may be more.
pub(super) fn fire(tx: &WriteTx<'_>, bell: &mut Bell, now: Millis) -> Result<bool> {
    let due = tx.rows(DUE, params![now, FIRED_MAX as i64], |row| {
        Ok(Due {
            queue: row.get(0)?,
            queue_name: row.get(1)?,
            name: row.get(2)?,
            cron: row.get(3)?,
            time_zone: row.get(4)?,
            misfire: Misfire::of(row.get(5)?),
            job: row.get(6)?,
            next_at: row.get(7)?,
        })
    })?;
    let (found, mut seen, mut enqueued) = (due.len(), 0, 0);
    for due in due {
        if enqueued >= CAUGHT_UP_MAX {
            break;
        }
        enqueued += due.fire(tx, bell, now)?;
        seen += 1;
    }
    Ok(found == FIRED_MAX || seen < found)
}

/// The first run that was not fired, of all schedules.
pub(super) fn next_at(reader: &Reader<'_>) -> Result<Option<Millis>> {
    Ok(reader.row(NEXT, [], |row| row.get(0))?.flatten())
}

struct Due {
    queue: i64,
    queue_name: String,
    name: String,
    cron: String,
    time_zone: String,
    misfire: Misfire,
    job: String,
    next_at: Millis,
}

impl Due {
    /// How many jobs it came to.
    fn fire(&self, tx: &WriteTx<'_>, bell: &mut Bell, now: Millis) -> Result<usize> {
        let queue = QueueName::parse(&self.queue_name)?;
        let calendar = match Calendar::read(&self.cron, &self.time_zone) {
            Ok(calendar) => calendar,
            // Read by another version of the library: it stands still, and says why.
            Err(error) => return tx.execute(FIRED, params![self.queue, self.name, None::<i64>, None::<i64>, None::<String>, json(&error)]),
        };
        let runs = self.misfire.runs(&calendar, self.next_at, now);
        let (mut last_job, mut last_error) = (None::<JobId>, None);
        for run in &runs {
            match enqueue_run(tx, &queue, &self.name, &self.job, *run, bell, now) {
                Ok(Outcome::Enqueued(made)) => (last_job, last_error) = (Some(made.id), None),
                Ok(Outcome::Refused(error)) => (last_job, last_error) = (None, Some(json(&error))),
                Err(error) => return Err(error),
            }
        }
        let (next_at, last_at) = (calendar.after(now), runs.last().copied());
        tx.execute(FIRED, params![self.queue, self.name, next_at, last_at, last_job.map(|id| id.to_string()), last_error])?;
        bell.look_at(next_at.unwrap_or(Millis::MAX));
        Ok(runs.len())
    }
}

fn enqueue_run(tx: &WriteTx<'_>, queue: &QueueName, name: &str, job: &str, run: Millis, bell: &mut Bell, now: Millis) -> Result<Outcome> {
    let by = format!("schedule {name} {}", rfc3339(run));
    let made = enqueue(tx, queue, &Batch { jobs: vec![read_job(job)], then: None }, &by, None, bell, now)?;
    made.outcomes.into_iter().next().ok_or_else(|| Error::internal("a run of a schedule has no outcome", &name))
}

fn schedule(row: &Row<'_>, now: Millis) -> rusqlite::Result<Schedule> {
    let (cron, time_zone): (String, String) = (row.get(2)?, row.get(3)?);
    let next_at: Option<Millis> = row.get(8)?;
    let next_runs = match (next_at, Calendar::read(&cron, &time_zone)) {
        (Some(next_at), Ok(calendar)) => {
            let first = if next_at > now { Some(next_at) } else { calendar.after(now) };
            std::iter::successors(first, |at| calendar.after(*at)).take(RUNS_SHOWN).collect()
        }
        _ => Vec::new(),
    };
    Ok(Schedule {
        queue: row.get(0)?,
        name: row.get(1)?,
        cron,
        time_zone,
        misfire: Misfire::of(row.get(4)?),
        job: row.get(5)?,
        set_by: row.get(6)?,
        paused_at: row.get(7)?,
        next_runs,
        last_at: row.get(9)?,
        last_job: row.get(10)?,
        last_error: row.get(11)?,
        created_at: row.get(12)?,
        updated_at: row.get(13)?,
    })
}

fn json(error: &Error) -> String {
    error.to_json().to_string()
}

fn no_schedule(queue: &QueueName, name: &str) -> Error {
    Error::not_found(format!("the queue {} has no schedule {name}", queue.as_str())).hint("GET /v1/queues/{queue}/schedules lists them.")
}

macro_rules! schedules {
    ($rest:literal) => {
        concat!(
            "SELECT q.name, s.name, s.cron, s.time_zone, s.misfire, s.job, s.set_by, s.paused_at, s.next_at, s.last_at, s.last_job,
                 s.last_error, s.created_at, s.updated_at
             FROM queues q CROSS JOIN schedules s ON s.queue = q.queue ",
            $rest
        )
    };
}

const ONE: &str = schedules!("WHERE q.name = ?1 AND s.name = ?2");

const LIST: &str = schedules!("WHERE q.name = ?1 AND s.name > ?2 ORDER BY s.name LIMIT ?3");

const TIMES: &str = "SELECT cron, time_zone, next_at FROM schedules WHERE queue = ?1 AND name = ?2";

const COUNT: &str = "SELECT count(*) FROM schedules";

const PUT: &str = "INSERT INTO schedules (queue, name, cron, time_zone, misfire, job, set_by, paused_at, next_at, created_at, updated_at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)
     ON CONFLICT (queue, name) DO UPDATE SET cron = ?3, time_zone = ?4, misfire = ?5, job = ?6, set_by = ?7,
         paused_at = iif(?8 IS NULL, NULL, coalesce(paused_at, ?8)), next_at = ?9, updated_at = ?10";

const PAUSE: &str = "UPDATE schedules SET paused_at = ?3, next_at = ?4, updated_at = ?5
     WHERE queue = (SELECT queue FROM queues WHERE name = ?1) AND name = ?2";

const DELETE: &str = "DELETE FROM schedules WHERE queue = (SELECT queue FROM queues WHERE name = ?1) AND name = ?2";

const DUE: &str = "SELECT s.queue, q.name, s.name, s.cron, s.time_zone, s.misfire, s.job, s.next_at
     FROM schedules s INDEXED BY schedules_due CROSS JOIN queues q ON q.queue = s.queue
     WHERE s.next_at IS NOT NULL AND s.next_at <= ?1 ORDER BY s.next_at LIMIT ?2";

const NEXT: &str = "SELECT min(next_at) FROM schedules INDEXED BY schedules_due WHERE next_at IS NOT NULL";

/// What a run that was left out leaves is what the one before left.
const FIRED: &str = "UPDATE schedules SET next_at = ?3, last_at = coalesce(?4, last_at),
     last_job = iif(?4 IS NULL, last_job, ?5), last_error = iif(?4 IS NULL, coalesce(?6, last_error), ?6)
     WHERE queue = ?1 AND name = ?2";
