//! Reading rows: one statement for the page, and one more where a total is asked for and the page does not say it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::access::{self, Command};
use super::body::Body;
use super::media::Media;
use super::page::content_range;
use super::plan::Plan;
use super::prefer::{Applies, Count};
use super::render::{self, From, Layout, Member, Rendered};
use super::schema::Schema;
use super::statement::Statement;
use super::stencil::Stencil;
use super::{Answer, Setting, Task, execute, refusal};
use crate::error::{Error, Result};
use crate::sqlite::Reader;

/// How many rows a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    One,
    Many,
}

/// Rows are counted to here where an exact number is not asked for.
const ESTIMATED_MAX: i64 = 100_000;

pub fn rows(reader: &Reader<'_>, schema: &Arc<Schema>, setting: &Setting, task: &Task) -> Result<Answer> {
    let (caller, dialect) = (&setting.caller, &setting.dialect);
    let table = access::find(caller, schema, &task.table)?;
    access::admit(caller, schema.table(table), Command::Select)?;
    let count = |most| render::count(schema, caller, &Plan::new(schema, task.query()?, table, setting.lacking(task.media))?, most);
    if let Some(stencil) = dialect.stencils.find(schema, task)
        // Why a literal cannot be read is said below.
        && let Ok(statement) = stencil.filled(task, caller, &[])
    {
        return page(reader, setting, task, &statement, (task.media.layout(), &stencil.members), None, count);
    }
    let plan = Plan::new(schema, task.query()?, table, setting.lacking(task.media))?;
    let Rendered { statement, members, slots } = render::rows(schema, caller, &plan, task.media.layout(), From::Request(task.page))?;
    let known = slots.is_some();
    let stencil = Arc::new(Stencil::new(&statement, members, slots.unwrap_or_default()));
    if known {
        dialect.stencils.keep(schema, task, &stencil);
    }
    page(reader, setting, task, &statement, (task.media.layout(), &stencil.members), None, count)
}

/// The page of rows that `statement` gives; `count` makes the one that counts all of them, up to a number. Those of a
/// function are given: many of them, or one.
pub fn page(
    reader: &Reader<'_>,
    setting: &Setting,
    task: &Task,
    statement: &Statement,
    (layout, members): (Layout, &[Member]),
    given: Option<Given>,
    count: impl FnOnce(Option<i64>) -> Result<Statement>,
) -> Result<Answer> {
    if let Media::Plan { json } = task.media {
        return explained(reader, setting, statement, task.media, json);
    }
    let mut body = Body::new(reader.draft(), task.media, layout, given != Some(Given::One), members, &setting.plan)?;
    execute(reader, statement, |cells| body.row(cells))?;
    if given.is_some() && task.prefer.most().is_some_and(|most| body.rows > most) {
        return Err(refusal::too_many_affected(body.rows));
    }
    let total = match task.prefer.count {
        None => None,
        // All of it is on this page.
        Some(_) if task.page.offset == 0 && task.page.limit.is_none_or(|limit| body.rows < limit) => Some(body.rows),
        Some(how) => Some(total(reader, &count((how != Count::Exact).then_some(ESTIMATED_MAX))?)?),
    };
    let (status, content_range) = match task.page.placed(body.rows, total) {
        Ok(placed) => placed,
        Err(error) => return Ok(beyond(error, total)),
    };
    Ok(Answer {
        status,
        content_type: Some(task.media.content_type()),
        body: body.finish()?,
        content_range: Some(content_range),
        preference_applied: task.prefer.applied(Applies::Read),
        ..Answer::default()
    })
}

/// How SQLite would run the statement, which it does not. It tells of tables and indexes, so it is for the service.
fn explained(reader: &Reader<'_>, setting: &Setting, statement: &Statement, media: Media, json: bool) -> Result<Answer> {
    if !setting.caller.is_service() {
        return Err(refusal::unacceptable("application/vnd.pgrst.plan"));
    }
    let explaining = Statement { sql: format!("EXPLAIN QUERY PLAN {}", statement.sql), values: statement.values.clone(), reads: None };
    // (id, the step it is part of, what is done)
    let mut steps: Vec<(i64, i64, String)> = Vec::new();
    execute(reader, &explaining, |cells| {
        let mut cells = cells.iter();
        let mut number = || cells.next().and_then(|value| value.as_i64().ok()).unwrap_or_default();
        let (id, parent, _) = (number(), number(), number());
        steps.push((id, parent, cells.next().and_then(|value| value.as_str().ok()).unwrap_or_default().to_owned()));
        Ok(())
    })?;
    let body = if json {
        let steps: Vec<_> = steps.iter().map(|(id, parent, detail)| json!({ "id": id, "parent": parent, "detail": detail })).collect();
        json!([{ "Plan": steps, "SQL": statement.sql }]).to_string()
    } else {
        let mut depths = BTreeMap::from([(0, 0)]);
        let lines = steps.iter().map(|(id, parent, detail)| {
            let depth = depths.get(parent).copied().unwrap_or_default();
            depths.insert(*id, depth + 1);
            format!("{}{detail}\n", "  ".repeat(depth))
        });
        lines.collect()
    };
    Ok(Answer { status: 200, content_type: Some(media.content_type()), body: body.into_bytes().into(), ..Answer::default() })
}

/// The refusal of a page past the end, which says where the end is.
fn beyond(error: Error, total: Option<u64>) -> Answer {
    Answer {
        status: error.status(),
        content_type: Some(Media::Json { stripped: false }.content_type()),
        body: error.to_json().to_string().into_bytes().into(),
        content_range: Some(content_range(0, 0, total)),
        refused: Some(error),
        ..Answer::default()
    }
}

fn total(reader: &Reader<'_>, statement: &Statement) -> Result<u64> {
    let mut total = 0;
    execute(reader, statement, |cells| {
        if let Some(rusqlite::types::ValueRef::Integer(count)) = cells.iter().next() {
            total = u64::try_from(count).unwrap_or(0);
        }
        Ok(())
    })?;
    Ok(total)
}
