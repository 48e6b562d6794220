//! Writing rows: insert, merge, change and delete, each request within one transaction. A row that was written is
//! known by its key, and is answered by the same plan that reads rows.

mod held;
mod key;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rusqlite::types::Value;
use serde_json::json;

use super::access::{self, Command};
use super::body::{Body, too_large};
use super::expression::identifier;
use super::filter::{Comparison, Logic, Operand, Test};
use super::media::Media;
use super::page::content_range;
use super::payload::{Payload, Row};
use super::plan::Plan;
use super::prefer::{Applies, Missing, Prefer, Resolution, Returns};
use super::query::Query;
use super::render::{self, From, Rendered, Renderer, alias, rowid, where_};
use super::schema::{Column, Schema, Shape, Table};
use super::statement::{Binder, Statement};
use super::{Answer, Setting, Task, Verb, execute, refusal};
use crate::error::Result;
use crate::sqlite::{Finished, WriteTx};
use key::{as_json, key};

/// A write on its way: what it is to do, and what it did.
struct Write<'a> {
    tx: &'a WriteTx<'a>,
    setting: &'a Setting,
    task: &'a Task,
    query: &'a Query,
    schema: &'a Schema,
    table: &'a Table,
    plan: &'a Plan<'a>,
}

/// The rows that a statement wrote.
#[derive(Default)]
struct Written {
    rows: u64,
    /// Of these, new ones.
    inserted: u64,
    /// Rowids, or arrays of primary keys; only where they are needed.
    keys: Vec<serde_json::Value>,
    /// Which of these are of rows that a merge found there, or may have.
    merged: BTreeSet<usize>,
    /// Rows that were there already were to be changed.
    merges: bool,
    /// The primary key of the last one, where a `Location` is asked for.
    primary: Vec<serde_json::Value>,
}

pub fn rows(tx: &WriteTx<'_>, schema: &Schema, setting: &Setting, task: &Task) -> Result<Answer> {
    let id = access::find(&setting.caller, schema, &task.table)?;
    let table = schema.table(id);
    if matches!(task.media, Media::Plan { .. }) {
        return Err(refusal::not_here("the plan of a write"));
    }
    if table.shape == Shape::View {
        return Err(refusal::read_only(table));
    }
    let query = task.query()?;
    let plan = Plan::new(schema, query, id, &setting.lacking)?;
    let write = Write { tx, setting, task, query, schema, table, plan: &plan };
    match (task.verb, &task.payload) {
        (Verb::Post, Some(payload)) => write.insert(payload),
        (Verb::Put, Some(payload)) => write.put(payload),
        (Verb::Patch, Some(payload)) => write.update(payload),
        _ => write.delete(),
    }
}

impl Write<'_> {
    fn insert(&self, payload: &Payload) -> Result<Answer> {
        let resolution = self.resolution();
        let written = self.store(payload, resolution)?;
        self.within(written.rows)?;
        let merged = resolution == Some(Resolution::Merge) && written.inserted == 0;
        let status = if merged { 200 } else { 201 };
        self.answer(&written, Command::Insert, status, status, content_range(0, 0, self.counted(written.rows)))
    }

    fn put(&self, payload: &Payload) -> Result<Answer> {
        if self.query.root().is_some_and(|rows| rows.limit.is_some() || rows.offset.is_some()) {
            return Err(refusal::put_page());
        }
        let named = named_by_key(self.table, self.query).ok_or_else(refusal::put_filters)?;
        let [row] = &payload.rows[..] else { return Err(refusal::put_mismatch()) };
        for (column, text) in named {
            let column = &self.table.columns[column];
            let given = row.get(&column.name).ok_or_else(refusal::put_mismatch)?.read(column.kind)?;
            if given != column.kind.read(text)? {
                return Err(refusal::put_mismatch());
            }
        }
        let written = self.store(payload, Some(Resolution::Merge))?;
        self.within(written.rows)?;
        let (with_body, without) = if written.inserted > 0 { (201, 201) } else { (200, 204) };
        self.answer(&written, Command::Insert, with_body, without, content_range(0, 0, self.counted(written.rows)))
    }

    fn update(&self, payload: &Payload) -> Result<Answer> {
        let mut written = Written::default();
        access::admit(&self.setting.caller, self.table, Command::Update)?;
        let columns = self.columns(payload, &[Command::Update])?;
        if let Some(row) = payload.rows.first().filter(|_| !columns.is_empty()) {
            let mut renderer = Renderer::new(self.schema, &self.setting.caller);
            let mut set = Vec::with_capacity(columns.len());
            for column in columns {
                let Column { name, default, .. } = &self.table.columns[column];
                let value = match default {
                    Some(default) if self.is_by_default() && !row.contains_key(name) => format!("({default})"),
                    _ => renderer.binder.bind(self.value(row, column)?),
                };
                set.push(format!("{}={value}", identifier(name)));
            }
            let conditions = self.touched(&mut renderer, Command::Update)?;
            let wants = self.wants_keys(Command::Update, false)?;
            let sql = format!(
                "UPDATE {}{} AS {} SET {}{}{}",
                self.or_abort(),
                identifier(&self.table.name),
                alias(&self.plan.root),
                set.join(","),
                where_(&conditions),
                self.returning(wants)?
            );
            self.run(&renderer.binder.statement(sql), wants, &mut written)?;
        }
        self.within(written.rows)?;
        self.answer(&written, Command::Update, 200, 204, content_range(0, written.rows, self.counted(written.rows)))
    }

    /// Rows are answered as they were.
    fn delete(&self) -> Result<Answer> {
        let (name, root) = (identifier(&self.table.name), alias(&self.plan.root));
        let mut written = Written::default();
        let mut body = None;
        if self.represents() {
            let mut renderer = Renderer::new(self.schema, &self.setting.caller);
            let conditions = self.touched(&mut renderer, Command::Delete)?;
            let sql = format!("SELECT {} FROM {name} AS {root}{}", self.key(), where_(&conditions));
            self.run(&renderer.binder.statement(sql), Wants { key: true, primary: false }, &mut written)?;
            body = Some(self.read_back(&written)?);
            written.rows = 0;
        }
        let mut renderer = Renderer::new(self.schema, &self.setting.caller);
        let conditions = self.touched(&mut renderer, Command::Delete)?;
        let sql = format!("DELETE FROM {name} AS {root}{}", where_(&conditions));
        self.run(&renderer.binder.statement(sql), Wants::default(), &mut written)?;
        self.within(written.rows)?;
        self.answered(&written, body, 200, 204, content_range(0, 0, self.counted(written.rows)))
    }

    /// Inserts the payload's rows one by one, so that they keep their order and each value its type.
    fn store(&self, payload: &Payload, resolution: Option<Resolution>) -> Result<Written> {
        access::admit(&self.setting.caller, self.table, Command::Insert)?;
        let merges = resolution == Some(Resolution::Merge);
        let columns = self.columns(payload, if merges { &[Command::Insert, Command::Update] } else { &[Command::Insert] })?;
        let conflict = self.conflict(resolution)?;
        let wants = self.wants_keys(Command::Insert, merges)?;
        let returning = self.returning(wants)?;
        let by_default = self.is_by_default();
        let held = merges && !self.open(Command::Update, &mut Binder::default())?.is_empty();
        let mut written = Written { merges, ..Written::default() };
        let mut statement = Statement::default();
        let mut last = None;
        for row in &payload.rows {
            let given: Vec<usize> =
                columns.iter().copied().filter(|&column| !by_default || row.contains_key(&self.table.columns[column].name)).collect();
            if last.as_ref() != Some(&given) {
                statement = self.insert_statement(&given, resolution.zip(conflict.as_deref()), &returning)?;
            }
            for (at, &column) in given.iter().enumerate() {
                statement.values[at] = self.value(row, column)?;
            }
            last = Some(given);
            let (keys, rows, inserted) = (written.keys.len(), written.rows, written.inserted);
            self.run(&statement, wants, &mut written)?;
            if held && written.rows == rows {
                return Err(refusal::hidden_conflict(self.table, self.setting.caller.is_anonymous()));
            }
            if merges && (written.inserted == inserted || self.table.shape == Shape::WithoutRowid) {
                written.merged.extend(keys..written.keys.len());
            }
        }
        Ok(written)
    }

    /// The first values are the columns'. A merge changes a row only where the caller may: another one in its place
    /// makes it change nothing.
    fn insert_statement(&self, columns: &[usize], conflict: Option<(Resolution, &[usize])>, returning: &str) -> Result<Statement> {
        let mut binder = Binder::after(vec![Value::Null; columns.len()]);
        let root = alias(&self.plan.root);
        let table = format!("{}INTO {} AS {root}", self.or_abort(), identifier(&self.table.name));
        if columns.is_empty() {
            return Ok(binder.statement(format!("INSERT {table} DEFAULT VALUES{returning}")));
        }
        let names: Vec<_> = columns.iter().map(|&column| identifier(&self.table.columns[column].name)).collect();
        let values: Vec<_> = (1..=columns.len()).map(|at| format!("?{at}")).collect();
        let mut on_conflict = String::new();
        if let Some((resolution, target)) = conflict {
            let target: Vec<_> = target.iter().map(|&column| identifier(&self.table.columns[column].name)).collect();
            let act = match resolution {
                Resolution::Ignore => "NOTHING".to_owned(),
                Resolution::Merge => {
                    let set: Vec<_> = names.iter().map(|name| format!("{name}=excluded.{name}")).collect();
                    format!("UPDATE SET {}{}", set.join(","), where_(&self.open(Command::Update, &mut binder)?.join(" AND ")))
                }
            };
            on_conflict = format!(" ON CONFLICT ({}) DO {act}", target.join(","));
        }
        let sql = format!("INSERT {table} ({}) VALUES ({}){on_conflict}{returning}", names.join(","), values.join(","));
        Ok(binder.statement(sql))
    }

    /// A constraint that says ON CONFLICT REPLACE would delete rows whether or not the caller may.
    fn or_abort(&self) -> &'static str {
        if self.table.replaces && !self.setting.caller.is_service() { "OR ABORT " } else { "" }
    }

    /// The columns by which a row counts as there already: those the request names, or the primary key's.
    fn conflict(&self, resolution: Option<Resolution>) -> Result<Option<Vec<usize>>> {
        if resolution.is_none() {
            return Ok(None);
        }
        let Some(names) = self.query.on_conflict.as_ref().filter(|_| self.task.verb == Verb::Post) else {
            return Ok((!self.table.key.is_empty()).then(|| self.table.key.clone()));
        };
        let found = names.iter().map(|name| self.table.column(name).ok_or_else(|| refusal::unknown_column(&self.table.name, name)));
        found.collect::<Result<Vec<_>>>().map(Some)
    }

    /// What is done with a row that is there already; nothing, if no column says whether it is.
    fn resolution(&self) -> Option<Resolution> {
        let resolution = self.task.prefer.resolution;
        resolution.filter(|_| !self.table.key.is_empty() || self.query.on_conflict.is_some())
    }

    fn is_by_default(&self) -> bool {
        self.task.prefer.missing == Some(Missing::Default)
    }

    /// The columns that the payload sets, each of which is open to all of `commands`.
    fn columns(&self, payload: &Payload, commands: &[Command]) -> Result<Vec<usize>> {
        // Where rows may lack members, all that any has are set.
        let by_default = self.is_by_default() && self.query.columns.is_none();
        let names = match by_default {
            true => payload.rows.iter().flat_map(Row::keys).cloned().collect::<BTreeSet<_>>().into_iter().collect(),
            false => payload.columns(self.query.columns.as_deref())?,
        };
        let found = names.iter().map(|name| {
            let mut open = commands.iter().map(|&command| self.table.column_for(command, name));
            let column = open.try_fold(0, |_, column| column).ok_or_else(|| refusal::unknown_payload_column(&self.table.name, name))?;
            if self.table.columns[column].generated { Err(refusal::generated(name)) } else { Ok(column) }
        });
        found.collect()
    }

    fn value(&self, row: &Row, column: usize) -> Result<Value> {
        let column = &self.table.columns[column];
        row.get(&column.name).map_or(Ok(Value::Null), |cell| cell.read(column.kind))
    }

    /// Runs a statement and takes note of what it did.
    fn run(&self, statement: &Statement, wants: Wants, written: &mut Written) -> Result<()> {
        let width = if self.table.shape == Shape::WithoutRowid { self.table.key.len() } else { 1 };
        let effect = execute(self.tx, statement, |cells| {
            if wants.key {
                let most = self.setting.plan.result_rows;
                if most > 0 && written.keys.len() as u64 >= most {
                    return Err(too_large("rows", "result_rows"));
                }
                written.keys.push(key(cells, width, self.table.shape));
            }
            if wants.primary {
                written.primary = cells
                    .iter()
                    .skip(if wants.key { width } else { 0 })
                    .map(|value| as_json(value, |bytes| json!(BASE64.encode(bytes))))
                    .collect();
            }
            Ok(())
        })?;
        written.rows += effect.rows_affected;
        // A table without rowids does not say: its rows count as new.
        let is_new = effect.last_insert_rowid.is_some() || self.table.shape == Shape::WithoutRowid;
        written.inserted += if is_new { effect.rows_affected } else { 0 };
        Ok(())
    }

    fn wants_keys(&self, command: Command, merges: bool) -> Result<Wants> {
        let mut checked = self.checked(command, &mut Binder::default())?.is_some();
        if merges {
            checked |= self.checked(Command::Update, &mut Binder::default())?.is_some();
        }
        let located = command == Command::Insert && self.is_located() && !self.table.key.is_empty() && self.table.key_is_readable();
        Ok(Wants { key: self.represents() || checked, primary: located })
    }

    fn is_located(&self) -> bool {
        self.task.prefer.returns == Some(Returns::HeadersOnly)
    }

    /// SQLite's name of a row's key.
    fn key(&self) -> String {
        match self.table.shape {
            Shape::WithoutRowid => self.primary_key(),
            shape => rowid(shape).to_owned(),
        }
    }

    fn primary_key(&self) -> String {
        self.table.key.iter().map(|&column| identifier(&self.table.columns[column].name)).collect::<Vec<_>>().join(",")
    }

    fn returning(&self, wants: Wants) -> Result<String> {
        if wants == Wants::default() {
            return Ok(String::new());
        }
        if self.table.shape == Shape::FullText {
            return Err(refusal::not_here("rows written to an FTS5 table cannot be returned"));
        }
        let parts = [wants.key.then(|| self.key()), wants.primary.then(|| self.primary_key())];
        Ok(format!(" RETURNING {}", parts.into_iter().flatten().collect::<Vec<_>>().join(",")))
    }

    fn represents(&self) -> bool {
        self.task.prefer.returns == Some(Returns::Representation)
    }

    /// The total, where it is asked for.
    fn counted(&self, rows: u64) -> Option<u64> {
        self.task.prefer.count.map(|_| rows)
    }

    /// Whether so many rows may be written.
    fn within(&self, rows: u64) -> Result<()> {
        match self.task.prefer.most() {
            Some(most) if rows > most => Err(refusal::too_many_affected(rows)),
            _ => Ok(()),
        }
    }

    fn answer(&self, written: &Written, command: Command, with_body: u16, without: u16, content_range: String) -> Result<Answer> {
        self.check(written, command)?;
        let body = if self.represents() { Some(self.read_back(written)?) } else { None };
        self.answered(written, body, with_body, without, content_range)
    }

    fn answered(&self, written: &Written, body: Option<Finished>, with_body: u16, without: u16, content_range: String) -> Result<Answer> {
        if matches!(self.task.media, Media::Object { .. }) && written.rows != 1 {
            return Err(refusal::not_one(written.rows));
        }
        let applies = if matches!(self.task.verb, Verb::Post | Verb::Put) { Applies::Insert } else { Applies::Change };
        Ok(Answer {
            status: if body.is_some() { with_body } else { without },
            content_type: body.is_some().then(|| self.task.media.content_type()),
            body: body.unwrap_or_default(),
            content_range: Some(content_range),
            location: self.location(written),
            preference_applied: Prefer { resolution: self.resolution(), ..self.task.prefer.clone() }.applied(applies),
            wrote: true,
            ..Answer::default()
        })
    }

    /// The written rows, as the request asks for them.
    fn read_back(&self, written: &Written) -> Result<Finished> {
        let keys = json!(written.keys).to_string();
        let media = self.task.media;
        let Rendered { statement, members, .. } =
            render::rows(self.schema, &self.setting.caller, self.plan, media.layout(), From::Keys(&keys))?;
        let mut body = Body::new(self.tx.draft(), media, media.layout(), true, &members, &self.setting.plan)?;
        execute(self.tx, &statement, |cells| body.row(cells))?;
        body.finish()
    }

    /// Where the one new row is.
    fn location(&self, written: &Written) -> Option<String> {
        if written.rows != 1 || written.primary.is_empty() {
            return None;
        }
        let named = self.table.key.iter().zip(&written.primary).map(|(&column, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{}=eq.{}", encoded(&self.table.columns[column].name), encoded(&text))
        });
        Some(format!("/{}?{}", encoded(&self.table.name), named.collect::<Vec<_>>().join("&")))
    }
}

/// What a statement is to return of each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wants {
    key: bool,
    primary: bool,
}

/// The primary key's columns with what the filters say each is, if that is all they say.
fn named_by_key<'q>(table: &Table, query: &'q Query) -> Option<Vec<(usize, &'q str)>> {
    let filters = &query.root()?.filters;
    let named = filters.iter().map(|filter| match filter {
        Logic::Filter(filter) if !filter.negated && filter.path.steps.is_empty() => match &filter.test {
            Test::Compare(Comparison::Eq, Operand::One(text)) => Some((table.column(&filter.path.column)?, text.as_str())),
            _ => None,
        },
        _ => None,
    });
    let named: Vec<_> = named.collect::<Option<_>>()?;
    let whole = named.len() == table.key.len() && table.key.iter().all(|key| named.iter().any(|(column, _)| column == key));
    (whole && !named.is_empty()).then_some(named)
}

/// Everything but unreserved characters percent-encoded.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
