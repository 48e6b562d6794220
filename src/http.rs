//! HTTP: every route on one page. A handler decodes, calls one feature, encodes; who may call is said by what it
//! takes ([`guard::TenantCall`], [`guard::Operator`]). Paths, methods and Allow headers all come from the table
//! below, and `openapi.json` is held against it by a test.

pub mod admin;
pub mod cache;
pub mod cors;
pub mod extract;
pub mod guard;
pub mod health;
pub mod hrana;
pub mod locks;
pub mod queue;
pub mod reply;
pub mod rest;
pub mod sql;
pub mod unread;
pub mod watch;

use actix_web::web::{self, ServiceConfig};

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub who: Who,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Anyone,
    /// A tenant's token, with the scope that the handler asks for.
    Tenant,
    /// An operator's key.
    Operator,
}

/// Paths that begin so are looked up among themselves, so that no request is held against every route there is.
const SCOPES: [&str; 6] = ["/v1/cache", "/v1/queues", "/v1/jobs", "/v1/locks", "/rest/v1", "/admin/v1"];

/// Where a path is looked up, and what is left of it there.
fn scoped(path: &str) -> Option<(usize, &str)> {
    SCOPES.iter().enumerate().find_map(|(scope, prefix)| {
        let rest = path.strip_prefix(prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some((scope, rest))
    })
}

macro_rules! routes {
    ($($who:ident { $($path:literal [$($method:ident $handler:path),+ $(,)?])+ })+) => {
        pub const ROUTES: &[Route] = &[$($($(Route { method: stringify!($method), path: $path, who: Who::$who },)+)+)+];

        /// Puts the table's handlers into an actix application.
        pub fn configure(app: &mut ServiceConfig) {
            let mut scopes = SCOPES.map(web::scope);
            $($(
                let methods = concat!($(stringify!($method), ", ",)+);
                let (scope, path) = scoped($path).map_or((None, $path), |(scope, path)| (Some(scope), path));
                let resource = web::resource(path)
                    $(.route(web::method(actix_web::http::Method::$method).to($handler)))+
                    .default_service(web::to(move |request| reply::method_not_allowed(request, methods)));
                match scope {
                    Some(scope) => scopes[scope] = std::mem::replace(&mut scopes[scope], web::scope("")).service(resource),
                    None => drop(app.service(resource)),
                }
            )+)+
            for scope in scopes {
                app.service(scope);
            }
            app.default_service(web::to(reply::no_such_path));
        }
    };
}

// The router tries those of a scope in this order, so the ones that are called most come first.
routes! {
    Tenant {
        "/v1/sql" [POST sql::run]
        "/v3/pipeline" [POST hrana::pipeline]
        "/v2/pipeline" [POST hrana::pipeline]
        "/v3/cursor" [POST hrana::cursor]
        "/v1/cache/{key}" [GET cache::get, PUT cache::put, DELETE cache::delete, HEAD cache::get]
        "/v1/queues/{queue}/jobs" [POST queue::enqueue, GET queue::look::list]
        "/v1/queues/{queue}/claim" [POST queue::claim]
        "/v1/jobs/{id}/ack" [POST queue::lease::ack]
        "/v1/claim" [POST queue::claim_of_several]
        "/v1/jobs/{id}/nack" [POST queue::lease::nack]
        "/v1/jobs/{id}/extend" [POST queue::lease::extend]
        "/v1/jobs/{id}/progress" [POST queue::lease::progress]
        "/v1/jobs/{id}/snooze" [POST queue::lease::snooze]
        "/v1/jobs/{id}/cancel" [POST queue::control::cancel]
        "/v1/jobs/{id}" [GET queue::look::job]
        "/v1/cache/{key}/increment" [POST cache::increment]
        "/v1/cache/{key}/fill" [DELETE cache::give_up]
        "/v1/cache/{key}/remember" [
            POST cache::remember::remember, PUT cache::remember::write, DELETE cache::remember::forget,
        ]
        "/v1/cache/{key}/through" [PUT cache::through::put]
        "/v1/cache/{key}/behind" [PUT cache::behind::put]
        "/v1/cache" [GET cache::whole::stats, POST cache::batch::run, DELETE cache::whole::throw]
        "/v1/locks/{name}" [POST locks::take, GET locks::look]
        "/v1/locks/{name}/extend" [POST locks::extend]
        "/v1/locks/{name}/release" [POST locks::release]
        "/v1/queues" [GET queue::look::queues]
        "/v1/queues/{queue}" [GET queue::look::depth, PATCH queue::control::set]
        "/v1/queues/{queue}/redrive" [POST queue::control::redrive]
        "/v1/queues/{queue}/purge" [POST queue::control::purge]
        "/v1/queues/{queue}/schedules" [GET queue::schedule::list]
        "/v1/queues/{queue}/schedules/{name}" [
            GET queue::schedule::get, PUT queue::schedule::put, PATCH queue::schedule::patch, DELETE queue::schedule::delete,
        ]
        "/v1/queues/{queue}/schedules/{name}/run" [POST queue::schedule::run]
        "/v1/queues/{queue}/webhook" [GET queue::webhook::get, PUT queue::webhook::put, DELETE queue::webhook::delete]
        "/v1/queues/{queue}/webhook/rotate" [POST queue::webhook::rotate]
        "/rest/v1/" [GET rest::root, POST rest::batch]
        "/rest/v1/rpc/{name}" [GET rest::call, HEAD rest::call, POST rest::call, OPTIONS rest::callable]
        "/rest/v1/{table}" [
            GET rest::rows, HEAD rest::rows, POST rest::rows, PATCH rest::rows, PUT rest::rows, DELETE rest::rows,
            OPTIONS rest::options,
        ]
    }
    Anyone {
        "/" [GET hrana::socket::open]
        "/v2" [GET hrana::version]
        "/v3" [GET hrana::version]
        "/healthz" [GET health::live]
        "/readyz" [GET health::ready]
        "/metrics" [GET health::metrics]
        "/openapi.json" [GET health::openapi]
        "/.well-known/jwks.json" [GET health::jwks]
    }
    Operator {
        "/admin/v1/tenants" [GET admin::tenants::list, POST admin::tenants::create]
        "/admin/v1/tenants:batch" [POST admin::tenants::create_batch]
        "/admin/v1/tenants/{id}" [GET admin::tenants::get, PATCH admin::tenants::patch, DELETE admin::tenants::delete]
        "/admin/v1/tenants/{id}/undelete" [POST admin::tenants::undelete]
        "/admin/v1/tenants/{id}/purge" [POST admin::tenants::purge]
        "/admin/v1/tenants/{id}/migrate" [POST admin::migrations::migrate]
        "/admin/v1/tenants/{id}/tokens" [GET admin::tokens::list, POST admin::tokens::create]
        "/admin/v1/tenants/{id}/tokens/{jti}" [DELETE admin::tokens::revoke]
        "/admin/v1/tenants/{id}/policies/test" [POST admin::policies::test]
        "/admin/v1/policies:reload" [POST admin::policies::reload]
        "/admin/v1/plans" [GET admin::tenants::plans]
        "/admin/v1/keys:rotate" [POST admin::keys::rotate]
        "/admin/v1/migrations" [GET admin::migrations::list]
        "/admin/v1/migrations/runs" [GET admin::migrations::runs, POST admin::migrations::begin]
        "/admin/v1/migrations/runs/{run}" [GET admin::migrations::run]
        "/admin/v1/migrations/runs/{run}/tenants" [GET admin::migrations::visits]
        "/admin/v1/migrations/runs/{run}/stop" [POST admin::migrations::stop]
        "/admin/v1/migrations/runs/{run}/retry" [POST admin::migrations::retry]
        "/admin/v1/audit" [GET admin::audit::list]
        "/admin/v1/audit/verify" [GET admin::audit::verify]
        "/admin/v1/system" [GET admin::system::list]
        "/admin/v1/health" [GET health::admin]
    }
}
