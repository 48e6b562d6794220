//! The registry in front of a real `app`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::config::{Config, Durability, Telemetry};
use crate::sqlite::Engine;
use crate::system::app::{NewTenant, Patch, TokenRow};
use crate::system::audit::By;
use crate::system::{Systems, app};

struct Bed {
    systems: Systems,
    registry: Registry,
    _folder: tempfile::TempDir,
}

async fn bed(plans: &[(&str, Plan)]) -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap().join("system");
    std::fs::create_dir(&dir).unwrap();
    let config = Config::default();
    let engine = Engine::start(&config.sqlite, &config.executor);
    let systems = Systems::open(&engine, &dir, &Durability::default(), &Telemetry::default()).await.unwrap();
    let plans: BTreeMap<_, _> = plans.iter().map(|(name, plan)| ((*name).to_owned(), plan.clone())).collect();
    Bed { registry: Registry::new(systems.app.clone(), &plans, 100), systems, _folder: folder }
}

fn by() -> By {
    By { actor: "root".to_owned(), request_id: Uuid::now_v7() }
}

impl Bed {
    async fn tenant(&self, slug: &str, plan: &str) -> TenantId {
        let id = TenantId::new_v7();
        let new = NewTenant { id: id.uuid(), slug: slug.to_owned(), name: slug.to_owned(), plan: plan.to_owned() };
        self.systems.app.tenant_begin(new, None).await.unwrap();
        let token = TokenRow {
            jti: Uuid::now_v7(),
            tenant_id: id.uuid(),
            sub: "service".to_owned(),
            role: "service".to_owned(),
            scopes: String::new(),
            created_at: 0,
            expires_at: i64::MAX,
            revoked_at: None,
        };
        let answer = |_: &app::TenantRow| app::Answer { status: 201, body: Vec::new() };
        let action = by().did("tenant.create", Some(id.to_string()), serde_json::json!({}));
        self.systems.app.tenant_activate(id.uuid(), token, None, answer, action).await.unwrap();
        id
    }

    async fn patch(&self, id: TenantId, patch: Patch) {
        let action = by().did("tenant.update", Some(id.to_string()), serde_json::json!({}));
        self.systems.app.tenant_patch(id.uuid(), patch, action).await.unwrap();
    }
}

fn suspended() -> Patch {
    Patch { state: Some(State::Suspended), ..Patch::default() }
}

fn code(found: Result<Arc<Tenant>>) -> Code {
    found.unwrap_err().code()
}

#[tokio::test]
async fn an_unknown_and_a_deleted_tenant_look_like_an_invalid_token() {
    let bed = bed(&[]).await;
    let id = bed.tenant("acme", "default").await;
    assert_eq!(bed.registry.active(id).await.unwrap().slug, "acme");

    bed.systems.app.tenant_delete(id.uuid(), by().did("tenant.delete", None, serde_json::json!({}))).await.unwrap();
    bed.registry.changed(id);
    let deleted = bed.registry.active(id).await.unwrap_err();
    let unknown = bed.registry.active(TenantId::new_v7()).await.unwrap_err();
    assert_eq!(deleted.to_json(), auth::invalid_token().to_json());
    assert_eq!(unknown.to_json(), auth::invalid_token().to_json());
}

#[tokio::test]
async fn who_is_not_there_is_remembered_until_they_are() {
    let bed = bed(&[]).await;
    let nobody = TenantId::new_v7();
    for _ in 0..3 {
        assert_eq!(code(bed.registry.active(nobody).await), Code::Unauthenticated);
    }
    assert_eq!(bed.registry.hits_and_misses(), (2, 1));
}

#[tokio::test]
async fn a_change_acts_on_the_next_request() {
    let bed = bed(&[]).await;
    let id = bed.tenant("acme", "default").await;
    bed.registry.active(id).await.unwrap();
    bed.patch(id, suspended()).await;
    bed.registry.changed(id);
    assert_eq!(code(bed.registry.active(id).await), Code::TenantSuspended);
}

#[tokio::test]
async fn a_lookup_that_a_change_overtook_is_not_remembered() {
    let bed = bed(&[]).await;
    let id = bed.tenant("acme", "default").await;

    // A lookup has read the row and is about to remember it…
    let before = *bed.registry.epoch(id);
    let row = bed.systems.app.tenant(id.uuid()).await.unwrap();
    // …when the tenant is suspended.
    bed.patch(id, suspended()).await;
    bed.registry.changed(id);
    let overtaken = bed.registry.remember(id, row, before);

    assert!(overtaken.is_err());
    assert!(bed.registry.remembered(id).is_none());
    assert_eq!(code(bed.registry.active(id).await), Code::TenantSuspended);
}

#[tokio::test]
async fn what_a_tenant_has_spent_stays_spent_over_a_change_of_plan() {
    let slow = Plan { requests_per_s: 1, burst: 2, ..Plan::default() };
    let bed = bed(&[("slow", slow.clone()), ("slower", Plan { burst: 1, ..slow })]).await;
    let id = bed.tenant("acme", "slow").await;
    let tenant = bed.registry.active(id).await.unwrap();
    assert!(tenant.admit().is_ok() && tenant.admit().is_ok() && tenant.admit().is_err());

    bed.patch(id, Patch { plan: Some("slower".to_owned()), ..Patch::default() }).await;
    bed.registry.changed(id);
    let tenant = bed.registry.active(id).await.unwrap();
    assert_eq!(tenant.plan.burst, 1);
    let refused = tenant.admit().unwrap_err();
    assert_eq!(refused.code(), Code::TooManyRequests);
    assert!(refused.wait().is_some());
}

#[tokio::test]
async fn a_tenant_that_is_forgotten_while_somebody_holds_it_has_the_same_rate() {
    let bed = bed(&[]).await;
    let registry = Registry::new(bed.systems.app.clone(), &BTreeMap::new(), 1);
    let (held, other) = (bed.tenant("held", "default").await, bed.tenant("other", "default").await);
    let before = registry.active(held).await.unwrap();
    registry.known.invalidate(&held.uuid());
    registry.active(other).await.unwrap();
    let after = registry.active(held).await.unwrap();
    assert!(!Arc::ptr_eq(&before, &after) && Arc::ptr_eq(&before.rate, &after.rate));
}

#[tokio::test]
async fn a_plan_that_left_the_configuration_has_the_default_s_limits() {
    let bed = bed(&[("default", Plan { burst: 7, ..Plan::default() })]).await;
    let id = bed.tenant("acme", "gone").await;
    let tenant = bed.registry.active(id).await.unwrap();
    assert_eq!((tenant.plan_name.as_str(), tenant.plan.burst), ("gone", 7));
}
