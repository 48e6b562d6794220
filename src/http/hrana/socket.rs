//! Hrana on a WebSocket: `GET /` upgraded. One [`Session`] a socket, with many streams side by side: the requests on one
//! stream run in their order, those on different streams at once.
//!
//! Bounds: a socket takes up to [`REQUESTS_MAX`] requests, and the bytes of one largest message, before it has answered
//! some; then it stops reading, and the client feels it. Answers wait in a queue of [`QUEUE`] for a client to take them. A
//! socket says hello in time, ends with its token, and when nothing is asked on it for long; what it holds ends with it.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Polling, Poll, ready};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::cursor::{Asked, CURSORS_MAX, Cursors, Fetched};
use super::frame::{self, Closing, Frames, Incoming, Message};
use super::job::{Done, Hall, Job, Work};
use super::upgrade;
use crate::auth::missing_token;
use crate::clock;
use crate::error::{Code, Error, Result};
use crate::hrana::proto::StreamRequest;
use crate::hrana::proto::socket::{self as messages, ClientMsg, Request, Response};
use crate::hrana::{Place, Stored, Stream, Streams};
use crate::http::extract::BodyLimits;
use crate::http::guard::Door;
use crate::http::unread::Unread;
use crate::http::watch::SlowLog;

/// Requests of one socket that are not answered yet.
const REQUESTS_MAX: usize = 128;

/// Messages on their way to one client.
const QUEUE: usize = 16;

/// How long a client may take to say hello, and the longest message before that.
const HELLO_TIME: Duration = Duration::from_secs(10);
const HELLO_BYTES: usize = 16 << 10;

/// After so long without a sign of life the client is pinged. The kernel closes a connection that does not acknowledge.
const PING_AFTER: Duration = Duration::from_secs(20);

pub async fn open(
    request: HttpRequest,
    payload: Payload,
    limits: Data<BodyLimits>,
    streams: Data<Streams>,
    slow: Data<SlowLog>,
) -> Result<HttpResponse> {
    let mut answer = upgrade::accept(&request)?;
    let (out, queue) = mpsc::channel(QUEUE);
    let message_max = limits.bytes;
    let now = Instant::now();
    let session = Session {
        hall: Hall { door: Door::of(&request)?, streams: streams.clone(), slow },
        frames: Frames::new(payload, limits, HELLO_BYTES.min(message_max)),
        message_max,
        stopping: streams.closing(),
        caller: None,
        stored: Stored::default(),
        open: HashMap::new(),
        cursors: Cursors::default(),
        running: FuturesUnordered::new(),
        waiting: 0,
        waiting_bytes: 0,
        outbox: Vec::new(),
        heard: now,
        asked: now,
    };
    actix_web::rt::spawn(session.run(out));
    Ok(answer.body(Outgoing { queue, now: None }))
}

struct Session {
    hall: Hall,
    frames: Frames,
    message_max: usize,
    stopping: watch::Receiver<bool>,
    /// Who said hello.
    caller: Option<Caller>,
    stored: Stored,
    open: HashMap<i32, Slot>,
    cursors: Cursors,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Done>>>>,
    /// Requests that are not answered yet, and the bytes they came in.
    waiting: usize,
    waiting_bytes: usize,
    /// Answers that are to be sent before anything else happens.
    outbox: Vec<Unread>,
    /// When anything was last received, and when anything was last asked.
    heard: Instant,
    asked: Instant,
}

struct Caller {
    token: std::sync::Arc<str>,
    tenant: Uuid,
    subject: String,
    until: Instant,
    place: Place,
}

enum Slot {
    /// It could not be opened. Its number is taken until it is closed.
    Failed,
    Open {
        /// Not here while a request runs on it.
        stream: Option<Stream>,
        jobs: VecDeque<Job>,
        _place: Place,
    },
}

impl Session {
    async fn run(mut self, out: mpsc::Sender<Unread>) {
        let Err(closing) = self.serve(&out).await else { return };
        tracing::debug!(code = closing.code, reason = closing.reason, "a socket is closed");
        for last in self.outbox.drain(..).chain([Unread::small(frame::close(&closing))]) {
            if out.send(last).await.is_err() {
                return;
            }
        }
    }

    /// Until the client has gone (`Ok`) or is to be told why it is over.
    async fn serve(&mut self, out: &mpsc::Sender<Unread>) -> Result<(), Closing> {
        loop {
            for answer in self.outbox.drain(..) {
                if out.send(answer).await.is_err() {
                    return Ok(());
                }
            }
            let stopping = *self.stopping.borrow();
            if stopping && self.running.is_empty() {
                return Err(Closing::new(Closing::GOING_AWAY, "the server is stopping"));
            }
            let deadline = self.deadline();
            let room = !stopping && self.waiting < REQUESTS_MAX && self.waiting_bytes < self.message_max;
            tokio::select! {
                () = out.closed() => return Ok(()),
                _ = self.stopping.changed(), if !stopping => {}
                () = sleep_until(deadline) => return Err(self.overdue()),
                () = sleep_until(self.heard + PING_AFTER) => {
                    self.heard = Instant::now();
                    self.outbox.push(Unread::small(frame::ping()));
                }
                Some(done) = self.running.next() => self.finished(done)?,
                incoming = self.frames.next(), if room => {
                    self.heard = Instant::now();
                    match incoming? {
                        Some(Incoming::Text(message)) => self.received(message).await?,
                        Some(Incoming::Ping(payload)) => self.outbox.push(Unread::small(frame::pong(&payload))),
                        Some(Incoming::Pong) => {}
                        Some(Incoming::Close) => return Err(Closing::new(Closing::NORMAL, "")),
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    fn deadline(&self) -> Instant {
        match &self.caller {
            None => self.asked + HELLO_TIME,
            Some(caller) if self.running.is_empty() => caller.until.min(self.asked + self.hall.streams.socket_idle()),
            Some(caller) => caller.until,
        }
    }

    fn overdue(&self) -> Closing {
        match &self.caller {
            None => Closing::new(Closing::POLICY, "no hello came in time"),
            Some(caller) if caller.until <= Instant::now() => Closing::new(Closing::POLICY, "the token has expired"),
            Some(_) => Closing::new(Closing::NORMAL, "nothing was asked for long (hrana.socket_idle_s)"),
        }
    }

    async fn received(&mut self, message: Message) -> Result<(), Closing> {
        let parsed = serde_json::from_slice(&message.text).map_err(|error| Closing::new(Closing::PROTOCOL, error.to_string()))?;
        self.asked = Instant::now();
        let (id, request) = match parsed {
            ClientMsg::Hello { jwt } => return self.hello(jwt).await,
            ClientMsg::Request { id, request } => (id, request),
        };
        if self.caller.is_none() {
            return Err(Closing::new(Closing::PROTOCOL, "a request before hello"));
        }
        self.request(id, request, message)
    }

    async fn hello(&mut self, jwt: Option<String>) -> Result<(), Closing> {
        let outcome = self.greet(jwt).await;
        self.send(messages::hello(outcome.as_ref().copied().map_err(Into::into)));
        outcome.map_err(|error| Closing::new(Closing::POLICY, error.message()))
    }

    /// A later hello brings a new token of the same caller's.
    async fn greet(&mut self, jwt: Option<String>) -> Result<()> {
        let token = jwt.ok_or_else(missing_token)?;
        let call = self.hall.door.let_in(&token).await?;
        call.tenant.admit()?;
        let (tenant, subject) = (call.tenant.id.uuid(), call.claims.sub.clone());
        let place = match self.caller.take() {
            None => self.hall.streams.clone().into_inner().socket(tenant)?,
            Some(caller) if caller.tenant == tenant && caller.subject == subject => caller.place,
            Some(_) => return Err(Error::forbidden("a socket stays with the tenant and the subject of its first hello")),
        };
        let left = u64::try_from(call.claims.exp.saturating_sub(clock::now_s())).unwrap_or(0);
        let until = Instant::now() + Duration::from_secs(left);
        self.caller = Some(Caller { token: token.into(), tenant, subject, until, place });
        self.frames.max = self.message_max;
        Ok(())
    }

    fn request(&mut self, id: i32, request: Request, message: Message) -> Result<(), Closing> {
        let taken = |what: &str| Err(Closing::new(Closing::PROTOCOL, format!("the id of a {what} that is open already")));
        let outcome = match request {
            Request::OpenStream { stream } if self.open.contains_key(&stream) => return taken("stream"),
            Request::OpenStream { stream } => self.open_stream(stream).map(|()| Response::OpenStream),
            Request::CloseStream { stream } => return self.enqueue(id, stream, Work::Close, message),
            Request::OnStream { stream, request } => match self.stored.resolve(request) {
                Ok(request) => return self.enqueue(id, stream, Work::Run(request), message),
                Err(error) => Err(error),
            },
            Request::OpenCursor { cursor, .. } if self.cursors.has(cursor) => return taken("cursor"),
            Request::OpenCursor { .. } if self.cursors.is_full() => {
                Err(Error::new(Code::TooManyRequests, format!("more than {CURSORS_MAX} cursors on one socket")))
            }
            Request::OpenCursor { stream, cursor, batch } => match self.stored.resolve(StreamRequest::Batch(batch)) {
                Ok(StreamRequest::Batch(batch)) => {
                    self.cursors.begin(cursor, stream);
                    return self.enqueue(id, stream, Work::Cursor(cursor, batch), message);
                }
                Ok(_) => Err(Error::bad_request("a cursor runs a batch")),
                Err(error) => Err(error),
            },
            Request::FetchCursor { cursor, max_count } => {
                self.fetch(cursor, Asked { id, most: max_count });
                return Ok(());
            }
            Request::CloseCursor { cursor } => {
                let asked = self.cursors.close(cursor);
                self.refuse(asked);
                Ok(Response::CloseCursor)
            }
            Request::StoreSql { id, sql } => self.stored.store(id, sql).map(|()| Response::StoreSql),
            Request::CloseSql { id } => {
                self.stored.close(id);
                Ok(Response::CloseSql)
            }
        };
        self.answer(id, outcome);
        Ok(())
    }

    fn open_stream(&mut self, number: i32) -> Result<()> {
        let tenant = self.caller.as_ref().map(|caller| caller.tenant).ok_or_else(missing_token)?;
        let (slot, outcome) = match self.hall.streams.clone().into_inner().place(tenant) {
            Ok(place) => (Slot::Open { stream: Some(Stream::new()), jobs: VecDeque::new(), _place: place }, Ok(())),
            // Remembered no further than streams are counted.
            Err(error) if self.open.len() > self.hall.streams.most() => return Err(error),
            Err(error) => (Slot::Failed, Err(error)),
        };
        self.open.insert(number, slot);
        outcome
    }

    fn enqueue(&mut self, id: i32, number: i32, work: Work, message: Message) -> Result<(), Closing> {
        match (self.open.get_mut(&number), work) {
            (Some(Slot::Open { jobs, .. }), work) => {
                let bytes = message.text.len();
                (self.waiting, self.waiting_bytes) = (self.waiting + 1, self.waiting_bytes + bytes);
                jobs.push_back(Job { id, work, bytes, counted: message.counted });
                self.start(number);
            }
            (_, Work::Close) => {
                self.open.remove(&number);
                self.answer(id, Ok(Response::CloseStream));
            }
            (slot, work) => {
                let why = if slot.is_some() { "the stream could not be opened" } else { "there is no stream with this id" };
                if let Work::Cursor(cursor, _) = work {
                    self.cursors.close(cursor);
                }
                self.answer(id, Err(Error::bad_request(why)));
            }
        }
        Ok(())
    }

    /// Has the stream's next job run, unless one does.
    fn start(&mut self, number: i32) {
        let Some(Slot::Open { stream: free, jobs, .. }) = self.open.get_mut(&number) else { return };
        let Some(caller) = &self.caller else { return };
        let Some(stream) = free.take() else { return };
        match jobs.pop_front() {
            None => *free = Some(stream),
            Some(Job { id, work: Work::Close, bytes, .. }) => {
                // What was asked after it finds no stream.
                let late = std::mem::take(jobs);
                self.open.remove(&number);
                self.settled(bytes);
                let asked = self.cursors.close_of(number);
                self.refuse(asked);
                self.answer(id, Ok(Response::CloseStream));
                for job in late {
                    self.settled(job.bytes);
                    self.answer(job.id, Err(Error::bad_request("the stream was closed before")));
                }
            }
            Some(job) => self.running.push(Box::pin(self.hall.clone().run(caller.token.clone(), number, stream, job))),
        }
    }

    fn settled(&mut self, bytes: usize) {
        (self.waiting, self.waiting_bytes) = (self.waiting - 1, self.waiting_bytes - bytes);
    }

    fn finished(&mut self, done: Done) -> Result<(), Closing> {
        let Done { number, stream: back, bytes, answer, cursor, refused } = done;
        self.settled(bytes);
        self.asked = Instant::now();
        self.push(answer);
        if let Some(error) = refused {
            return Err(Closing::new(Closing::POLICY, error.message()));
        }
        if let Some(Slot::Open { stream, .. }) = self.open.get_mut(&number) {
            *stream = Some(back);
        }
        if let Some((cursor, opened)) = cursor {
            for asked in self.cursors.opened(cursor, opened) {
                self.settled(0);
                self.fetch(cursor, asked);
            }
        }
        self.start(number);
        Ok(())
    }

    fn fetch(&mut self, number: i32, asked: Asked) {
        match self.cursors.fetch(number, asked) {
            Fetched::Entries(entries, done) => self.answer(asked.id, Ok(Response::FetchCursor { entries: &entries, done })),
            Fetched::NoCursor => self.answer(asked.id, Err(no_cursor())),
            Fetched::Later => self.waiting += 1,
        }
    }

    /// Those who waited for a cursor that is closed.
    fn refuse(&mut self, asked: VecDeque<Asked>) {
        for asked in asked {
            self.settled(0);
            self.answer(asked.id, Err(no_cursor()));
        }
    }

    fn answer(&mut self, id: i32, outcome: Result<Response<'_>>) {
        self.send(messages::respond(id, outcome.as_ref().map_err(Into::into)));
    }

    fn send(&mut self, text: Vec<u8>) {
        self.push(Unread::small(text));
    }

    fn push(&mut self, text: Unread) {
        self.outbox.push(Unread::small(frame::text(text.len())));
        self.outbox.push(text);
    }
}

fn no_cursor() -> Error {
    Error::bad_request("there is no cursor with this id")
}

/// What goes to the client, as the body of the answer that opened the socket.
struct Outgoing {
    queue: mpsc::Receiver<Unread>,
    now: Option<Unread>,
}

impl MessageBody for Outgoing {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Polling<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        loop {
            if let Some(now) = &mut self.now
                && let Poll::Ready(Some(chunk)) = Pin::new(now).poll_next(cx)
            {
                return Poll::Ready(Some(chunk));
            }
            match ready!(self.queue.poll_recv(cx)) {
                Some(next) => self.now = Some(next),
                None => return Poll::Ready(None),
            }
        }
    }
}
