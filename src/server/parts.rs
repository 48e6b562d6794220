//! Every part of a running server, built in the order of the layers, and closed in the opposite one.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::web::{Data, ServiceConfig};
use serde_json::json;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::data_dir::DataDir;
use super::relay::Relay;
use super::waker::{self, Waker};
use crate::auth::{KeyRing, Signer, Verifier};
use crate::cache::{Memory, Packing};
use crate::config::{Config, Durability, UnindexedEmbeds};
use crate::error::{Code, Error, Result};
use crate::fleet::{self, Fleet};
use crate::hrana::Streams;
use crate::http::cors::Cors;
use crate::http::extract::BodyLimits;
use crate::http::guard::Keeper;
use crate::http::health::{Readiness, ScrapeKey};
use crate::http::watch::SlowLog;
use crate::locks::WaitingForLocks;
use crate::queue::{Post, Waiters};
use crate::rest::{Declared, Dialect, Functions, InForce, Indexes, Policies, Schemas, Stencils};
use crate::sqlite::{Engine, Trial};
use crate::system::audit::By;
use crate::system::mark::generate_key;
use crate::system::{Analytics, Mark, Systems, secret};
use crate::telemetry::Requests;
use crate::tenant::lifecycle::{self, Lifecycle};
use crate::tenant::registry::Registry;
use crate::tenant::{Role, Target, Triples, Wakeups};

/// The first operator's name.
const FIRST_OPERATOR: &str = "root";

/// Clones are handles on the same parts.
#[derive(Clone)]
pub struct Parts {
    pub admin_key_path: PathBuf,
    pub engine: Arc<Engine>,
    pub triples: Arc<Triples>,
    pub readiness: Arc<Readiness>,
    pub waiters: Arc<Waiters>,
    systems: Arc<Systems>,
    mark: Arc<Mark>,
    analytics: Arc<Analytics>,
    registry: Arc<Registry>,
    lifecycle: Arc<Lifecycle>,
    pub fleet: Arc<Fleet>,
    post: Arc<Post>,
    waker: Waker,
    relay: Relay,
    /// The fleet's driver, the waker and the relay.
    background: Arc<Mutex<Vec<JoinHandle<()>>>>,
    ring: Arc<KeyRing>,
    verifier: Arc<Verifier>,
    requests: Arc<Requests>,
    slow: Arc<SlowLog>,
    pub cache_memory: Arc<Memory>,
    pub waiting_for_locks: Arc<WaitingForLocks>,
    rules: Arc<InForce>,
    scrape_key: Arc<ScrapeKey>,
    durability: Arc<Durability>,
    body_limits: Arc<BodyLimits>,
    /// The weight of tokens that each worker may remember.
    remembered: u64,
    cors: Arc<Cors>,
    pub streams: Arc<Streams>,
    grace: Duration,
    _data_dir: Arc<DataDir>,
}

impl Parts {
    pub async fn build(config: Config, admin_key: Option<String>) -> Result<Parts> {
        let data_dir = DataDir::open(&config.data_dir)?;
        let layout = data_dir.layout.clone();
        let engine = Engine::start(&config.sqlite, &config.executor);
        engine.answers().bound(config.http.unread_bytes);
        let systems = Arc::new(Systems::open(&engine, &layout.system(), &config.durability, &config.telemetry).await?);
        let admin_key_path = layout.system().join("admin.key");
        settle_first_operator(&systems, admin_key, &admin_key_path).await?;

        let ring = KeyRing::open(layout.keys(), &config.auth)?;
        let packing = Packing::open(&config.cache, &layout.keys())?;
        let verifier = Arc::new(Verifier::new(&config.auth, ring.clone())?);
        let signer = Arc::new(Signer::new(&config.auth, ring.clone())?);

        let folder = config.tenants.migrations_dir.clone();
        let ceiling = systems.app.migration_ceiling().await?.map(|ceiling| ceiling.version);
        let target = Arc::new(engine.blocking(move || Target::load(folder, ceiling)).await?);
        let (folder, known, unindexed) = (config.tenants.migrations_dir.clone(), target.clone(), config.rest.unindexed_embeds);
        let load = move || load_rules(folder.as_deref(), &known, unindexed);
        let rules = Arc::new(engine.blocking(move || InForce::begin(Box::new(load))).await?);
        let remembered = config.auth.remembered_tokens / config.http.worker_count() as u64;
        let lists = config.plans.values().map(|plan| &plan.cors_origins);
        let origins = lists.chain([&config.http.cors_origins]).flatten().cloned().collect();
        let registry = Arc::new(Registry::new(systems.app.clone(), &config.plans, config.tenants.remembered));
        let idle_close = Duration::from_secs(config.tenants.idle_close_s);
        let triples = Triples::new(engine.clone(), layout.clone(), config.durability.clone(), target.clone(), idle_close);
        let fleet = Fleet::new(fleet::Parts {
            layout: layout.clone(),
            engine: engine.clone(),
            app: systems.app.clone(),
            audit: systems.audit.clone(),
            triples: triples.clone(),
            target: target.clone(),
            drain: Duration::from_millis(config.tenants.drain_ms),
        });
        let parts = lifecycle::Parts {
            layout: layout.clone(),
            engine: engine.clone(),
            app: systems.app.clone(),
            audit: systems.audit.clone(),
            registry: registry.clone(),
            triples: triples.clone(),
            signer,
            verifier: verifier.clone(),
            target,
        };
        let lifecycle = Lifecycle::new(parts, &config.tenants, &config.auth);
        let recovered = lifecycle.recover().await?;
        tracing::info!(?recovered, "what an earlier end left is settled");

        let (post, wakeups) = (Arc::new(Post::new(config.queue.private_targets)), Wakeups::new(systems.app.clone()));
        let waiters = Arc::new(Waiters::new(wakeups.clone()));
        let relay = Relay::new(layout, systems.app.clone(), registry.clone(), triples.clone(), waiters.clone());
        let cache_memory = Memory::over(config.cache.memory_bytes, packing);
        let parts = waker::Parts {
            app: systems.app.clone(),
            wakeups,
            registry: registry.clone(),
            triples: triples.clone(),
            waiters: waiters.clone(),
            cache: cache_memory.clone(),
            post: post.clone(),
            relay: relay.clone(),
            systems: systems.clone(),
            rules: rules.clone(),
        };
        let waker = Waker::new(parts, &config.queue);
        let background = vec![tokio::spawn(fleet.clone().drive()), tokio::spawn(waker.clone().run()), tokio::spawn(relay.clone().run())];

        let slow = SlowLog::new(systems.analytics.clone(), Duration::from_millis(config.telemetry.slow_ms));
        Ok(Parts {
            admin_key_path,
            engine,
            triples,
            readiness: Arc::default(),
            waiters,
            mark: Arc::new(systems.mark.clone()),
            analytics: Arc::new(systems.analytics.clone()),
            systems,
            registry,
            lifecycle: Arc::new(lifecycle),
            fleet: Arc::new(fleet),
            post,
            waker,
            relay,
            background: Arc::new(Mutex::new(background)),
            ring,
            verifier,
            requests: Arc::default(),
            slow: Arc::new(slow),
            cache_memory,
            waiting_for_locks: Arc::default(),
            rules,
            durability: Arc::new(config.durability),
            scrape_key: Arc::new(ScrapeKey(config.telemetry.scrape_key)),
            streams: Streams::new(config.hrana, secret::random()?),
            cors: Arc::new(Cors::new(origins)),
            remembered,
            body_limits: Arc::new(BodyLimits::new(config.http.max_body_bytes, config.http.receiving_bytes)),
            grace: Duration::from_secs(config.shutdown.background_s),
            _data_dir: Arc::new(data_dir),
        })
    }

    /// Gives handlers what they ask for, each part by its type.
    pub fn register(self, app: &mut ServiceConfig) {
        let keeper = Keeper::new(self.verifier.clone(), self.registry.clone(), self.triples.clone(), self.rules.clone(), self.remembered);
        app.app_data(Rc::new(keeper))
            .app_data(Data::from(self.engine))
            .app_data(Data::from(self.triples))
            .app_data(Data::from(self.readiness))
            .app_data(Data::from(self.waiters))
            .app_data(Data::from(self.post))
            .app_data(Data::from(self.systems))
            .app_data(Data::from(self.mark))
            .app_data(Data::from(self.analytics))
            .app_data(Data::from(self.registry))
            .app_data(Data::from(self.lifecycle))
            .app_data(Data::from(self.fleet))
            .app_data(Data::from(self.ring))
            .app_data(Data::from(self.verifier))
            .app_data(Data::from(self.requests))
            .app_data(Data::from(self.slow))
            .app_data(Data::from(self.cache_memory))
            .app_data(Data::from(self.waiting_for_locks))
            .app_data(Data::from(self.rules))
            .app_data(Data::from(self.scrape_key))
            .app_data(Data::from(self.durability))
            .app_data(Data::from(self.streams))
            .app_data(Data::from(self.body_limits))
            .app_data(Data::from(self.cors));
    }

    /// Closes every file. No request runs any more.
    pub async fn close(&self) {
        self.waker.close();
        self.relay.close();
        let tasks = std::mem::take(&mut *self.background.lock().unwrap_or_else(PoisonError::into_inner));
        let until = tokio::time::Instant::now() + self.grace;
        for mut task in tasks {
            // What a visit still does ends on the lanes, what is being delivered is delivered again: at the next start.
            if tokio::time::timeout_at(until, &mut task).await.is_err() {
                task.abort();
            }
        }
        if let Err(error) = self.relay.leave_rest().await {
            tracing::error!(%error, "outboxes that are not relayed yet may be found only when somebody opens their databases");
        }
        self.triples.close(self.grace).await;
        self.systems.close().await;
        self.engine.stop();
    }
}

/// Of policies that do not hold, in the log.
const PROBLEMS_LOGGED: usize = 20;

/// The application's policies, and its functions, tried on files as all of its migrations make them; of policies it is only
/// said what does not hold on those. Blocking.
fn load_rules(migrations: Option<&Path>, target: &Target, unindexed: UnindexedEmbeds) -> Result<(Dialect, Declared)> {
    let policies = Policies::of_migrations(migrations)?;
    let folder = migrations.map(|folder| folder.join("functions")).filter(|folder| folder.is_dir());
    // Without migrations the tables are made in some other way.
    let makes_tables = target.now().blueprint.application().is_some_and(|own| own.newest() > 0);
    let checks = makes_tables && !policies.is_empty();
    let (mut functions, mut problems) = (Functions::default(), Vec::new());
    if folder.is_some() || checks {
        // Under a ceiling the newest migrations may be such that no file can be made with them: then those in force serve.
        let newest = target.read().and_then(|blueprint| Trial::on(blueprint.of(Role::Database)));
        let trial = newest.or_else(|_| Trial::on(target.now().blueprint.of(Role::Database)))?;
        if checks {
            problems = policies.check(&trial)?;
        }
        if let Some(folder) = folder {
            functions = Functions::load(&folder, &trial)?;
        }
    }
    for problem in problems.iter().take(PROBLEMS_LOGGED) {
        tracing::warn!(place = problem.place, "{}: `tenantry policy check` says more", problem.message);
    }
    let (count, grants) = policies.len();
    let declared = Declared { policies: count, grants, functions: functions.len(), problems };
    let (schemas, indexes) = (Schemas::new(policies), Indexes::new(unindexed));
    Ok((Dialect { schemas, functions, indexes, stencils: Stencils::default() }, declared))
}

/// Makes sure that an operator can call: with the key that was given, or with one made now, once, and left in a
/// file that only its owner can read.
async fn settle_first_operator(systems: &Arc<Systems>, given: Option<String>, path: &Path) -> Result<()> {
    match &given {
        Some(key) if systems.mark.verify_key(key).is_some() => return Ok(()),
        None if systems.mark.has_operators() => return Ok(()),
        _ => {}
    }
    let by = By { actor: "server".to_owned(), request_id: Uuid::now_v7() };
    let target = Some(FIRST_OPERATOR.to_owned());
    let (all, who, whom, path) = (systems.clone(), by.clone(), target.clone(), path.to_owned());
    let settle = async move {
        all.audit.record(who.begun("operator.key", whom.clone(), json!({}))).await?;
        put_first_operator(&all.mark, given, &path).await?;
        all.audit.record(who.did("operator.key", whom, json!({}))).await
    };
    systems.audit.attempt(&by, "operator.key", target, settle).await
}

async fn put_first_operator(mark: &Mark, given: Option<String>, path: &Path) -> Result<()> {
    let Some(key) = given else {
        let key = generate_key()?;
        // Before it counts: a crash between leaves a key in the file that the next start replaces.
        secret::write_new(path, format!("{key}\n").as_bytes())?;
        mark.put_operator(FIRST_OPERATOR, &key).await?;
        eprintln!("The operator's key is in {}", path.display());
        return Ok(());
    };
    mark.put_operator(FIRST_OPERATOR, &key).await.map_err(|error| match error.code() {
        Code::BadRequest => {
            Error::bad_request(format!("TENANTRY_ADMIN_KEY: {}", error.message())).hint("Leave it unset to have one generated.")
        }
        _ => error,
    })?;
    // What an earlier start left there is void now.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal("the file of the operator's key cannot be changed", &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::system::audit::Filter;

    #[tokio::test]
    async fn the_first_operators_key_replaces_what_lies_there_and_is_announced_before_it_counts() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::default();
        let engine = Engine::start(&config.sqlite, &config.executor);
        let systems = Systems::open(&engine, folder.path(), &config.durability, &config.telemetry).await.unwrap();
        let systems = Arc::new(systems);
        let (elsewhere, path) = (folder.path().join("elsewhere"), folder.path().join("admin.key"));
        std::fs::write(&elsewhere, "untouched").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();

        settle_first_operator(&systems, None, &path).await.unwrap();
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "untouched");
        let about = std::fs::symlink_metadata(&path).unwrap();
        assert!(about.is_file() && about.permissions().mode() & 0o777 == 0o600);
        assert!(systems.mark.verify_key(std::fs::read_to_string(&path).unwrap().trim()).is_some());

        settle_first_operator(&systems, Some("short".to_owned()), &path).await.unwrap_err();
        let entries = systems.audit.list(Filter { limit: 10, ..Default::default() }).await.unwrap();
        let outcomes: Vec<_> = entries.iter().rev().map(|entry| entry.record.outcome.as_str()).collect();
        assert_eq!(outcomes, ["begun", "ok", "begun", "bad_request"]);
        assert!(entries.iter().all(|entry| entry.record.action == "operator.key"));
    }
}
