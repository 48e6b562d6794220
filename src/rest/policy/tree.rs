//! A policy's condition as a tree.

use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Null,
    Bool(bool),
    Integer(i64),
    Real(f64),
    Text(String),
    /// `CURRENT_TIMESTAMP` and the like.
    Clock(&'static str),
    Column(Name),
    Auth(Auth),
    Not(Box<Expr>),
    Minus(Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    /// SQLite's LIKE or GLOB; the pattern is a literal, so that it cannot be one that raises.
    Like {
        glob: bool,
        value: Box<Expr>,
        pattern: String,
    },
    In(Box<Expr>, Vec<Expr>),
    InQuery(Box<Expr>, Box<Query>),
    Exists(Box<Query>),
    Scalar(Box<Query>),
    /// A function of the allow-list.
    Call(&'static str, Vec<Expr>),
    /// A function of the application's.
    Invoke(Arc<Function>, Vec<Expr>),
    Cast(Box<Expr>, Type),
    Case(Vec<(Expr, Expr)>, Option<Box<Expr>>),
    Arrow {
        value: Box<Expr>,
        step: Step,
        as_text: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// A table's name or alias. Once placed, `None` is the policy's own table.
    pub table: Option<String>,
    pub column: String,
    /// Where it stands in its file, in bytes; not compared.
    pub at: Place,
}

/// A place in a text, which does not tell trees apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place(pub usize);

impl PartialEq for Place {
    fn eq(&self, _: &Place) -> bool {
        true
    }
}

/// What is asked of the caller's token.
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    Uid,
    Role,
    /// What a path of `->` and a last `->>` leads to in the claims.
    Jwt {
        path: Vec<Step>,
        as_text: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Key(String),
    /// Of an array, from 0.
    Index(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    Integer,
    Real,
    Boolean,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Or,
    And,
    Equal,
    Unequal,
    Is,
    IsNot,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    BitAnd,
    BitOr,
    Plus,
    Minus,
    Times,
    Divide,
    Remainder,
    Concat,
}

/// A sub-select: one column of some tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub column: Expr,
    pub from: Vec<Source>,
    pub condition: Option<Expr>,
}

/// What a policy file defines for its policies: it stands for its body wherever it is called, and has no life of its
/// own at run time.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub name: String,
    /// Its file's number.
    pub file: usize,
    pub parameters: Vec<String>,
    pub body: Query,
    /// SECURITY DEFINER: it sees all rows of its tables.
    pub definer: bool,
    /// RETURNS SETOF or TABLE.
    pub many: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub table: Table,
    pub alias: Option<String>,
    /// The condition of its JOIN.
    pub on: Option<Expr>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Table {
    Named(String, Place),
    /// `json_each(…)`
    Each(Expr),
}

impl Binary {
    pub const fn sign(self) -> &'static str {
        match self {
            Binary::Or => "OR",
            Binary::And => "AND",
            Binary::Equal => "=",
            Binary::Unequal => "<>",
            Binary::Is => "IS",
            Binary::IsNot => "IS NOT",
            Binary::Less => "<",
            Binary::LessOrEqual => "<=",
            Binary::More => ">",
            Binary::MoreOrEqual => ">=",
            Binary::BitAnd => "&",
            Binary::BitOr => "|",
            Binary::Plus => "+",
            Binary::Minus => "-",
            Binary::Times => "*",
            Binary::Divide => "/",
            Binary::Remainder => "%",
            Binary::Concat => "||",
        }
    }
}

impl Type {
    pub const fn name(self) -> &'static str {
        match self {
            Type::Text => "TEXT",
            Type::Integer => "INTEGER",
            Type::Real => "REAL",
            Type::Boolean => "BOOLEAN",
        }
    }
}

impl Expr {
    /// `left AND right`, or the one that says something.
    pub fn and(self, right: Expr) -> Expr {
        match (self, right) {
            (Expr::Bool(true), one) | (one, Expr::Bool(true)) => one,
            (left, right) => Expr::Binary(Binary::And, Box::new(left), Box::new(right)),
        }
    }

    /// `left OR right`, or the one that says something.
    pub fn or(self, right: Expr) -> Expr {
        match (self, right) {
            (Expr::Bool(true), _) | (_, Expr::Bool(true)) => Expr::Bool(true),
            (Expr::Bool(false), one) | (one, Expr::Bool(false)) => one,
            (left, right) => Expr::Binary(Binary::Or, Box::new(left), Box::new(right)),
        }
    }

    /// Whether it is text whatever it holds: no condition, and never equal to a number.
    pub fn is_text(&self) -> bool {
        match self {
            Expr::Text(_) | Expr::Auth(Auth::Uid | Auth::Role) => true,
            Expr::Auth(Auth::Jwt { as_text, .. }) | Expr::Arrow { as_text, .. } => *as_text,
            _ => false,
        }
    }

    /// How many levels it has, sub-selects included.
    pub fn depth(&self) -> usize {
        let of = |query: &Query| {
            let each = query.from.iter().flat_map(|source| {
                let value = if let Table::Each(value) = &source.table { Some(value) } else { None };
                value.into_iter().chain(&source.on)
            });
            each.chain(&query.condition).chain([&query.column]).map(Expr::depth).max().unwrap_or(0)
        };
        1 + match self {
            Expr::Not(one) | Expr::Minus(one) | Expr::Cast(one, _) => one.depth(),
            Expr::Like { value, .. } | Expr::Arrow { value, .. } => value.depth(),
            Expr::Binary(_, left, right) => left.depth().max(right.depth()),
            Expr::In(value, list) => list.iter().map(Expr::depth).max().unwrap_or(0).max(value.depth()),
            Expr::InQuery(value, query) => of(query).max(value.depth()),
            Expr::Exists(query) | Expr::Scalar(query) => of(query),
            Expr::Call(_, list) | Expr::Invoke(_, list) => list.iter().map(Expr::depth).max().unwrap_or(0),
            Expr::Case(arms, otherwise) => {
                let arms = arms.iter().flat_map(|(when, then)| [when, then]);
                arms.chain(otherwise.as_deref()).map(Expr::depth).max().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Calls `visit` on it and on everything in it, but not on the bodies of functions.
    pub fn walk<'e>(&'e self, visit: &mut dyn FnMut(&'e Expr)) {
        visit(self);
        match self {
            Expr::Null
            | Expr::Bool(_)
            | Expr::Integer(_)
            | Expr::Real(_)
            | Expr::Text(_)
            | Expr::Clock(_)
            | Expr::Column(_)
            | Expr::Auth(_) => {}
            Expr::Not(one) | Expr::Minus(one) | Expr::Cast(one, _) => one.walk(visit),
            Expr::Like { value, .. } | Expr::Arrow { value, .. } => value.walk(visit),
            Expr::Binary(_, left, right) => {
                left.walk(visit);
                right.walk(visit);
            }
            Expr::In(value, list) => {
                value.walk(visit);
                list.iter().for_each(|one| one.walk(visit));
            }
            Expr::InQuery(value, query) => {
                value.walk(visit);
                query.walk(visit);
            }
            Expr::Exists(query) | Expr::Scalar(query) => query.walk(visit),
            Expr::Call(_, arguments) | Expr::Invoke(_, arguments) => arguments.iter().for_each(|one| one.walk(visit)),
            Expr::Case(arms, otherwise) => {
                for (when, then) in arms {
                    when.walk(visit);
                    then.walk(visit);
                }
                otherwise.iter().for_each(|one| one.walk(visit));
            }
        }
    }

    /// The tables of its sub-selects, and of the functions that it calls; not of those that see all rows.
    pub fn tables<'e>(&'e self, found: &mut Vec<&'e str>) {
        self.walk(&mut |expr| expr.names(found));
    }

    /// Those of this sub-select or call.
    fn names<'e>(&'e self, found: &mut Vec<&'e str>) {
        match self {
            Expr::InQuery(_, query) | Expr::Exists(query) | Expr::Scalar(query) => found.extend(query.names()),
            Expr::Invoke(function, _) if !function.definer => function.body.tables(found),
            _ => {}
        }
    }
}

impl Query {
    /// Its own tables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.from.iter().filter_map(|source| match &source.table {
            Table::Named(name, _) => Some(name.as_str()),
            Table::Each(_) => None,
        })
    }

    fn tables<'e>(&'e self, found: &mut Vec<&'e str>) {
        found.extend(self.names());
        self.walk(&mut |expr| expr.names(found));
    }

    fn walk<'e>(&'e self, visit: &mut dyn FnMut(&'e Expr)) {
        self.column.walk(visit);
        for source in &self.from {
            if let Table::Each(value) = &source.table {
                value.walk(visit);
            }
            source.on.iter().for_each(|on| on.walk(visit));
        }
        self.condition.iter().for_each(|condition| condition.walk(visit));
    }
}
