//! The life of tenants on real files, with everything below HTTP wired as the server wires it.

use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::auth::{KeyRing, Scopes};
use crate::config::Config;
use crate::error::Code;
use crate::system::Systems;
use crate::system::app::{Filter, NewTenant, Once};
use crate::system::audit;
use crate::tenant::Tenant;

struct Bed {
    lifecycle: Lifecycle,
    registry: Arc<Registry>,
    triples: Arc<Triples>,
    verifier: Arc<Verifier>,
    systems: Systems,
    layout: Layout,
    _folder: tempfile::TempDir,
}

/// A server's insides over `folder`, as at start.
async fn bed(folder: tempfile::TempDir) -> Bed {
    let config = Config::default();
    let layout = Layout::of(folder.path()).unwrap();
    std::fs::create_dir_all(layout.keys()).unwrap();
    let engine = Engine::start(&config.sqlite, &config.executor);
    let systems = Systems::open(&engine, &layout.system(), &config.durability, &config.telemetry).await.unwrap();
    let registry = Arc::new(Registry::new(systems.app.clone(), &config.plans, 1_000));
    let target = Arc::new(Target::load(None, None).unwrap());
    let triples = Triples::new(engine.clone(), layout.clone(), config.durability.clone(), target.clone(), Duration::from_secs(60));
    let ring = KeyRing::open(layout.keys(), &config.auth).unwrap();
    let verifier = Arc::new(Verifier::new(&config.auth, ring.clone()).unwrap());
    let parts = Parts {
        layout: layout.clone(),
        engine,
        app: systems.app.clone(),
        audit: systems.audit.clone(),
        registry: registry.clone(),
        triples: triples.clone(),
        signer: Arc::new(Signer::new(&config.auth, ring).unwrap()),
        verifier: verifier.clone(),
        target,
    };
    let lifecycle = Lifecycle::new(parts, &config.tenants, &config.auth);
    Bed { lifecycle, registry, triples, verifier, systems, layout, _folder: folder }
}

/// Runs a test where the triples' tasks can run.
async fn with_bed<F: Future<Output = ()>>(test: impl FnOnce(Bed) -> F) {
    let test = async { test(bed(tempfile::tempdir().unwrap()).await).await };
    tokio::task::LocalSet::new().run_until(test).await;
}

fn by() -> By {
    By { actor: "root".to_owned(), request_id: Uuid::now_v7() }
}

fn once(key: &str, body: u8) -> Option<Once> {
    Some(Once { scope: "tenants".to_owned(), key: key.to_owned(), body_hash: [body; 32] })
}

fn wish(slug: &str) -> Wish {
    Wish { slug: slug.to_owned(), name: slug.to_owned(), plan: None }
}

impl Bed {
    async fn make(&self, slug: &str, once: Option<Once>) -> Result<(TenantId, String)> {
        let answer = self.lifecycle.provision(by(), wish(slug), once).await?;
        assert_eq!(answer.status, 201);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let id = TenantId::parse(body["tenant"]["id"].as_str().unwrap()).unwrap();
        Ok((id, body["token"].as_str().unwrap().to_owned()))
    }

    async fn write(&self, tenant: &Tenant) {
        let lease = self.triples.lease(tenant.id, &tenant.plan).await.unwrap();
        let write = |tx: &crate::sqlite::WriteTx<'_>| tx.batch("CREATE TABLE IF NOT EXISTS t (v); INSERT INTO t VALUES (1)");
        lease.database().write(crate::sqlite::Limits::default(), write).await.unwrap();
    }

    async fn rows(&self, tenant: &Tenant) -> i64 {
        let lease = self.triples.lease(tenant.id, &tenant.plan).await.unwrap();
        let count = |r: &crate::sqlite::Reader<'_>| r.row("SELECT count(*) FROM t", [], |row| row.get(0));
        lease.database().read(crate::sqlite::Limits::default(), count).await.unwrap().unwrap()
    }

    /// Tenant folders in place, complete or not.
    fn folders(&self) -> usize {
        let shards = std::fs::read_dir(self.layout.root()).unwrap().map(|entry| entry.unwrap().path());
        let shards = shards.filter(|path| path.file_name().unwrap().len() == 2);
        shards.map(|shard| std::fs::read_dir(shard).unwrap().count()).sum()
    }

    async fn audited(&self) -> Vec<(String, String)> {
        let filter = audit::Filter { limit: 1_000, ..Default::default() };
        let entries = self.systems.audit.list(filter).await.unwrap();
        entries.into_iter().rev().map(|entry| (entry.record.action, entry.record.outcome)).collect()
    }
}

fn code<T: std::fmt::Debug>(outcome: Result<T>) -> Code {
    outcome.unwrap_err().code()
}

#[tokio::test]
async fn a_tenant_lives_through_everything_and_keeps_its_data() {
    with_bed(|bed| async move {
        let (id, token) = bed.make("acme", None).await.unwrap();
        assert_eq!(bed.verifier.verify(&token).await.unwrap().tenant, id.uuid());
        let tenant = bed.registry.active(id).await.unwrap();
        bed.write(&tenant).await;
        let details = bed.lifecycle.details(id).await.unwrap();
        assert!(details.open && details.last_used.is_some());
        assert!(details.files.iter().all(|file| file.schema.as_ref().is_some_and(|sets| !sets.is_empty()) && file.size_bytes > Some(0)));

        let suspend = Patch { state: Some(State::Suspended), ..Patch::default() };
        bed.lifecycle.patch(by(), id, suspend).await.unwrap();
        assert_eq!(code(bed.registry.active(id).await), Code::TenantSuspended);
        assert!(!bed.triples.is_open(id));

        let deleted = bed.lifecycle.delete(by(), id).await.unwrap();
        assert!(deleted.settled && deleted.state == State::Deleted);
        assert_eq!(code(bed.registry.active(id).await), Code::Unauthenticated);
        assert!(bed.layout.trashed(id).is_dir() && !bed.layout.tenant(id).exists());
        assert_eq!(code(bed.lifecycle.delete(by(), id).await), Code::Conflict);

        // It was suspended, and is again.
        assert_eq!(bed.lifecycle.undelete(by(), id).await.unwrap().state, State::Suspended);
        assert_eq!(code(bed.registry.active(id).await), Code::TenantSuspended);
        let resume = Patch { state: Some(State::Active), ..Patch::default() };
        bed.lifecycle.patch(by(), id, resume).await.unwrap();
        let tenant = bed.registry.active(id).await.unwrap();
        assert_eq!(bed.rows(&tenant).await, 1);

        assert_eq!(code(bed.lifecycle.purge(by(), id).await), Code::Conflict);
        bed.lifecycle.delete(by(), id).await.unwrap();
        bed.lifecycle.purge(by(), id).await.unwrap();
        assert_eq!(code(bed.lifecycle.details(id).await), Code::NotFound);
        assert!(!bed.layout.trashed(id).exists() && !bed.layout.tenant(id).exists());

        let done = |action: &str, outcome: &str| (action.to_owned(), outcome.to_owned());
        let expected = [
            done("tenant.create", "ok"),
            done("tenant.suspend", "ok"),
            done("tenant.delete", "ok"),
            done("tenant.delete", "conflict"),
            done("tenant.undelete", "ok"),
            done("tenant.resume", "ok"),
            done("tenant.purge", "conflict"),
            done("tenant.delete", "ok"),
            done("tenant.purge", "ok"),
        ];
        assert_eq!(bed.audited().await, expected);
        assert_eq!(bed.systems.audit.verify().await.unwrap().problem, None);
    })
    .await;
}

#[tokio::test]
async fn deleting_frees_the_slug_and_the_old_tenant_cannot_come_back_under_it() {
    with_bed(|bed| async move {
        let (first, old_token) = bed.make("acme", None).await.unwrap();
        assert_eq!(code(bed.make("acme", None).await), Code::Conflict);
        bed.lifecycle.delete(by(), first).await.unwrap();
        let (second, _) = bed.make("acme", None).await.unwrap();
        assert_ne!(first, second);
        assert_eq!(code(bed.lifecycle.undelete(by(), first).await), Code::Conflict);
        assert!(bed.layout.trashed(first).is_dir());
        // The old tenant's token still names the old tenant, which is no more.
        let claims = bed.verifier.verify(&old_token).await.unwrap();
        assert_eq!(code(bed.registry.active(claims.tenant.into()).await), Code::Unauthenticated);
    })
    .await;
}

#[tokio::test]
async fn the_same_key_and_body_give_the_same_answer() {
    with_bed(|bed| async move {
        let first = bed.make("acme", once("k", 1)).await.unwrap();
        assert_eq!(bed.make("acme", once("k", 1)).await.unwrap(), first);
        assert_eq!(code(bed.make("acme", once("k", 2)).await), Code::Conflict);
        // A call that failed gives its key back.
        assert_eq!(code(bed.make("acme", once("l", 1)).await), Code::Conflict);
        bed.make("other", once("l", 2)).await.unwrap();
        assert_eq!(bed.lifecycle.list(Filter { limit: 10, ..Filter::default() }).await.unwrap().len(), 2);
        assert_eq!(bed.folders(), 2);
    })
    .await;
}

#[tokio::test]
async fn many_at_once_with_one_slug_make_one_tenant() {
    with_bed(|bed| async move {
        let outcomes = futures_util::future::join_all((0..100).map(|_| bed.make("acme", None))).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(outcomes.into_iter().filter_map(Result::err).all(|error| error.code() == Code::Conflict));
        assert_eq!(bed.folders(), 1);
        assert_eq!(bed.audited().await.len(), 100);
    })
    .await;
}

#[tokio::test]
async fn a_batch_has_a_result_for_each() {
    with_bed(|bed| async move {
        bed.make("taken", None).await.unwrap();
        let wishes = || vec![wish("a"), wish("taken"), wish("../x"), wish("b")];
        let answer = bed.lifecycle.provision_batch(by(), wishes(), once("k", 1)).await.unwrap();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let results = body["results"].as_array().unwrap();
        let codes: Vec<_> = results.iter().map(|result| result["error"]["code"].as_str().unwrap_or("made")).collect();
        assert_eq!(results[0]["status"], 201);
        assert_eq!(codes, ["made", "conflict", "bad_request", "made"]);
        assert_eq!(results[3]["tenant"]["slug"], "b");
        assert_eq!(bed.lifecycle.provision_batch(by(), wishes(), once("k", 1)).await.unwrap(), answer);
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_was_cut_short_goes_on_under_its_key() {
    with_bed(|bed| async move {
        let app = &bed.systems.app;
        let key = once("k", 1).unwrap();
        let wishes = || vec![wish("a"), wish("b"), wish("c")];
        // The first call makes two of three, and then the process is gone; the start after it frees the key.
        app.once_begin(&key).await.unwrap();
        let first = bed.lifecycle.one_of_batch(by(), wish("a"), Some(key.part(0, provision::body_hash(&wish("a"))))).await;
        bed.lifecycle.one_of_batch(by(), wish("b"), Some(key.part(1, provision::body_hash(&wish("b"))))).await;
        app.once_release(&key).await.unwrap();

        let answer = bed.lifecycle.provision_batch(by(), wishes(), Some(key.clone())).await.unwrap();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(body["results"].as_array().unwrap().iter().all(|result| result["status"] == 201), "{body}");
        assert_eq!(body["results"][0], first, "the token too");
        assert_eq!(bed.lifecycle.provision_batch(by(), wishes(), Some(key.clone())).await.unwrap(), answer);
        assert_eq!(bed.folders(), 3);
        // The whole answer stands for its parts.
        assert_eq!(app.once_begin(&key.part(0, [0; 32])).await.unwrap(), crate::system::app::Begun::New);
    })
    .await;
}

#[tokio::test]
async fn what_a_crash_left_is_settled_at_the_next_start() {
    with_bed(|bed| async move {
        let begun = |slug: &str| NewTenant { id: Uuid::now_v7(), slug: slug.to_owned(), name: slug.to_owned(), plan: "default".to_owned() };
        let app = &bed.systems.app;
        // Provisioning, cut short before, while and after the files were made.
        let (none, part, all) = (begun("none"), begun("part"), begun("all"));
        for new in [&none, &part, &all] {
            app.tenant_begin(new.clone(), None).await.unwrap();
        }
        let unfinished = bed.layout.shard(part.id.into()).join(format!("{}.new", part.id));
        std::fs::create_dir_all(&unfinished).unwrap();
        std::fs::write(unfinished.join("half"), "x").unwrap();
        files::make(&bed.layout, &bed.lifecycle.inner.target.now().template, all.id.into()).unwrap();

        // Deleted, but the files are still in place; undeleting, the files already back; purging, some gone.
        let did = |action| by().did(action, None, json!({}));
        let (deleted, _) = bed.make("deleted", None).await.unwrap();
        app.tenant_delete(deleted.uuid(), did("tenant.delete")).await.unwrap();
        let (undeleting, _) = bed.make("undeleting", None).await.unwrap();
        bed.lifecycle.delete(by(), undeleting).await.unwrap();
        app.tenant_undelete_begin(undeleting.uuid()).await.unwrap();
        files::from_trash(&bed.layout, undeleting).unwrap();
        let (purging, _) = bed.make("purging", None).await.unwrap();
        bed.lifecycle.delete(by(), purging).await.unwrap();
        app.tenant_purge_begin(purging.uuid(), did("tenant.purge")).await.unwrap();
        let (alive, _) = bed.make("alive", None).await.unwrap();

        let recovered = bed.lifecycle.recover().await.unwrap();
        assert_eq!(recovered, Recovered { abandoned: 3, trashed: 2, purged: 1, failed: 0 });
        assert_eq!(bed.lifecycle.recover().await.unwrap(), Recovered::default());

        assert_eq!(bed.folders(), 1);
        for gone in [none.id, part.id, all.id, purging.uuid()] {
            assert_eq!(code(bed.lifecycle.details(gone.into()).await), Code::NotFound);
        }
        for trashed in [deleted, undeleting] {
            assert!(bed.layout.trashed(trashed).is_dir());
            bed.lifecycle.undelete(by(), trashed).await.unwrap();
        }
        assert!(bed.registry.active(alive).await.is_ok());
        bed.make("all", None).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_and_after_a_restart() {
    with_bed(|bed| async move {
        let (id, _) = bed.make("acme", None).await.unwrap();
        let wish = TokenWish { sub: "app".to_owned(), role: "app".to_owned(), scopes: Scopes::ALL, expires_in_s: Some(60) };
        let answer = bed.lifecycle.token_create(by(), id, wish, None).await.unwrap();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let token = body["token"].as_str().unwrap();
        let jti = Uuid::parse_str(body["jti"].as_str().unwrap()).unwrap();
        bed.verifier.verify(token).await.unwrap();
        let revoked = bed.lifecycle.token_revoke(by(), id, jti).await.unwrap();
        assert_eq!(code(bed.verifier.verify(token).await), Code::Unauthenticated);
        assert_eq!(bed.lifecycle.token_revoke(by(), id, jti).await.unwrap(), revoked);
        assert_eq!(bed.systems.app.tokens_revoked(Duration::ZERO).await.unwrap(), [(jti, revoked.expires_at)]);
        assert_eq!(bed.lifecycle.tokens(id, None, 10).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn tenants_are_listed_in_pages_by_state_and_searched() {
    with_bed(|bed| async move {
        for slug in ["acme", "acme-two", "other"] {
            bed.make(slug, None).await.unwrap();
        }
        let list = |filter: Filter| bed.lifecycle.list(filter);
        let slugs = |rows: Vec<TenantRow>| rows.into_iter().map(|row| row.slug).collect::<Vec<_>>();
        let page = list(Filter { limit: 2, ..Filter::default() }).await.unwrap();
        let next = list(Filter { limit: 2, after: Some(page[1].id), ..Filter::default() }).await.unwrap();
        assert_eq!([slugs(page), slugs(next)].concat(), ["acme", "acme-two", "other"]);
        assert_eq!(slugs(list(Filter { search: Some("CME".to_owned()), limit: 9, ..Filter::default() }).await.unwrap()).len(), 2);
        assert!(list(Filter { search: Some("%".to_owned()), limit: 9, ..Filter::default() }).await.unwrap().is_empty());
        assert!(list(Filter { states: vec![State::Deleted], limit: 9, ..Filter::default() }).await.unwrap().is_empty());
    })
    .await;
}
