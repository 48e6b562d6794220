//! Rows over HTTP: PostgREST's dialect, on a tenant's tables. A request is read into a [`Task`] without looking at
//! any table ([`query`], [`prefer`], [`payload`]); placed on the tenant's schema it becomes a [`plan`]; the plan
//! becomes one statement ([`render`]), whose rows are JSON already and go out as they are.
//!
//! - What a request says is bound, and names in SQL are the schema's: nothing of a request's text is in a statement.
//! - A schema is looked at as its caller sees it, and every reference of a table asks [`access`] which of its rows.
//! - Statements run in the tenants' sandbox, like tenants' own.
//! - A write is one transaction: the rows it made or changed are known by their keys, and are read by the same plan
//!   that reads others.

pub mod access;
mod batch;
mod body;
mod call;
mod conditions;
mod cursor;
mod expression;
mod filter;
mod function;
mod in_force;
mod indexes;
mod lexer;
mod media;
mod openapi;
mod order;
mod outline;
mod page;
mod parser;
mod payload;
mod plan;
pub mod policy;
mod prefer;
mod query;
mod read;
mod reading;
mod refusal;
mod relation;
mod render;
mod schema;
mod select;
mod statement;
mod stencil;
mod value;
mod verdict;
mod write;

use std::sync::{Arc, OnceLock};

pub use access::Caller;
pub use batch::Batch;
pub use call::Call;
pub use function::Functions;
pub use in_force::{Declared, InForce};
pub use indexes::Indexes;
pub use policy::Policies;
pub use schema::Schemas;
pub use stencil::Stencils;
pub use verdict::{caller, verdict};

use crate::auth::scope::Scope;
use crate::config;
use crate::error::{Error, Result};
use crate::sqlite::{Database, Finished, Limits, Reader, WriteTx};
use indexes::Lacking;
use media::Media;
use outline::Outline;
use page::Page;
use payload::Payload;
use prefer::Prefer;
use query::Query;
use schema::Schema;
use statement::Statement;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
    Patch,
    Put,
    Delete,
}

/// A request as it came.
pub struct Request<'r> {
    pub verb: Verb,
    /// Its name or the function's, as the path has it.
    pub table: &'r str,
    /// The query string.
    pub query: &'r str,
    pub accept: Option<&'r str>,
    /// `Accept-Profile` or `Content-Profile`.
    pub profile: Option<&'r str>,
    pub prefer: Vec<&'r str>,
    /// Of a GET; other methods do not look at it.
    pub range: Option<&'r str>,
    pub content_type: Option<&'r str>,
    pub body: &'r [u8],
}

/// A request, read; shared by its attempts.
pub struct Task {
    verb: Verb,
    table: String,
    outline: Outline,
    /// Parsed when it is asked for.
    query: OnceLock<Query>,
    prefer: Prefer,
    media: Media,
    page: Page,
    payload: Option<Payload>,
}

/// What it runs with.
pub struct Setting {
    pub caller: Caller,
    pub plan: Arc<config::Plan>,
    pub dialect: Arc<Dialect>,
    lacking: Lacking,
}

impl Setting {
    /// What is lacking to the request that is answered so: nothing, where it is explained only.
    fn lacking(&self, media: Media) -> &Lacking {
        if matches!(media, Media::Plan { .. }) { &indexes::NOTHING } else { &self.lacking }
    }

    pub fn new(caller: Caller, plan: Arc<config::Plan>, dialect: Arc<Dialect>) -> Setting {
        Setting { caller, plan, lacking: dialect.indexes.lacking(), dialect }
    }
}

/// What all requests share that began while it was in force.
pub struct Dialect {
    pub schemas: Schemas,
    pub functions: Functions,
    pub indexes: Indexes,
    pub stencils: Stencils,
}

#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// With `body`; an answer without one has none.
    pub content_type: Option<&'static str>,
    pub body: Finished,
    pub content_range: Option<String>,
    pub location: Option<String>,
    pub preference_applied: Option<String>,
    /// It is of a write, which may be committed.
    pub wrote: bool,
    /// It is what was answered before to the same `Idempotency-Key`.
    pub replayed: bool,
    /// What it tells, if it tells of a failure.
    refused: Option<Error>,
}

impl Answer {
    fn succeeded(self) -> Result<Answer> {
        match self.refused {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }
}

impl Task {
    pub fn read(request: &Request<'_>) -> Result<Task> {
        served(request)?;
        let prefer = Prefer::parse(request.prefer.iter().copied())?;
        let media = Media::negotiate(request.accept)?;
        let outline = Outline::new(pairs(request.query));
        let page = Page::of(outline.last("limit"), outline.last("offset"), request.range)?;
        let table = decoded(request.table, false);
        let (outline, payload) = match request.verb {
            Verb::Get => (Outline::of_read(outline.pairs, &table, media, &page), None),
            Verb::Delete => (outline, None),
            Verb::Post | Verb::Patch | Verb::Put => (outline, Some(Payload::parse(request.content_type, request.body)?)),
        };
        let task = Task { verb: request.verb, table, outline, query: OnceLock::new(), prefer, media, page, payload };
        if task.verb != Verb::Get {
            task.query()?;
        }
        Ok(task)
    }

    fn query(&self) -> Result<&Query> {
        if let Some(known) = self.query.get() {
            return Ok(known);
        }
        let query = Query::parse(&self.outline.pairs)?;
        Ok(self.query.get_or_init(|| query))
    }
}

/// That the request is for the one schema there is.
fn served(request: &Request<'_>) -> Result<()> {
    match request.profile.filter(|profile| *profile != "public") {
        Some(profile) => Err(refusal::unknown_profile(profile)),
        None => Ok(()),
    }
}

/// Runs `task` on `database`.
pub async fn run(database: &Arc<Database>, setting: Setting, task: Task) -> Result<Answer> {
    if task.verb == Verb::Get {
        let kind = task.outline.kind();
        look(database, setting, Some(kind), move |reader, schema, setting| read::rows(reader, schema, setting, &task)).await
    } else {
        write(database, setting, move |tx, schema, setting| write::rows(tx, schema, setting, &task)).await
    }
}

/// Calls a function on `database`.
pub async fn call(database: &Arc<Database>, setting: Setting, call: Call) -> Result<Answer> {
    if call.function.is_volatile {
        write(database, setting, move |tx, schema, setting| call.run(tx, schema, setting)).await
    } else {
        let kind = call.kind();
        look(database, setting, Some(kind), move |reader, schema, setting| call.run(reader, schema, setting)).await
    }
}

/// Runs all of `batch` on `database`, or nothing of it.
pub async fn run_batch(database: &Arc<Database>, setting: Setting, batch: Batch) -> Result<Answer> {
    if batch.writes() {
        write(database, setting, move |tx, schema, setting| batch.write(tx, schema, setting)).await
    } else {
        look(database, setting, None, move |reader, schema, setting| batch.look(reader, schema, setting)).await
    }
}

/// Reads in one snapshot what the caller sees; briefly, where those of its `kind` are known to be brief.
async fn look<F>(database: &Arc<Database>, setting: Setting, kind: Option<u64>, f: F) -> Result<Answer>
where
    F: Fn(&Reader<'_>, &Arc<Schema>, &Setting) -> Result<Answer> + Send + Sync + 'static,
{
    setting.caller.claims.require(Scope::SqlRead)?;
    let (limits, serial) = (Limits::of(&setting.plan), database.serial());
    let shared = Arc::new((setting, f));
    let attempt = async || {
        let shared = shared.clone();
        let looked = move |reader: &Reader<'_>| {
            let (setting, f) = &*shared;
            reader.snapshot()?;
            let schema = access::schema(&setting.caller, setting.dialect.schemas.of(serial, reader)?);
            f(reader, &schema, setting).map_err(|error| access::told(&setting.caller, &schema, error))
        };
        match kind {
            Some(kind) => database.read_brief(limits, kind, looked).await,
            None => database.read(limits, looked).await,
        }
    };
    indexes::made_for(database, &shared.0, attempt).await.map_err(refusal::translate)
}

async fn write<F>(database: &Arc<Database>, setting: Setting, f: F) -> Result<Answer>
where
    F: Fn(&WriteTx<'_>, &Arc<Schema>, &Setting) -> Result<Answer> + Send + Sync + 'static,
{
    setting.caller.claims.require(Scope::SqlRead)?;
    setting.caller.claims.require(Scope::SqlWrite)?;
    let (limits, serial) = (Limits::of(&setting.plan), database.serial());
    let shared = Arc::new((setting, f));
    let attempt = async || {
        let shared = shared.clone();
        let written = move |tx: &WriteTx<'_>| {
            let (setting, f) = &*shared;
            let schema = access::schema(&setting.caller, setting.dialect.schemas.within_write(serial, tx)?);
            f(tx, &schema, setting).map_err(|error| access::told(&setting.caller, &schema, error))
        };
        database.write(limits, written).await
    };
    indexes::made_for(database, &shared.0, attempt).await.map_err(refusal::translate)
}

/// The methods that a function takes, as `Allow` lists them.
pub fn callable(functions: &Functions, caller: &Caller, name: &str) -> Result<&'static str> {
    caller.claims.require(Scope::SqlRead)?;
    let name = decoded(name, false);
    let found = functions.find(caller, &name).ok_or_else(|| refusal::unknown_function(functions.of(caller), &name, &[]))?;
    Ok(found.methods())
}

/// What there is: the tenant's tables as an OpenAPI document.
pub async fn describe(database: &Arc<Database>, setting: Setting) -> Result<Vec<u8>> {
    setting.caller.claims.require(Scope::SqlRead)?;
    let serial = database.serial();
    let described = move |reader: &Reader<'_>| {
        reader.snapshot()?;
        let schema = access::schema(&setting.caller, setting.dialect.schemas.of(serial, reader)?);
        Ok(openapi::document(&schema, &setting.dialect.functions, &setting.caller))
    };
    database.read(Limits::default(), described).await
}

/// The methods that a table takes, as `Allow` lists them.
pub async fn allowed(database: &Arc<Database>, setting: Setting, table: &str) -> Result<&'static str> {
    setting.caller.claims.require(Scope::SqlRead)?;
    let (serial, table) = (database.serial(), decoded(table, false));
    let looked = move |reader: &Reader<'_>| {
        reader.snapshot()?;
        let schema = access::schema(&setting.caller, setting.dialect.schemas.of(serial, reader)?);
        let found = access::find(&setting.caller, &schema, &table)?;
        Ok(match schema.table(found) {
            view if view.shape == schema::Shape::View => "OPTIONS,GET,HEAD",
            table if table.key.is_empty() => "OPTIONS,GET,HEAD,POST,PATCH,DELETE",
            _ => "OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE",
        })
    };
    database.read(Limits::default(), looked).await
}

/// Runs a statement in the sandbox; `on_row` gets its rows. The number of rows that it changed.
fn execute(
    reader: &Reader<'_>,
    statement: &Statement,
    on_row: impl FnMut(&crate::sqlite::Cells<'_>) -> Result<()>,
) -> Result<crate::sqlite::Effect> {
    let mut prepared = reader.prepare(&statement.sql)?;
    if let Some(tables) = &statement.reads {
        prepared.keeps_to(tables)?;
    }
    prepared.bind_all(&statement.values)?;
    prepared.run(on_row)
}

/// `a=b&c=d`, decoded.
fn pairs(text: &str) -> Vec<(String, String)> {
    let parts = text.split('&').filter(|part| !part.is_empty());
    let pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
    pairs.map(|(name, value)| (decoded(name, true), decoded(value, true))).collect()
}

/// Percent-decoded; what is not UTF-8 becomes U+FFFD, which no name of ours has and no value loses anything by.
fn decoded(text: &str, plus_is_space: bool) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        decoded.push(match (byte, digit(bytes.get(at)), digit(bytes.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                at += 2;
                high << 4 | low
            }
            (b'+', ..) if plus_is_space => b' ',
            _ => byte,
        });
    }
    String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_string_is_decoded_once() {
        assert_eq!(
            pairs("a=b%20c+d&e&=f&g=%2525&h=%zz"),
            [
                ("a".to_owned(), "b c d".to_owned()),
                ("e".to_owned(), String::new()),
                (String::new(), "f".to_owned()),
                ("g".to_owned(), "%25".to_owned()),
                ("h".to_owned(), "%zz".to_owned()),
            ]
        );
    }
}
