//! A [`Sandbox`] watches what a tenant's SQL wants while SQLite compiles it. What tenants may never do is
//! denied here, with a reason; what depends on the token is recorded as the statement's [`Needs`], so that a
//! statement prepared once can be checked against every caller's scopes. The tables it touches are recorded whoever's
//! statement it is.
//!
//! Invariant: the sandbox is `Trusted` except inside [`Sandbox::confined`], so our own statements on the same
//! connection are never denied, and a tenant's always are.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::key_index;
use super::written::Judged;
use crate::error::{Code, Error};

/// What a statement does, as far as scopes care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(u8);

impl Needs {
    pub const READ: Needs = Needs(1);
    pub const WRITE: Needs = Needs(2);
    pub const SCHEMA: Needs = Needs(4);
    /// Writes a table of SQLite's own; fine only as part of a schema change.
    const STATISTICS: Needs = Needs(8);
    pub const INSERT: Needs = Needs(32);
    /// Calls a function of which one call may take long: it never reaches the progress handler.
    pub const COSTLY: Needs = Needs(64);
    /// Calls `last_insert_rowid()`.
    pub const LAST_ROWID: Needs = Needs(128);

    pub const fn with(self, other: Needs) -> Needs {
        Needs(self.0 | other.0)
    }

    pub const fn has(self, other: Needs) -> bool {
        self.0 & other.0 == other.0
    }
}

#[derive(Default)]
pub struct Sandbox {
    confined: AtomicBool,
    /// What was compiled since it was last taken; `asked` if there is anything.
    compiled: Mutex<Judged>,
    asked: AtomicBool,
    /// Something was made in the connection's `temp` schema since it was last asked.
    temp: AtomicBool,
    denied: Mutex<Option<Denied>>,
}

/// What was refused, in words, and the next step.
struct Denied {
    what: String,
    hint: &'static str,
}

impl Sandbox {
    pub fn install(conn: &Connection) -> rusqlite::Result<Arc<Sandbox>> {
        let sandbox = Arc::new(Sandbox::default());
        let asked = sandbox.clone();
        conn.authorizer(Some(move |context: AuthContext<'_>| asked.judge(context)))?;
        Ok(sandbox)
    }

    /// Confines what is compiled and run on the connection until the guard is dropped.
    pub fn confined(&self) -> Confined<'_> {
        self.confined.store(true, Relaxed);
        Confined(self)
    }

    /// What was compiled since the last call; `None` if nothing was. A statement from the cache is compiled anew by its
    /// first step where the schema has changed, and virtual tables compile statements of their own.
    pub fn compiled(&self) -> Option<Judged> {
        self.asked.swap(false, Relaxed).then(|| std::mem::take(&mut *self.judged()))
    }

    /// Whether a temp object was made since the last call.
    pub fn took_temp(&self) -> bool {
        self.temp.swap(false, Relaxed)
    }

    fn judge(&self, context: AuthContext<'_>) -> Authorization {
        let in_temp = is_temp(&context.action) || context.database_name == Some("temp");
        let verdict = if self.confined.load(Relaxed) { verdict(&context.action, context.accessor) } else { Ok(Needs::default()) };
        match verdict {
            Ok(needs) => {
                let mut judged = self.judged();
                judged.needs = judged.needs.with(needs);
                if in_temp {
                    self.temp.fetch_or(self.confined.load(Relaxed), Relaxed);
                } else {
                    judged.touch(&context.action);
                }
                self.asked.store(true, Relaxed);
                Authorization::Allow
            }
            Err(denied) => {
                *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(denied);
                Authorization::Deny
            }
        }
    }

    fn judged(&self) -> MutexGuard<'_, Judged> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error for a statement that was denied, if one was since the last call.
    pub fn denial(&self) -> Option<Error> {
        let denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Error::new(Code::SqlDenied, format!("{} is not allowed here", denied.what)).hint(denied.hint))
    }
}

/// While it lives, the connection is a tenant's.
pub struct Confined<'a>(&'a Sandbox);

impl Confined<'_> {
    /// What was compiled since [`Sandbox::compiled`] was last asked; `None` if nothing was.
    pub fn judged(&self) -> Result<Option<Judged>, Error> {
        let judged = self.0.compiled();
        let needs = judged.as_ref().map_or(Needs::default(), |judged| judged.needs);
        if needs.has(Needs::STATISTICS) && !needs.has(Needs::SCHEMA) {
            return Err(Error::new(Code::SqlDenied, "writing to SQLite's own tables is not allowed here")
                .hint("ANALYZE keeps the statistics; sqlite_sequence can be written."));
        }
        Ok(judged)
    }
}

impl Drop for Confined<'_> {
    fn drop(&mut self) {
        self.0.confined.store(false, Relaxed);
    }
}

/// Whether a name belongs to Tenantry itself: its own bookkeeping in a tenant's database.
fn is_ours(name: &str) -> bool {
    name.get(..10).is_some_and(|prefix| prefix.eq_ignore_ascii_case("_tenantry_"))
}

/// The view that tenants insert into and read, and nothing else.
const OUTBOX: &str = "_outbox";

/// Its trigger, which alone writes the table behind it.
const OUTBOX_IN: &str = "_tenantry_outbox_in";

/// Whether `action` is what the outbox's own view or trigger does to a table behind it.
fn is_the_outbox(action: &AuthAction<'_>, accessor: Option<&str>) -> bool {
    match (action, accessor) {
        (AuthAction::Read { table_name, .. }, Some(OUTBOX | OUTBOX_IN)) => table_name.starts_with("_tenantry_outbox"),
        (AuthAction::Insert { table_name }, Some(OUTBOX_IN)) => *table_name == "_tenantry_outbox",
        _ => false,
    }
}

fn is_temp(action: &AuthAction<'_>) -> bool {
    use AuthAction::*;
    matches!(action, CreateTempTable { .. } | CreateTempIndex { .. } | CreateTempTrigger { .. } | CreateTempView { .. })
}

fn verdict(action: &AuthAction<'_>, accessor: Option<&str>) -> Result<Needs, Denied> {
    use AuthAction::*;
    const OURS: &str = "_outbox and names that begin with _tenantry_ are kept for Tenantry's own tables.";
    let denied = |what: &str, hint| Err(Denied { what: what.to_owned(), hint });
    let is_data = matches!(action, Read { .. } | Insert { .. } | Update { .. } | Delete { .. });
    let is_kept = |name: &str| is_ours(name) || !is_data && name.eq_ignore_ascii_case(OUTBOX);
    let on_table = |table: &str, needs| if is_kept(table) { denied(&format!("table {table}"), OURS) } else { Ok(needs) };
    match *action {
        Read { .. } if is_the_outbox(action, accessor) => Ok(Needs::READ),
        Insert { .. } if is_the_outbox(action, accessor) => Ok(Needs::WRITE.with(Needs::INSERT)),
        Select | Recursive => Ok(Needs::READ),
        Function { function_name } => function(function_name),
        Read { table_name, .. } => on_table(table_name, Needs::READ),
        Insert { table_name } | Delete { table_name } | Update { table_name, .. } => {
            let statistics = table_name.get(..11).is_some_and(|name| name.eq_ignore_ascii_case("sqlite_stat"));
            let needs = if matches!(action, Insert { .. }) { Needs::WRITE.with(Needs::INSERT) } else { Needs::WRITE };
            on_table(table_name, if statistics { needs.with(Needs::STATISTICS) } else { needs })
        }
        CreateTempTable { table_name } | DropTempTable { table_name } => on_table(table_name, Needs::WRITE),
        CreateTempIndex { index_name: name, table_name }
        | DropTempIndex { index_name: name, table_name }
        | CreateTempTrigger { trigger_name: name, table_name }
        | DropTempTrigger { trigger_name: name, table_name } => on_table(name, Needs::WRITE).and(on_table(table_name, Needs::WRITE)),
        CreateTempView { view_name } | DropTempView { view_name } => on_table(view_name, Needs::WRITE),
        DropIndex { index_name, table_name } if key_index::is_one(index_name) => on_table(table_name, Needs::SCHEMA),
        CreateIndex { index_name: name, table_name }
        | DropIndex { index_name: name, table_name }
        | CreateTrigger { trigger_name: name, table_name }
        | DropTrigger { trigger_name: name, table_name } => on_table(name, Needs::SCHEMA).and(on_table(table_name, Needs::SCHEMA)),
        CreateTable { table_name } | DropTable { table_name } | AlterTable { table_name, .. } => on_table(table_name, Needs::SCHEMA),
        // A plain ANALYZE names every table, ours too; it keeps a few numbers about each.
        Analyze { .. } | Reindex { .. } => Ok(Needs::SCHEMA),
        CreateView { view_name } | DropView { view_name } => on_table(view_name, Needs::SCHEMA),
        CreateVtable { table_name, .. } | DropVtable { table_name, .. } => on_table(table_name, Needs::SCHEMA),
        Pragma { pragma_name, pragma_value } => pragma(pragma_name, pragma_value),
        Transaction { .. } | Savepoint { .. } => denied(
            "BEGIN, COMMIT, ROLLBACK or SAVEPOINT",
            "One request is one transaction: send its statements together, or \"transaction\":\"none\" to commit each.",
        ),
        Attach { .. } | Detach { .. } => denied("ATTACH, DETACH or VACUUM INTO", "A tenant sees its own database only."),
        _ => denied("this statement", "It is not on the list of what tenants' SQL may do."),
    }
}

fn function(name: &str) -> Result<Needs, Denied> {
    match name.to_ascii_lowercase().as_str() {
        "last_insert_rowid" => Ok(Needs::READ.with(Needs::LAST_ROWID)),
        "load_extension" | "fts3_tokenizer" | "sqlite_log" => {
            Err(Denied { what: format!("function {name}"), hint: "It reaches outside the database." })
        }
        "count" | "sum" | "total" | "avg" | "min" | "max" | "abs" | "round" | "coalesce" | "ifnull" | "nullif" | "iif" | "typeof"
        | "length" | "json" | "json_valid" | "json_type" | "->" | "->>" | "group_concat" | "tenantry_json" | "tenantry_object"
        | "changes" | "date" | "time" | "datetime" | "julianday" | "unixepoch" | "strftime" | "random" => Ok(Needs::READ),
        _ => Ok(Needs::READ.with(Needs::COSTLY)),
    }
}

/// The pragmas tenants may use. Those that read take an argument too (a table's name); those that write are
/// kept in the file or end with the transaction, so nothing of them stays on the connection.
fn pragma(name: &str, value: Option<&str>) -> Result<Needs, Denied> {
    const READS: [&str; 22] = [
        "application_id",
        "auto_vacuum",
        "collation_list",
        "compile_options",
        "data_version",
        "encoding",
        "foreign_key_check",
        "foreign_key_list",
        "foreign_keys",
        "freelist_count",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "journal_mode",
        "max_page_count",
        "page_count",
        "page_size",
        "quick_check",
        "schema_version",
        "user_version",
    ];
    const TABLES: [&str; 4] = ["module_list", "table_info", "table_list", "table_xinfo"];
    /// Reading these says something; an argument would set them.
    const READ_ONLY: [&str; 10] = [
        "application_id",
        "auto_vacuum",
        "encoding",
        "foreign_keys",
        "journal_mode",
        "max_page_count",
        "page_size",
        "schema_version",
        "freelist_count",
        "data_version",
    ];
    let lower = name.to_ascii_lowercase();
    let known = |list: &[&str]| list.contains(&lower.as_str());
    let denied = |hint| Err(Denied { what: format!("PRAGMA {name}"), hint });
    match lower.as_str() {
        "user_version" if value.is_some() => Ok(Needs::SCHEMA),
        "defer_foreign_keys" => Ok(Needs::WRITE),
        // What they are already; scripts written for SQLite's own shell begin with it.
        "foreign_keys" if value.is_some_and(|value| ["on", "1", "true", "yes"].iter().any(|on| value.eq_ignore_ascii_case(on))) => {
            Ok(Needs::READ)
        }
        "incremental_vacuum" => Ok(Needs::WRITE),
        _ if known(&READ_ONLY) && value.is_some() => denied("It can be read here, not set: Tenantry sets it for every file."),
        _ if known(&READS) || known(&TABLES) => Ok(Needs::READ),
        _ => denied("docs/sql.md lists the pragmas that are."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(sql: &str) -> Result<Needs, Error> {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t(a); CREATE TABLE _tenantry_x(a);").unwrap();
        let sandbox = Sandbox::install(&conn).unwrap();
        let confined = sandbox.confined();
        match conn.prepare(sql) {
            Ok(_) => Ok(confined.judged()?.unwrap_or_default().needs),
            Err(_) => Err(sandbox.denial().expect("denied with a reason")),
        }
    }

    #[test]
    fn a_statement_needs_what_it_does() {
        let scopes = |sql| {
            let needs = judged(sql).unwrap();
            [Needs::READ, Needs::WRITE, Needs::SCHEMA].map(|one| needs.has(one))
        };
        assert_eq!(scopes("SELECT a FROM t"), [true, false, false]);
        assert_eq!(scopes("DELETE FROM t"), [false, true, false]);
        assert_eq!(scopes("INSERT INTO t SELECT a FROM t"), [true, true, false]);
        assert!(scopes("CREATE INDEX i ON t(a)")[2]);
        assert!(scopes("ALTER TABLE t ADD COLUMN b")[2]);
        assert!(scopes("ANALYZE")[2]);
        assert!(scopes("PRAGMA user_version = 3")[2]);
        assert_eq!(scopes("PRAGMA user_version"), [true, false, false]);
        assert_eq!(scopes("PRAGMA foreign_keys = ON"), [true, false, false]);
    }

    #[test]
    fn what_reaches_outside_is_denied_with_a_reason() {
        for sql in [
            "ATTACH 'x' AS y",
            "DETACH main",
            "BEGIN",
            "SAVEPOINT s",
            "SELECT load_extension('x')",
            "PRAGMA writable_schema = 1",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA synchronous = OFF",
            "PRAGMA locking_mode = EXCLUSIVE",
            "PRAGMA mmap_size = 1",
            "PRAGMA foreign_keys = OFF",
            "PRAGMA database_list",
            "SELECT * FROM _tenantry_x",
            "SELECT count(*) FROM _TENANTRY_x",
            "DROP TABLE _tenantry_x",
            "CREATE TRIGGER g AFTER INSERT ON _tenantry_x BEGIN SELECT 1; END",
        ] {
            assert_eq!(judged(sql).expect_err(sql).code(), Code::SqlDenied, "{sql}");
        }
    }

    #[test]
    fn the_outbox_is_inserted_into_and_read_and_nothing_behind_it_is_reached() {
        let conn = Connection::open_in_memory().unwrap();
        for step in [
            include_str!("../../migrations/tenant/database/0002_outbox.up.sql"),
            include_str!("../../migrations/tenant/database/0003_one_outbox.up.sql"),
        ] {
            conn.execute_batch(step).unwrap();
        }
        conn.execute_batch("CREATE TABLE orders(id, note)").unwrap();
        let sandbox = Sandbox::install(&conn).unwrap();
        let _confined = sandbox.confined();
        for allowed in [
            "INSERT INTO _outbox (queue, payload) VALUES ('q', '1')",
            "SELECT * FROM _outbox WHERE refused IS NOT NULL",
            "CREATE TRIGGER sent AFTER INSERT ON orders BEGIN INSERT INTO _outbox (queue, payload) VALUES ('q', NEW.note); END",
            "INSERT INTO orders VALUES (1, '2')",
            "ALTER TABLE orders RENAME COLUMN note TO text",
            "ALTER TABLE orders RENAME TO bought",
            "ALTER TABLE bought DROP COLUMN id",
        ] {
            let outcome = conn.execute_batch(allowed);
            assert!(outcome.is_ok(), "{allowed}: {outcome:?} {:?}", sandbox.denial());
        }
        for denied in [
            "SELECT * FROM _tenantry_outbox",
            "WITH _outbox AS (SELECT * FROM _tenantry_job_done) SELECT * FROM _outbox",
            "WITH _tenantry_outbox_in AS (SELECT 1) INSERT INTO _tenantry_outbox (id, created_at) SELECT 9, 0 FROM _tenantry_outbox_in",
            "DELETE FROM _tenantry_outbox",
            "UPDATE _tenantry_outbox SET id = 9",
            "DROP VIEW _outbox",
            "DROP TRIGGER _tenantry_outbox_in",
            "CREATE TRIGGER again INSTEAD OF INSERT ON _outbox BEGIN SELECT 1; END",
            "CREATE TEMP TRIGGER again INSTEAD OF INSERT ON _outbox BEGIN SELECT 1; END",
            "CREATE TEMP TABLE _outbox (x)",
            "CREATE TEMP VIEW _OUTBOX AS SELECT 1",
        ] {
            assert!(conn.execute_batch(denied).is_err() && sandbox.denial().is_some(), "{denied}");
        }
        for impossible in ["DELETE FROM _outbox", "UPDATE _outbox SET queue = 'x'"] {
            assert!(conn.execute_batch(impossible).is_err(), "{impossible}");
        }
    }

    #[test]
    fn statistics_are_written_by_analyze_only() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t(a); CREATE INDEX i ON t(a); ANALYZE;").unwrap();
        let sandbox = Sandbox::install(&conn).unwrap();
        let confined = sandbox.confined();
        conn.prepare("ANALYZE").unwrap();
        assert!(confined.judged().is_ok());
        conn.prepare("DELETE FROM sqlite_stat1").unwrap();
        assert_eq!(confined.judged().unwrap_err().code(), Code::SqlDenied);
    }
}
