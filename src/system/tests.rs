//! The system databases together, on real files: the audit chain against tampering and crashes, keys that work once,
//! operators, measurements.

use std::path::PathBuf;

use serde_json::json;
use uuid::Uuid;

use super::app::{Answer, Begun, NewTenant, Once};
use super::audit::{By, Problem};
use super::*;
use crate::config::Config;
use crate::error::Code;

struct Bed {
    systems: Systems,
    engine: Arc<Engine>,
    dir: PathBuf,
    _folder: tempfile::TempDir,
}

async fn bed() -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap().join("system");
    std::fs::create_dir(&dir).unwrap();
    let config = Config::default();
    let engine = Engine::start(&config.sqlite, &config.executor);
    Bed { systems: open(&engine, &dir).await, engine, dir, _folder: folder }
}

async fn open(engine: &Arc<Engine>, dir: &Path) -> Systems {
    Systems::open(engine, dir, &Durability::default(), &Telemetry::default()).await.unwrap()
}

impl Bed {
    async fn reopened(mut self) -> Bed {
        self.systems.close().await;
        self.systems = open(&self.engine, &self.dir).await;
        self
    }

    /// Closes everything, does something to a file behind the server's back, and opens everything again.
    async fn tampered(mut self, file: &str, sql: &str) -> Bed {
        self.systems.close().await;
        let conn = rusqlite::Connection::open(self.dir.join(file)).unwrap();
        conn.execute_batch("DROP TRIGGER IF EXISTS mark_audit_logs_no_update; DROP TRIGGER IF EXISTS mark_audit_logs_no_delete").unwrap();
        conn.execute_batch(sql).unwrap();
        drop(conn);
        self.systems = open(&self.engine, &self.dir).await;
        self
    }

    async fn record(&self, entries: usize) {
        for at in 0..entries {
            self.systems.audit.record(by().did("test.entry", Some(at.to_string()), json!({ "at": at }))).await.unwrap();
        }
        self.systems.audit.drain().await.unwrap();
    }

    async fn problem(&self) -> Option<Problem> {
        self.systems.audit.verify().await.unwrap().problem
    }
}

fn by() -> By {
    By { actor: "root".to_owned(), request_id: Uuid::now_v7() }
}

fn once(key: &str, body: u8) -> Once {
    Once { scope: "tenants".to_owned(), key: key.to_owned(), body_hash: [body; 32] }
}

#[tokio::test]
async fn every_system_database_answers_and_a_further_one_can_be_registered() {
    let bed = bed().await;
    let names: Vec<_> = bed.systems.list().iter().map(|file| file.name).collect();
    assert_eq!(names, ["app", "mark", "analytics", "cache", "queue"]);
    let further = bed.systems.register("reports", "reports.db", "what was reported", Level::Normal, &schema().analytics).await.unwrap();
    assert!(further.state().open);
    assert!(bed.systems.register("reports", "other.db", "", Level::Normal, &schema().analytics).await.is_err());
    let health = bed.systems.health().await;
    assert_eq!(health.len(), 6);
    for file in health {
        assert!(file.connected && file.size_bytes > 0 && file.tables > 3 && file.sqlite_version.starts_with("3."), "{file:?}");
    }
    bed.systems.close().await;
}

#[tokio::test]
async fn audit_entries_arrive_in_order_and_exactly_once() {
    let bed = bed().await;
    bed.record(600).await;
    let bed = bed.reopened().await;
    bed.record(5).await;
    let verified = bed.systems.audit.verify().await.unwrap();
    assert_eq!((verified.entries, verified.problem), (605, None));
    let newest = bed.systems.audit.list(audit::Filter { limit: 2, ..Default::default() }).await.unwrap();
    assert_eq!(newest.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [605, 604]);
    assert_eq!(newest[0].record.target.as_deref(), Some("4"));
}

#[tokio::test]
async fn a_crash_between_chain_and_outbox_neither_repeats_an_entry_nor_looks_like_tampering() {
    let bed = bed().await;
    bed.record(3).await;
    // The relay's first two steps: the chain has the entries, the outbox still too, the head is behind.
    for _ in 0..2 {
        bed.systems.app.record(by().did("test.entry", None, json!({}))).await.unwrap();
        let pending = bed.systems.app.outbox_pending(10).await.unwrap();
        let known = bed.systems.app.audit_head().await.unwrap();
        bed.systems.mark.audit_append(bed.systems.audit.key(), pending, known).await.unwrap();
    }
    let bed = bed.reopened().await;
    let verified = bed.systems.audit.verify().await.unwrap();
    assert_eq!((verified.entries, verified.problem), (5, None));
}

#[tokio::test]
async fn an_edited_entry_shows() {
    let bed = bed().await;
    bed.record(5).await;
    let bed = bed.tampered("mark.db", "UPDATE mark_audit_logs SET actor = 'nobody' WHERE seq = 3").await;
    assert_eq!(bed.problem().await, Some(Problem::Edited { seq: 3 }));
}

#[tokio::test]
async fn a_removed_entry_shows() {
    let bed = bed().await;
    bed.record(5).await;
    let bed = bed.tampered("mark.db", "DELETE FROM mark_audit_logs WHERE seq = 2").await;
    assert_eq!(bed.problem().await, Some(Problem::Removed { seq: 2 }));
}

#[tokio::test]
async fn a_cut_off_end_shows_and_is_not_forgotten_when_the_log_grows_again() {
    let bed = bed().await;
    bed.record(5).await;
    let bed = bed.tampered("mark.db", "DELETE FROM mark_audit_logs WHERE seq > 3").await;
    assert_eq!(bed.problem().await, Some(Problem::CutOff { seq: 4 }));
    bed.record(4).await;
    assert_eq!(bed.problem().await, Some(Problem::Edited { seq: 5 }));
}

#[tokio::test]
async fn a_head_moved_back_by_hand_is_not_signed_when_the_log_grows_again() {
    let bed = bed().await;
    bed.record(5).await;
    let second: String = bed.systems.mark.audit_after(1, 1).await.unwrap()[0].hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let bed = bed.tampered("mark.db", "DELETE FROM mark_audit_logs WHERE seq > 2").await;
    let bed = bed.tampered("app.db", &format!("UPDATE audit_head SET seq = 2, hash = x'{second}'")).await;
    bed.record(1).await;
    assert_eq!(bed.problem().await, Some(Problem::Head));
}

#[tokio::test]
async fn a_head_set_to_the_beginning_by_hand_is_not_signed_when_the_log_grows_again() {
    let bed = bed().await;
    bed.record(5).await;
    let bed = bed.tampered("mark.db", "DELETE FROM mark_audit_logs").await;
    let bed = bed.tampered("app.db", "UPDATE audit_head SET seq = 0, hash = zeroblob(32)").await;
    bed.record(1).await;
    assert_eq!(bed.problem().await, Some(Problem::Head));
}

#[tokio::test]
async fn an_older_app_beside_a_newer_chain_loses_no_new_entry() {
    let mut bed = bed().await;
    for before_the_copy in [0, 3] {
        bed.record(before_the_copy).await;
        bed.systems.close().await;
        let (file, copy) = (bed.dir.join("app.db"), bed.dir.join("app.copy"));
        let conn = rusqlite::Connection::open(&file).unwrap();
        conn.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        drop(conn);
        bed.systems = open(&bed.engine, &bed.dir).await;
        bed.record(5).await;
        bed.systems.close().await;
        std::fs::rename(&copy, &file).unwrap();
        bed.systems = open(&bed.engine, &bed.dir).await;
        let before = bed.systems.audit.verify().await.unwrap().entries;
        bed.record(2).await;
        let verified = bed.systems.audit.verify().await.unwrap();
        assert_eq!((verified.entries, verified.problem), (before + 2, None));
    }
}

#[tokio::test]
async fn a_removed_head_shows() {
    let bed = bed().await;
    bed.record(5).await;
    let bed = bed.tampered("app.db", "DELETE FROM audit_head").await;
    assert_eq!(bed.problem().await, Some(Problem::Head));
    bed.record(1).await;
    assert_eq!(bed.problem().await, Some(Problem::Head));
}

#[tokio::test]
async fn an_emptied_log_shows_also_when_its_head_went_with_it() {
    let bed = bed().await;
    bed.record(5).await;
    let bed = bed.tampered("mark.db", "DELETE FROM mark_audit_logs; UPDATE mark_audit_watermark SET outbox_seq = 0").await;
    assert_eq!(bed.problem().await, Some(Problem::CutOff { seq: 1 }));
    let bed = bed.tampered("app.db", "DELETE FROM audit_head").await;
    assert_eq!(bed.problem().await, Some(Problem::Head));
}

#[tokio::test]
async fn a_key_works_once_and_a_call_that_a_crash_cut_short_can_be_made_again() {
    let bed = bed().await;
    let app = bed.systems.app.clone();
    let answer = Answer { status: 201, body: b"{}".to_vec() };
    assert_eq!(app.once_begin(&once("k", 1)).await.unwrap(), Begun::New);
    assert_eq!(app.once_begin(&once("k", 1)).await.unwrap_err().code(), Code::Conflict);
    app.once_finish(&once("k", 1), &answer).await.unwrap();
    assert_eq!(app.once_begin(&once("k", 1)).await.unwrap(), Begun::Answered(answer.clone()));
    assert_eq!(app.once_begin(&once("k", 2)).await.unwrap_err().code(), Code::Conflict);
    app.once_release(&once("k", 1)).await.unwrap();
    assert_eq!(app.once_begin(&once("k", 1)).await.unwrap(), Begun::Answered(answer.clone()));

    assert_eq!(app.once_begin(&once("cut short", 1)).await.unwrap(), Begun::New);
    let bed = bed.reopened().await;
    assert_eq!(bed.systems.app.once_begin(&once("cut short", 1)).await.unwrap(), Begun::New);
    assert_eq!(bed.systems.app.once_begin(&once("k", 1)).await.unwrap(), Begun::Answered(answer));
}

#[tokio::test]
async fn a_slug_is_taken_by_one_of_many_who_ask_at_once() {
    let bed = bed().await;
    let begin = |_| {
        let new = NewTenant { id: Uuid::now_v7(), slug: "acme".to_owned(), name: "Acme".to_owned(), plan: "default".to_owned() };
        let app = bed.systems.app.clone();
        async move { app.tenant_begin(new, None).await }
    };
    let outcomes = futures_util::future::join_all((0..50).map(begin)).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.into_iter().filter_map(Result::err).all(|error| error.code() == Code::Conflict));
}

#[tokio::test]
async fn an_operator_s_key_works_until_they_get_another() {
    let bed = bed().await;
    let mark = &bed.systems.mark;
    assert!(!mark.has_operators());
    let (first, second) = (mark::generate_key().unwrap(), mark::generate_key().unwrap());
    let root = mark.put_operator("root", &first).await.unwrap();
    assert_eq!(mark.verify_key(&first), Some(root.clone()));
    assert_eq!(mark.put_operator("root", &second).await.unwrap(), root);
    assert_eq!(mark.verify_key(&first), None);
    assert!(mark.put_operator("other", &second).await.is_err());
    assert!(mark.put_operator("other", "short").await.is_err());
    let bed = bed.reopened().await;
    assert_eq!(bed.systems.mark.verify_key(&second), Some(root));
}

#[tokio::test]
async fn measurements_are_written_behind_and_dropped_when_there_is_no_room() {
    let bed = bed().await;
    let slow = || Slow {
        tenant: Some(Uuid::now_v7()),
        database: "database",
        operation: "SELECT 1".to_owned(),
        duration: Duration::from_millis(300),
        query_count: 1,
        request_id: None,
    };
    let analytics = &bed.systems.analytics;
    // More than a second takes, however the seconds fall.
    (0..1_000).for_each(|_| analytics.slow(slow()));
    analytics.flush().await;
    assert_eq!(analytics.written() + analytics.dropped(), 1_000);
    assert!((1..=200).contains(&analytics.written()), "{} written", analytics.written());
}
