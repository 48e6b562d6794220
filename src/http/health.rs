//! How the server is: liveness, readiness, metrics, its description, its public keys; and for operators the
//! whole picture.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::guard::{Operator, bearer};
use crate::auth::{KeyRing, Verifier, missing_token};
use crate::cache::Memory;
use crate::config::Durability;
use crate::error::{Code, Error, Result};
use crate::queue::Waiters;
use crate::sqlite::Engine;
use crate::system::{Analytics, Systems};
use crate::telemetry::{Exposition, Requests};
use crate::tenant::Triples;
use crate::tenant::registry::Registry;

/// Whether the server takes requests; it says no before it stops.
#[derive(Default)]
pub struct Readiness(AtomicBool);

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, SeqCst);
    }

    pub fn is_ready(&self) -> bool {
        self.0.load(SeqCst)
    }
}

/// What `/metrics` wants as `Authorization: Bearer`, if anything.
pub struct ScrapeKey(pub Option<String>);

pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

pub async fn ready(readiness: Data<Readiness>) -> Result<HttpResponse> {
    if readiness.is_ready() {
        Ok(HttpResponse::Ok().json(json!({"status": "ready"})))
    } else {
        Err(Error::new(Code::ShuttingDown, "the server is stopping").retry_after(Duration::from_secs(1)))
    }
}

pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(include_str!("openapi.json"))
}

pub async fn jwks(ring: Data<KeyRing>) -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).insert_header(("cache-control", "public, max-age=300")).body(ring.jwks_json())
}

pub async fn metrics(
    request: HttpRequest,
    key: Data<ScrapeKey>,
    (engine, waiters, memory): (Data<Engine>, Data<Waiters>, Data<Memory>),
    triples: Data<Triples>,
    registry: Data<Registry>,
    analytics: Data<Analytics>,
    requests: Data<Requests>,
) -> Result<HttpResponse> {
    if let Some(key) = &key.0
        && !same(bearer(&request)?.as_bytes(), key.as_bytes())
    {
        return Err(missing_token());
    }
    let mut to = Exposition::default();
    requests.expose(&mut to);
    let state = triples.state();
    let (used, most) = engine.descriptor_use();
    let cache = memory.counts();
    for (name, help, value) in [
        ("tenantry_triples_live", "Tenants whose files may be open.", state.live as u64),
        ("tenantry_leases", "Requests that hold a tenant's files open.", state.leases),
        ("tenantry_files_open", "Tenants' files open.", state.files_open),
        ("tenantry_readers_total", "Readers open.", state.readers_open),
        ("tenantry_readers_idle", "Readers open and idle.", state.readers_idle),
        ("tenantry_readers_active", "Readers in use.", state.readers_active),
        ("tenantry_writes_waiting", "Writes waiting for their file's writer.", state.writes_waiting),
        ("tenantry_claims_waiting", "Claims that wait for a job.", waiters.count() as u64),
        ("tenantry_cache_memory_bytes", "Cache entries in memory.", cache.memory_bytes),
        ("tenantry_wal_bytes", "Write-ahead logs of the open files.", state.wal_bytes),
        ("tenantry_tenants_failed", "Tenants of which a file could not be opened.", state.failed.len() as u64),
        ("tenantry_descriptors_used", "Descriptors that databases hold.", used),
        ("tenantry_descriptors_max", "Descriptors that databases may hold.", most),
    ] {
        to.one(name, "gauge", help, value);
    }
    let (hits, misses) = registry.hits_and_misses();
    for (name, help, value) in [
        ("tenantry_triple_hits_total", "Requests that found their tenant's triple at hand.", state.hits),
        ("tenantry_triple_misses_total", "Requests that did not.", state.misses),
        ("tenantry_triple_evictions_total", "Triples let go for room or idleness.", state.evictions),
        ("tenantry_registry_hits_total", "Tenants found remembered.", hits),
        ("tenantry_registry_misses_total", "Tenants read from app.", misses),
        ("tenantry_cache_memory_hits_total", "Cache entries found in memory.", cache.memory_hits),
        ("tenantry_cache_file_hits_total", "Cache entries found in their file.", cache.file_hits),
        ("tenantry_cache_misses_total", "Cache entries that were not found.", cache.misses),
        ("tenantry_cache_puts_total", "Cache entries set.", cache.puts),
        ("tenantry_cache_evictions_total", "Cache entries that had to make room.", cache.evicted),
        ("tenantry_cache_spared_total", "Cache entries that would have had to, but were read lately.", cache.spared),
        ("tenantry_log_entries_dropped_total", "Entries of performance_logs and error_logs lost to their bound.", analytics.dropped()),
    ] {
        to.one(name, "counter", help, value);
    }
    for (name, value) in engine.counters().all() {
        to.one(&format!("tenantry_sqlite_{name}_total"), "counter", &format!("SQLite: {} since the start.", name.replace('_', " ")), value);
    }
    to.family("tenantry_queue_jobs_total", "counter", "Jobs of all queues: added, claimed, done, tries failed, dead.");
    for (event, count) in waiters.paces().totals() {
        to.sample("tenantry_queue_jobs_total", &format!("{{event=\"{event}\"}}"), count);
    }
    to.one("tenantry_answer_bytes", "gauge", "Bytes of large answers that are being made or not read yet.", engine.answers().used());
    let (reads, writes) = engine.load();
    for (lane, load) in [("read", reads), ("write", writes)] {
        to.one(&format!("tenantry_{lane}_lanes"), "gauge", "Threads.", load.lanes);
        to.one(&format!("tenantry_{lane}_lanes_running"), "gauge", "Threads at work.", load.running);
        to.one(&format!("tenantry_{lane}_lanes_waiting"), "gauge", "Jobs waiting for a thread.", load.waiting);
    }
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(to.into_text()))
}

/// `GET /admin/v1/health`.
pub async fn admin(
    _operator: Operator,
    systems: Data<Systems>,
    engine: Data<Engine>,
    triples: Data<Triples>,
    verifier: Data<Verifier>,
    readiness: Data<Readiness>,
    durability: Data<Durability>,
) -> Result<HttpResponse> {
    let system = systems.health().await;
    let healthy = system.iter().all(|database| database.connected);
    let (used, most) = engine.descriptor_use();
    let (reads, writes) = engine.load();
    let lanes = |load: crate::sqlite::Load| json!({"lanes": load.lanes, "running": load.running, "waiting": load.waiting});
    let counters: serde_json::Map<_, _> =
        engine.counters().all().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    let state = triples.state();
    let status = match (readiness.is_ready(), healthy, state.failed.is_empty()) {
        (false, ..) => "stopping",
        (true, true, true) => "ok",
        _ => "degraded",
    };
    Ok(HttpResponse::Ok().json(json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "durability": **durability,
        "system": system,
        "triples": state,
        "lanes": {"read": lanes(reads), "write": lanes(writes)},
        "descriptors": {"used": used, "max": most},
        "sqlite": counters,
        "remembered_tokens": verifier.remembered(),
        "log_entries_dropped": systems.analytics.dropped(),
    })))
}

/// Compares in a time that does not tell where two keys differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    use sha2::{Digest, Sha256};
    Sha256::digest(one) == Sha256::digest(other)
}
