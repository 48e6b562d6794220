//! What comes in from the database's outbox. A [`Letter`] becomes a job, or is refused with a reason, in the transaction
//! that moves the mark past it: so each is taken in once, however often it is brought. A refusal is kept here until
//! the database has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rusqlite::params;
use rusqlite::types::Value;
use serde_json::value::RawValue;

use super::enqueue::{Outcome, add_all};
use super::job::JobRequest;
use super::wait::Bell;
use super::{Batch, PAYLOAD_BYTES, QueueName};
use crate::clock::Millis;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Reader, WriteTx};

/// Who adds the jobs, as they say themselves.
const BY: &str = "_outbox";

/// When a full file is tried again, in milliseconds.
const RETRY_MS: Millis = 30_000;

/// A row of the outbox, by its place: the job it asks for, or why it cannot be one.
#[derive(Debug)]
pub struct Letter {
    id: i64,
    job: Result<(QueueName, Batch)>,
}

/// How far the outbox has been taken in.
#[derive(Clone, Debug, Default)]
pub struct Mark {
    pub at: i64,
    /// Refused, as far as the database has not been told.
    pub refused: Vec<(i64, String)>,
    /// A part was left behind in a full file, as far as is known; taking in, also of nothing, settles it.
    pub is_behind: bool,
}

/// What became of letters that were brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenIn {
    All,
    /// The file is full. The rest is to be brought again, and somebody will.
    Full,
    /// Somebody else brought them meanwhile.
    Stale,
}

impl Letter {
    /// `payload` is JSON as text, or bytes where `options` have a `payload_type`, or a number, or nothing; or, if it is too long to be
    /// read, its length. `options` is a JSON object with the other members of a job.
    pub fn new(id: i64, queue: Value, payload: Result<Value, i64>, options: Value) -> Letter {
        Letter { id, job: read(queue, payload, options) }
    }
}

fn read(queue: Value, payload: Result<Value, i64>, options: Value) -> Result<(QueueName, Batch)> {
    let Value::Text(queue) = queue else { return Err(Error::bad_request("queue is not the name of a queue")) };
    let payload = match payload {
        Ok(Value::Text(text)) => text,
        Ok(Value::Null) => "null".to_owned(),
        Ok(Value::Integer(number)) => number.to_string(),
        Ok(Value::Real(number)) => serde_json::Value::from(number).to_string(),
        Ok(Value::Blob(bytes)) => format!("{{\"base64\":\"{}\"}}", BASE64.encode(bytes)),
        Err(length) => {
            return Err(Error::new(Code::PayloadTooLarge, format!("the payload has {length} bytes; {PAYLOAD_BYTES} is the most")));
        }
    };
    if serde_json::from_str::<&RawValue>(&payload).is_err() {
        return Err(Error::bad_request("payload is not JSON"));
    }
    let options = match &options {
        Value::Null => "",
        Value::Text(text) => object(text)?,
        _ => return Err(not_options()),
    };
    let comma = if options.is_empty() { "" } else { "," };
    let request: JobRequest = serde_json::from_str(&format!("{{\"payload\":{payload}{comma}{options}}}"))
        .map_err(|error| Error::bad_request(format!("options: {error}")))?;
    Ok((QueueName::parse(&queue)?, Batch::of_one(request.check()?)))
}

/// What stands between the braces of a JSON object.
fn object(text: &str) -> Result<&str> {
    let is_object = serde_json::from_str::<&RawValue>(text).is_ok_and(|json| json.get().starts_with('{'));
    let inside = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')).filter(|_| is_object);
    inside.map(str::trim).ok_or_else(not_options)
}

fn not_options() -> Error {
    Error::bad_request("options is not a JSON object of at most 64 KiB")
}

pub(super) fn mark(reader: &Reader<'_>) -> Result<Mark> {
    reader.snapshot()?;
    let at = reader.row(MARK, [], |row| row.get(0))?.unwrap_or_default();
    Ok(Mark { at, is_behind: retry_at(reader)?.is_some(), refused: reader.rows(REFUSED, [], |row| Ok((row.get(0)?, row.get(1)?)))? })
}

/// When a full file is to be tried again.
pub(super) fn retry_at(reader: &Reader<'_>) -> Result<Option<Millis>> {
    Ok(reader.row(RETRY_AT, [], |row| row.get(0))?.flatten())
}

/// Takes in letters that stand behind the mark, of which all is in the database.
pub(super) fn take_in(tx: &WriteTx<'_>, after: i64, letters: &[Letter], bell: &mut Bell, now: Millis) -> Result<TakenIn> {
    if tx.row(MARK, [], |row| row.get::<_, i64>(0))? != Some(after) {
        return Ok(TakenIn::Stale);
    }
    tx.execute(TOLD, [after])?;
    let (mut mark, mut taken) = (after, TakenIn::All);
    for letter in letters {
        let outcomes = match &letter.job {
            Ok((queue, batch)) => add_all(tx, queue, batch, BY, bell, now)?,
            Err(reason) => vec![Outcome::Refused(reason.clone())],
        };
        match outcomes.into_iter().next() {
            Some(Outcome::Refused(reason)) if reason.code() == Code::QuotaExceeded => {
                taken = TakenIn::Full;
                break;
            }
            Some(Outcome::Refused(reason)) => _ = tx.execute(REFUSE, params![letter.id, reason.message()])?,
            _ => {}
        }
        mark = letter.id;
    }
    settle(tx, mark, taken, bell, now)
}

/// Takes nothing in: the file has no room.
pub(super) fn leave(tx: &WriteTx<'_>, after: i64, bell: &mut Bell, now: Millis) -> Result<TakenIn> {
    match tx.row(MARK, [], |row| row.get::<_, i64>(0))? {
        Some(mark) if mark == after => settle(tx, mark, TakenIn::Full, bell, now),
        _ => Ok(TakenIn::Stale),
    }
}

/// Writes over a row that is there, which takes no room.
fn settle(tx: &WriteTx<'_>, mark: i64, taken: TakenIn, bell: &mut Bell, now: Millis) -> Result<TakenIn> {
    let retry_at = (taken == TakenIn::Full).then_some(now + RETRY_MS);
    if let Some(at) = retry_at {
        bell.look_at(at);
    }
    tx.execute(MOVE, params![mark, retry_at])?;
    Ok(taken)
}

const MARK: &str = "SELECT mark FROM outbox_mark WHERE one = 1";

const REFUSED: &str = "SELECT id, reason FROM outbox_refused ORDER BY id";

const RETRY_AT: &str = "SELECT retry_at FROM outbox_mark WHERE one = 1";

const TOLD: &str = "DELETE FROM outbox_refused WHERE id <= ?1";

const REFUSE: &str = "INSERT INTO outbox_refused (id, reason) VALUES (?1, ?2)";

const MOVE: &str = "UPDATE outbox_mark SET mark = ?1, retry_at = ?2 WHERE one = 1";

#[cfg(test)]
mod tests {
    use super::super::NewJob;
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn a_row_is_a_job_as_a_request_would_have_it() {
        let job = |payload, options: Value| -> Result<NewJob> {
            let (_, mut batch) = read(text("q"), Ok(payload), options)?;
            batch.jobs.remove(0)
        };
        assert_eq!(job(text(r#"{"a": 1.50}"#), Value::Null).unwrap().payload, br#"{"a": 1.50}"#);
        assert_eq!(job(Value::Integer(7), text(" { } ")).unwrap().payload, b"7");
        assert_eq!(job(Value::Null, text(r#"{"priority":3}"#)).unwrap().priority, 3);
        assert_eq!(job(Value::Blob(vec![0, 255]), text(r#"{"payload_type":"a/b"}"#)).unwrap().payload, [0, 255]);
        for (payload, options) in [
            (text("no"), Value::Null),
            (text("1}"), Value::Null),
            (text("1,\"priority\":2"), Value::Null),
            (text("1"), text("[]")),
            (text("1"), text("{\"payload\":2}")),
            (text("1"), text("{\"priority\":2}}")),
            (text("1"), text("{\"unknown\":2}")),
            (text("1"), Value::Integer(1)),
        ] {
            assert!(job(payload.clone(), options.clone()).is_err(), "{payload:?} {options:?}");
        }
        assert!(read(text("a b"), Ok(Value::Null), Value::Null).is_err() && read(Value::Null, Ok(Value::Null), Value::Null).is_err());
    }
}
