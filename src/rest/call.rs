//! A [`Call`] is a function with its arguments. What it returns is placed where a table would stand, and is chosen from,
//! ordered and paged like one; only who may see its rows is not asked: that is said by who may call it.

use std::sync::{Arc, OnceLock};

use rusqlite::types::{Value, ValueRef};
use serde_json::json;

use super::access::Caller;
use super::filter;
use super::function::{Function, Functions, Returns, Text};
use super::media::Media;
use super::outline::Outline;
use super::page::Page;
use super::payload::Payload;
use super::plan::{Given, Plan};
use super::policy::Auth;
use super::prefer::Prefer;
use super::render::{self, From, Layout, Rendered};
use super::schema::{Schema, Table};
use super::statement::Statement;
use super::stencil::Stencil;
use super::value::Kind;
use super::{Answer, Request, Setting, Task, Verb, body, decoded, execute, expression, pairs, read, refusal};
use crate::error::Result;
use crate::sqlite::{Cells, Needs, Reader};

/// Parameters of a query string that are never arguments.
const RESERVED: [&str; 5] = ["select", "order", "limit", "offset", "columns"];

pub struct Call {
    pub function: Arc<Function>,
    /// Of its parameters, and who calls.
    values: Vec<Value>,
    /// What is wanted of its rows.
    task: Task,
}

impl Call {
    pub fn read(request: &Request<'_>, functions: &Functions, caller: &Caller) -> Result<Call> {
        super::served(request)?;
        let name = decoded(request.table, false);
        let mut pairs = pairs(request.query);
        let found = functions.find(caller, &name).cloned();
        let (arguments, only) = match request.verb {
            Verb::Get => (Arguments::of_query(&mut pairs, found.as_deref()), None),
            _ => (Arguments::of_body(request)?, pairs.iter().find(|(name, _)| name == "columns").map(|(_, names)| names.clone())),
        };
        let arguments = arguments.only(only.as_deref())?;
        let Some(function) = found.filter(|function| arguments.fit(function)) else {
            return Err(refusal::unknown_function(functions.of(caller), &name, &arguments.names()));
        };
        if request.verb == Verb::Get && function.is_volatile {
            return Err(refusal::not_by_get(&name));
        }
        let prefer = Prefer::parse(request.prefer.iter().copied())?;
        if prefer.most().is_some() && !function.returns.is_many() {
            return Err(refusal::nothing_to_count());
        }
        let media = Media::negotiate(request.accept)?;
        if function.is_volatile && matches!(media, Media::Plan { .. }) {
            return Err(refusal::not_here("the plan of a function that may write"));
        }
        let mut values = Vec::with_capacity(function.parameters.len() + 3);
        for parameter in &function.parameters {
            values.push(match arguments.value(&parameter.name, parameter.kind)? {
                Some(value) => value,
                None => parameter.default.clone().unwrap_or(Value::Null),
            });
        }
        values.extend([Auth::Uid, Auth::Role, Auth::Jwt { path: Vec::new(), as_text: false }].map(|auth| caller.answer(&auth)));
        let outline = Outline::new(pairs);
        let page = Page::of(outline.last("limit"), outline.last("offset"), request.range)?;
        // No table is called so: what is remembered of the two is never taken for one another.
        let outline = Outline::of_read(outline.pairs, &format!("\0{name}"), media, &page);
        let task = Task { verb: request.verb, table: name, outline, query: OnceLock::new(), prefer, media, page, payload: None };
        task.query()?;
        Ok(Call { function, values, task })
    }

    pub fn kind(&self) -> u64 {
        self.task.outline.kind()
    }

    /// Runs it; `reader` is in a snapshot, or in a write.
    pub fn run(&self, reader: &Reader<'_>, schema: &Arc<Schema>, setting: &Setting) -> Result<Answer> {
        let Function { statements, returns, is_volatile, .. } = &*self.function;
        let wrote = *is_volatile;
        let Some((last, before)) = statements.split_last().filter(|_| !matches!(returns, Returns::Nothing)) else {
            statements.iter().try_for_each(|text| self.execute(reader, text, |_| Ok(())))?;
            return Ok(Answer { status: 204, wrote, ..Answer::default() });
        };
        before.iter().try_for_each(|text| self.execute(reader, text, |_| Ok(())))?;
        let (caller, stencils) = (&setting.caller, &setting.dialect.stencils);
        let layout = match self.task.media.layout() {
            Layout::Object { .. } if matches!(returns, Returns::Values { .. }) => Layout::Bare,
            layout => layout,
        };
        let given = Some(if returns.is_many() { read::Given::Many } else { read::Given::One });
        // What a writing one returned is in its statement.
        if !wrote
            && let Some(stencil) = stencils.find(schema, &self.task)
            && let Ok(statement) = stencil.filled(&self.task, caller, &self.values)
        {
            let count = |most| self.planned(reader, last, schema, setting, |shape, plan| render::count(shape, caller, plan, most));
            return read::page(reader, setting, &self.task, &statement, (layout, &stencil.members), given, count);
        }
        let answer = self.planned(reader, last, schema, setting, |shape, plan| {
            let Rendered { statement, members, slots } = render::rows(shape, caller, plan, layout, From::Request(self.task.page))?;
            let known = slots.is_some();
            let stencil = Arc::new(Stencil::new(&statement, members, slots.unwrap_or_default()));
            if known && !wrote {
                stencils.keep(schema, &self.task, &stencil);
            }
            let count = |most| render::count(shape, caller, plan, most);
            read::page(reader, setting, &self.task, &statement, (layout, &stencil.members), given, count)
        })?;
        Ok(Answer { wrote, ..answer })
    }

    /// Places what is wanted on the rows of `last`.
    fn planned<T>(
        &self,
        reader: &Reader<'_>,
        last: &Text,
        schema: &Arc<Schema>,
        setting: &Setting,
        use_it: impl FnOnce(&Schema, &Plan<'_>) -> Result<T>,
    ) -> Result<T> {
        let returns = &self.function.returns;
        let Some((shape, id)) = returns.shape(schema, &setting.caller)? else { return Err(refusal::not_here("rows of nothing")) };
        let table = shape.table(id);
        let (rows, values) = self.rows(reader, last, table, setting)?;
        let names: Vec<_> = table.columns.iter().map(|column| expression::identifier(&column.name)).collect();
        // Materialized: a filter of the caller's is not to run on rows that the function leaves out.
        let most = if returns.is_many() { "" } else { " LIMIT 1" };
        let sql = format!("WITH r({}) AS MATERIALIZED ({rows}) SELECT * FROM r{most}", names.join(","));
        let plan =
            Plan { given: Some(Given { sql, values }), ..Plan::new(&shape, self.task.query()?, id, setting.lacking(self.task.media))? };
        use_it(&shape, &plan)
    }

    /// The rows of `last` as a SELECT with what it is bound to: itself if it only reads; what it returned, if it writes.
    fn rows(&self, reader: &Reader<'_>, last: &Text, table: &Table, setting: &Setting) -> Result<(String, Vec<Value>)> {
        if reader.prepare(&last.sql)?.is_readonly() {
            return Ok((last.sql.clone(), self.values[..last.parameters].to_vec()));
        }
        let most = setting.plan.result_rows;
        let mut rows = Vec::new();
        self.execute(reader, last, |cells| {
            if most > 0 && rows.len() as u64 >= most {
                return Err(body::too_large("rows", "result_rows"));
            }
            rows.push(cells.iter().map(held).collect::<serde_json::Value>());
            Ok(())
        })?;
        let columns = table.columns.iter().enumerate().map(|(at, column)| match column.kind {
            Kind::Blob => format!("unhex(value->>{at})"),
            _ => format!("value->>{at}"),
        });
        let sql = format!("SELECT {} FROM json_each(?1)", columns.collect::<Vec<_>>().join(","));
        Ok((sql, vec![Value::Text(json!(rows).to_string())]))
    }

    fn execute(&self, reader: &Reader<'_>, text: &Text, on_row: impl FnMut(&Cells<'_>) -> Result<()>) -> Result<()> {
        if reader.prepare(&text.sql)?.needs().has(Needs::SCHEMA) {
            return Err(refusal::not_here("a function that changes the schema"));
        }
        execute(reader, &Statement { sql: text.sql.clone(), values: self.values[..text.parameters].to_vec(), reads: None }, on_row)
            .map(|_| ())
    }
}

/// A value on its way through JSON; bytes as hexadecimal digits.
fn held(value: ValueRef<'_>) -> serde_json::Value {
    match value {
        ValueRef::Integer(value) => json!(value),
        ValueRef::Real(value) => json!(value),
        ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        ValueRef::Null => json!(null),
    }
}

/// By name, as they were sent.
struct Arguments(super::payload::Row);

impl Arguments {
    /// Takes the arguments out of a query string: what a function's parameter is called and reads as no filter, and what
    /// is nobody's filter. The last of a name counts.
    fn of_query(pairs: &mut Vec<(String, String)>, function: Option<&Function>) -> Arguments {
        let is_argument = |name: &str, value: &str| {
            let is_parameter = function.is_some_and(|function| function.parameter(name).is_some() && !function.has_column(name));
            !RESERVED.contains(&name) && !name.contains('.') && !is_tree(name) && (is_parameter || !filter::is_test(value))
        };
        let mut arguments = super::payload::Row::new();
        pairs.retain(|(name, value)| {
            let takes = is_argument(name, value);
            if takes {
                arguments.insert(name.clone(), super::payload::Cell::Text(value.clone()));
            }
            !takes
        });
        Arguments(arguments)
    }

    fn of_body(request: &Request<'_>) -> Result<Arguments> {
        if request.body.is_empty() {
            return Ok(Arguments(super::payload::Row::new()));
        }
        let mut payload = Payload::parse(request.content_type, request.body)?;
        match (payload.rows.pop(), payload.rows.is_empty()) {
            (Some(row), true) => Ok(Arguments(row)),
            _ => Err(refusal::bad_body("The arguments of a function are one object")),
        }
    }

    /// Those that `columns=` names, if it names any.
    fn only(mut self, names: Option<&str>) -> Result<Arguments> {
        if let Some(names) = names {
            let names = super::select::names("columns parameter", names)?;
            self.0.retain(|name, _| names.contains(name));
        }
        Ok(self)
    }

    /// Whether there is a parameter for each, and one for each parameter without a default.
    fn fit(&self, function: &Function) -> bool {
        self.0.keys().all(|name| function.parameter(name).is_some())
            && function.parameters.iter().all(|parameter| parameter.default.is_some() || self.0.contains_key(&parameter.name))
    }

    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    fn value(&self, name: &str, kind: Kind) -> Result<Option<Value>> {
        self.0.get(name).map(|cell| cell.read(kind)).transpose()
    }
}

fn is_tree(name: &str) -> bool {
    matches!(name, "and" | "or")
}
