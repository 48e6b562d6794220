//! Placing a condition on a schema: names become the schema's, each table of a sub-select gets an alias of its own
//! and what the policies let the role see of it, functions become their bodies, and what could raise on a row that
//! the caller does not see is wrapped so that it cannot.

use std::sync::Arc;

use super::super::access::Command;
use super::super::schema::{Schema, TableId};
use super::tree::{Auth, Binary, Expr, Function, Name, Place, Query, Source, Step, Table, Type};
use super::{Policies, Policy};

/// Sub-selects in one table's conditions, those of the policies that they stand on included.
const QUERIES_MAX: usize = 64;

/// How deep one condition's tree may be, within what SQLite takes for the whole statement.
const DEPTH_MAX: usize = 200;

/// Why a policy cannot be placed, and where in its file that stands.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Problem {
    pub place: String,
    pub message: String,
}

pub struct Placer<'a> {
    policies: &'a Policies,
    schema: &'a Schema,
    role: Option<&'a str>,
    frames: Vec<Frame>,
    /// Tables whose policies are being placed.
    within: Vec<TableId>,
    aliases: usize,
    queries: usize,
}

/// Where names are looked up: tables from the innermost sub-select outward. A function's body sees its own only.
struct Frame {
    scopes: Vec<Vec<Bound>>,
    function: Option<(Arc<Function>, Vec<Expr>)>,
}

struct Bound {
    /// By which it is called in the policy.
    name: String,
    /// By which it is called in the statement; `None` for the policy's own table.
    alias: Option<String>,
    /// `None`: the columns of `json_each`.
    table: Option<TableId>,
}

/// Which half of a policy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Half {
    Using,
    Check,
}

impl<'a> Placer<'a> {
    pub fn new(policies: &'a Policies, schema: &'a Schema, role: Option<&'a str>) -> Placer<'a> {
        Placer { policies, schema, role, frames: Vec::new(), within: Vec::new(), aliases: 0, queries: 0 }
    }

    /// What `table`'s rows must meet for `command`, the table being called `alias` (`None`: it is the policy's own);
    /// `None` where no permissive policy opens the command.
    pub fn condition(&mut self, table: TableId, command: Command, half: Half, alias: Option<String>) -> Result<Option<Expr>, Problem> {
        let name = &self.schema.table(table).name;
        let (policies, role) = (self.policies, self.role);
        let apply: Vec<&Policy> = policies.of_table(name).filter(|policy| policy.holds_for(role, command)).collect();
        if !apply.iter().any(|policy| policy.permissive) {
            return Ok(None);
        }
        // Only what is selected asks further; loading has refused circles, and this holds should it have missed one.
        if let Some(policy) = apply.first().filter(|_| command == Command::Select && self.within.contains(&table)) {
            return Err(self.whole(policy, "its table's policies ask for themselves"));
        }
        let depth = self.within.len();
        self.within.extend((command == Command::Select).then_some(table));
        let (mut open, mut held) = (Expr::Bool(false), Expr::Bool(true));
        for policy in apply {
            let Some(expr) = (if half == Half::Using { policy.using() } else { policy.check() }) else { continue };
            let own = Bound { name: name.clone(), alias: alias.clone(), table: Some(table) };
            self.frames.push(Frame { scopes: vec![vec![own]], function: None });
            let placed = self.expr(policy, expr)?;
            self.frames.pop();
            if policy.permissive {
                open = open.or(placed);
            } else {
                held = held.and(placed);
            }
        }
        self.within.truncate(depth);
        let whole = open.and(held);
        match self.policies.of_table(name).next().filter(|_| whole.depth() > DEPTH_MAX) {
            Some(policy) => Err(self.whole(policy, &format!("its table's conditions are together more than {DEPTH_MAX} deep"))),
            None => Ok(Some(whole)),
        }
    }

    /// One condition of `policy` alone, `table` being its own.
    pub fn alone(&mut self, policy: &Policy, table: TableId, expr: &Expr) -> Result<Expr, Problem> {
        let own = Bound { name: self.schema.table(table).name.clone(), alias: None, table: Some(table) };
        self.frames.push(Frame { scopes: vec![vec![own]], function: None });
        self.expr(policy, expr)
    }

    /// The body of a function that is given nothing.
    pub fn body(&mut self, policy: &Policy, function: &Arc<Function>) -> Result<Query, Problem> {
        self.invoke(policy, function, &vec![Expr::Null; function.parameters.len()])
    }

    /// What is wrong at a place in `policy`, or in the function of which this is the body.
    fn problem(&self, policy: &Policy, at: usize, message: &str) -> Problem {
        match self.frames.last().and_then(|frame| frame.function.as_ref()) {
            Some((function, _)) => {
                Problem { place: self.policies.place(function.file, at), message: format!("function {}(): {message}", function.name) }
            }
            None => self.within(policy, at, message),
        }
    }

    /// What is wrong with `policy` as a whole.
    pub fn whole(&self, policy: &Policy, message: &str) -> Problem {
        self.within(policy, policy.at, message)
    }

    fn within(&self, policy: &Policy, at: usize, message: &str) -> Problem {
        Problem { place: self.policies.place(policy.file, at), message: format!("policy {:?} on {}: {message}", policy.name, policy.table) }
    }

    fn boxed(&mut self, policy: &Policy, expr: &Expr) -> Result<Box<Expr>, Problem> {
        self.expr(policy, expr).map(Box::new)
    }

    fn all(&mut self, policy: &Policy, list: &[Expr]) -> Result<Vec<Expr>, Problem> {
        list.iter().map(|one| self.expr(policy, one)).collect()
    }

    fn expr(&mut self, policy: &Policy, expr: &Expr) -> Result<Expr, Problem> {
        Ok(match expr {
            Expr::Null | Expr::Bool(_) | Expr::Integer(_) | Expr::Real(_) | Expr::Text(_) | Expr::Clock(_) | Expr::Auth(_) => expr.clone(),
            Expr::Column(name) => self.column(policy, name)?,
            Expr::Not(one) => Expr::Not(self.boxed(policy, one)?),
            Expr::Minus(one) => Expr::Minus(self.boxed(policy, one)?),
            Expr::Binary(binary, left, right) => Expr::Binary(*binary, self.boxed(policy, left)?, self.boxed(policy, right)?),
            Expr::Like { glob, value, pattern } => Expr::Like { glob: *glob, value: self.boxed(policy, value)?, pattern: pattern.clone() },
            Expr::In(value, list) => Expr::In(self.boxed(policy, value)?, self.all(policy, list)?),
            Expr::InQuery(value, query) => Expr::InQuery(self.boxed(policy, value)?, Box::new(self.set(policy, query)?)),
            Expr::Exists(query) => Expr::Exists(Box::new(self.query(policy, query, false)?)),
            Expr::Scalar(query) => Expr::Scalar(Box::new(self.query(policy, query, false)?)),
            Expr::Call(name, arguments) => {
                let mut arguments = self.all(policy, arguments)?;
                if matches!(*name, "json_type" | "json_array_length") {
                    arguments = arguments.into_iter().map(json).collect();
                }
                Expr::Call(name, arguments)
            }
            Expr::Invoke(function, _) if function.many => {
                let message = format!("{}() returns a set: write IN (SELECT {0}(…))", function.name);
                return Err(self.whole(policy, &message));
            }
            Expr::Invoke(function, arguments) => Expr::Scalar(Box::new(self.invoke(policy, function, arguments)?)),
            Expr::Cast(one, kind) => cast(self.expr(policy, one)?, *kind),
            Expr::Case(arms, otherwise) => {
                let mut placed = Vec::with_capacity(arms.len());
                for (when, then) in arms {
                    placed.push((self.expr(policy, when)?, self.expr(policy, then)?));
                }
                let otherwise = otherwise.as_ref().map(|one| self.boxed(policy, one)).transpose()?;
                Expr::Case(placed, otherwise)
            }
            Expr::Arrow { value, step, as_text } => arrow(self.expr(policy, value)?, step, *as_text),
        })
    }

    /// What stands behind IN.
    fn set(&mut self, policy: &Policy, query: &Query) -> Result<Query, Problem> {
        match &query.column {
            Expr::Invoke(function, arguments) if function.many && query.from.is_empty() && query.condition.is_none() => {
                self.invoke(policy, function, arguments)
            }
            _ => self.query(policy, query, false),
        }
    }

    /// The function's body, whose names are its own and its parameters'.
    fn invoke(&mut self, policy: &Policy, function: &Arc<Function>, arguments: &[Expr]) -> Result<Query, Problem> {
        let arguments = self.all(policy, arguments)?;
        self.frames.push(Frame { scopes: Vec::new(), function: Some((function.clone(), arguments)) });
        let query = self.query(policy, &function.body, function.definer)?;
        self.frames.pop();
        Ok(query)
    }

    fn query(&mut self, policy: &Policy, query: &Query, definer: bool) -> Result<Query, Problem> {
        self.queries += 1;
        if self.queries > QUERIES_MAX {
            return Err(self.whole(policy, &format!("its table's conditions have together more than {QUERIES_MAX} sub-selects")));
        }
        let definer = definer || self.frames.iter().any(|frame| frame.function.as_ref().is_some_and(|(function, _)| function.definer));
        self.enter();
        let mut placed = Query { column: Expr::Null, from: Vec::with_capacity(query.from.len()), condition: None };
        let mut seen = Expr::Bool(true);
        for source in &query.from {
            self.aliases += 1;
            let alias = format!("p{}", self.aliases);
            let (table, bound) = match &source.table {
                Table::Each(value) => {
                    let value = json(self.expr(policy, value)?);
                    (Table::Each(value), Bound { name: "json_each".to_owned(), alias: Some(alias.clone()), table: None })
                }
                Table::Named(name, at) => {
                    let Some(table) = self.schema.position(name) else {
                        return Err(self.problem(policy, at.0, &format!("there is no table {name}")));
                    };
                    if !definer {
                        let visible = self.condition(table, Command::Select, Half::Using, Some(alias.clone()))?;
                        seen = seen.and(visible.unwrap_or(Expr::Bool(false)));
                    }
                    let named = Table::Named(self.schema.table(table).name.clone(), *at);
                    (named, Bound { name: name.clone(), alias: Some(alias.clone()), table: Some(table) })
                }
            };
            let bound = Bound { name: source.alias.clone().unwrap_or(bound.name), ..bound };
            if let Some(scope) = self.scopes().last_mut() {
                scope.push(bound);
            }
            let on = source.on.as_ref().map(|on| self.expr(policy, on)).transpose()?;
            placed.from.push(Source { table, alias: Some(alias), on });
        }
        placed.column = self.expr(policy, &query.column)?;
        let own = query.condition.as_ref().map(|condition| self.expr(policy, condition)).transpose()?;
        placed.condition = Some(seen.and(own.unwrap_or(Expr::Bool(true)))).filter(|condition| *condition != Expr::Bool(true));
        self.scopes().pop();
        Ok(placed)
    }

    fn enter(&mut self) {
        if self.frames.is_empty() {
            self.frames.push(Frame { scopes: Vec::new(), function: None });
        }
        self.scopes().push(Vec::new());
    }

    fn scopes(&mut self) -> &mut Vec<Vec<Bound>> {
        let last = self.frames.len() - 1;
        &mut self.frames[last].scopes
    }

    fn column(&self, policy: &Policy, name: &Name) -> Result<Expr, Problem> {
        let Some(frame) = self.frames.last() else { return Ok(Expr::Null) };
        if let Some(argument) = frame.function.as_ref().and_then(|(function, arguments)| argument(function, arguments, name)) {
            return Ok(argument.clone());
        }
        for scope in frame.scopes.iter().rev() {
            let mut found = scope.iter().filter(|bound| name.table.as_ref().is_none_or(|table| bound.name.eq_ignore_ascii_case(table)));
            let mut columns = found.by_ref().filter_map(|bound| self.column_of(bound, &name.column));
            match (columns.next(), columns.next()) {
                (Some(column), None) => return Ok(column),
                (Some(_), Some(_)) => return Err(self.problem(policy, name.at.0, &format!("the column {} is ambiguous", name.column))),
                (None, _) => {}
            }
        }
        let shown = name.table.as_ref().map_or_else(String::new, |table| format!("{table}."));
        Err(self.problem(policy, name.at.0, &format!("there is no column {shown}{}", name.column)))
    }

    fn column_of(&self, bound: &Bound, column: &str) -> Option<Expr> {
        let column = match bound.table {
            Some(table) => {
                self.schema.table(table).columns.iter().map(|known| &known.name).find(|known| known.eq_ignore_ascii_case(column))?.clone()
            }
            None => ["value", "key", "type", "atom"].into_iter().find(|known| known.eq_ignore_ascii_case(column))?.to_owned(),
        };
        Some(Expr::Column(Name { table: bound.alias.clone(), column, at: Place::default() }))
    }
}

/// What a parameter stands for: by its name, `function.parameter`, or `$1`.
fn argument<'a>(function: &Function, arguments: &'a [Expr], name: &Name) -> Option<&'a Expr> {
    if name.table.as_ref().is_some_and(|table| !table.eq_ignore_ascii_case(&function.name)) {
        return None;
    }
    let numbered = name.column.strip_prefix('$').and_then(|number| number.parse::<usize>().ok()).and_then(|number| number.checked_sub(1));
    let at = numbered.or_else(|| function.parameters.iter().position(|parameter| parameter.eq_ignore_ascii_case(&name.column)))?;
    arguments.get(at)
}

/// The value where it is JSON, else NULL. 9: text, or SQLite's own binary form.
fn json(value: Expr) -> Expr {
    match value {
        Expr::Auth(Auth::Jwt { as_text: false, .. }) | Expr::Arrow { as_text: false, .. } => value,
        value => Expr::Case(vec![(Expr::Call("json_valid", vec![value.clone(), Expr::Integer(9)]), value)], None),
    }
}

/// As in PostgreSQL: `->>` is text, numbers and booleans as JSON spells them.
fn arrow(value: Expr, step: &Step, as_text: bool) -> Expr {
    let whole = json(value);
    // A key is taken literally, also where it looks like a path.
    let step = match step {
        Step::Key(key) => Step::Key(format!("$.{}", serde_json::Value::from(key.as_str()))),
        Step::Index(index) => Step::Key(format!("$[{index}]")),
    };
    let Step::Key(path) = &step else { return Expr::Null };
    let led = |as_text| Expr::Arrow { value: Box::new(whole.clone()), step: step.clone(), as_text };
    if !as_text {
        return led(false);
    }
    let kind = Expr::Call("json_type", vec![whole.clone(), Expr::Text(path.clone())]);
    let is = |name: &str| Expr::Binary(Binary::Equal, Box::new(kind.clone()), Box::new(Expr::Text(name.to_owned())));
    Expr::Case(vec![(is("text"), led(true)), (is("null"), Expr::Null)], Some(Box::new(led(false))))
}

fn cast(value: Expr, kind: Type) -> Expr {
    if kind != Type::Boolean {
        return Expr::Cast(Box::new(value), kind);
    }
    let words = ["1", "t", "true", "y", "yes", "on"].map(|word| Expr::Text(word.to_owned()));
    let is_true = Expr::In(Box::new(Expr::Call("lower", vec![value.clone()])), words.to_vec());
    let is_there = Expr::Binary(Binary::IsNot, Box::new(value), Box::new(Expr::Null));
    Expr::Case(vec![(is_true, Expr::Bool(true)), (is_there, Expr::Bool(false))], None)
}
