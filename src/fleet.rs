//! The fleet is all tenants together. A *run* visits each of them, or some, and does one thing to its files: bring them
//! up or down, rehearse that on copies, validate them, or roll them back. What it is to do and what came of each tenant
//! is in `app` ([`crate::system::app::fleet`]), so a run goes on after a crash where it was, in whatever process.
//!
//! - One tenant's failure is its own: it is kept with its reason, and the others go on, until more of a wave have
//!   failed than the run allows.
//! - Canaries come first. Until they have passed, everybody else is opened at the version that was in force before
//!   (the *ceiling*); from then on whoever is opened is brought up, whether the run has reached it or not. A run that is
//!   stopped or halts puts the ceiling back: whoever has not been brought up stays and is served as before.
//! - What a visit does to a file is one transaction of that file, so visiting twice is as good as once. The run's row
//!   moves before what it says is put in force in memory, and start-up puts in force what the rows say.
//! - There is one run at a time, and one driver ([`Fleet::drive`]), a task of the server's.

mod drive;
mod visit;
mod wish;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::clock::now_ms;
use crate::error::{Error, Result};
use crate::sqlite::{Engine, Migrations};
use crate::system::app::fleet::{KEPT, Kind, NewRun, RunRow, RunState, Scope, VisitRow, VisitState};
use crate::system::audit::By;
use crate::system::{Action, App, Audit};
use crate::tenant::{Blueprint, Layout, Target, Triples};

pub use wish::Wish;

/// What a [`Fleet`] works with.
pub struct Parts {
    pub layout: Layout,
    pub engine: Arc<Engine>,
    pub app: App,
    pub audit: Audit,
    pub triples: Arc<Triples>,
    pub target: Arc<Target>,
    /// How long a visit waits for what runs on a tenant's files.
    pub drain: Duration,
}

/// A handle; clones are the same.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    /// Told when a run has begun.
    news: Notify,
    /// The server stops: no tenant is taken any more.
    ending: AtomicBool,
    /// Held while a row says what is in force and until it is: so memory follows the rows in their order.
    turn: tokio::sync::Mutex<()>,
    pace: Mutex<Option<Pace>>,
}

/// How fast the run goes that this process drives.
struct Pace {
    run: Uuid,
    since: Instant,
    /// Tenants visited before.
    before: u64,
}

impl std::ops::Deref for Inner {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Fleet {
    pub fn new(parts: Parts) -> Fleet {
        let (turn, pace) = (tokio::sync::Mutex::default(), Mutex::default());
        Fleet { inner: Arc::new(Inner { parts, news: Notify::new(), ending: AtomicBool::default(), turn, pace }) }
    }

    /// Begins a run, which goes on until it ends by itself or is stopped. 409 while there is one.
    pub async fn begin(&self, by: By, wish: Wish) -> Result<RunRow> {
        let (inner, who) = (self.inner.clone(), by.clone());
        let begin = async move {
            let _turn = inner.turn.lock().await;
            let known = inner.read().await?;
            let new = wish.into_run(&inner.target.now().blueprint, &known)?;
            inner.start(&who, new, known).await
        };
        self.inner.audit.attempt(&by, "migrations.run", None, begin).await
    }

    /// Begins a run of the same kind for what the given one did not do, or not manage.
    pub async fn retry(&self, by: By, run: Uuid) -> Result<RunRow> {
        let (inner, who) = (self.inner.clone(), by.clone());
        let begin = async move {
            let _turn = inner.turn.lock().await;
            let of = inner.app.fleet_run(run).await?;
            if of.state == RunState::Running {
                return Err(Error::conflict(format!("run {run} is still under way")).hint("Wait for it, or stop it."));
            }
            if of.done + of.skipped == of.tenants {
                return Err(Error::conflict(format!("run {run} left nobody behind")));
            }
            let known = inner.read().await?;
            let wish = Wish::again(&of, Scope::Rest(run));
            let new = wish.into_run(&inner.target.now().blueprint, &known)?;
            inner.start(&who, new, known).await
        };
        self.inner.audit.attempt(&by, "migrations.run", Some(run.to_string()), begin).await
    }

    /// Takes no further tenants; those that are being visited are finished.
    pub async fn stop(&self, by: By, run: Uuid) -> Result<RunRow> {
        let (inner, who) = (self.inner.clone(), by.clone());
        let stop = async move {
            let action = who.did("migrations.stop", Some(run.to_string()), json!({}));
            match inner.end(run, RunState::Stopped, None, action).await? {
                Some(row) => Ok(row),
                None => Err(Error::conflict(format!("run {run} has ended before"))),
            }
        };
        self.inner.audit.attempt(&by, "migrations.stop", Some(run.to_string()), stop).await
    }

    pub async fn run(&self, run: Uuid) -> Result<RunRow> {
        self.inner.app.fleet_run(run).await
    }

    /// The newest first.
    pub async fn runs(&self, limit: u32) -> Result<Vec<RunRow>> {
        self.inner.app.fleet_runs(limit).await
    }

    pub async fn visits(&self, run: Uuid, state: Option<VisitState>, after: Option<Uuid>, limit: u32) -> Result<Vec<VisitRow>> {
        self.inner.app.fleet_visits(run, state, after, limit).await
    }

    /// What tenants' files are brought to.
    pub fn blueprint(&self) -> Blueprint {
        self.inner.target.now().blueprint.clone()
    }

    /// The run with how fast it goes: `rate_per_s`, and `remaining_s` while it is under way.
    pub fn to_json(&self, run: &RunRow) -> Value {
        let visited = run.done + run.failed + run.skipped;
        let pace = self.inner.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = match &*pace {
            Some(pace) if pace.run == run.id && run.state == RunState::Running => {
                visited.saturating_sub(pace.before) as f64 / pace.since.elapsed().as_secs_f64().max(0.001)
            }
            _ => visited as f64 / ((run.ended_at.unwrap_or_else(now_ms) - run.created_at).max(1) as f64 / 1_000.0),
        };
        let left = (run.state == RunState::Running && rate > 0.0).then(|| ((run.tenants - visited) as f64 / rate).round());
        let mut json = run.to_json();
        json["rate_per_s"] = ((rate * 10.0).round() / 10.0).into();
        json["remaining_s"] = left.map(|left| left as u64).into();
        json
    }
}

impl Inner {
    /// What the folder has now.
    async fn read(self: &Arc<Self>) -> Result<Blueprint> {
        self.blocking(|inner| inner.target.read()).await
    }

    /// Canaries that passed before their run halted have its texts, which are not in force yet: changed in the folder
    /// by now, they would make those tenants' files unknown.
    async fn nobody_has_other_texts(&self, known: &Blueprint) -> Result<()> {
        let in_force = version(self.target.now().blueprint.application());
        let runs = self.app.fleet_runs(KEPT).await?;
        let since = runs.iter().take_while(|run| !(run.kind == Kind::Down && run.whole && run.state == RunState::Done));
        let differs = |run: &&RunRow| known.application().map(|set| set.fingerprint(run.to)).unwrap_or_default() != run.fingerprint;
        match since.filter(|run| run.kind == Kind::Up && run.done > 0 && run.to > in_force).find(differs) {
            None => Ok(()),
            Some(run) => {
                Err(Error::conflict(format!("run {} brought {} tenants to texts that the folder has otherwise now", run.id, run.done))
                    .detail("run_id", run.id.to_string())
                    .hint(format!(
                        "Put the texts back and take those tenants down (`tenantry migrate down --to {in_force}`); then change them."
                    )))
            }
        }
    }

    /// The run's row first: from then on a process that starts anew puts in force what it says.
    async fn start(self: &Arc<Self>, by: &By, new: NewRun, known: Blueprint) -> Result<RunRow> {
        let in_force = match (new.kind, new.whole) {
            (Kind::Plan | Kind::Validate | Kind::Rollback, _) => None,
            (Kind::Down, true) => Some(new.to),
            _ => Some(version(self.target.now().blueprint.application())),
        };
        if in_force.is_some() {
            self.nobody_has_other_texts(&known).await?;
        }
        let standing = match in_force {
            Some(version) => Some(self.blocking(move |inner| inner.target.prepare(known.capped(version))).await?),
            None => None,
        };
        let row = self.app.fleet_begin(by, new).await?;
        if let Some(standing) = standing {
            self.target.put(standing);
        }
        self.news.notify_one();
        Ok(row)
    }

    /// Ends a run; what it has not brought to everybody is in force for nobody else. `None` if it has ended before.
    async fn end(self: &Arc<Self>, run: Uuid, state: RunState, reason: Option<String>, action: Action) -> Result<Option<RunRow>> {
        let _turn = self.turn.lock().await;
        let row = self.app.fleet_run(run).await?;
        if row.state != RunState::Running {
            return Ok(None);
        }
        let (known, base) = (self.target.now().blueprint.clone(), row.base);
        if (RunRow { state, ..row }).leaves_others_behind() {
            let standing = self.blocking(move |inner| inner.target.prepare(known.capped(base))).await?;
            // Before anybody is told that the run has ended. Should the commit fail, the run goes on to visit them.
            self.target.put(standing);
        }
        self.app.fleet_end(run, state, reason, action).await
    }

    async fn blocking<T: Send + 'static>(self: &Arc<Self>, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.clone();
        self.engine.blocking_reserved(move || work(&inner)).await
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Relaxed)
    }
}

/// Up to which of its migrations a set is in force; 0 if there is no set.
fn version(set: Option<&Arc<Migrations>>) -> u32 {
    set.map_or(0, |set| set.upto)
}
