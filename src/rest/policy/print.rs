//! A condition's text. Printed and parsed again, a tree is the same; printed for a statement, the columns of the
//! policy's own table carry that reference's alias and what is asked of the token is bound. No byte of a policy file
//! is in a statement: each name is printed quoted, each text as a literal.

use std::fmt::Write;

use super::super::expression::identifier;
use super::tree::{Auth, Expr, Name, Query, Step, Table};

impl Expr {
    /// As a policy file has it.
    pub fn text(&self) -> String {
        let mut printer = Printer { out: String::new(), root: None, bind: None };
        printer.expr(self);
        printer.out
    }

    /// For a statement that calls the policy's own table `alias`; `bind` gives the parameter that stands for what is
    /// asked of the token.
    pub fn sql(&self, alias: &str, bind: &mut dyn FnMut(&Auth) -> String) -> String {
        let mut printer = Printer { out: String::new(), root: Some(alias), bind: Some(bind) };
        printer.expr(self);
        printer.out
    }

    /// Whether it can stand as an operand without parentheses.
    fn is_atom(&self) -> bool {
        !matches!(
            self,
            Expr::Not(_)
                | Expr::Minus(_)
                | Expr::Binary(..)
                | Expr::Like { .. }
                | Expr::In(..)
                | Expr::InQuery(..)
                | Expr::Arrow { .. }
                | Expr::Auth(Auth::Jwt { .. })
        )
    }
}

type Bind<'a> = &'a mut dyn FnMut(&Auth) -> String;

struct Printer<'a> {
    out: String,
    root: Option<&'a str>,
    bind: Option<Bind<'a>>,
}

impl Printer<'_> {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn literal(&mut self, text: &str) {
        let _ = write!(self.out, "'{}'", text.replace('\'', "''"));
    }

    fn operand(&mut self, expr: &Expr) {
        if expr.is_atom() {
            return self.expr(expr);
        }
        self.push("(");
        self.expr(expr);
        self.push(")");
    }

    fn list(&mut self, list: &[Expr]) {
        for (at, one) in list.iter().enumerate() {
            self.push(if at == 0 { "" } else { "," });
            self.expr(one);
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Null => self.push("NULL"),
            Expr::Bool(value) => self.push(if *value { "TRUE" } else { "FALSE" }),
            Expr::Integer(value) => {
                let _ = write!(self.out, "{value}");
            }
            Expr::Real(value) => {
                let _ = write!(self.out, "{value:?}");
            }
            Expr::Text(text) => self.literal(text),
            Expr::Clock(word) => self.push(word),
            Expr::Column(name) => self.name(name),
            Expr::Auth(auth) => self.auth(auth),
            Expr::Not(one) => {
                self.push("NOT ");
                self.operand(one);
            }
            Expr::Minus(one) => {
                self.push("-");
                self.operand(one);
            }
            Expr::Binary(binary, left, right) => {
                self.operand(left);
                let _ = write!(self.out, " {} ", binary.sign());
                self.operand(right);
            }
            Expr::Like { glob, value, pattern } => {
                self.operand(value);
                self.push(if *glob { " GLOB " } else { " LIKE " });
                self.literal(pattern);
            }
            Expr::In(value, list) => {
                self.operand(value);
                self.push(" IN (");
                self.list(list);
                self.push(")");
            }
            Expr::InQuery(value, query) => {
                self.operand(value);
                self.push(" IN ");
                self.query(query);
            }
            Expr::Exists(query) => {
                self.push("EXISTS ");
                self.query(query);
            }
            Expr::Scalar(query) => self.query(query),
            Expr::Call(name, arguments) => {
                self.push(name);
                self.push("(");
                self.push(if *name == "count" && arguments.is_empty() { "*" } else { "" });
                self.list(arguments);
                self.push(")");
            }
            Expr::Invoke(function, arguments) => {
                self.push(&identifier(&function.name));
                self.push("(");
                self.list(arguments);
                self.push(")");
            }
            Expr::Cast(one, kind) => {
                self.push("CAST(");
                self.expr(one);
                let _ = write!(self.out, " AS {})", kind.name());
            }
            Expr::Case(arms, otherwise) => {
                self.push("CASE");
                for (when, then) in arms {
                    self.push(" WHEN ");
                    self.expr(when);
                    self.push(" THEN ");
                    self.expr(then);
                }
                if let Some(otherwise) = otherwise {
                    self.push(" ELSE ");
                    self.expr(otherwise);
                }
                self.push(" END");
            }
            Expr::Arrow { value, step, as_text } => {
                self.operand(value);
                self.step(step, *as_text);
            }
        }
    }

    fn name(&mut self, name: &Name) {
        match (&name.table, self.root) {
            (Some(table), _) => self.push(&identifier(table)),
            (None, Some(root)) => self.push(root),
            (None, None) => return self.push(&identifier(&name.column)),
        }
        self.push(".");
        self.push(&identifier(&name.column));
    }

    fn auth(&mut self, auth: &Auth) {
        if let Some(bind) = &mut self.bind {
            let parameter = bind(auth);
            return self.push(&parameter);
        }
        match auth {
            Auth::Uid => self.push("auth.uid()"),
            Auth::Role => self.push("auth.role()"),
            Auth::Jwt { path, as_text } => {
                self.push("auth.jwt()");
                for (at, step) in path.iter().enumerate() {
                    self.step(step, *as_text && at + 1 == path.len());
                }
            }
        }
    }

    fn step(&mut self, step: &Step, as_text: bool) {
        self.push(if as_text { " ->> " } else { " -> " });
        match step {
            Step::Key(key) => self.literal(key),
            Step::Index(index) => {
                let _ = write!(self.out, "{index}");
            }
        }
    }

    fn query(&mut self, query: &Query) {
        self.push("(SELECT ");
        self.expr(&query.column);
        for (at, source) in query.from.iter().enumerate() {
            self.push(match at {
                0 => " FROM ",
                _ if source.on.is_some() => " JOIN ",
                _ => ", ",
            });
            match &source.table {
                Table::Named(name, _) => self.push(&identifier(name)),
                Table::Each(value) => {
                    self.push("json_each(");
                    self.expr(value);
                    self.push(")");
                }
            }
            if let Some(alias) = &source.alias {
                self.push(" AS ");
                self.push(&identifier(alias));
            }
            if let Some(on) = &source.on {
                self.push(" ON ");
                self.expr(on);
            }
        }
        if let Some(condition) = &query.condition {
            self.push(" WHERE ");
            self.expr(condition);
        }
        self.push(")");
    }
}
