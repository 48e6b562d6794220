//! `/admin/v1/migrations`: what files are brought up to date with, and the runs that bring the fleet there.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{limit, page};
use crate::error::{Error, Result};
use crate::fleet::{Fleet, Wish};
use crate::http::extract::{Json, Query};
use crate::http::guard::Operator;
use crate::sqlite::Migrations;
use crate::system::app::fleet::{KEPT, RunRow, VisitRow, VisitState};
use crate::system::audit::By;
use crate::system::{Sets, schema};
use crate::tenant::{Lifecycle, Role, TenantId};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisitsQuery {
    state: Option<String>,
    #[serde(alias = "cursor")]
    after: Option<Uuid>,
    limit: Option<u32>,
}

/// `GET /admin/v1/migrations`: every set, and which file has it.
pub async fn list(_operator: Operator, fleet: Data<Fleet>) -> HttpResponse {
    let (schema, blueprint) = (schema(), fleet.blueprint());
    let tenant = |role: Role| (role.as_str(), blueprint.of(role));
    let system = [
        ("system/app.db", &schema.app),
        ("system/mark.db", &schema.mark),
        ("system/analytics.db", &schema.analytics),
        ("system/cache.db", &schema.operator_cache),
        ("system/queue.db", &schema.operator_queue),
    ];
    let files = Role::ALL.map(tenant).into_iter().chain(system);
    let sets: Vec<_> =
        files.flat_map(|(file, sets): (&str, &Sets)| sets.iter().map(|set| described(file, set)).collect::<Vec<_>>()).collect();
    HttpResponse::Ok().json(json!({ "sets": sets }))
}

/// `POST /admin/v1/tenants/{id}/migrate`: now, and not when it is next used.
pub async fn migrate(operator: Operator, id: Path<String>, lifecycle: Data<Lifecycle>) -> Result<HttpResponse> {
    let details = lifecycle.migrate(By::from(&operator), TenantId::parse(&id)?).await?;
    Ok(HttpResponse::Ok().json(json!({ "tenant": details.to_json() })))
}

/// `POST /admin/v1/migrations/runs`: 202, and the run goes on by itself.
pub async fn begin(operator: Operator, wish: Json<Wish>, fleet: Data<Fleet>) -> Result<HttpResponse> {
    let run = fleet.begin(By::from(&operator), wish.0).await?;
    Ok(HttpResponse::Accepted().json(shown(&fleet, &run)))
}

/// `GET /admin/v1/migrations/runs`: the newest first.
pub async fn runs(_operator: Operator, fleet: Data<Fleet>) -> Result<HttpResponse> {
    let runs = fleet.runs(KEPT).await?;
    let runs: Vec<_> = runs.iter().map(|run| fleet.to_json(run)).collect();
    Ok(HttpResponse::Ok().json(json!({ "runs": runs })))
}

/// `GET /admin/v1/migrations/runs/{run}`: how far it is.
pub async fn run(_operator: Operator, run: Path<String>, fleet: Data<Fleet>) -> Result<HttpResponse> {
    let run = fleet.run(run_id(&run)?).await?;
    Ok(HttpResponse::Ok().json(shown(&fleet, &run)))
}

/// `GET /admin/v1/migrations/runs/{run}/tenants`: what came of each.
pub async fn visits(_operator: Operator, run: Path<String>, query: Query<VisitsQuery>, fleet: Data<Fleet>) -> Result<HttpResponse> {
    let Query(VisitsQuery { state, after, limit: asked }) = query;
    let limit = limit(asked)?;
    let state = state.as_deref().map(|text| VisitState::parse(text).ok_or_else(wrong_state)).transpose()?;
    let rows = fleet.visits(run_id(&run)?, state, after, limit + 1).await?;
    let (rows, next_cursor) = page(rows, limit, |row| row.tenant_id.to_string());
    let tenants: Vec<_> = rows.iter().map(VisitRow::to_json).collect();
    Ok(HttpResponse::Ok().json(json!({ "tenants": tenants, "next_cursor": next_cursor })))
}

/// `POST /admin/v1/migrations/runs/{run}/stop`: no further tenants.
pub async fn stop(operator: Operator, run: Path<String>, fleet: Data<Fleet>) -> Result<HttpResponse> {
    let run = fleet.stop(By::from(&operator), run_id(&run)?).await?;
    Ok(HttpResponse::Ok().json(shown(&fleet, &run)))
}

/// `POST /admin/v1/migrations/runs/{run}/retry`: 202 with a new run for what that one left.
pub async fn retry(operator: Operator, run: Path<String>, fleet: Data<Fleet>) -> Result<HttpResponse> {
    let run = fleet.retry(By::from(&operator), run_id(&run)?).await?;
    Ok(HttpResponse::Accepted().json(shown(&fleet, &run)))
}

fn shown(fleet: &Fleet, run: &RunRow) -> Value {
    json!({ "run": fleet.to_json(run) })
}

fn run_id(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| Error::bad_request("this is not a run's id").hint("`GET /admin/v1/migrations/runs` lists them."))
}

fn wrong_state() -> Error {
    Error::bad_request("`state` is one of: waiting, done, failed, skipped")
}

fn described(file: &str, set: &Migrations) -> Value {
    let steps = set.steps.iter().map(|step| {
        json!({
            "version": step.version,
            "name": step.name,
            "checksum": step.up.checksum,
            "down_checksum": step.down.as_ref().map(|down| &down.checksum),
            "destructive": step.up.destroys,
            "in_force": step.version <= set.upto,
        })
    });
    json!({ "set": set.set, "file": file, "migrations": steps.collect::<Vec<_>>() })
}
