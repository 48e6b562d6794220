//! One tenant in a run. A visit changes files only while nobody has them open, and whoever comes meanwhile waits; it
//! reads them beside the requests. Its lane job holds the fence, so files are not opened under a job whose run has
//! ended. A tenant that is gone by now is skipped.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::Inner;
use crate::clock::rfc3339;
use crate::error::{Code, Error, Result};
use crate::sqlite::{self, Access, Applied, Course, Examined, Moved, Shape, Workpiece};
use crate::system::Sets;
use crate::system::app::State;
use crate::system::app::fleet::{Kind, RunRow, VisitState, Visited};
use crate::tenant::template::APPLICATION;
use crate::tenant::triples::Visit;
use crate::tenant::{Blueprint, Role, TenantId};

/// Shapes of histories remembered in one run.
const REFERENCES_MAX: usize = 64;

/// Bytes kept of an error's message.
const MESSAGE_MAX: usize = 2_000;

/// A kind of file, and its version of each set.
type History = (Role, Vec<u32>);

/// What a run does to each of its tenants.
pub struct Errand {
    kind: Kind,
    /// Of a run that moves files.
    course: Course,
    /// The longest one file may take.
    time: Duration,
    /// Everything there is, and as far as the run goes.
    pub known: Blueprint,
    aim: Blueprint,
    references: Mutex<HashMap<History, Arc<Shape>>>,
}

impl Errand {
    pub fn new(run: &RunRow, known: Blueprint) -> Errand {
        let time = Duration::from_secs(run.knobs.tenant_timeout_s);
        let course = match run.kind {
            Kind::Down if run.whole => Course::Down,
            Kind::Down => Course::Hold,
            _ if run.knobs.leaves_held => Course::Up,
            _ => Course::Lift,
        };
        Errand { kind: run.kind, course, time, aim: known.capped(run.to), known, references: Mutex::default() }
    }

    fn open(&self, inner: &Inner, path: &Path, role: Role, access: Access) -> Result<Workpiece> {
        Workpiece::open(&inner.engine, path, access, role == Role::Database, self.time)
    }

    /// What a file that is at these versions should look like.
    fn reference(&self, role: Role, at: &[Applied]) -> Result<Arc<Shape>> {
        let key = (role, at.iter().map(|one| one.version).collect::<Vec<_>>());
        let known = |key: &_| self.references.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some(shape) = known(&key) {
            return Ok(shape);
        }
        let shape = Arc::new(Shape::reference(self.known.of(role), at)?);
        let mut references = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        if references.len() >= REFERENCES_MAX {
            references.clear();
        }
        references.insert(key, shape.clone());
        Ok(shape)
    }
}

/// What was done before it failed, and why it did.
type Outcome = Result<Value, (Value, Error)>;

/// `None` if the tenant is to be visited again by the next process: this one is stopping.
pub async fn visit(inner: &Arc<Inner>, errand: &Arc<Errand>, tenant: Uuid) -> Option<Visited> {
    let visited = |state, outcome, error: Option<Error>| {
        let error = error.map(|error| error.for_operators()).map(|error| {
            let mut json = error.to_json();
            json["message"] = error.message().chars().take(MESSAGE_MAX).collect::<String>().into();
            json
        });
        Some(Visited { tenant, state, outcome, error })
    };
    match attempt(inner, errand, tenant.into()).await {
        Ok(Some(outcome)) if is_held(&outcome) => visited(VisitState::Skipped, outcome, None),
        Ok(Some(outcome)) => visited(VisitState::Done, outcome, None),
        Ok(None) => visited(VisitState::Skipped, json!({}), None),
        Err((_, error)) if inner.is_ending() && matches!(error.code(), Code::ShuttingDown | Code::Conflict) => None,
        Err((outcome, error)) => {
            tracing::warn!(%tenant, %error, kind = errand.kind.as_str(), "a fleet run failed on a tenant");
            visited(VisitState::Failed, outcome, Some(error))
        }
    }
}

/// Whether nothing could be moved as all that is behind is held where it is.
fn is_held(outcome: &Value) -> bool {
    let files = outcome["files"].as_array().map_or(&[][..], |files| files);
    let is_empty = |member: &Value| member.as_array().is_none_or(Vec::is_empty);
    files.iter().any(|file| file["held"].is_array() && !is_empty(&file["held"])) && files.iter().all(|file| is_empty(&file["moves"]))
}

/// `None` for a tenant that has no files in place.
async fn attempt(inner: &Arc<Inner>, errand: &Arc<Errand>, id: TenantId) -> Result<Option<Value>, (Value, Error)> {
    let early = |error| (json!({}), error);
    if !lives(inner, id).await.map_err(early)? {
        return Ok(None);
    }
    let outcome = match errand.kind {
        Kind::Plan | Kind::Validate => {
            let visit = inner.triples.look_in(id).await.map_err(early)?;
            on_lane(inner, errand, move |inner, errand| {
                // Whoever has the file open alone leaves no log of it behind.
                let access = if let Visit::Alone(_) = &visit { Access::Alone } else { Access::Beside };
                if errand.kind == Kind::Plan { plan(inner, errand, id, access) } else { validate(inner, errand, id, access) }
            })
            .await
        }
        Kind::Up if is_up(inner, errand, id).await.map_err(early)? => Ok(json!({ "files": [] })),
        Kind::Up | Kind::Down | Kind::Rollback => {
            let fence = inner.triples.hold_up(id, inner.drain).await.map_err(early)?;
            // Deleting takes a fence too: what is there now stays.
            if !lives(inner, id).await.map_err(early)? {
                return Ok(None);
            }
            on_lane(inner, errand, move |inner, errand| {
                let _fence = fence;
                if errand.kind == Kind::Rollback { roll_back(inner, errand, id) } else { bring(inner, errand, id) }
            })
            .await
        }
    };
    outcome.map(Some)
}

async fn lives(inner: &Inner, id: TenantId) -> Result<bool> {
    let row = inner.app.tenant(id.uuid()).await?;
    Ok(row.is_some_and(|row| matches!(row.state, State::Active | State::Suspended)))
}

async fn on_lane<F>(inner: &Arc<Inner>, errand: &Arc<Errand>, work: F) -> Outcome
where
    F: FnOnce(&Inner, &Errand) -> Outcome + Send + 'static,
{
    let errand = errand.clone();
    let done = inner.blocking(move |inner| Ok(work(inner, &errand))).await;
    done.unwrap_or_else(|error| Err((json!({}), error)))
}

/// Whether a tenant that is in use has all it should have, so that it need not be disturbed.
async fn is_up(inner: &Arc<Inner>, errand: &Arc<Errand>, id: TenantId) -> Result<bool> {
    if !inner.triples.is_open(id) {
        return Ok(false);
    }
    let Visit::Inside(pass) = inner.triples.look_in(id).await? else { return Ok(false) };
    let errand = errand.clone();
    let look = move |inner: &Inner| {
        let _pass = pass;
        for role in Role::ALL {
            let sets = errand.aim.of(role);
            let found = errand.open(inner, &inner.layout.file(id, role), role, Access::Beside)?.examine(sets)?;
            if !found.problems.is_empty() || !found.holds.is_empty() || is_behind(sets, &found) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    inner.blocking(look).await
}

fn is_behind(sets: &Sets, found: &Examined) -> bool {
    sets.iter().zip(&found.at).any(|(set, at)| at.version < set.upto)
}

/// Brings each file up or down, each in one transaction of its own.
fn bring(inner: &Inner, errand: &Errand, id: TenantId) -> Outcome {
    each(|role| {
        let began = Instant::now();
        let file = errand.open(inner, &inner.layout.file(id, role), role, Access::Alone)?;
        let moved = file.bring(errand.aim.of(role), errand.course, Some(&inner.layout.kept(id, role)))?;
        Ok((!moved.moves.is_empty() || !moved.held.is_empty()).then(|| told(role, &moved, began)))
    })
}

/// What a run up would do, done to copies.
fn plan(inner: &Inner, errand: &Errand, id: TenantId, access: Access) -> Outcome {
    let copies = inner.layout.plan_folder();
    each(|role| {
        let (path, sets) = (inner.layout.file(id, role), errand.aim.of(role));
        let original = errand.open(inner, &path, role, access)?;
        if !is_behind(sets, &original.examine(sets)?) {
            return Ok(None);
        }
        let copy = copies.join(path.file_name().unwrap_or_default());
        let rehearse = || {
            original.copy_to(&copy)?;
            let began = Instant::now();
            let moved = errand.open(inner, &copy, role, Access::Alone)?.bring(sets, errand.course, None)?;
            let mut told = told(role, &moved, began);
            told["size_bytes"] = std::fs::metadata(&copy).map(|found| found.len()).unwrap_or(0).into();
            Ok(Some(told))
        };
        let done = rehearse();
        // What is left is in the way of nothing, and the next plan of this tenant replaces it.
        let _ = sqlite::remove_copy(&copy);
        done
    })
}

/// Runs `one` for each file; what those before said stands beside the error of the one that failed.
fn each(mut one: impl FnMut(Role) -> Result<Option<Value>>) -> Outcome {
    let mut files = Vec::new();
    for role in Role::ALL {
        match one(role) {
            Ok(told) => files.extend(told),
            Err(error) => return Err((json!({ "files": files }), error.for_operators().detail("file", role.as_str()))),
        }
    }
    Ok(json!({ "files": files }))
}

fn told(role: Role, moved: &Moved, began: Instant) -> Value {
    json!({
        "file": role,
        "moves": moved.moves,
        "held": moved.held,
        "destructive": moved.destructive,
        "kept": moved.kept,
        "took_ms": began.elapsed().as_millis() as u64,
    })
}

/// Whether the files are what the migrations say: their record, and their schema.
fn validate(inner: &Inner, errand: &Errand, id: TenantId, access: Access) -> Outcome {
    let mut findings = Vec::new();
    let outcome = each(|role| {
        let sets = errand.known.of(role);
        let file = errand.open(inner, &inner.layout.file(id, role), role, access)?;
        let (found, shape) = (file.examine(sets)?, file.shape()?);
        findings.extend(found.problems.iter().map(|problem| {
            let mut json = json!(problem);
            json["file"] = json!(role);
            json["message"] = problem.refusal().message().into();
            json
        }));
        // Where the record contradicts the migrations, they do not say what the schema should be.
        if found.problems.iter().all(|problem| problem.problem == "down_changed")
            && let Some(drift) = shape.drift(&*errand.reference(role, &found.at)?)
        {
            let named: Vec<_> = [("misses", &drift.missing), ("has also", &drift.extra), ("has otherwise", &drift.different)]
                .into_iter()
                .filter(|(_, names)| !names.is_empty())
                .map(|(verb, names)| format!("{verb} {}", names.join(", ")))
                .collect();
            let mut json = json!(drift);
            json["problem"] = "drift".into();
            json["file"] = json!(role);
            json["message"] = format!("the schema of the {} is not what the migrations say: it {}", role.as_str(), named.join("; ")).into();
            findings.push(json);
        }
        let versions = |of: &[Applied]| of.iter().map(|one| (one.set.clone(), one.version.into())).collect::<serde_json::Map<_, _>>();
        let behind = is_behind(sets, &found);
        Ok(Some(
            json!({ "file": role, "at": versions(&found.at), "held": versions(&found.holds), "behind": behind, "schema": shape.hash() }),
        ))
    });
    let mut json = outcome?;
    let message = findings.first().and_then(|finding| finding["message"].as_str().map(str::to_owned));
    let count = findings.len();
    json["findings"] = findings.into();
    match message {
        None => Ok(json),
        Some(message) if count == 1 => Err((json, Error::conflict(message))),
        Some(message) => Err((json, Error::conflict(format!("{message} (and {} more)", count - 1)))),
    }
}

/// Puts the database back as it was before the last migration that destroyed something, and holds it there.
fn roll_back(inner: &Inner, errand: &Errand, id: TenantId) -> Outcome {
    const ROLE: Role = Role::Database;
    let sets = errand.known.of(ROLE);
    let application = |found: Examined| found.at.into_iter().find(|one| one.set == APPLICATION).map_or(0, |one| one.version);
    let work = || {
        let kept = inner.layout.kept(id, ROLE);
        let about = std::fs::symlink_metadata(&kept).map_err(|_| {
            Error::not_found("no copy of this tenant's database is kept")
                .hint("One is kept before a migration that destroys something. `down` takes migrations back without one.")
        })?;
        let copy = errand.open(inner, &kept, ROLE, Access::Alone)?;
        let to = application(copy.examine(sets)?);
        copy.hold(&[Applied { set: APPLICATION.to_owned(), version: to }])?;
        drop(copy);
        let mut file = errand.open(inner, &inner.layout.file(id, ROLE), ROLE, Access::Alone)?;
        let from = application(file.examine(sets)?);
        if from <= to {
            return Ok(json!({ "files": [] }));
        }
        file.restore_from(&kept)?;
        let kept_at = about.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let kept_at = kept_at.map(|since| rfc3339(since.as_millis() as i64));
        Ok(json!({ "files": [{ "file": ROLE, "moves": [{ "set": APPLICATION, "from": from, "to": to }], "as_of": kept_at }] }))
    };
    work().map_err(|error: Error| (json!({}), error))
}
