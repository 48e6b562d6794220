//! The rows of `tenants`. A tenant's row is committed before the first of its files is made and goes after the
//! last is gone, so every file on disk has a row that answers for it. `settled` is 0 from before the files are
//! touched until they are where the state says: after a crash only those rows need a look.
//!
//! | state | settled | files |
//! | --- | --- | --- |
//! | provisioning | 0 | being made |
//! | active, suspended | 1 | in place |
//! | deleted | 0 | on their way to the trash, or back out of it |
//! | deleted | 1 | in the trash |
//! | purging | 0 | being removed |

use rusqlite::{Row, params};
use serde_json::{Value, json};
use uuid::Uuid;

use super::idempotency::{finish_in, release_in};
use super::outbox::record_in;
use super::tokens::{TokenRow, insert_in};
use super::{Answer, App, Begun, Once};
use crate::clock::{Millis, now_ms, rfc3339};
use crate::error::{Error, Result};
use crate::sqlite::{Limits, Reader, WriteTx};
use crate::system::audit::Action;
use crate::system::column;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Provisioning,
    Active,
    Suspended,
    Deleted,
    Purging,
}

impl State {
    pub const ALL: [State; 5] = [State::Provisioning, State::Active, State::Suspended, State::Deleted, State::Purging];

    pub const fn as_str(self) -> &'static str {
        match self {
            State::Provisioning => "provisioning",
            State::Active => "active",
            State::Suspended => "suspended",
            State::Deleted => "deleted",
            State::Purging => "purging",
        }
    }

    pub fn parse(text: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct TenantRow {
    pub id: Uuid,
    pub slug: String,
    pub name: String,
    /// A name in the configuration's plans; it may have left the configuration since.
    pub plan: String,
    pub state: State,
    pub settled: bool,
    pub created_at: Millis,
    pub updated_at: Millis,
    pub deleted_at: Option<Millis>,
}

impl TenantRow {
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "slug": self.slug,
            "name": self.name,
            "state": self.state.as_str(),
            "plan": self.plan,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
            "deleted_at": self.deleted_at.map(rfc3339),
        })
    }
}

/// What a tenant starts with; checked by the caller.
#[derive(Clone, Debug)]
pub struct NewTenant {
    pub id: Uuid,
    pub slug: String,
    pub name: String,
    pub plan: String,
}

/// What a change asks for; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    pub name: Option<String>,
    pub plan: Option<String>,
    /// `Active` or `Suspended`.
    pub state: Option<State>,
}

/// Which tenants a list shows, in the order they were made.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// In one of these states; empty for any.
    pub states: Vec<State>,
    /// Part of the slug or the name, in any case.
    pub search: Option<String>,
    /// With exactly this slug.
    pub slug: Option<String>,
    /// After this one.
    pub after: Option<Uuid>,
    pub limit: u32,
}

const COLUMNS: &str = "id, slug, name, plan, state, settled, created_at, updated_at, deleted_at";

fn tenant_row(row: &Row<'_>) -> rusqlite::Result<TenantRow> {
    Ok(TenantRow {
        id: column::uuid(row, 0)?,
        slug: row.get(1)?,
        name: row.get(2)?,
        plan: row.get(3)?,
        state: column::parsed(row, 4, State::parse)?,
        settled: row.get(5)?,
        created_at: row.get(6)?,
        updated_at: row.get(7)?,
        deleted_at: row.get(8)?,
    })
}

impl App {
    pub async fn tenant(&self, id: Uuid) -> Result<Option<TenantRow>> {
        self.db.read_brief(Limits::default(), 0, move |r| tenant_in(r, id)).await
    }

    pub async fn tenants(&self, filter: Filter) -> Result<Vec<TenantRow>> {
        self.db.read(Limits::default(), move |r| tenants_in(r, &filter)).await
    }

    /// Tenants whose files may not be where their state says, after `after`.
    pub async fn tenants_unsettled(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<TenantRow>> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.db
            .read(Limits::default(), move |r| {
                let sql = format!("SELECT {COLUMNS} FROM tenants WHERE settled = 0 AND id > ?1 ORDER BY id LIMIT ?2");
                r.rows(&sql, params![after, limit], tenant_row)
            })
            .await
    }

    /// Takes the slug for a tenant whose files are made next, or finds that this call was answered before.
    pub async fn tenant_begin(&self, new: NewTenant, once: Option<Once>) -> Result<Begun> {
        let app = self.clone();
        self.db
            .write(Limits::default(), move |tx| {
                if let Some(once) = &once
                    && let Begun::Answered(answer) = app.begin_in(tx, once)?
                {
                    return Ok(Begun::Answered(answer));
                }
                slug_free_in(tx, &new.slug)?;
                let now = now_ms();
                tx.execute(
                    "INSERT INTO tenants (id, slug, name, plan, state, settled, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, 'provisioning', 0, ?5, ?5)",
                    params![new.id.to_string(), new.slug, new.name, new.plan, now],
                )?;
                Ok(Begun::New)
            })
            .await
    }

    /// The files are there: the tenant comes to life, with its service token, its audit entry and, for a call
    /// with a key, the answer, which `answer` makes of the row.
    pub async fn tenant_activate(
        &self,
        id: Uuid,
        token: TokenRow,
        once: Option<Once>,
        answer: impl Fn(&TenantRow) -> Answer + Send + 'static,
        action: Action,
    ) -> Result<TenantRow> {
        let done = self.db.write(Limits::default(), move |tx| {
            set_state_in(tx, id, State::Provisioning, State::Active, true)?;
            insert_in(tx, &token)?;
            let row = existing_in(tx, id)?;
            if let Some(once) = &once {
                finish_in(tx, once, &answer(&row))?;
            }
            record_in(tx, &action)?;
            Ok(row)
        });
        self.told(done.await)
    }

    /// Provisioning failed and its files are gone: so does the row, and the key is free again.
    pub async fn tenant_abandon(&self, id: Uuid, once: Option<Once>) -> Result<()> {
        self.db
            .write(Limits::default(), move |tx| {
                tx.execute("DELETE FROM tenants WHERE id = ?1 AND state = 'provisioning'", [id.to_string()])?;
                match &once {
                    Some(once) => release_in(tx, once),
                    None => Ok(()),
                }
            })
            .await
    }

    /// Changes name, plan and state of a living tenant.
    pub async fn tenant_patch(&self, id: Uuid, patch: Patch, action: Action) -> Result<TenantRow> {
        let done = self.db.write(Limits::default(), move |tx| {
            let row = existing_in(tx, id)?;
            if !matches!(row.state, State::Active | State::Suspended) {
                return Err(wrong_state(&row, "changed").hint("Undelete it first."));
            }
            tx.execute(
                "UPDATE tenants SET name = ?2, plan = ?3, state = ?4, updated_at = ?5 WHERE id = ?1",
                params![
                    id.to_string(),
                    patch.name.as_ref().unwrap_or(&row.name),
                    patch.plan.as_ref().unwrap_or(&row.plan),
                    patch.state.unwrap_or(row.state).as_str(),
                    now_ms()
                ],
            )?;
            record_in(tx, &action)?;
            existing_in(tx, id)
        });
        let done = self.told(done.await);
        // What has slept with the tenant may be due.
        self.wakeup_news().notify_one();
        done
    }

    /// The tenant is no more to anybody outside; its files go to the trash next. Its slug is free.
    pub async fn tenant_delete(&self, id: Uuid, action: Action) -> Result<TenantRow> {
        let done = self.db.write(Limits::default(), move |tx| {
            let row = existing_in(tx, id)?;
            if !matches!(row.state, State::Active | State::Suspended) {
                return Err(wrong_state(&row, "deleted"));
            }
            tx.execute(
                "UPDATE tenants SET state = 'deleted', state_before = state, settled = 0, deleted_at = ?2, updated_at = ?2 WHERE id = ?1",
                params![id.to_string(), now_ms()],
            )?;
            record_in(tx, &action)?;
            existing_in(tx, id)
        });
        self.told(done.await)
    }

    /// The files of a deleted tenant are in the trash.
    pub async fn tenant_trashed(&self, id: Uuid) -> Result<TenantRow> {
        self.db
            .write(Limits::default(), move |tx| {
                set_state_in(tx, id, State::Deleted, State::Deleted, true)?;
                existing_in(tx, id)
            })
            .await
    }

    /// The files of a deleted tenant leave the trash next; until [`App::tenant_undeleted`] says so it is deleted.
    pub async fn tenant_undelete_begin(&self, id: Uuid) -> Result<TenantRow> {
        self.db
            .write(Limits::default(), move |tx| {
                let row = existing_in(tx, id)?;
                if row.state != State::Deleted {
                    return Err(wrong_state(&row, "undeleted"));
                }
                slug_free_in(tx, &row.slug)?;
                set_state_in(tx, id, State::Deleted, State::Deleted, false)?;
                Ok(row)
            })
            .await
    }

    /// The files are back in place: the tenant lives again, in the state it was in.
    pub async fn tenant_undeleted(&self, id: Uuid, action: Action) -> Result<TenantRow> {
        let done = self.db.write(Limits::default(), move |tx| {
            let row = existing_in(tx, id)?;
            slug_free_in(tx, &row.slug)?;
            let before = tx.row("SELECT state_before FROM tenants WHERE id = ?1", [id.to_string()], |row| row.get(0))?.flatten();
            let state = before.and_then(|state: String| State::parse(&state)).unwrap_or(State::Active);
            set_state_in(tx, id, State::Deleted, state, true)?;
            record_in(tx, &action)?;
            existing_in(tx, id)
        });
        let done = self.told(done.await);
        // What has slept with the tenant may be due.
        self.wakeup_news().notify_one();
        done
    }

    /// From here on there is no way back: the files are removed next.
    pub async fn tenant_purge_begin(&self, id: Uuid, action: Action) -> Result<TenantRow> {
        let done = self.db.write(Limits::default(), move |tx| {
            let row = existing_in(tx, id)?;
            match row.state {
                State::Deleted => set_state_in(tx, id, State::Deleted, State::Purging, false)?,
                State::Purging => return Ok(row),
                _ => return Err(wrong_state(&row, "purged").hint("Delete it first: purging empties the trash.")),
            }
            record_in(tx, &action)?;
            existing_in(tx, id)
        });
        self.told(done.await)
    }

    /// The files are gone, and now the row with all that hangs on it.
    pub async fn tenant_purged(&self, id: Uuid) -> Result<()> {
        self.db
            .write(Limits::default(), move |tx| {
                tx.execute("DELETE FROM tenants WHERE id = ?1 AND state = 'purging'", [id.to_string()]).map(drop)
            })
            .await
    }

    /// Wakes the audit relay, also when the outcome of the commit is not known; and the waker: a tenant that is active
    /// again may have a moment that came while it slept.
    pub(super) fn told<T>(&self, done: Result<T>) -> Result<T> {
        self.outbox_news().notify_one();
        self.wakeup_news().notify_one();
        done
    }
}

pub(super) fn tenant_in(r: &Reader<'_>, id: Uuid) -> Result<Option<TenantRow>> {
    r.row(&format!("SELECT {COLUMNS} FROM tenants WHERE id = ?1"), [id.to_string()], tenant_row)
}

/// The tenant, or what every call about one that does not exist is told.
pub(super) fn existing_in(r: &Reader<'_>, id: Uuid) -> Result<TenantRow> {
    tenant_in(r, id)?.ok_or_else(|| no_tenant(id))
}

/// 404 for a tenant that does not exist (any more).
pub fn no_tenant(id: Uuid) -> Error {
    Error::not_found(format!("there is no tenant {id}")).hint("`GET /admin/v1/tenants` lists them; `?state=deleted` those in the trash.")
}

fn wrong_state(row: &TenantRow, verb: &str) -> Error {
    Error::conflict(format!("tenant {} is {} and cannot be {verb}", row.id, row.state.as_str()))
}

fn slug_free_in(tx: &WriteTx<'_>, slug: &str) -> Result<()> {
    let taken = tx.row("SELECT id FROM tenants WHERE slug = ?1 AND state IN ('provisioning', 'active', 'suspended')", [slug], |row| {
        row.get::<_, String>(0)
    })?;
    match taken {
        None => Ok(()),
        Some(id) => Err(Error::conflict(format!("the slug `{slug}` is taken"))
            .details(json!({ "slug": slug, "tenant_id": id }))
            .hint("Choose another slug, or delete the tenant that has it.")),
    }
}

fn set_state_in(tx: &WriteTx<'_>, id: Uuid, from: State, to: State, settled: bool) -> Result<()> {
    let changed = tx.execute(
        "UPDATE tenants SET state = ?3, settled = ?4, updated_at = ?5,
                deleted_at = CASE WHEN ?3 IN ('deleted', 'purging') THEN coalesce(deleted_at, ?5) END
         WHERE id = ?1 AND state = ?2",
        params![id.to_string(), from.as_str(), to.as_str(), settled, now_ms()],
    )?;
    if changed == 1 {
        return Ok(());
    }
    Err(Error::conflict(format!("tenant {id} is not {} any more", from.as_str()))
        .hint("Another call changed it meanwhile; look at it and decide again."))
}

fn tenants_in(r: &Reader<'_>, filter: &Filter) -> Result<Vec<TenantRow>> {
    let mut sql = format!("SELECT {COLUMNS} FROM tenants WHERE id > ?1");
    if !filter.states.is_empty() {
        let states: Vec<_> = filter.states.iter().map(|state| format!("'{}'", state.as_str())).collect();
        sql.push_str(&format!(" AND state IN ({})", states.join(", ")));
    }
    let search = filter.search.as_deref().map(like_pattern);
    if search.is_some() {
        sql.push_str(r" AND (slug LIKE ?3 ESCAPE '\' OR name LIKE ?3 ESCAPE '\')");
    } else {
        sql.push_str(" AND ?3 IS NULL");
    }
    sql.push_str(if filter.slug.is_some() { " AND slug = ?4" } else { " AND ?4 IS NULL" });
    sql.push_str(" ORDER BY id LIMIT ?2");
    let after = filter.after.map(|id| id.to_string()).unwrap_or_default();
    r.rows(&sql, params![after, filter.limit, search, filter.slug], tenant_row)
}

/// `search` anywhere in a text, as a LIKE pattern that takes its `%` and `_` literally.
fn like_pattern(search: &str) -> String {
    let mut pattern = String::with_capacity(search.len() + 2);
    pattern.push('%');
    for c in search.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_takes_wildcards_literally() {
        assert_eq!(like_pattern(r"50%_\"), r"%50\%\_\\%");
    }

    #[test]
    fn every_state_reads_back() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
    }
}
