//! Answers that clients have not read yet. A large answer waits in memory for its client, long after the statement
//! that made it, so their bytes are counted: for each tenant and over all. An answer over a bound is not sent; the
//! client is told to read the ones it has. A connection on which nothing moves is closed by the kernel
//! ([`STALL`]).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;

use crate::error::{Code, Error, Result};
use crate::tenant::Lease;

/// How long sent bytes may stay unacknowledged, or the client's window closed.
pub const STALL: Duration = Duration::from_secs(30);

/// Answers up to so many bytes are not counted: the connections bound them.
const SMALL: usize = 16 << 10;

/// A tenant's share of all unread bytes.
const SHARE: u64 = 4;

/// What is handed to a connection at once.
const CHUNK: usize = 64 << 10;

/// The bytes of all unread answers, within a bound.
pub struct UnreadAnswers {
    all: Arc<AtomicU64>,
    most: u64,
}

/// An answer's body, counted until its last chunk is on its way.
pub struct Unread {
    rest: Bytes,
    counted: Option<Counted>,
}

struct Counted {
    bytes: u64,
    all: Arc<AtomicU64>,
    tenant: Arc<AtomicU64>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
        self.tenant.fetch_sub(self.bytes, Relaxed);
    }
}

impl UnreadAnswers {
    pub fn new(most: u64) -> UnreadAnswers {
        UnreadAnswers { all: Arc::default(), most }
    }

    /// `body` as an answer's; 429 past the tenant's share, 503 past the whole.
    pub fn hold(&self, lease: &Lease, body: impl Into<Bytes>) -> Result<Unread> {
        let rest = body.into();
        if rest.len() <= SMALL {
            return Ok(Unread { rest, counted: None });
        }
        let refused = |code, whose: &str| {
            Err(Error::new(code, format!("too many bytes of answers {whose} wait to be read"))
                .hint("Read the answers that were sent, or ask for less at once. The bound is http.unread_bytes.")
                .retry_after(Duration::from_secs(1)))
        };
        let bytes = rest.len() as u64;
        let tenant = lease.unread().clone();
        let counted = Counted { bytes, all: self.all.clone(), tenant };
        let of_all = counted.all.fetch_add(bytes, Relaxed) + bytes;
        let of_tenant = counted.tenant.fetch_add(bytes, Relaxed) + bytes;
        // One answer alone is always sent, however large the plan lets it be.
        if of_tenant > self.most / SHARE && of_tenant > bytes {
            return refused(Code::TooManyRequests, "of this tenant");
        }
        if of_all > self.most && of_all > bytes {
            return refused(Code::Overloaded, "of all tenants");
        }
        Ok(Unread { rest, counted: Some(counted) })
    }
}

impl MessageBody for Unread {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let chunk = self.rest.len().min(CHUNK);
        Poll::Ready(Some(Ok(self.rest.split_to(chunk))))
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        // A small one goes out in one piece with its head.
        if self.counted.is_none() { Ok(self.rest) } else { Err(self) }
    }
}
