//! A run: threads of connections that do what is drawn, at the pace that was asked for, and meanwhile the timeline of
//! what they and the server did.
//!
//! With a rate, operation number n is due n / rate after the start, whoever takes it and however busy the server is,
//! and its latency counts from then. So a server that stalls is seen to stall, by every operation that was due meanwhile
//! (a client that waits before it asks again would leave those out). Without a rate each connection asks again as soon
//! as it is answered, and latency counts from the asking.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;

use super::gauge::{Gauge, Inside};
use super::host::Usage;
use super::mix::{Dice, Mix, Spread};
use super::progress::Bar;
use super::tally::Tally;
use super::work::{Began, Shared, Worker};
use crate::error::{Error, Result};

/// How long one operation may take before it counts as not answered.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A timer of ours that fires later than this was held up by a machine that is too busy; what is due then counts as late.
const TIMER: Duration = Duration::from_millis(2);

/// Points on the timeline, about.
const POINTS: u32 = 120;
const SHORTEST: Duration = Duration::from_millis(250);

pub struct Plan<'a> {
    pub mix: &'a Mix,
    pub spread: &'a Spread,
    /// Operations a second; `None` for as fast as it goes.
    pub rate: Option<f64>,
    pub threads: usize,
    pub warmup: Duration,
    pub duration: Duration,
}

/// What a run came to.
pub struct Outcome {
    pub tally: Tally,
    /// How long was measured; shorter than asked for when something was wrong.
    pub measured: Duration,
    /// Operations that were due and never begun: the server fell behind the rate.
    pub never_begun: u64,
    pub timeline: Vec<Point>,
}

/// The run at one moment; rates are over the time since the point before.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Seconds since measuring began; negative while warming up.
    pub t_s: f64,
    pub per_s: f64,
    /// Processors the server kept busy, 1 for each.
    pub cpu: Option<f64>,
    #[serde(flatten)]
    pub usage: Option<Usage>,
    #[serde(flatten)]
    pub inside: Option<Inside>,
}

/// The times of a run.
struct Clock {
    start: Instant,
    from: Instant,
    until: Instant,
    rate: Option<f64>,
    next: AtomicU64,
}

pub fn run(plan: &Plan<'_>, shared: &Shared<'_>, gauge: &mut Gauge) -> Result<Outcome> {
    let start = Instant::now();
    let from = start + plan.warmup;
    let clock = Clock { start, from, until: from + plan.duration, rate: plan.rate, next: AtomicU64::new(0) };
    let (tallies, timeline) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|thread| {
                scope.spawn({
                    let clock = &clock;
                    move || thread_of(thread, plan, shared, clock)
                })
            })
            .collect();
        let timeline = watch(plan, shared, &clock, gauge, || threads.iter().all(|thread| thread.is_finished()));
        (threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>(), timeline)
    });
    let mut tally = Tally::default();
    for one in tallies {
        tally.add(&one.map_err(|_| Error::internal("a thread of the load panicked", &"see above"))??);
    }
    let measured = clock.until.min(Instant::now()).saturating_duration_since(from);
    let due = plan.rate.map_or(0, |rate| (rate * (plan.warmup + plan.duration).as_secs_f64()) as u64);
    let never_begun = if shared.trouble.stops() { 0 } else { due.saturating_sub(clock.next.load(Relaxed)) };
    Ok(Outcome { tally, measured, never_begun, timeline })
}

/// One thread's connections, from first to last.
fn thread_of(thread: usize, plan: &Plan<'_>, shared: &Shared<'_>, clock: &Clock) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::internal("a thread of the load could not be started", &error))?;
    let tally = RefCell::new(Tally::default());
    let mine = (0..shared.connections).filter(|connection| connection % plan.threads == thread);
    runtime.block_on(join_all(mine.map(|connection| connection_of(connection, plan, shared, clock, &tally))));
    Ok(tally.into_inner())
}

async fn connection_of(connection: usize, plan: &Plan<'_>, shared: &Shared<'_>, clock: &Clock, tally: &RefCell<Tally>) {
    let mut dice = Dice::new(connection as u64);
    let mut worker = Worker::new(shared, tally, connection, PATIENCE);
    while !shared.trouble.stops() {
        let Some(at) = clock.next().await else { return };
        let began = Began { at, counts_from: Some(clock.from) };
        let (op, tenant) = (plan.mix.draw(&mut dice), plan.spread.draw(&mut dice));
        let wait = worker.run(op, tenant, dice.below(usize::MAX), began).await;
        // With a rate, what is due is due: being refused is part of what is measured.
        if let (Some(wait), None) = (wait, clock.rate) {
            tokio::time::sleep(wait.min(clock.until.saturating_duration_since(Instant::now()))).await;
        }
    }
}

impl Clock {
    /// Waits for the next operation's turn; when it began. `None` when the run is over.
    async fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        if now >= self.until {
            return None;
        }
        let Some(rate) = self.rate else { return Some(now) };
        let due = self.start + Duration::from_secs_f64(self.next.fetch_add(1, Relaxed) as f64 / rate);
        if due >= self.until {
            return None;
        }
        if due <= now {
            return Some(due);
        }
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        // Timers tick in milliseconds; that is our lateness and not the server's.
        Some(if now.duration_since(due) <= TIMER { now } else { due })
    }
}

/// Takes a point of the timeline now and then, and shows how far the run is.
fn watch(plan: &Plan<'_>, shared: &Shared<'_>, clock: &Clock, gauge: &mut Gauge, is_over: impl Fn() -> bool) -> Vec<Point> {
    let whole = clock.until.duration_since(clock.start);
    let every = (whole / POINTS).max(SHORTEST);
    let bar = Bar::new(if plan.warmup.is_zero() { "measuring" } else { "running" }, whole.as_secs_f64());
    let mut look = || (Instant::now(), shared.done.load(Relaxed), gauge.look());
    let mut before = look();
    let mut timeline = Vec::new();
    let mut due = clock.start + every;
    while !is_over() && !shared.trouble.stops() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        if Instant::now() < due {
            continue;
        }
        due += every;
        let now = look();
        if now.0 > clock.until + every / 2 {
            break;
        }
        let seconds = now.0.duration_since(before.0).as_secs_f64();
        let per_s = (now.1 - before.1) as f64 / seconds;
        let cpu = now.2.0.zip(before.2.0).map(|(now, before)| ((now.cpu_s - before.cpu_s) / seconds).max(0.0));
        let t_s = now.0.duration_since(clock.start).as_secs_f64() - plan.warmup.as_secs_f64();
        timeline.push(Point { t_s, per_s, cpu, usage: now.2.0, inside: now.2.1 });
        bar.at(now.0.duration_since(clock.start).as_secs_f64(), || format!("{per_s:.0}/s"));
        before = now;
    }
    timeline
}
