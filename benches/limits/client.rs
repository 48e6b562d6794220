//! The client of both servers: connections that each ask again as soon as they are answered, on as many threads as
//! leave the server its cores.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tenantry::cli::load::wire::{Target, Wire};
use tokio::runtime::{Builder, Runtime};

const PATIENCE: Duration = Duration::from_secs(30);

/// One connection of a measurement.
pub struct Line {
    pub wire: Wire,
    /// Which one it is, from 0.
    pub number: usize,
    pub request: Vec<u8>,
    until: Instant,
    asked: u64,
}

impl Line {
    pub fn runs(&self) -> bool {
        Instant::now() < self.until
    }

    /// Sends what is in `request`, and passes the body of the answer on, whose status must be as expected.
    pub async fn ask<T>(&mut self, status: u16, then: impl FnOnce(&[u8]) -> T) -> T {
        let answer = self.wire.call(&self.request).await.expect("an answer");
        assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(answer.body));
        self.asked += 1;
        then(answer.body)
    }
}

pub struct Client {
    pub connections: usize,
    pub slice: Duration,
}

impl Client {
    /// Requests a second that all connections together get answered, each doing `work` for a slice.
    pub fn rate(&self, target: &Target, work: impl AsyncFn(&mut Line) + Sync) -> f64 {
        self.spread(async |number, until| {
            let mut line = Line { wire: Wire::new(target, PATIENCE), number, request: Vec::new(), until, asked: 0 };
            work(&mut line).await;
            line.asked
        })
    }

    /// Does something for each of so many, all connections at it; none of it is measured.
    pub fn each(&self, target: &Target, count: usize, work: impl AsyncFn(&mut Line, usize) + Sync) {
        let patient = Client { slice: Duration::from_secs(600), ..*self };
        patient.rate(target, async |line: &mut Line| {
            for at in (line.number..count).step_by(self.connections) {
                work(line, at).await;
            }
        });
    }

    /// What all connections together get done in a second: `work` is one connection's, given its number and when to end,
    /// and says how much it did.
    pub fn spread(&self, work: impl AsyncFn(usize, Instant) -> u64 + Sync) -> f64 {
        let threads = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)).min(self.connections);
        let began = Instant::now();
        let until = began + self.slice;
        let work = &work;
        let done: u64 = std::thread::scope(|scope| {
            let one = |thread: usize| {
                move || {
                    let mine = (0..self.connections).filter(move |number| number % threads == thread);
                    runtime().block_on(join_all(mine.map(|number| work(number, until)))).into_iter().sum::<u64>()
                }
            };
            let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(one(thread))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a client's thread")).sum()
        });
        done as f64 / began.elapsed().as_secs_f64()
    }
}

/// One request after the other, outside of what is measured: status and body.
pub fn ask(target: &Target, build: impl FnOnce(&mut Vec<u8>)) -> (u16, Vec<u8>) {
    let mut request = Vec::new();
    build(&mut request);
    runtime().block_on(async {
        let mut wire = Wire::new(target, Duration::from_secs(120));
        let answer = wire.call(&request).await.expect("an answer");
        (answer.status, answer.body.to_vec())
    })
}

pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}
