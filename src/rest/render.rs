//! From a [`Plan`] to one statement. Each row is one JSON text, put together by SQLite: objects by concatenation of
//! texts that are JSON already, embedded rows by correlated subqueries. So nothing is parsed on the way out, and no
//! level parses the one below.

mod sequence;
#[cfg(test)]
mod tests;

use rusqlite::types::Value;

use super::access::{self, Caller, Command};
use super::conditions;
use super::expression::{Expression, identifier, json_path, literal, member_text, object};
use super::page::Page;
use super::plan::{Given, Node, Plan};
use super::reading::Reading;
use super::refusal;
use super::schema::{Schema, Shape, Table};
use super::select::{Aggregate, Field, Item, Path};
use super::statement::{Binder, Slot, Statement};
use super::value::Kind;
use crate::error::Result;
use crate::sqlite::Writing;

/// How rows are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// An object of the columns.
    Object { stripped: bool },
    /// The one column itself.
    Bare,
    /// A column for each.
    Columns,
}

/// Which rows of the root.
pub enum From<'a> {
    /// Those that the request's filters choose, within a page.
    Request(Page),
    /// Those of these keys, in their order unless the request gives one.
    Keys(&'a str),
}

/// Conditions in one statement.
const CONDITIONS_MAX: usize = 10_000;

/// Columns in one answer: what SQLite takes.
const COLUMNS_MAX: usize = 2_000;

pub struct Renderer<'a> {
    /// Of the plan that is rendered.
    given: Option<&'a Given>,
    pub schema: &'a Schema,
    pub caller: &'a Caller,
    pub binder: Binder,
    stripped: bool,
    /// Conditions written: those of what is embedded are written again wherever it is named.
    conditions: usize,
    /// What is being written may raise on some rows: on those that the caller does not see, the error would tell of them.
    fragile: bool,
}

impl<'a> Renderer<'a> {
    pub fn new(schema: &'a Schema, caller: &'a Caller) -> Renderer<'a> {
        Renderer { given: None, schema, caller, binder: Binder::default(), stripped: false, conditions: 0, fragile: false }
    }

    fn of(schema: &'a Schema, caller: &'a Caller, plan: &'a Plan<'_>) -> Renderer<'a> {
        let given = plan.given.as_ref();
        let binder = given.map_or_else(Binder::remembering, |given| Binder::after(given.values.clone()));
        Renderer { given, binder, ..Renderer::new(schema, caller) }
    }

    /// Whether something stands in the place of the table of `node`.
    pub fn is_given(&self, node: &Node<'_>) -> bool {
        self.given(node).is_some()
    }

    fn given(&self, node: &Node<'_>) -> Option<&'a Given> {
        self.given.filter(|_| node.parent.is_none())
    }

    /// The parameter that stands for a filter's value, which was read from the literal of this number.
    pub fn bind(&mut self, literal: Option<usize>, reading: Reading, value: Value) -> String {
        match literal {
            Some(number) => self.binder.bind_from(Slot::Literal(number, reading), value),
            None => self.binder.bind_common(value),
        }
    }

    /// The same of what `text` says.
    pub fn read(&mut self, literal: Option<usize>, reading: Reading, text: &str) -> Result<String> {
        Ok(self.bind(literal, reading, reading.read(text)?))
    }

    /// One more condition. Errors: PGRST100 past [`CONDITIONS_MAX`].
    pub fn spend(&mut self) -> Result<()> {
        self.conditions += 1;
        if self.conditions > CONDITIONS_MAX { Err(refusal::too_many("conditions", CONDITIONS_MAX)) } else { Ok(()) }
    }
}

/// One member of a row's object.
struct Output {
    name: Name,
    value: Expression,
    aggregated: bool,
}

enum Name {
    OfSchema(String),
    OfRequest(String),
}

impl Name {
    fn text(&self) -> &str {
        match self {
            Name::OfSchema(text) | Name::OfRequest(text) => text,
        }
    }
}

/// A statement that was written.
pub struct Rendered {
    pub statement: Statement,
    pub members: Vec<Member>,
    /// Where each value came from, if the statement may be remembered.
    pub slots: Option<Vec<Slot>>,
}

/// A column of the root's rows.
#[derive(Debug)]
pub struct Member {
    pub name: String,
    /// The name in JSON, with its colon.
    pub key: String,
    pub writing: Writing,
}

impl Member {
    fn of(output: &Output) -> Member {
        let name = output.name.text().to_owned();
        Member { key: member_text(&name), name, writing: output.value.writing() }
    }
}

/// The rows that `plan` chooses.
pub fn rows(schema: &Schema, caller: &Caller, plan: &Plan<'_>, layout: Layout, from: From<'_>) -> Result<Rendered> {
    let stripped = layout == Layout::Object { stripped: true };
    let mut renderer = Renderer { stripped, ..Renderer::of(schema, caller, plan) };
    let root = &plan.root;
    let outputs = renderer.outputs(root)?;
    let members = outputs.iter().map(Member::of).collect();
    let group = grouping(root, &outputs);
    let selected = match layout {
        _ if outputs.is_empty() => "NULL".to_owned(),
        Layout::Object { .. } | Layout::Bare => outputs.iter().map(|output| output.value.raw()).collect::<Vec<_>>().join(","),
        Layout::Columns => outputs.iter().map(|output| output.value.text()).collect::<Vec<_>>().join(","),
    };
    let table = schema.table(root.table);
    let (source, conditions, otherwise, page) = match from {
        From::Request(page) => {
            let conditions = renderer.conditions(root)?;
            (renderer.source(root), conditions, None, renderer.page(page))
        }
        From::Keys(keys) => {
            let keys = renderer.binder.bind(keys.to_owned());
            let source =
                format!("json_each({keys}) AS k CROSS JOIN {} AS {} ON {}", identifier(&table.name), alias(root), by_key(table, root));
            let seen = access::using(caller, table, Command::Select, &alias(root), &mut renderer.binder)?;
            (source, seen.unwrap_or_default(), Some("k.key".to_owned()), String::new())
        }
    };
    let order = renderer.order(root, otherwise)?;
    let sql = format!("SELECT {selected} FROM {source}{}{group}{order}{page}", where_(&conditions));
    let slots = renderer.binder.slots();
    Ok(Rendered { statement: reading(renderer, plan, sql), members, slots })
}

/// How many rows `plan` chooses over all pages, counted to `most`.
pub fn count(schema: &Schema, caller: &Caller, plan: &Plan<'_>, most: Option<i64>) -> Result<Statement> {
    let mut renderer = Renderer::of(schema, caller, plan);
    let root = &plan.root;
    let (selected, group) = if root.is_aggregate() {
        let outputs = renderer.outputs(root)?;
        let group = grouping(root, &outputs);
        (renderer.object(outputs), group)
    } else {
        ("1".to_owned(), String::new())
    };
    let conditions = renderer.conditions(root)?;
    let source = format!("{}{}{group}", renderer.source(root), where_(&conditions));
    let sql = match most {
        Some(most) => format!("SELECT count(*) FROM (SELECT {selected} FROM {source} LIMIT {})", renderer.binder.bind(most)),
        None if root.is_aggregate() => format!("SELECT count(*) FROM (SELECT {selected} FROM {source})"),
        None => format!("SELECT count(*) FROM {source}"),
    };
    Ok(reading(renderer, plan, sql))
}

/// What a function gives may come from any table.
fn reading(renderer: Renderer<'_>, plan: &Plan<'_>, sql: String) -> Statement {
    if plan.given.is_some() { renderer.binder.statement(sql) } else { renderer.binder.reading(sql, renderer.caller) }
}

/// The name of a table's reference.
pub fn alias(node: &Node<'_>) -> String {
    format!("t{}", node.number)
}

/// That a row has the key `k.value`: its rowid, or an array of its primary key, in which bytes are `{"bytes": hex}`.
pub fn by_key(table: &Table, node: &Node<'_>) -> String {
    match table.shape {
        Shape::WithoutRowid => {
            let parts = table.key.iter().enumerate().map(|(at, &key)| {
                let bytes = format!("unhex(k.value->>'$[{at}].bytes')");
                let value = format!("CASE json_type(k.value,'$[{at}]') WHEN 'object' THEN {bytes} ELSE k.value->>'$[{at}]' END");
                format!("{}.{}={value}", alias(node), identifier(&table.columns[key].name))
            });
            parts.collect::<Vec<_>>().join(" AND ")
        }
        shape => format!("{}.{}=k.value", alias(node), rowid(shape)),
    }
}

/// The name of the rowid of a table that has one.
pub fn rowid(shape: Shape) -> &'static str {
    match shape {
        Shape::Rowid(name) => name,
        Shape::FullText | Shape::WithoutRowid | Shape::View => "rowid",
    }
}

pub fn where_(conditions: &str) -> String {
    if conditions.is_empty() { String::new() } else { format!(" WHERE {conditions}") }
}

/// Rows are grouped by what is not aggregated.
fn grouping(node: &Node<'_>, outputs: &[Output]) -> String {
    let by: Vec<_> = outputs.iter().filter(|output| !output.aggregated).map(|output| output.value.sql.as_str()).collect();
    if node.is_aggregate() && !by.is_empty() { format!(" GROUP BY {}", by.join(",")) } else { String::new() }
}

impl Renderer<'_> {
    pub fn table(&self, node: &Node<'_>) -> &Table {
        self.schema.table(node.table)
    }

    fn object(&mut self, outputs: Vec<Output>) -> String {
        let members = outputs.into_iter().map(|output| {
            let member = output.value.writing().member(&member_text(output.name.text()), self.stripped);
            let member = match &output.name {
                Name::OfSchema(_) => literal(&member),
                Name::OfRequest(_) => self.binder.bind_common(member),
            };
            format!("{member},{}", output.value.raw())
        });
        object(&members.collect::<Vec<_>>())
    }

    fn outputs(&mut self, node: &Node<'_>) -> Result<Vec<Output>> {
        let mut outputs = Vec::new();
        let mut children = node.children.iter();
        for item in node.items.iter() {
            match item {
                Item::Star => {
                    let table = self.schema.table(node.table);
                    outputs.extend(table.readable().map(|column| Output {
                        name: Name::OfSchema(column.name.clone()),
                        value: Expression::value(format!("{}.{}", alias(node), identifier(&column.name)), column.kind),
                        aggregated: false,
                    }));
                }
                Item::Field(field) => outputs.push(self.field(node, field)?),
                Item::Embed(embed) => {
                    let Some(child) = children.next() else { continue };
                    if embed.spread {
                        outputs.extend(self.spread(child)?);
                    } else if !embed.items.is_empty() {
                        let name = Name::OfRequest(embed.key().to_owned());
                        outputs.push(Output { name, value: self.embedded(child)?, aggregated: false });
                    }
                }
            }
            if outputs.len() > COLUMNS_MAX {
                return Err(refusal::too_many("columns", COLUMNS_MAX));
            }
        }
        Ok(outputs)
    }

    fn field(&mut self, node: &Node<'_>, field: &Field) -> Result<Output> {
        let mut value = match &field.path {
            Some(path) => self.path(node, path)?,
            None => Expression::value("*".to_owned(), Kind::Integer),
        };
        if let Some(cast) = &field.cast {
            value = value.cast(cast)?;
        }
        if let Some(aggregate) = field.aggregate {
            value = value.aggregate(aggregate);
        }
        if let Some(cast) = &field.aggregate_cast {
            value = value.cast(cast)?;
        }
        let of_path = field.path.as_ref().map(Path::name);
        let name = match (&field.alias, field.aggregate) {
            (Some(alias), _) => alias,
            (None, Some(aggregate)) => aggregate.name(),
            (None, None) => of_path.unwrap_or(Aggregate::Count.name()),
        };
        Ok(Output { name: Name::OfRequest(name.to_owned()), value, aggregated: field.aggregate.is_some() })
    }

    /// An object, or an array of them.
    fn embedded(&mut self, node: &Node<'_>) -> Result<Expression> {
        let outputs = self.outputs(node)?;
        let group = grouping(node, &outputs);
        let object = self.object(outputs);
        self.gathered(node, &object, &group).map(Expression::document)
    }

    /// The columns of an embedded row as its parent's; arrays of them where there are many rows.
    fn spread(&mut self, node: &Node<'_>) -> Result<Vec<Output>> {
        let outputs = self.outputs(node)?;
        let group = grouping(node, &outputs);
        let mut spread = Vec::with_capacity(outputs.len());
        for output in outputs {
            let value = if node.is_to_one() {
                Expression { sql: self.single(node, &output.value.sql)?, form: output.value.form }
            } else {
                Expression::document(self.gathered(node, &output.value.json(), &group)?)
            };
            spread.push(Output { value, aggregated: false, ..output });
        }
        Ok(spread)
    }

    /// `json` of an embedded row, or an array of those of all.
    fn gathered(&mut self, node: &Node<'_>, json: &str, group: &str) -> Result<String> {
        if node.is_to_one() {
            return self.single(node, json);
        }
        let conditions = self.conditions(node)?;
        let source = self.source(node);
        let order = self.order(node, None)?;
        let page = self.part(node.rows);
        Ok(format!(
            "coalesce((SELECT '['||group_concat(j)||']' FROM (SELECT {json} AS j FROM {source}{}{group}{order}{page})),'[]')",
            where_(&conditions)
        ))
    }

    /// `sql` of the one embedded row, or NULL.
    pub fn single(&mut self, node: &Node<'_>, sql: &str) -> Result<String> {
        let conditions = self.conditions(node)?;
        Ok(format!("(SELECT {sql} FROM {}{} LIMIT 1)", self.source(node), where_(&conditions)))
    }

    /// Whether an embedded row is there.
    pub fn exists(&mut self, node: &Node<'_>) -> Result<String> {
        let conditions = self.conditions(node)?;
        Ok(format!("EXISTS (SELECT 1 FROM {}{})", self.source(node), where_(&conditions)))
    }

    fn source(&self, node: &Node<'_>) -> String {
        if let Some(given) = self.given(node) {
            return format!("({}) AS {}", given.sql, alias(node));
        }
        let table = format!("{} AS {}", identifier(&self.table(node).name), alias(node));
        match node.relation.as_ref().and_then(|relation| relation.junction.as_ref()) {
            None => table,
            Some(junction) => format!("{} AS t{} CROSS JOIN {table}", identifier(&self.schema.table(junction.table).name), node.number + 1),
        }
    }

    /// What a row of `node` meets: its relation to the parent's, the request's filters, the caller's policies, and
    /// that what is embedded with `!inner` is there.
    pub fn conditions(&mut self, node: &Node<'_>) -> Result<String> {
        self.spend()?;
        let mut all = self.joins(node)?;
        let seen = match self.is_given(node) {
            true => None,
            false => access::using(self.caller, self.schema.table(node.table), Command::Select, &alias(node), &mut self.binder)?,
        };
        all.extend(self.filters(node, seen.as_deref())?);
        for child in &node.children {
            if child.embed.is_some_and(|embed| embed.inner) {
                all.push(self.behind(seen.as_deref(), |renderer| renderer.exists(child))?);
            }
        }
        all.extend(seen);
        Ok(all.join(" AND "))
    }

    /// What the request says of `node`'s rows, none of which says anything of a row that does not meet `seen`.
    pub fn filters(&mut self, node: &Node<'_>, seen: Option<&str>) -> Result<Vec<String>> {
        let filters = node.rows.iter().flat_map(|rows| &rows.filters);
        filters.map(|filter| self.behind(seen, |renderer| conditions::logic(renderer, node, filter))).collect()
    }

    /// A condition; where it may raise, it is only looked at on rows that meet `seen`: CASE is lazy, AND is not. In a
    /// sub-select, because SQLite puts what other terms say of a column in its place everywhere else, and so might
    /// find `seen` true of a row it has not looked at yet.
    fn behind(&mut self, seen: Option<&str>, write: impl FnOnce(&mut Self) -> Result<String>) -> Result<String> {
        let outer = std::mem::take(&mut self.fragile);
        let condition = write(self)?;
        let condition = match seen.filter(|_| self.fragile) {
            Some(seen) => format!("CASE WHEN (SELECT {seen}) THEN {condition} END"),
            None => condition,
        };
        self.fragile |= outer;
        Ok(condition)
    }

    /// Takes note that what is being written may raise.
    pub fn may_raise(&mut self) {
        self.fragile = true;
    }

    fn joins(&mut self, node: &Node<'_>) -> Result<Vec<String>> {
        let Some(relation) = &node.relation else { return Ok(Vec::new()) };
        let Some(origin) = node.parent else { return Ok(Vec::new()) };
        let name = |table: usize, column: usize| identifier(&self.schema.table(table).columns[column].name);
        let (reached, number) = match &relation.junction {
            None => (relation.target, node.number),
            Some(junction) => (junction.table, node.number + 1),
        };
        let near = relation.near.iter();
        let mut all: Vec<_> =
            near.map(|&(from, to)| format!("t{number}.{}=t{origin}.{}", name(reached, to), name(relation.origin, from))).collect();
        if let Some(junction) = &relation.junction {
            let far = junction.far.iter();
            all.extend(far.map(|&(from, to)| format!("{}.{}=t{number}.{}", alias(node), name(node.table, to), name(junction.table, from))));
            all.extend(access::using(
                self.caller,
                self.schema.table(junction.table),
                Command::Select,
                &format!("t{number}"),
                &mut self.binder,
            )?);
        }
        Ok(all)
    }

    /// A column of `node`, or what is within it.
    pub fn path(&mut self, node: &Node<'_>, path: &Path) -> Result<Expression> {
        let table = self.schema.table(node.table);
        let column = table.column(&path.column).ok_or_else(|| refusal::unknown_column(&table.name, &path.column))?;
        let column = &table.columns[column];
        // What the application computes may fail on what a row holds.
        if column.generated || table.shape == Shape::View {
            self.may_raise();
        }
        let value = Expression::value(format!("{}.{}", alias(node), identifier(&column.name)), column.kind);
        if path.steps.is_empty() {
            return Ok(value);
        }
        let steps = self.binder.bind_common(json_path(&path.steps));
        Ok(value.within(&steps, path.as_text))
    }
}
