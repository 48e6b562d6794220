//! An [`Executor`] is a fixed set of threads, its *lanes*, that run blocking jobs, fairly between *parties*
//! (tenants): lanes serve the parties that wait in turn, whatever the length of their queues, and run at most
//! [`Party::running_max`] jobs of one party at once. The number of jobs waiting is bounded, for one party and
//! over all, and so is how long a party's jobs wait; past a bound a job is refused at once.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};

/// Who shares the lanes fairly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// The tenant's id as an integer; 0 is the system itself.
    pub id: u128,
    /// Jobs of the party running at once, in each executor.
    pub running_max: usize,
}

impl Party {
    /// The system databases and the server's own file work.
    pub const SYSTEM: Party = Party { id: 0, running_max: usize::MAX };
}

pub type Job = Box<dyn FnOnce() + Send>;

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub lanes: usize,
    /// Jobs waiting, over all parties.
    pub waiting: usize,
    /// Jobs of one party waiting.
    pub waiting_per_party: usize,
    /// A party of which a job has waited so long gets no further one in.
    pub waiting_time: Duration,
    /// How far the lanes stand back for the process's other threads, as `nice` counts.
    pub nice: i32,
}

/// How busy the lanes are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub lanes: usize,
    pub running: usize,
    pub waiting: usize,
}

pub struct Executor {
    shared: Arc<Shared>,
    lanes: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    bounds: Bounds,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    parties: HashMap<u128, Waiting>,
    /// Parties that have a job and may run one more, each once, in the order they are served.
    turn: VecDeque<u128>,
    waiting: usize,
    running: usize,
    /// Lanes that sleep, or have been woken and are not up yet. Waking is a system call, also where nobody sleeps.
    asleep: usize,
    stopping: bool,
}

struct Waiting {
    /// Each since when.
    jobs: VecDeque<(Instant, Job)>,
    running: usize,
    running_max: usize,
    in_turn: bool,
}

impl Executor {
    pub fn start(name: &str, bounds: Bounds) -> Executor {
        let shared = Arc::new(Shared { bounds, state: Mutex::default(), work: Condvar::new() });
        let lanes = (0..bounds.lanes)
            .map(|n| {
                let shared = shared.clone();
                let lane = std::thread::Builder::new().name(format!("{name}-{n}"));
                lane.spawn(move || {
                    // Where that is not allowed they do not stand back.
                    let _ = rustix::process::setpriority_process(None, bounds.nice);
                    shared.serve()
                })
                .expect("the system gives a thread at start")
            })
            .collect();
        Executor { shared, lanes: Mutex::new(lanes) }
    }

    /// Queues `job`, or refuses it: 429 when the party has too many waiting, 503 when all have or it would wait long.
    pub fn submit(&self, party: Party, job: Job) -> Result<()> {
        let bounds = self.shared.bounds;
        let mut state = self.shared.lock();
        if state.waiting >= bounds.waiting {
            return Err(overloaded("executor.waiting"));
        }
        if party.id != Party::SYSTEM.id
            && let Some(before) = state.parties.get(&party.id)
        {
            if before.jobs.len() >= bounds.waiting_per_party {
                return Err(Error::new(Code::TooManyRequests, "too many statements of this tenant are waiting")
                    .hint("The bound is executor.waiting_per_tenant.")
                    .retry_after(Duration::from_secs(1)));
            }
            if before.jobs.front().is_some_and(|(since, _)| since.elapsed() > bounds.waiting_time) {
                return Err(overloaded("executor.waiting_ms"));
            }
        }
        state.push(party, job);
        self.shared.wake_one(state);
        Ok(())
    }

    /// Queues a job that must not be refused. For work whose number is bounded elsewhere: one for each open
    /// file (draining its write queue, closing it).
    pub fn submit_reserved(&self, party: Party, job: Job) {
        let mut state = self.shared.lock();
        state.push(party, job);
        self.shared.wake_one(state);
    }

    pub fn lanes(&self) -> usize {
        self.shared.bounds.lanes
    }

    pub fn load(&self) -> Load {
        let state = self.shared.lock();
        Load { lanes: self.shared.bounds.lanes, running: state.running, waiting: state.waiting }
    }

    /// Runs what is queued, then ends the lanes.
    pub fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        for lane in lanes {
            // A lane never panics: jobs are caught.
            let _ = lane.join();
        }
    }
}

/// The answer when a bound of the whole process is reached.
pub(super) fn overloaded(bound: &'static str) -> Error {
    Error::new(Code::Overloaded, "the server is at its bound of work")
        .hint(format!("The bound is {bound}."))
        .retry_after(Duration::from_secs(1))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut state = self.lock();
        loop {
            let Some((party, job)) = state.next() else {
                if state.stopping {
                    return;
                }
                state.asleep += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.asleep -= 1;
                continue;
            };
            drop(state);
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!(party = %uuid::Uuid::from_u128(party), "a job panicked; its caller was told");
            }
            state = self.lock();
            if state.done(party) {
                self.wake_one(state);
                state = self.lock();
            }
        }
    }

    /// Has a lane see what came, if one sleeps: the others look before they do.
    fn wake_one(&self, state: MutexGuard<'_, State>) {
        if state.asleep > 0 {
            drop(state);
            self.work.notify_one();
        }
    }
}

impl State {
    fn push(&mut self, party: Party, job: Job) {
        self.waiting += 1;
        let waiting = self.parties.entry(party.id).or_insert_with(|| Waiting {
            jobs: VecDeque::new(),
            running: 0,
            running_max: party.running_max,
            in_turn: false,
        });
        waiting.running_max = party.running_max.max(1);
        waiting.jobs.push_back((Instant::now(), job));
        self.enqueue(party.id);
    }

    /// Gives the party a turn if it has a job, may run one more and has no turn yet.
    fn enqueue(&mut self, id: u128) -> bool {
        let Some(waiting) = self.parties.get_mut(&id) else { return false };
        let ready = !waiting.in_turn && !waiting.jobs.is_empty() && waiting.running < waiting.running_max;
        if ready {
            waiting.in_turn = true;
            self.turn.push_back(id);
        }
        ready
    }

    fn next(&mut self) -> Option<(u128, Job)> {
        let id = self.turn.pop_front()?;
        let waiting = self.parties.get_mut(&id)?;
        waiting.in_turn = false;
        let (_, job) = waiting.jobs.pop_front()?;
        waiting.running += 1;
        self.waiting -= 1;
        self.running += 1;
        self.enqueue(id);
        Some((id, job))
    }

    /// Whether the party got another turn by this, so that a lane should be woken.
    fn done(&mut self, id: u128) -> bool {
        self.running -= 1;
        if let Some(waiting) = self.parties.get_mut(&id) {
            waiting.running -= 1;
            if waiting.running == 0 && waiting.jobs.is_empty() {
                self.parties.remove(&id);
                return false;
            }
        }
        self.enqueue(id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const TEN: Party = Party { id: 10, running_max: 1 };
    const ELEVEN: Party = Party { id: 11, running_max: 1 };

    fn one_lane(waiting: usize) -> (Executor, mpsc::Sender<()>) {
        let waiting_time = Duration::from_secs(60);
        let bounds = Bounds { lanes: 1, waiting: 100, waiting_per_party: waiting, waiting_time, nice: 0 };
        one_busy_lane(bounds)
    }

    fn one_busy_lane(bounds: Bounds) -> (Executor, mpsc::Sender<()>) {
        let executor = Executor::start("test", bounds);
        let (open, closed) = mpsc::channel::<()>();
        let (busy, is_busy) = mpsc::channel();
        let hold = move || {
            busy.send(()).unwrap();
            closed.recv().unwrap();
        };
        executor.submit(Party::SYSTEM, Box::new(hold)).unwrap();
        is_busy.recv().unwrap();
        (executor, open)
    }

    #[test]
    fn a_party_with_many_jobs_does_not_hold_up_one_with_few() {
        let (executor, open) = one_lane(10);
        let (sender, order) = mpsc::channel();
        for party in [TEN, TEN, TEN, ELEVEN] {
            let sender = sender.clone();
            executor.submit(party, Box::new(move || sender.send(party.id).unwrap())).unwrap();
        }
        drop(sender);
        open.send(()).unwrap();
        executor.stop();
        assert_eq!(order.iter().collect::<Vec<_>>(), [10, 11, 10, 10]);
    }

    #[test]
    fn past_its_bound_a_party_is_refused_and_others_are_not() {
        let (executor, open) = one_lane(2);
        let nothing = || -> Job { Box::new(|| ()) };
        executor.submit(TEN, nothing()).unwrap();
        executor.submit(TEN, nothing()).unwrap();
        assert_eq!(executor.submit(TEN, nothing()).unwrap_err().code(), Code::TooManyRequests);
        executor.submit(ELEVEN, nothing()).unwrap();
        open.send(()).unwrap();
        executor.stop();
    }

    #[test]
    fn a_party_whose_jobs_wait_long_gets_no_further_one_in_and_others_do() {
        let bounds = Bounds { lanes: 1, waiting: 100, waiting_per_party: 10, waiting_time: Duration::ZERO, nice: 0 };
        let (executor, open) = one_busy_lane(bounds);
        let nothing = || -> Job { Box::new(|| ()) };
        executor.submit(TEN, nothing()).unwrap();
        let refused = executor.submit(TEN, nothing()).unwrap_err();
        assert_eq!(refused.code(), Code::Overloaded);
        assert!(refused.wait().is_some() && refused.to_string().contains("executor.waiting_ms"), "{refused}");
        executor.submit(ELEVEN, nothing()).unwrap();
        executor.submit_reserved(TEN, nothing());
        open.send(()).unwrap();
        executor.stop();
    }

    #[test]
    fn a_lane_survives_a_job_that_panics() {
        let (executor, open) = one_lane(2);
        let (sender, ran) = mpsc::channel();
        executor.submit(TEN, Box::new(|| panic!("a job"))).unwrap();
        executor.submit(TEN, Box::new(move || sender.send(()).unwrap())).unwrap();
        open.send(()).unwrap();
        ran.recv().unwrap();
        executor.stop();
    }
}
