//! Answers that clients have not read yet. A large answer waits in memory for its client, long after the statement
//! that made it, so their bytes are counted: for each tenant and over all. Past a bound no more work is
//! begun; what was committed is answered all the same. A connection on which nothing moves is closed by the kernel
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
use crate::tenant::lease::Files;

/// How long sent bytes may stay unacknowledged, or the client's window closed.
pub const STALL: Duration = Duration::from_secs(30);

/// Answers up to so many bytes are not counted: the connections bound them.
const SMALL: usize = 16 << 10;

/// From so many bytes on a block is the kernel's, and to give its end back copies nothing: an answer that grew as it was made
/// has up to twice its size.
const LARGE: usize = 1 << 20;

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

/// Whose answers are counted together.
pub trait Audience {
    fn unread(&self) -> &Arc<AtomicU64>;
}

impl Audience for Lease {
    fn unread(&self) -> &Arc<AtomicU64> {
        Lease::unread(self)
    }
}

impl Audience for Files {
    fn unread(&self) -> &Arc<AtomicU64> {
        Files::unread(self)
    }
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

    /// Whether more may be asked for: 429 past the tenant's share, 503 past the whole. Called before the work, so
    /// that what is refused has not been done.
    pub fn admit(&self, of: &impl Audience) -> Result<()> {
        self.within(self.all.load(Relaxed), of.unread().load(Relaxed), 0)
    }

    /// `body` as the answer of what only read; refused like [`UnreadAnswers::admit`], as it can be asked again.
    pub fn hold(&self, of: &impl Audience, body: impl Into<Bytes>) -> Result<Unread> {
        let held = self.keep(of, body);
        if let Some(counted) = &held.counted {
            self.within(counted.all.load(Relaxed), counted.tenant.load(Relaxed), counted.bytes)?;
        }
        Ok(held)
    }

    /// `body` as the answer of what is done: it is always sent.
    pub fn keep(&self, of: &impl Audience, body: impl Into<Bytes>) -> Unread {
        let mut rest = body.into();
        if rest.len() <= SMALL {
            return Unread::small(rest);
        }
        if rest.len() >= LARGE && rest.is_unique() {
            let mut grown = Vec::from(rest);
            grown.shrink_to_fit();
            rest = grown.into();
        }
        let bytes = rest.len() as u64;
        let counted = Counted { bytes, all: self.all.clone(), tenant: of.unread().clone() };
        counted.all.fetch_add(bytes, Relaxed);
        counted.tenant.fetch_add(bytes, Relaxed);
        Unread { rest, counted: Some(counted) }
    }

    /// A tenant that has no other answer waiting is within the bounds, whatever the others do.
    fn within(&self, of_all: u64, of_tenant: u64, of_this: u64) -> Result<()> {
        let refused = |code, whose: &str| {
            Err(Error::new(code, format!("too many bytes of answers {whose} wait to be read"))
                .hint("Read the answers that were sent, or ask for less at once. The bound is http.unread_bytes.")
                .retry_after(Duration::from_secs(1)))
        };
        if of_tenant <= of_this {
            Ok(())
        } else if of_tenant > self.most / SHARE {
            refused(Code::TooManyRequests, "of this tenant")
        } else if of_all > self.most {
            refused(Code::Overloaded, "of all tenants")
        } else {
            Ok(())
        }
    }
}

impl Unread {
    /// What is bounded otherwise.
    pub fn small(body: impl Into<Bytes>) -> Unread {
        Unread { rest: body.into(), counted: None }
    }

    pub fn len(&self) -> usize {
        self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
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
