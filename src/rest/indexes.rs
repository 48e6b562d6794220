//! An [`Index`] that a foreign key wants and does not have: an embed over such a key would read a whole table for each
//! row. Where the setting says so it is made: the request is refused by its plan, which says what is [`Lacking`]; the
//! file's writer makes it, in a transaction of its own; and the request is tried again. What cannot be made is not tried
//! again for a while, and the refusal stands.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use super::expression::identifier;
use super::{Answer, Setting, refusal};
use crate::config::UnindexedEmbeds;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Database, Limits};

/// An index of a larger table is not made beside a request: its file's writes would wait.
const ROWS_MAX: u64 = 1_000_000;

/// One request's embeds.
const ATTEMPTS_MAX: usize = 64;

/// How many that could not be made are remembered, and how long.
const FAILED_MAX: u64 = 10_000;
const FAILED_FOR: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Index {
    pub table: String,
    pub columns: Vec<String>,
}

/// What one request lacks, as far as its plans have found out.
pub struct Lacking {
    how: UnindexedEmbeds,
    index: Mutex<Option<Index>>,
}

/// What is done about it, and what could not be made, by the file's handle.
pub struct Indexes {
    how: UnindexedEmbeds,
    failed: Cache<(u64, Index), ()>,
}

impl Index {
    fn statement(&self) -> String {
        let columns: Vec<_> = self.columns.iter().map(|column| identifier(column)).collect();
        let name = identifier(&format!("{}_{}", self.table, self.columns.join("_")));
        format!("CREATE INDEX {name} ON {} ({})", identifier(&self.table), columns.join(", "))
    }
}

impl Lacking {
    pub fn of(how: UnindexedEmbeds) -> Lacking {
        Lacking { how, index: Mutex::default() }
    }

    /// Whether embeds need no index.
    pub fn is_fine(&self) -> bool {
        self.how == UnindexedEmbeds::Allow
    }

    /// The refusal of an embed of `target` in `origin` for want of `index`; to who does not see its table, `is_known`
    /// says, it is not named.
    pub fn refuse(&self, origin: &str, target: &str, index: Index, is_known: bool) -> Error {
        let error = refusal::unindexed(origin, target);
        let statement = if is_known { index.statement() } else { "CREATE INDEX on the view's table".to_owned() };
        if self.how != UnindexedEmbeds::Index {
            return error.hint(format!("{statement}; or have the operator set rest.unindexed_embeds to index."));
        }
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = Some(index);
        error.hint(format!(
            "{statement}. It is made by itself where the table has at most {ROWS_MAX} rows, and the plan's bytes and time allow."
        ))
    }

    fn take(&self) -> Option<Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Indexes {
    pub fn new(how: UnindexedEmbeds) -> Indexes {
        Indexes { how, failed: Cache::builder().max_capacity(FAILED_MAX).time_to_live(FAILED_FOR).build() }
    }

    pub fn lacking(&self) -> Lacking {
        Lacking::of(self.how)
    }

    /// Makes it; whether it is there now.
    async fn make(&self, database: &Arc<Database>, setting: &Setting, index: &Index) -> Result<bool> {
        let key = (database.serial(), index.clone());
        if self.failed.contains_key(&key) {
            return Ok(false);
        }
        let wanted = index.clone();
        let made = database.write(Limits::of(&setting.plan), move |tx| tx.index_key(&wanted.table, &wanted.columns, ROWS_MAX)).await;
        let why = match made {
            Ok(true) => {
                tracing::info!(tenant = %setting.caller.claims.tenant, table = index.table, columns = ?index.columns, "made an index for a foreign key");
                return Ok(true);
            }
            Ok(false) => format!("it has more than {ROWS_MAX} rows"),
            Err(error) if matches!(error.code(), Code::QuotaExceeded | Code::StatementTimeout | Code::SqlError) => error.to_string(),
            Err(error) => return Err(error),
        };
        tracing::warn!(tenant = %setting.caller.claims.tenant, table = index.table, columns = ?index.columns, why, "an index for a foreign key could not be made");
        self.failed.insert(key, ());
        Ok(false)
    }
}

/// What `attempt` comes to, once it has the indexes that it lacks.
pub async fn made_for(database: &Arc<Database>, setting: &Setting, attempt: impl AsyncFn() -> Result<Answer>) -> Result<Answer> {
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        let refused = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(refused) => refused,
        };
        let lacking = setting.lacking.take();
        match lacking {
            // An index of its name that does not serve it is in the way.
            Some(index) if last.as_ref() != Some(&index) && setting.dialect.indexes.make(database, setting, &index).await? => {
                last = Some(index);
            }
            _ => return Err(refused),
        }
    }
    attempt().await
}
