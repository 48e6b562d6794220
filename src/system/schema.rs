//! The schema: every migration of the product, embedded, in sets (`migrations/README.md`). A set is the history
//! of one kind of file; a file takes one or more sets, in a fixed order.

use std::sync::{Arc, LazyLock};

use crate::sqlite::Migrations;

/// What one kind of file is brought up to date with, in this order.
pub type Sets = Arc<[Arc<Migrations>]>;

/// A set's folder below `migrations/`, and its steps: file name and text.
type Set = &'static [(&'static str, &'static str)];

macro_rules! set {
    ($folder:literal: $($step:literal),+ $(,)?) => {
        &[$(
            (concat!($step, ".up.sql"), include_str!(concat!("../../migrations/", $folder, "/", $step, ".up.sql"))),
            (concat!($step, ".down.sql"), include_str!(concat!("../../migrations/", $folder, "/", $step, ".down.sql"))),
        )+]
    };
}

const APP: Set = set!("system/app": "0001_tenants", "0002_people", "0003_token_bound", "0004_state_before", "0005_fleet", "0006_wakeups");
const MARK: Set = set!("system/mark": "0001_operators", "0002_publishing");
const ANALYTICS: Set = set!("system/analytics": "0001_measurements");
const OPERATOR_CACHE: Set = set!("system/cache": "0001_operator_cache");
const OPERATOR_QUEUE: Set = set!("system/queue": "0001_background_jobs");
const TENANT_DATABASE: Set = set!("tenant/database": "0001_idempotency", "0002_outbox", "0003_one_outbox");
const TENANT_CACHE: Set = set!("tenant/cache": "0001_entries", "0002_no_uses");
const TENANT_QUEUE: Set = set!("tenant/queue": "0001_jobs", "0002_locks", "0003_retention");

fn one(set: &str, steps: Set) -> Arc<Migrations> {
    Arc::new(
        Migrations::from_files(set, steps.iter().copied()).expect("the embedded migrations are named as they should; a test reads them"),
    )
}

/// The sets of each kind of file, parsed once.
pub struct Schema {
    pub app: Sets,
    pub mark: Sets,
    pub analytics: Sets,
    /// `system/cache.db`: what a tenant's cache has, then the operator's tables.
    pub operator_cache: Sets,
    /// `system/queue.db`: what a tenant's queue has, then the operator's tables.
    pub operator_queue: Sets,
    /// A tenant's database; the application's own migrations come after.
    pub tenant_database: Sets,
    pub tenant_cache: Sets,
    pub tenant_queue: Sets,
}

/// The product's schema.
pub fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let cache = one("cache", TENANT_CACHE);
        let queue = one("queue", TENANT_QUEUE);
        Schema {
            app: [one("app", APP)].into(),
            mark: [one("mark", MARK)].into(),
            analytics: [one("analytics", ANALYTICS)].into(),
            operator_cache: [cache.clone(), one("operator_cache", OPERATOR_CACHE)].into(),
            operator_queue: [queue.clone(), one("operator_queue", OPERATOR_QUEUE)].into(),
            tenant_database: [one("database", TENANT_DATABASE)].into(),
            tenant_cache: [cache].into(),
            tenant_queue: [queue].into(),
        }
    });
    &SCHEMA
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite;

    #[test]
    fn every_file_of_the_migrations_folder_is_embedded() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let sets = [
            ("system/app", APP),
            ("system/mark", MARK),
            ("system/analytics", ANALYTICS),
            ("system/cache", OPERATOR_CACHE),
            ("system/queue", OPERATOR_QUEUE),
            ("tenant/database", TENANT_DATABASE),
            ("tenant/cache", TENANT_CACHE),
            ("tenant/queue", TENANT_QUEUE),
        ];
        for (folder, steps) in sets {
            let mut there: Vec<_> =
                std::fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            there.sort();
            let mut embedded: Vec<_> = steps.iter().map(|(name, _)| (*name).to_owned()).collect();
            embedded.sort();
            assert_eq!(embedded, there, "{folder}");
        }
    }

    #[test]
    fn a_step_that_destroys_something_declares_it() {
        let schema = schema();
        for sets in [&schema.tenant_database, &schema.tenant_cache, &schema.tenant_queue] {
            for declared in sets.iter() {
                let mut found = (**declared).clone();
                sqlite::rehearse(&[], &mut found);
                for (declared, found) in declared.steps.iter().zip(&found.steps) {
                    assert_eq!(declared.up.destroys, found.up.destroys, "{}", found.title());
                    assert_eq!(found.up.flaw, None, "{}", found.title());
                }
            }
        }
    }

    #[test]
    fn every_set_can_be_applied_and_taken_back() {
        let schema = schema();
        let files = [
            &schema.app,
            &schema.mark,
            &schema.analytics,
            &schema.operator_cache,
            &schema.operator_queue,
            &schema.tenant_database,
            &schema.tenant_cache,
            &schema.tenant_queue,
        ];
        for sets in files {
            let conn = rusqlite::Connection::open_in_memory().unwrap();
            conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
            let steps: Vec<_> = sets.iter().flat_map(|set| &set.steps).collect();
            for step in &steps {
                conn.execute_batch(&step.up.sql).unwrap();
            }
            for step in steps.iter().rev() {
                conn.execute_batch(&step.down.as_ref().unwrap().sql).unwrap();
            }
            let left: i64 =
                conn.query_row("SELECT count(*) FROM sqlite_schema WHERE name <> 'sqlite_sequence'", [], |row| row.get(0)).unwrap();
            assert_eq!(left, 0, "{}", sets[0].set);
        }
    }

    #[test]
    fn what_an_outbox_held_it_holds_in_one_table_and_again_in_three() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        let set = &schema().tenant_database[0];
        let up = |version: usize| conn.execute_batch(&set.steps[version - 1].up.sql).unwrap();
        up(1);
        up(2);
        let late = 1_i64 << 60;
        let held = format!(
            "INSERT INTO _tenantry_outbox VALUES ({late} + 2, 'q', 'waits', NULL, 7), ({late}, 'q', 'is behind the mark', NULL, 6);
             INSERT INTO _tenantry_outbox_refused VALUES (3, 'no such name', 'bad', '{{}}', 5, 'why', 8);
             UPDATE _tenantry_outbox_swept SET id = {late} + 1"
        );
        conn.execute_batch(&held).unwrap();
        let shown = || -> Vec<String> {
            let sql = "SELECT concat_ws(' ', id, queue, payload, options, created_at, refused) FROM _outbox ORDER BY id";
            let mut rows = conn.prepare(sql).unwrap();
            rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let before = shown();
        up(3);
        assert_eq!((before.len(), shown()), (3, before.clone()));
        conn.execute_batch(&format!("DELETE FROM _tenantry_outbox WHERE id = {late} + 2")).unwrap();
        conn.execute_batch("INSERT INTO _outbox (queue, payload) VALUES ('q', 'new')").unwrap();
        let given: i64 = conn.query_row("SELECT max(id) FROM _outbox", [], |row| row.get(0)).unwrap();
        assert_eq!(given, late + 2, "above what was swept");
        let after = shown();
        conn.execute_batch(&set.steps[2].down.as_ref().unwrap().sql).unwrap();
        let swept: i64 = conn.query_row("SELECT id FROM _tenantry_outbox_swept", [], |row| row.get(0)).unwrap();
        assert_eq!((shown(), swept), (after, late + 1));
    }
}
