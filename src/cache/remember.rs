//! A remembered answer is an entry with a [`Source`]: the query it answers, and the tables' versions that it was made from.
//! It is answered only while all of those still are what they were ([`Database::is_current`]), so it is never older than
//! what its reader knows to be committed, whoever committed it and in whatever way.
//!
//! - Whoever finds none makes it, one at a time for a key; the others wait, and then look for themselves. Nobody is
//!   handed what somebody else has just made: it may be older than his own write.
//! - Its snapshot is older than its putting. A commit between the two makes it an entry that nobody is answered with.
//! - Remembered answers have keys of their own: reading an entry never gives rows to a token that may not read them.
//! - A cache file that fails costs the memory of an answer, never the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::fill::{Ending, FILL_MAX_S, Turn};
use super::{Cache, Done, Etag, Found, Key, Op, Put, Seconds, Terms, Waiting};
use crate::clock::now_ms;
use crate::error::Result;
use crate::sqlite::{Database, Limits, Seen};

/// How much longer than its query a fill may take.
const SLACK: Duration = Duration::from_secs(5);

/// Tells queries apart: SHA-256 of all that the answer depends on beside the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryId([u8; 32]);

/// What an answer was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    query: QueryId,
    seen: Seen,
}

/// What [`Cache::recall`] came to.
pub enum Recalled {
    Found(Found),
    /// The caller is to make the answer; nobody else does while this lives.
    Mine(Making),
    /// Somebody else is making it.
    Theirs(Waiting),
}

/// The right to make an answer. Dropped, it is the next one's.
pub struct Making(Ending);

impl QueryId {
    /// Of the bytes that spell a query and its parameters out.
    pub fn of(query: &[u8]) -> QueryId {
        QueryId(Sha256::digest(query).into())
    }
}

impl Source {
    /// `None` for what is none.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Source> {
        let (query, seen) = bytes.split_first_chunk()?;
        Some(Source { query: QueryId(*query), seen: serde_json::from_slice(seen).ok()? })
    }

    /// Bytes it takes, about.
    pub(super) fn len(&self) -> usize {
        self.query.0.len() + self.seen.len()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.query.0.to_vec();
        // Into memory, which does not fail; what it came to is checked when it is read.
        let _ = serde_json::to_writer(&mut bytes, &self.seen);
        bytes
    }
}

impl Cache<'_> {
    /// What `query` answered, kept under `key`, if it is fresh and current on `database`; else whose turn it is to make it,
    /// for the time that `limits` give the query. Errors: `too_many_requests` past the bounds on fills and waiting.
    pub async fn recall(&self, key: &Key, query: QueryId, database: &Arc<Database>, limits: Limits) -> Result<Recalled> {
        let found = self.get(key.clone()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "a remembered answer could not be read");
            None
        });
        if let Some(found) = found
            && let Some(source) = found.source.as_ref().filter(|source| source.query == query)
            && database.is_current(&source.seen).await?
        {
            return Ok(Recalled::Found(found));
        }
        let lease = (limits.time + SLACK).as_secs().min(FILL_MAX_S as u64);
        let lease = Seconds::new("fill", lease as i64)?;
        Ok(match self.memory.fills().begin(self.file, key, lease, now_ms())? {
            Turn::Mine(fill) => Recalled::Mine(Making(self.ending(key, fill.token)?)),
            Turn::Theirs(waiting) => Recalled::Theirs(waiting),
        })
    }

    /// Keeps an answer for those who come after; `None` where that was not to be.
    pub async fn keep(&self, making: Making, key: Key, query: QueryId, seen: Seen, answer: Bytes, terms: Terms) -> Option<Etag> {
        let put = Put::new(key, Some(answer), Some("application/json".to_owned()), terms).map(|put| Put {
            source: Some(Arc::new(Source { query, seen })),
            fill: Some(Arc::new(making.0)),
            ..put
        });
        let kept = match put {
            Ok(put) => self.apply(vec![Op::Put(put)]).await,
            Err(error) => Err(error),
        };
        match kept.map(|mut done| done.pop()) {
            Ok(Some(Done::Put(etag))) => etag,
            Ok(refused) => {
                tracing::debug!(?refused, "an answer is not remembered");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "an answer is not remembered");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
