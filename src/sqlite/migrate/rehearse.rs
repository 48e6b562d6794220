//! A rehearsal runs a set's texts once on an empty file, up and down again, and asks SQLite's authorizer what each
//! does. A text *destroys* if it drops a table or a column, deletes rows, or overwrites a column, of what was there
//! before the text ran; so filling a column that the same text adds does not count. What a text's first line declares
//! stands. A text that fails is told so, and taken for one that destroys.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::{Course, Migrations, Text, bring, declared, unwatched};

/// The longest a rehearsal may take; a text that runs into it is told so.
const TIME: Duration = Duration::from_secs(30);

/// Columns by (table, column), in lower case.
type Columns = HashSet<(String, String)>;

#[derive(Default)]
struct Watcher {
    before: Mutex<Columns>,
    destroys: AtomicBool,
}

/// Notes in the set's texts what they do, on a file that has `base`. Never fails: what does is noted.
pub fn rehearse(base: &[Arc<Migrations>], set: &mut Migrations) {
    let Ok(conn) = Connection::open_in_memory() else { return };
    if bring(&conn, base, Course::Up, None, &unwatched).is_err() {
        return;
    }
    let watcher = Arc::new(Watcher::default());
    let asked = AssertUnwindSafe(watcher.clone());
    let until = Instant::now() + TIME;
    let bounded = conn.progress_handler(1_000, Some(move || Instant::now() > until));
    let installed = conn.authorizer(Some(move |context: AuthContext<'_>| asked.look(&context)));
    if bounded.and(installed).is_err() {
        return;
    }
    let mut flawed = None;
    for step in &mut set.steps {
        match &flawed {
            None => flawed = watcher.run(&conn, &mut step.up).err(),
            Some(_) => step.up.spoil("it comes after one that fails".to_owned()),
        }
    }
    let applied = set.steps.iter().take_while(|step| step.up.flaw.is_none()).count();
    let mut flawed = None;
    for step in set.steps[..applied].iter_mut().rev() {
        if let (Some(down), None) = (&mut step.down, &flawed) {
            flawed = watcher.run(&conn, down).err();
        }
    }
}

impl Text {
    fn spoil(&mut self, flaw: String) {
        self.flaw = Some(flaw);
        self.destroys = declared(&self.sql).unwrap_or(true);
    }
}

impl Watcher {
    fn run(&self, conn: &Connection, text: &mut Text) -> rusqlite::Result<()> {
        let done = columns(conn).and_then(|before| {
            *self.before.lock().unwrap_or_else(PoisonError::into_inner) = before;
            self.destroys.store(false, Relaxed);
            conn.execute_batch("SAVEPOINT text")?;
            conn.execute_batch(&text.sql)?;
            conn.execute_batch("RELEASE text")
        });
        match &done {
            Ok(()) => text.destroys = declared(&text.sql).unwrap_or_else(|| self.destroys.load(Relaxed)),
            Err(error) => text.spoil(error.to_string()),
        }
        done
    }

    fn look(&self, context: &AuthContext<'_>) -> Authorization {
        use AuthAction::*;
        let destroys = match context.action {
            DropTable { table_name } | DropVtable { table_name, .. } | Delete { table_name } => self.had(table_name, None),
            Update { table_name, column_name } => self.had(table_name, Some(column_name)),
            // How SQLite itself drops a column; the authorizer hears of ALTER TABLE only which table it is.
            Function { function_name } => function_name.eq_ignore_ascii_case("sqlite_drop_column"),
            _ => false,
        };
        if destroys {
            self.destroys.store(true, Relaxed);
        }
        Authorization::Allow
    }

    /// Whether the table, or its column, was there before the text ran.
    fn had(&self, table: &str, column: Option<&str>) -> bool {
        let table = table.to_ascii_lowercase();
        if table.starts_with("sqlite_") {
            return false;
        }
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        match column {
            Some(column) => before.contains(&(table, column.to_ascii_lowercase())),
            None => before.iter().any(|(known, _)| *known == table),
        }
    }
}

fn columns(conn: &Connection) -> rusqlite::Result<Columns> {
    let mut all = conn
        .prepare("SELECT lower(t.name), lower(c.name) FROM sqlite_schema AS t, pragma_table_xinfo(t.name) AS c WHERE t.type = 'table'")?;
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE INDEX i ON t(a); CREATE VIEW v AS SELECT a FROM t;";

    fn second(sql: &str) -> Text {
        let mut set = Migrations::from_files("test", [("0001_a.up.sql", FIRST), ("0002_b.up.sql", sql)]).unwrap();
        rehearse(&[], &mut set);
        set.steps.pop().unwrap().up
    }

    #[test]
    fn what_removes_or_overwrites_what_was_there_destroys() {
        for sql in [
            "DROP VIEW v; DROP INDEX i; ALTER TABLE t DROP COLUMN a",
            "DROP TABLE t",
            "DELETE FROM t WHERE a = 1",
            "UPDATE t SET a = 1",
            "CREATE TABLE n(id, a); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t",
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t; END; INSERT INTO t(a) VALUES (1)",
            "-- tenantry: destructive\nCREATE TABLE n(x)",
        ] {
            assert!(second(sql).destroys, "{sql}");
        }
        for sql in [
            "ALTER TABLE t ADD COLUMN b; UPDATE t SET b = a",
            "CREATE TABLE n(x); INSERT INTO n VALUES (1); DELETE FROM n; DROP TABLE n",
            "DROP INDEX i; DROP VIEW v",
            "ALTER TABLE t RENAME COLUMN a TO b",
            "ALTER TABLE t RENAME TO u",
            "INSERT INTO t(a) VALUES (1)",
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t; END",
            "-- tenantry: harmless\nDELETE FROM t",
        ] {
            let text = second(sql);
            assert!(!text.destroys && text.flaw.is_none(), "{sql}: {:?}", text.flaw);
        }
    }

    #[test]
    fn a_text_that_fails_says_why_and_counts_as_one_that_destroys() {
        let text = second("INSERT INTO nowhere VALUES (1)");
        assert!(text.destroys && text.flaw.unwrap().contains("no such table: nowhere"));
    }
}
