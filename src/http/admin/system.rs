//! `/admin/v1/system`: the system databases.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::json;

use crate::http::guard::Operator;
use crate::system::Systems;

/// `GET /admin/v1/system`: each one and how it is doing.
pub async fn list(_operator: Operator, systems: Data<Systems>) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "databases": systems.health().await }))
}
