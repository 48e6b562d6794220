//! The server: build → address → run → stop. The one place where parts are wired together.
//!
//! Stopping goes from the outside in: `/readyz` says no, no connection is accepted, what runs is finished
//! (bounded), what waits behind the requests is written, tenants' files are checkpointed and closed, then the
//! system's, then the lanes end.

mod data_dir;
mod heap;
mod parts;
mod relay;
mod waker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::http;
use crate::telemetry;
use parts::Parts;

/// How often idle files and triples are looked after.
const TICK: Duration = Duration::from_millis(500);

/// A server that runs on a thread of its own.
pub struct Running {
    pub addr: SocketAddr,
    /// Where the operator's first key is, unless it was given.
    pub admin_key_path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// Serves until SIGTERM or SIGINT. Prints one line on stdout when it accepts.
pub fn run(config: Config, admin_key: Option<String>) -> Result<()> {
    let running = start(config, admin_key)?;
    print_line(&format!("listening on http://{}", running.addr));
    running.wait()
}

/// Starts a server; returns when it accepts. `admin_key` is the first operator's key; without one, it is made.
pub fn start(config: Config, admin_key: Option<String>) -> Result<Running> {
    telemetry::start_log(&config.telemetry)?;
    heap::give_back_large_blocks();
    let (started, start) = mpsc::sync_channel(1);
    let (stop, stopping) = oneshot::channel();
    let thread = std::thread::Builder::new().name("server".to_owned()).spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            match Server::build(config, admin_key).await {
                Ok(server) => {
                    let _ = started.send(Ok((server.addr, server.parts.admin_key_path.clone())));
                    server.run(stopping).await
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                    Ok(())
                }
            }
        })
    });
    let thread = thread.map_err(|error| Error::internal("the server's thread could not be started", &error))?;
    let ended = || Error::internal("the server ended while it started", &"no answer");
    let (addr, admin_key_path) = start.recv().map_err(|_| ended())??;
    Ok(Running { addr, admin_key_path, stop: Some(stop), thread: Some(thread) })
}

impl Running {
    /// Until a signal stops it.
    pub fn wait(mut self) -> Result<()> {
        // Kept, so that the server does not take its drop for a wish to stop.
        let stop = self.stop.take();
        let outcome = self.join();
        drop(stop);
        outcome
    }

    pub fn stop(mut self) -> Result<()> {
        if let Some(stop) = self.stop.take() {
            // It may have stopped by itself.
            let _ = stop.send(());
        }
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(Error::internal("the server panicked", &"see the log above")),
            None => Ok(()),
        }
    }
}

struct Server {
    addr: SocketAddr,
    parts: Parts,
    http: actix_web::dev::Server,
    handle: ServerHandle,
    signals: Signals,
}

impl Server {
    async fn build(config: Config, admin_key: Option<String>) -> Result<Server> {
        // The address first: taken is an error to learn at once, and nothing is touched before.
        let listener = std::net::TcpListener::bind(config.listen).map_err(|error| {
            Error::bad_request(format!("cannot listen on {}: {error}", config.listen))
                .hint("Another server may have it; --listen takes another, port 0 any free one.")
        })?;
        let addr = listener.local_addr().map_err(|error| Error::internal("the listener has no address", &error))?;
        let limits = &config.http;
        let (workers, header_timeout) = (limits.worker_count(), Duration::from_millis(limits.header_timeout_ms));
        let (keep_alive, connections) = (Duration::from_secs(limits.keep_alive_s), limits.max_connections);
        let grace = config.shutdown.grace_s;
        let parts = Parts::build(config, admin_key).await?;
        let wired = parts.clone();
        let mut http = HttpServer::new(move || {
            let data = wired.clone();
            App::new().configure(move |app| data.register(app)).wrap(from_fn(http::watch::watch)).configure(http::configure)
        })
        .client_request_timeout(header_timeout)
        .keep_alive(keep_alive)
        .shutdown_timeout(grace)
        .h1_allow_half_closed(false)
        .on_connect(bound_stall)
        .disable_signals();
        http = http.workers(workers).max_connections((connections / workers).max(1));
        let http = http.listen(listener).map_err(|error| Error::internal("the listener cannot be used", &error))?.run();
        let handle = http.handle();
        // Before anybody is told that it runs: from here on a signal stops it in good order.
        let signals = Signals::install()?;
        parts.readiness.set(true);
        Ok(Server { addr, parts, http, handle, signals })
    }

    async fn run(self, stopping: oneshot::Receiver<()>) -> Result<()> {
        let Server { parts, http, handle, signals, .. } = self;
        let ticking = actix_web::rt::spawn({
            let parts = parts.clone();
            async move {
                let mut every = tokio::time::interval(TICK);
                loop {
                    every.tick().await;
                    parts.engine.tick();
                    parts.triples.tick();
                    parts.streams.tick();
                }
            }
        });
        let serving = actix_web::rt::spawn(http);
        signals.or(stopping).await;
        tracing::info!("stopping");
        parts.readiness.set(false);
        parts.fleet.close();
        parts.waiters.close();
        parts.cache_memory.close();
        parts.waiting_for_locks.close();
        // Balancers that ask /readyz see it before the door closes.
        tokio::time::sleep(READY_LAG).await;
        // Sockets and open transactions would hold it up for as long as they like.
        parts.streams.close();
        handle.stop(true).await;
        let outcome = serving.await;
        ticking.abort();
        parts.close().await;
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::internal("the HTTP server failed", &error)),
            Err(error) => Err(Error::internal("the HTTP server panicked", &error)),
        }
    }
}

/// Between saying "not ready" and closing the door.
const READY_LAG: Duration = Duration::from_millis(200);

/// SIGTERM and SIGINT.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn install() -> Result<Signals> {
        let failed = |error: std::io::Error| Error::internal("signals cannot be waited for", &error);
        Ok(Signals { term: signal(SignalKind::terminate()).map_err(failed)?, int: signal(SignalKind::interrupt()).map_err(failed)? })
    }

    async fn or(mut self, stopping: oneshot::Receiver<()>) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
            _ = stopping => {}
        }
    }
}

/// Has the kernel give up on a client that does not take what it is sent, and send at once what it is given: a socket's
/// answer would wait for the acknowledgement of the one before.
fn bound_stall(io: &dyn std::any::Any, _: &mut actix_web::dev::Extensions) {
    if let Some(stream) = io.downcast_ref::<actix_web::rt::net::TcpStream>() {
        // Slower without it, no more.
        let _ = stream.set_nodelay(true);
        let millis = u32::try_from(http::unread::STALL.as_millis()).unwrap_or(u32::MAX);
        // Without it the client costs what it has not read, which is bounded all the same.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, millis);
    }
}

/// On stdout, whole, and gone through at once also where stdout is a pipe. Nobody may be reading.
fn print_line(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
