//! Fleet migrations: runs that bring all tenants up or down, canaries first, and what becomes of those that fail.
//! `many` has the large one.

mod down;
mod many;
mod plan;
mod up;
mod validate;

use std::path::Path;

use tempfile::TempDir;

use crate::support::*;

const RUNS: &str = "/admin/v1/migrations/runs";

/// A server with a folder of application migrations, which begins with one.
struct Fleet {
    server: Server,
    folder: TempDir,
}

impl Fleet {
    fn new() -> Fleet {
        Fleet::with(|_| {})
    }

    fn with(settings: impl FnOnce(&mut Settings)) -> Fleet {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "0001_notes.up.sql", "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;");
        write(folder.path(), "0001_notes.down.sql", "DROP TABLE notes;");
        let server = Server::with(|c| {
            c.set("tenants.migrations_dir", folder.path().display());
            settings(c);
        });
        Fleet { server, folder }
    }

    fn write(&self, name: &str, text: &str) {
        write(self.folder.path(), name, text);
    }

    /// The second migration, which adds `tag`.
    fn write_tags(&self) {
        self.write("0002_tags.up.sql", "ALTER TABLE notes ADD COLUMN tag TEXT;");
        self.write("0002_tags.down.sql", "ALTER TABLE notes DROP COLUMN tag;");
    }

    fn tenants(&self, n: usize) -> Vec<TenantClient> {
        (0..n).map(|_| self.server.tenant("one")).collect()
    }

    #[track_caller]
    fn begin(&self, wish: Value) -> String {
        let run = self.server.admin().post(RUNS, wish).expect(202).json()["run"].clone();
        run["id"].as_str().unwrap_or_else(|| panic!("{run}")).to_owned()
    }

    fn run(&self, id: &str) -> Value {
        self.server.admin().get(&format!("{RUNS}/{id}")).expect(200).json()["run"].clone()
    }

    #[track_caller]
    fn ended(&self, id: &str) -> Value {
        within(4 * SOON, "the run ends", || Some(self.run(id)).filter(|run| run["state"] != "running"))
    }

    /// Begins a run, waits for its end, and returns it.
    #[track_caller]
    fn done(&self, wish: Value) -> Value {
        let id = self.begin(wish);
        self.ended(&id)
    }

    /// The run's tenants in a state.
    fn visits(&self, run: &Value, state: &str) -> Vec<Value> {
        let path = format!("{RUNS}/{}/tenants?limit=1000&state={state}", run["id"].as_str().unwrap());
        self.server.admin().get(&path).expect(200).json()["tenants"].as_array().unwrap().clone()
    }

    /// What a tenant's database is at, without opening it as a request would.
    fn version(&self, tenant: &TenantClient) -> i64 {
        let file = rusqlite::Connection::open(self.server.file(&tenant.id, "database")).unwrap();
        let newest = "SELECT coalesce(max(version), 0) FROM _tenantry_migrations WHERE \"set\" = 'application'";
        file.query_row(newest, [], |row| row.get(0)).unwrap()
    }

    fn versions(&self, tenants: &[TenantClient]) -> Vec<i64> {
        tenants.iter().map(|tenant| self.version(tenant)).collect()
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// (done, failed, skipped)
fn counts(run: &Value) -> (u64, u64, u64) {
    let count = |name: &str| run[name].as_u64().unwrap_or_else(|| panic!("{run}"));
    (count("done"), count("failed"), count("skipped"))
}
