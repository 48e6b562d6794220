//! The driver takes the run that is under way, wave by wave, some tenants at once, and settles each as it is done.
//! It asks `app` for what is left and keeps nothing of its own between two pages, so where a process ended, the next
//! one's driver goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use serde_json::json;
use uuid::Uuid;

use super::visit::{Errand, visit};
use super::{Fleet, Inner, Pace};
use crate::error::{Error, Result};
use crate::system::app::fleet::{Kind, RunRow, RunState, VisitState, Visited, Wave};
use crate::system::audit::By;
use crate::tenant::Blueprint;

/// Tenants read from `app` at once.
const PAGE: u32 = 256;

/// Between two attempts while `app` cannot be asked.
const RETRY: Duration = Duration::from_secs(1);

impl Fleet {
    /// Drives runs, one after the other, until [`Fleet::close`]. Also one that an earlier process left.
    pub async fn drive(self) {
        let inner = self.inner;
        while !inner.is_ending() {
            let news = inner.news.notified();
            match inner.app.fleet_running().await {
                Ok(Some(run)) => {
                    if let Err(error) = inner.drive_run(run).await {
                        tracing::error!(%error, "a fleet run could not go on; it is tried again");
                        inner.pause().await;
                    }
                }
                Ok(None) => news.await,
                Err(error) => {
                    tracing::error!(%error, "whether a fleet run is under way cannot be asked");
                    inner.pause().await;
                }
            }
        }
    }

    /// Has the driver end after the tenants it is visiting. The run stays under way, for the next start.
    pub fn close(&self) {
        self.inner.ending.store(true, Relaxed);
        self.inner.news.notify_one();
    }
}

/// How a page of a wave ended.
enum Page {
    Finished,
    /// The run is not under way any more, or the server stops.
    Left,
}

impl Inner {
    async fn pause(&self) {
        tokio::time::sleep(RETRY).await;
    }

    async fn drive_run(self: &Arc<Self>, run: RunRow) -> Result<()> {
        let before = run.done + run.failed + run.skipped;
        *self.pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Pace { run: run.id, since: Instant::now(), before });
        let errand = match self.errand(&run).await {
            Ok(errand) => Arc::new(errand),
            Err(error) => return self.finish(&run, RunState::Halted, Some(error.message().to_owned())).await,
        };
        let mut begun = None;
        while let Some((wave, tenants)) = self.app.fleet_waiting(run.id, PAGE).await? {
            if self.is_ending() {
                return Ok(());
            }
            if begun != Some(wave.number) {
                if !self.begin_wave(&run, &errand.known, wave.number).await? {
                    return Ok(());
                }
                begun = Some(wave.number);
            }
            if let Page::Left = self.page(&run, &errand, wave, tenants).await? {
                return Ok(());
            }
        }
        // There were canaries only, or nobody.
        if begun.unwrap_or(run.wave) == 0 {
            self.begin_wave(&run, &errand.known, 1).await?;
        }
        self.finish(&run, RunState::Done, None).await
    }

    /// What the run was begun with: the folder may have changed since.
    async fn errand(self: &Arc<Self>, run: &RunRow) -> Result<Errand> {
        let known = self.read().await?;
        let application = known.application();
        let is_the_same = application.map(|set| set.fingerprint(run.to)).unwrap_or_default() == run.fingerprint;
        if run.kind != Kind::Rollback && !is_the_same {
            return Err(Error::conflict("the folder of migrations is not what it was when the run began"));
        }
        if run.kind == Kind::Plan {
            // Copies that an earlier process left.
            self.blocking(|inner| inner.clear_copies()).await?;
        }
        Ok(Errand::new(run, known))
    }

    fn clear_copies(&self) -> Result<()> {
        match std::fs::remove_dir_all(self.layout.plan_folder()) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(Error::internal("a plan's copies cannot be removed", &cause)),
            _ => Ok(()),
        }
    }

    /// Once the canaries have passed, everybody is brought to the run's version when opened. Whether the run goes on.
    async fn begin_wave(self: &Arc<Self>, run: &RunRow, known: &Blueprint, wave: u32) -> Result<bool> {
        if run.kind != Kind::Up || !run.whole || wave == 0 {
            return self.app.fleet_wave(run.id, wave, None).await;
        }
        let _turn = self.turn.lock().await;
        let (to, newest) = (run.to, known.application().map_or(0, |set| set.newest()));
        let capped = known.capped(to);
        let standing = self.blocking(move |inner| inner.target.prepare(capped)).await?;
        let goes_on = self.app.fleet_wave(run.id, wave, Some((to < newest).then_some(to))).await?;
        if goes_on {
            self.target.put(standing);
        }
        Ok(goes_on)
    }

    /// Visits these tenants, some at once. Whoever is being visited is finished in any case.
    async fn page(self: &Arc<Self>, run: &RunRow, errand: &Arc<Errand>, wave: Wave, tenants: Vec<Uuid>) -> Result<Page> {
        let leaving = AtomicBool::new(false);
        let visits = stream::iter(tenants)
            .take_while(|_| std::future::ready(!leaving.load(Relaxed) && !self.is_ending()))
            .map(|tenant| async move { (tenant, visit(self, errand, tenant).await) })
            .buffer_unordered(run.knobs.parallel as usize);
        let mut visits = std::pin::pin!(visits);
        let (mut failed, mut settling) = (wave.failed, Ok(()));
        while let Some((tenant, visited)) = visits.next().await {
            let Some(visited) = visited else {
                leaving.store(true, Relaxed);
                continue;
            };
            failed += u64::from(visited.state == VisitState::Failed);
            match self.app.fleet_visited(run.id, Visited { tenant, ..visited }).await {
                Ok(RunState::Running) => {}
                Ok(_) => leaving.store(true, Relaxed),
                Err(error) => {
                    settling = Err(error);
                    leaving.store(true, Relaxed);
                }
            }
            if failed as f64 > run.knobs.max_failure_rate * wave.tenants as f64 {
                leaving.store(true, Relaxed);
            }
        }
        settling?;
        if failed as f64 > run.knobs.max_failure_rate * wave.tenants as f64 {
            let reason = format!(
                "{failed} of the {} tenants of wave {} failed, more than {}",
                wave.tenants, wave.number, run.knobs.max_failure_rate
            );
            self.finish(run, RunState::Halted, Some(reason)).await?;
            return Ok(Page::Left);
        }
        Ok(if leaving.load(Relaxed) || self.is_ending() { Page::Left } else { Page::Finished })
    }

    async fn finish(self: &Arc<Self>, run: &RunRow, state: RunState, reason: Option<String>) -> Result<()> {
        let by = By { actor: run.actor.clone(), request_id: run.id };
        let counts = self.app.fleet_run(run.id).await?;
        let details = json!({
            "state": state, "tenants": counts.tenants, "done": counts.done, "failed": counts.failed, "skipped": counts.skipped, "reason": reason,
        });
        tracing::info!(run = %run.id, kind = run.kind.as_str(), %details, "a fleet run has ended");
        let action = by.did("migrations.run", Some(run.id.to_string()), details);
        Inner::end(self, run.id, state, reason, action).await.map(drop)
    }
}
