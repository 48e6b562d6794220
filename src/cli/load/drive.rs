//! A run: threads of connections that do what is drawn, at the pace that was asked for, and meanwhile the timeline of
//! what they and the server did.

use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;

use super::gauge::{Gauge, Inside};
use super::host::Usage;
use super::mix::{Dice, Mix, Spread};
use super::pace::{Clock, Overload, Pace};
use super::progress::Bar;
use super::tally::Tally;
use super::work::{Shared, Worker};
use crate::error::{Error, Result};

/// How long one operation may take before it counts as not answered.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Points on the timeline, about.
const POINTS: u32 = 120;
const SHORTEST: Duration = Duration::from_millis(250);

pub struct Plan<'a> {
    pub mix: &'a Mix,
    pub spread: &'a Spread,
    pub pace: Pace,
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
    pub overload: Option<Overload>,
    pub timeline: Vec<Point>,
}

/// The run at one moment; rates are over the time since the point before.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Seconds since measuring began; negative while warming up.
    pub t_s: f64,
    pub per_s: f64,
    /// Answers 429 and 503.
    pub refused_per_s: f64,
    /// Processors the server kept busy, 1 for each.
    pub cpu: Option<f64>,
    #[serde(flatten)]
    pub usage: Option<Usage>,
    #[serde(flatten)]
    pub inside: Option<Inside>,
}

pub fn run(plan: &Plan<'_>, shared: &Shared<'_>, gauge: &mut Gauge) -> Result<Outcome> {
    let clock = Clock::start(plan.pace, plan.warmup, plan.duration);
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
    let measured = clock.until.min(Instant::now()).saturating_duration_since(clock.from);
    let never_begun = if shared.trouble.stops() { 0 } else { clock.never_begun() };
    Ok(Outcome { tally, measured, never_begun, overload: clock.overload(), timeline })
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
        let Some(began) = clock.next(connection, shared.done.load(Relaxed)).await else { return };
        let (op, tenant) = (plan.mix.draw(&mut dice), plan.spread.draw(&mut dice));
        let wait = worker.run(op, tenant, dice.below(usize::MAX), began).await;
        if let Some(wait) = wait.filter(|_| clock.waits()) {
            tokio::time::sleep(wait.min(clock.end.saturating_duration_since(Instant::now()))).await;
        }
    }
}

/// Takes a point of the timeline now and then, and shows how far the run is.
fn watch(plan: &Plan<'_>, shared: &Shared<'_>, clock: &Clock, gauge: &mut Gauge, is_over: impl Fn() -> bool) -> Vec<Point> {
    let whole = clock.end.duration_since(clock.start);
    let every = (whole / POINTS).max(SHORTEST);
    let bar = Bar::new(if plan.warmup.is_zero() { "measuring" } else { "running" }, whole.as_secs_f64());
    let mut look = || (Instant::now(), [&shared.done, &shared.refused].map(|count| count.load(Relaxed)), gauge.look());
    let mut before = look();
    let mut timeline = Vec::new();
    let mut due = clock.start + every;
    while !is_over() && !shared.trouble.stops() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        clock.mark(shared.done.load(Relaxed));
        if Instant::now() < due {
            continue;
        }
        due += every;
        let now = look();
        if now.0 > clock.end + every / 2 {
            break;
        }
        let seconds = now.0.duration_since(before.0).as_secs_f64();
        let [per_s, refused_per_s] = [0, 1].map(|count| (now.1[count] - before.1[count]) as f64 / seconds);
        let cpu = now.2.0.zip(before.2.0).map(|(now, before)| ((now.cpu_s - before.cpu_s) / seconds).max(0.0));
        let t_s = now.0.duration_since(clock.start).as_secs_f64() - plan.warmup.as_secs_f64();
        timeline.push(Point { t_s, per_s, refused_per_s, cpu, usage: now.2.0, inside: now.2.1 });
        bar.at(now.0.duration_since(clock.start).as_secs_f64(), || format!("{per_s:.0}/s"));
        before = now;
    }
    timeline
}
