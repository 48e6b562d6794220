//! An [`Index`] that a foreign key wants and does not have: an embed over such a key would read a whole table for each
//! row. Where the setting says so it is made: the request is refused by its plan, which says what is [`Lacking`]; the
//! file's writer makes it, in a transaction of its own; and the request is tried again. What cannot be made is not tried
//! again for a while, and the refusal stands.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::OnceCell;

use super::expression::identifier;
use super::{Answer, Setting, refusal};
use crate::config::UnindexedEmbeds;
use crate::error::{Error, Result};
use crate::sqlite::{Database, Limits};

/// An index of a larger table is not made beside a request: its file's writes would wait.
const ROWS_MAX: u64 = 1_000_000;

/// One request's embeds.
const ATTEMPTS_MAX: usize = 64;

/// How many are being made or are remembered as such that cannot be, and how long.
const MAKINGS_MAX: u64 = 10_000;
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

/// Of what is explained and not run.
pub static NOTHING: Lacking = Lacking { how: UnindexedEmbeds::Allow, index: Mutex::new(None) };

/// What is done about it.
pub struct Indexes {
    how: UnindexedEmbeds,
    /// By the file's handle: those that are being made, once for all who wait, and those that could not be.
    makings: Cache<(u64, Index), Making>,
}

/// Whether it was made, once that is known.
type Making = Arc<OnceCell<bool>>;

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

    /// The refusal of an embed of `target` in `origin` for want of `index`; to who does not see its columns, `is_known` says, it is not named.
    pub fn refuse(&self, origin: &str, target: &str, index: Index, is_known: bool) -> Error {
        let error = refusal::unindexed(origin, target);
        let statement = if is_known { index.statement() } else { "CREATE INDEX on the foreign key's columns".to_owned() };
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
        Indexes { how, makings: Cache::builder().max_capacity(MAKINGS_MAX).time_to_live(FAILED_FOR).build() }
    }

    pub fn lacking(&self) -> Lacking {
        Lacking::of(self.how)
    }

    /// Makes it; whether it is there now. One attempt serves all who ask meanwhile, and outlives who began it.
    async fn make(&self, database: &Arc<Database>, setting: &Setting, index: &Index) -> bool {
        let key = (database.serial(), index.clone());
        let making = self.makings.get_with(key.clone(), Making::default);
        let (database, limits) = (database.clone(), Limits::of(&setting.plan));
        let (tenant, wanted) = (setting.caller.claims.tenant.to_string(), index.clone());
        let made = tokio::spawn(async move { *making.get_or_init(|| attempt(database, limits, tenant, wanted)).await });
        let made = made.await.unwrap_or(false);
        if made {
            // Its tenant may drop it, and it is wanted again.
            self.makings.invalidate(&key);
        }
        made
    }

    /// It was made, and does not serve.
    fn give_up(&self, database: &Database, index: Index) {
        self.makings.insert((database.serial(), index), Arc::new(OnceCell::new_with(Some(false))));
    }
}

async fn attempt(database: Arc<Database>, limits: Limits, tenant: String, index: Index) -> bool {
    let Index { table, columns } = index.clone();
    let made = database.write(limits, move |tx| tx.index_key(&table, &columns, ROWS_MAX)).await;
    let Index { table, columns } = index;
    let why = match made {
        Ok(true) => {
            tracing::info!(tenant, table, ?columns, "made an index for a foreign key");
            return true;
        }
        Ok(false) => format!("it has more than {ROWS_MAX} rows"),
        Err(error) => error.to_string(),
    };
    tracing::warn!(tenant, table, ?columns, why, "an index for a foreign key could not be made");
    false
}

/// What `attempt` comes to, once it has the indexes that it lacks. Where one cannot be made, whatever the reason, it is the
/// request's refusal that is answered.
pub async fn made_for(database: &Arc<Database>, setting: &Setting, attempt: impl AsyncFn() -> Result<Answer>) -> Result<Answer> {
    let indexes = &setting.dialect.indexes;
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        let refused = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(refused) => refused,
        };
        match setting.lacking.take() {
            None => return Err(refused),
            Some(index) if last.as_ref() == Some(&index) => {
                indexes.give_up(database, index);
                return Err(refused);
            }
            Some(index) if indexes.make(database, setting, &index).await => last = Some(index),
            Some(_) => return Err(refused),
        }
    }
    attempt().await
}
