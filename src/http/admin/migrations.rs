//! `/admin/v1/migrations`: what files are brought up to date with.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde_json::{Value, json};

use crate::error::Result;
use crate::http::guard::Operator;
use crate::sqlite::Migrations;
use crate::system::audit::By;
use crate::system::{Sets, schema};
use crate::tenant::{Lifecycle, Role, TenantId};

/// `GET /admin/v1/migrations`: every set, and which file has it.
pub async fn list(_operator: Operator, lifecycle: Data<Lifecycle>) -> HttpResponse {
    let schema = schema();
    let tenant = |role: Role| (role.as_str(), lifecycle.blueprint().of(role));
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

fn described(file: &str, set: &Migrations) -> Value {
    let steps = set.steps.iter().map(|step| json!({ "version": step.version, "name": step.name, "checksum": step.checksum }));
    json!({ "set": set.set, "file": file, "migrations": steps.collect::<Vec<_>>() })
}
