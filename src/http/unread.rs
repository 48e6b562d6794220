//! Answers that clients have not read yet. A large answer waits in memory for its client, long after the statement
//! that made it, so what it has taken of its tenant's allowance ([`crate::sqlite::Allowance`]) as it was written is given back
//! only when its last chunk is on its way. A connection on which nothing moves is closed by the kernel ([`STALL`]).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;

use crate::error::Result;
use crate::sqlite::{Allowance, Finished, Taken};
use crate::tenant::Lease;
use crate::tenant::lease::Files;

/// How long sent bytes may stay unacknowledged, or the client's window closed.
pub const STALL: Duration = Duration::from_secs(30);

/// Answers up to so many bytes are not counted: the connections bound them.
const SMALL: usize = 16 << 10;

/// From so many bytes on a block is the kernel's, and to give its end back copies nothing: an answer that grew as it was made
/// has up to twice its size.
const LARGE: usize = 1 << 20;

/// What is handed to a connection at once.
const CHUNK: usize = 64 << 10;

/// An answer's body, counted until its last chunk is on its way.
pub struct Unread {
    rest: Bytes,
    taken: Option<Taken>,
}

/// What becomes one: bytes, and what they have taken as they were written.
pub struct Body(Bytes, Option<Taken>);

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body(bytes, None)
    }
}

impl From<(Bytes, Option<Taken>)> for Body {
    fn from((bytes, taken): (Bytes, Option<Taken>)) -> Body {
        Body(bytes, taken)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body(bytes.into(), None)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body(text.into(), None)
    }
}

impl From<Finished> for Body {
    fn from(Finished { bytes, taken }: Finished) -> Body {
        Body(bytes.into(), taken)
    }
}

/// Whose answers are counted together.
pub trait Audience {
    fn answers(&self) -> &Arc<Allowance>;
}

impl Audience for Lease {
    fn answers(&self) -> &Arc<Allowance> {
        Lease::answers(self)
    }
}

impl Audience for Files {
    fn answers(&self) -> &Arc<Allowance> {
        Files::answers(self)
    }
}

impl Unread {
    /// `body` as the answer of what only read; refused where there is no room for it, as it can be asked again.
    pub fn hold(of: &impl Audience, body: impl Into<Body>) -> Result<Unread> {
        Unread::counted(body.into(), |bytes| of.answers().take(bytes))
    }

    /// `body` as the answer of what is done: it is always sent.
    pub fn keep(of: &impl Audience, body: impl Into<Body>) -> Unread {
        let kept = Unread::counted(body.into(), |bytes| Ok::<_, Infallible>(of.answers().take_anyway(bytes)));
        let Ok(unread) = kept;
        unread
    }

    /// `take` is for what has taken nothing yet.
    fn counted<E>(Body(mut rest, mut taken): Body, take: impl FnOnce(u64) -> Result<Taken, E>) -> Result<Unread, E> {
        if rest.len() <= SMALL {
            return Ok(Unread::small(rest));
        }
        if rest.len() >= LARGE && rest.is_unique() {
            let mut grown = Vec::from(rest);
            grown.shrink_to_fit();
            rest = grown.into();
            if let Some(taken) = &mut taken {
                taken.shrink(rest.len() as u64);
            }
        }
        let taken = match taken {
            None => take(rest.len() as u64)?,
            Some(taken) => taken,
        };
        Ok(Unread { rest, taken: Some(taken) })
    }

    /// What is bounded otherwise.
    pub fn small(body: impl Into<Bytes>) -> Unread {
        Unread { rest: body.into(), taken: None }
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
        if self.taken.is_none() { Ok(self.rest) } else { Err(self) }
    }
}
