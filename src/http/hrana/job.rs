//! A [`Job`] is a socket's request on one of its streams. Each passes what an HTTP request passes: the token is looked at
//! again, the tenant's rate counts it, and it holds the tenant's files for as long as it runs.

use std::sync::Arc;
use std::time::Instant;

use actix_web::web::{Bytes, Data};

use super::{context, write_entries};
use crate::error::{Code, Error, Result};
use crate::hrana::proto::socket::{Response, respond};
use crate::hrana::proto::{Batch, StreamRequest, StreamResponse};
use crate::hrana::{Stream, Streams};
use crate::http::extract::Receiving;
use crate::http::guard::Door;
use crate::http::unread::Unread;
use crate::http::watch::SlowLog;
use crate::tenant::Lease;

pub struct Job {
    /// The request's.
    pub id: i32,
    pub work: Work,
    /// Of the message that it came in.
    pub bytes: usize,
    pub counted: Option<Receiving>,
}

pub enum Work {
    Run(StreamRequest),
    /// For the cursor of this number.
    Cursor(i32, Batch),
    /// Done by the socket itself.
    Close,
}

/// A job that has run.
pub struct Done {
    /// The stream's number.
    pub number: i32,
    pub stream: Stream,
    pub bytes: usize,
    pub answer: Unread,
    /// The cursor that was to be opened, and its entries if it was.
    pub cursor: Option<(i32, Option<(Bytes, Unread)>)>,
    /// Why the token does not serve any more.
    pub refused: Option<Error>,
}

/// What a job passes through.
#[derive(Clone)]
pub struct Hall {
    pub door: Door,
    pub streams: Data<Streams>,
    pub slow: Data<SlowLog>,
}

impl Hall {
    pub async fn run(self, token: Arc<str>, number: i32, mut stream: Stream, job: Job) -> Done {
        let Job { id, work, bytes, counted: _counted } = job;
        let (request, cursor) = match work {
            Work::Run(request) => (request, None),
            Work::Cursor(cursor, batch) => (StreamRequest::Batch(batch), Some(cursor)),
            Work::Close => (StreamRequest::Close, None),
        };
        let mut refused = None;
        let (answer, cursor) = match (self.pass(&token, &mut stream, request, &mut refused).await, cursor) {
            (Ok((response, lease)), None) => (Unread::keep(&lease, respond(id, Ok(&Response::OnStream(response)))), None),
            (Ok((response, lease)), Some(cursor)) => {
                let mut entries = Vec::new();
                write_entries(&mut entries, Ok(response));
                let entries = Bytes::from(entries);
                let counted = Unread::keep(&lease, entries.clone());
                (Unread::small(respond(id, Ok(&Response::OpenCursor))), Some((cursor, Some((entries, counted)))))
            }
            (Err(error), cursor) => (Unread::small(respond(id, Err((&error).into()))), cursor.map(|cursor| (cursor, None))),
        };
        Done { number, stream, bytes, answer, cursor, refused }
    }

    async fn pass(
        &self,
        token: &str,
        stream: &mut Stream,
        request: StreamRequest,
        refused: &mut Option<Error>,
    ) -> Result<(StreamResponse, Lease)> {
        let call = self.door.let_in(token).await.inspect_err(|error| {
            *refused = matches!(error.code(), Code::Unauthenticated | Code::TenantSuspended).then(|| error.clone());
        })?;
        call.tenant.admit()?;
        let lease = call.lease().await?;
        lease.answers().admit()?;
        let began = Instant::now();
        let outcome = stream.run(&context(&call, &lease, &self.streams)?, request).await;
        self.slow.note(call.tenant.id.uuid(), "database", "hrana", began.elapsed(), 1, call.request_id);
        Ok((outcome?, lease))
    }
}
