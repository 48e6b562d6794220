//! A [`Blueprint`] is what each of a tenant's three files is brought up to date with. A [`Template`] is the three
//! files as a new tenant gets them, already migrated: made once at start from the blueprint, kept as bytes, so
//! that provisioning copies and migrates nothing, and nothing stale is ever reused.

use std::path::Path;
use std::sync::Arc;

use super::Role;
use crate::error::Result;
use crate::sqlite::{self, Migrations};
use crate::system::{Sets, schema};

/// The set name of the application's own migrations.
pub const APPLICATION: &str = "application";

#[derive(Clone)]
pub struct Blueprint {
    database: Sets,
    cache: Sets,
    queue: Sets,
}

impl Blueprint {
    /// The product's migrations, and for the database those of the application after them. Blocking.
    pub fn load(application: Option<&Path>) -> Result<Blueprint> {
        let schema = schema();
        let mut database = schema.tenant_database.to_vec();
        if let Some(folder) = application {
            let mut own = Migrations::from_dir(APPLICATION, folder)?;
            sqlite::rehearse(&schema.tenant_database, &mut own);
            database.push(Arc::new(own));
        }
        Ok(Blueprint { database: database.into(), cache: schema.tenant_cache.clone(), queue: schema.tenant_queue.clone() })
    }

    /// The application's own, if there is a folder of them.
    pub fn application(&self) -> Option<&Arc<Migrations>> {
        self.database.iter().find(|set| set.set == APPLICATION)
    }

    /// The same, with those of the application up to `version`.
    pub fn capped(&self, version: u32) -> Blueprint {
        let cap = |set: &Arc<Migrations>| if set.set == APPLICATION { Arc::new(set.capped(version)) } else { set.clone() };
        Blueprint { database: self.database.iter().map(cap).collect(), ..self.clone() }
    }

    /// In the order they are applied.
    pub fn of(&self, role: Role) -> &Sets {
        match role {
            Role::Database => &self.database,
            Role::Cache => &self.cache,
            Role::Queue => &self.queue,
        }
    }
}

pub struct Template {
    files: [(Role, Vec<u8>); 3],
}

impl Template {
    /// Blocking.
    pub fn build(blueprint: &Blueprint) -> Result<Template> {
        let make = |role: Role| sqlite::template(blueprint.of(role), role == Role::Cache).map(|bytes| (role, bytes));
        Ok(Template { files: [make(Role::Database)?, make(Role::Cache)?, make(Role::Queue)?] })
    }

    /// Each file's role and content.
    pub fn files(&self) -> &[(Role, Vec<u8>); 3] {
        &self.files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_three_migrated_files() {
        let root = tempfile::tempdir().unwrap();
        let application = root.path().join("migrations");
        std::fs::create_dir(&application).unwrap();
        std::fs::write(application.join("0001_notes.up.sql"), "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT) STRICT").unwrap();
        let blueprint = Blueprint::load(Some(&application)).unwrap();
        let template = Template::build(&blueprint).unwrap();

        for (role, bytes) in template.files() {
            let file = root.path().join(role.as_str());
            std::fs::write(&file, bytes).unwrap();
            let conn = rusqlite::Connection::open(&file).unwrap();
            let mode: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
            let applied = conn.query_row("SELECT count(*) FROM _tenantry_migrations", [], |row| row.get::<_, i64>(0)).unwrap();
            let known: usize = blueprint.of(*role).iter().map(|set| set.steps.len()).sum();
            assert_eq!(applied, known as i64, "{}", role.as_str());
            assert_eq!(conn.prepare("SELECT * FROM notes").is_ok(), *role == Role::Database);
        }
    }
}
