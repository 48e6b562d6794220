//! Reads conditions: SQL's expressions with a list of functions, `auth.uid()`, `auth.role()` and `auth.jwt()`, and
//! sub-selects of a bounded form.
//!
//! ```text
//! expr   = what SQLite reads, in its order of precedence, and `::type` behind a value
//! query  = "SELECT" ["DISTINCT"] column ["FROM" source *(("," / ["INNER"] "JOIN") source ["ON" expr])] ["WHERE" expr]
//! source = (["public."] table / "json_each(" expr ")") [["AS"] alias]
//! ```

use std::sync::Arc;

use super::super::lexer::{Kind, Token};
use super::super::parser::{self, Fault};
use super::tree::{Auth, Binary, Expr, Function, Name, Place, Query, Source, Step, Table, Type};
use super::vocabulary::{AGGREGATES, CLOCKS, FUNCTIONS};

/// The longest pattern of LIKE and GLOB, in bytes: what SQLite takes here.
pub const PATTERN_MAX: usize = 128;

/// It knows the functions that are defined before.
pub type Parser<'t> = parser::Parser<'t, &'t [Arc<Function>]>;

impl Parser<'_> {
    pub fn expr(&mut self) -> Result<Expr, Fault> {
        self.nested(|parser| parser.binary(&[(&["OR"], Binary::Or)], Parser::conjunction))
    }

    /// What is true or not.
    pub fn truth(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        self.expr().and_then(|expr| truth(at, expr))
    }

    fn conjunction(&mut self) -> Result<Expr, Fault> {
        self.binary(&[(&["AND"], Binary::And)], Parser::negation)
    }

    fn negation(&mut self) -> Result<Expr, Fault> {
        if self.is_word("not") {
            self.advance();
            let at = self.at();
            let negated = self.nested(Parser::negation)?;
            return Ok(Expr::Not(Box::new(truth(at, negated)?)));
        }
        self.equality()
    }

    fn equality(&mut self) -> Result<Expr, Fault> {
        let mut left = self.comparison()?;
        loop {
            let value = Box::new(left);
            left = if self.eat("=") || self.eat("==") {
                combined(self.at(), Binary::Equal, *value, self.comparison()?)?
            } else if self.eat("<>") || self.eat("!=") {
                combined(self.at(), Binary::Unequal, *value, self.comparison()?)?
            } else if self.eat_words(&["is"]) {
                self.is(*value)?
            } else if self.eat_words(&["not"]) {
                Expr::Not(Box::new(self.membership(value)?))
            } else if ["in", "like", "ilike", "glob", "between"].iter().any(|word| self.is_word(word)) {
                self.membership(value)?
            } else {
                return Ok(*value);
            };
            self.count()?;
        }
    }

    fn is(&mut self, value: Expr) -> Result<Expr, Fault> {
        let negated = self.eat_words(&["not"]);
        let distinct = self.eat_words(&["distinct", "from"]);
        let binary = if negated == distinct { Binary::Is } else { Binary::IsNot };
        combined(self.at(), binary, value, self.comparison()?)
    }

    fn membership(&mut self, value: Box<Expr>) -> Result<Expr, Fault> {
        if self.eat_words(&["in"]) {
            self.expect("(")?;
            let read = if self.is_word("select") {
                Expr::InQuery(value, Box::new(self.query()?))
            } else {
                Expr::In(value, self.list(Parser::expr)?)
            };
            self.expect(")")?;
            return Ok(read);
        }
        if self.eat_words(&["between"]) {
            let low = self.comparison()?;
            self.expect_word("and")?;
            let high = self.comparison()?;
            let from = Expr::Binary(Binary::MoreOrEqual, value.clone(), Box::new(low));
            return Ok(from.and(Expr::Binary(Binary::LessOrEqual, value, Box::new(high))));
        }
        let glob = self.eat_words(&["glob"]);
        if !glob && !self.eat_words(&["like"]) && !self.eat_words(&["ilike"]) {
            return Err(self.expected("IN, LIKE or BETWEEN"));
        }
        let token = self.advance();
        let pattern = token.plain();
        if token.kind == Kind::Text && pattern.len() <= PATTERN_MAX {
            return Ok(Expr::Like { glob, value, pattern });
        }
        Err(Fault::new(token.at, format!("a pattern is a text of at most {PATTERN_MAX} bytes"))
            .hint("instr(), substr() and lower() compare with what a column or a token has."))
    }

    fn comparison(&mut self) -> Result<Expr, Fault> {
        let signs: &[(&[&str], Binary)] =
            &[(&["<="], Binary::LessOrEqual), (&[">="], Binary::MoreOrEqual), (&["<"], Binary::Less), (&[">"], Binary::More)];
        self.binary(signs, Parser::bits)
    }

    fn bits(&mut self) -> Result<Expr, Fault> {
        self.binary(&[(&["&"], Binary::BitAnd), (&["|"], Binary::BitOr)], Parser::sum)
    }

    fn sum(&mut self) -> Result<Expr, Fault> {
        self.binary(&[(&["+"], Binary::Plus), (&["-"], Binary::Minus)], Parser::product)
    }

    fn product(&mut self) -> Result<Expr, Fault> {
        self.binary(&[(&["*"], Binary::Times), (&["/"], Binary::Divide), (&["%"], Binary::Remainder)], Parser::concatenated)
    }

    /// Operators of one precedence, from the left.
    fn binary(&mut self, signs: &[(&[&str], Binary)], operand: fn(&mut Self) -> Result<Expr, Fault>) -> Result<Expr, Fault> {
        let mut left = operand(self)?;
        'more: loop {
            for (signs, binary) in signs {
                if self.eat(signs[0]) || self.eat_words(signs) {
                    self.count()?;
                    let between = self.at();
                    left = combined(between, *binary, left, operand(self)?)?;
                    continue 'more;
                }
            }
            return Ok(left);
        }
    }

    /// `||`, `->` and `->>`.
    fn concatenated(&mut self) -> Result<Expr, Fault> {
        let mut left = self.unary()?;
        loop {
            self.count()?;
            if self.eat("||") {
                left = Expr::Binary(Binary::Concat, Box::new(left), Box::new(self.unary()?));
            } else if self.eat("->>") {
                left = arrow(left, self.step()?, true);
            } else if self.eat("->") {
                left = arrow(left, self.step()?, false);
            } else {
                return Ok(left);
            }
        }
    }

    fn step(&mut self) -> Result<Step, Fault> {
        let token = self.advance();
        match (token.kind, token.text.parse()) {
            (Kind::Text, _) => Ok(Step::Key(token.plain())),
            (Kind::Number, Ok(index)) => Ok(Step::Index(index)),
            _ => Err(Fault::new(token.at, "behind an arrow stands a key in quotes, or a number")),
        }
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        if self.eat("-") {
            return Ok(Expr::Minus(Box::new(self.nested(Parser::unary)?)));
        }
        let mut value = self.primary()?;
        while self.eat("::") {
            value = cast(value, self.cast_type()?);
        }
        Ok(value)
    }

    fn cast_type(&mut self) -> Result<Option<Type>, Fault> {
        let at = self.at();
        let name = self.name("a type")?.to_ascii_lowercase();
        Ok(Some(match name.as_str() {
            "text" | "uuid" | "varchar" | "citext" => Type::Text,
            "int" | "integer" | "bigint" | "smallint" | "int2" | "int4" | "int8" => Type::Integer,
            "real" | "float" | "numeric" | "decimal" | "float4" | "float8" => Type::Real,
            "bool" | "boolean" => Type::Boolean,
            "json" | "jsonb" => return Ok(None),
            _ => return Err(Fault::new(at, format!("there is no type {name:?} here")).hint("text, integer, real, boolean and json are.")),
        }))
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        self.count()?;
        let token = self.peek();
        match token.kind {
            Kind::Text => {
                self.advance();
                Ok(Expr::Text(token.plain()))
            }
            Kind::Number => {
                self.advance();
                number(token)
            }
            Kind::Parameter if token.text.starts_with('$') => {
                self.advance();
                Ok(Expr::Column(Name { table: None, column: token.text.to_owned(), at: Place(token.at) }))
            }
            Kind::Sign if self.eat("(") => {
                let read = if self.is_word("select") { Expr::Scalar(Box::new(self.query()?)) } else { self.expr()? };
                self.expect(")")?;
                Ok(read)
            }
            Kind::Word => self.word(token.text),
            Kind::Quoted if self.after(1).is_sign("(") => self.call(false),
            Kind::Quoted => self.column(),
            _ => Err(self.expected("a value")),
        }
    }

    fn word(&mut self, word: &str) -> Result<Expr, Fault> {
        let lower = word.to_ascii_lowercase();
        if let Some(clock) = CLOCKS.into_iter().find(|clock| clock.eq_ignore_ascii_case(word)) {
            self.advance();
            return Ok(Expr::Clock(clock));
        }
        match lower.as_str() {
            "null" | "true" | "false" => {
                self.advance();
                Ok(if lower == "null" { Expr::Null } else { Expr::Bool(lower == "true") })
            }
            "exists" => {
                self.advance();
                self.expect("(")?;
                let query = self.query()?;
                self.expect(")")?;
                Ok(Expr::Exists(Box::new(query)))
            }
            "case" => self.case(),
            "cast" => {
                self.advance();
                self.expect("(")?;
                let value = self.expr()?;
                self.expect_word("as")?;
                let kind = self.cast_type()?;
                self.expect(")")?;
                Ok(cast(value, kind))
            }
            "auth" if self.after(1).is_sign(".") => self.auth(),
            "public" if self.after(1).is_sign(".") && self.after(3).is_sign("(") => {
                self.skip(2);
                self.call(false)
            }
            _ if self.after(1).is_sign("(") => self.call(false),
            _ => self.column(),
        }
    }

    fn case(&mut self) -> Result<Expr, Fault> {
        self.advance();
        let base = if self.is_word("when") { None } else { Some(self.expr()?) };
        let mut arms = Vec::new();
        while self.eat_words(&["when"]) {
            let when = match &base {
                Some(base) => combined(self.at(), Binary::Equal, base.clone(), self.expr()?)?,
                None => self.truth()?,
            };
            self.expect_word("then")?;
            arms.push((when, self.expr()?));
        }
        if arms.is_empty() {
            return Err(self.expected("WHEN"));
        }
        let otherwise = if self.eat_words(&["else"]) { Some(Box::new(self.expr()?)) } else { None };
        self.expect_word("end")?;
        Ok(Expr::Case(arms, otherwise))
    }

    fn auth(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        self.skip(2);
        let name = self.name("a function of auth")?.to_ascii_lowercase();
        self.expect("(")?;
        self.expect(")")?;
        Ok(Expr::Auth(match name.as_str() {
            "uid" => Auth::Uid,
            "role" => Auth::Role,
            "jwt" => Auth::Jwt { path: Vec::new(), as_text: false },
            _ => {
                return Err(Fault::new(at, format!("there is no auth.{name}()")).hint("There are auth.uid(), auth.role() and auth.jwt()."));
            }
        }))
    }

    /// `whole_column`: it is all that a sub-select selects.
    fn call(&mut self, whole_column: bool) -> Result<Expr, Fault> {
        let at = self.at();
        let token = self.advance();
        if !matches!(token.kind, Kind::Word | Kind::Quoted) {
            return Err(Fault::new(token.at, "a function is expected here"));
        }
        let name = token.plain();
        self.expect("(")?;
        let mut arguments = Vec::new();
        let of_rows = name.eq_ignore_ascii_case("count") && self.eat("*");
        if !of_rows && !self.peek().is_sign(")") {
            arguments = self.list(Parser::expr)?;
        }
        self.expect(")")?;
        let count = arguments.len();
        if let Some(function) = self.context.iter().find(|function| function.name.eq_ignore_ascii_case(&name)) {
            if function.parameters.len() != count {
                return Err(Fault::new(at, format!("{name}() takes {} arguments, not {count}", function.parameters.len())));
            }
            return Ok(Expr::Invoke(function.clone(), arguments));
        }
        let aggregate = AGGREGATES.into_iter().find(|aggregate| aggregate.eq_ignore_ascii_case(&name));
        if let Some(aggregate) = aggregate.filter(|aggregate| count == 1 || (*aggregate == "count" && count == 0)) {
            return match whole_column {
                true => Ok(Expr::Call(aggregate, arguments)),
                false => Err(Fault::new(at, format!("{aggregate}() stands alone as the column of a sub-select"))),
            };
        }
        let Some((known, least, most)) = FUNCTIONS.into_iter().find(|(known, ..)| known.eq_ignore_ascii_case(&name)) else {
            let hint = if name.eq_ignore_ascii_case("now") {
                "CURRENT_TIMESTAMP is SQLite's."
            } else {
                "docs/policies.md lists the functions that are."
            };
            return Err(Fault::new(at, format!("the function {name}() is not allowed in a policy")).hint(hint));
        };
        if !(least..=most).contains(&count) {
            return Err(Fault::new(at, format!("{known}() takes {least} to {most} arguments, not {count}")));
        }
        Ok(Expr::Call(known, arguments))
    }

    fn column(&mut self) -> Result<Expr, Fault> {
        let at = Place(self.at());
        let mut name = self.name("a value")?;
        let mut table = None;
        while self.eat(".") {
            // `public.tasks.id` is `tasks.id`.
            table = Some(std::mem::replace(&mut name, self.name("a column")?));
        }
        Ok(Expr::Column(Name { table, column: name, at }))
    }

    /// From `SELECT` to what does not belong to it.
    pub fn query(&mut self) -> Result<Query, Fault> {
        self.nested(|parser| {
            parser.expect_word("select")?;
            parser.eat_words(&["distinct"]);
            let at = parser.at();
            let aggregates = AGGREGATES.iter().any(|name| parser.is_word(name)) && parser.after(1).is_sign("(");
            let column = match () {
                () if parser.eat("*") => Expr::Integer(1),
                () if aggregates => parser.call(true)?,
                () => parser.expr()?,
            };
            if parser.peek().is_sign(",") {
                return Err(Fault::new(at, "a sub-select has one column here"));
            }
            let mut query = Query { column, from: Vec::new(), condition: None };
            if parser.eat_words(&["from"]) {
                query.from.push(parser.source()?);
                loop {
                    if parser.eat(",") {
                        query.from.push(parser.source()?);
                    } else if parser.eat_words(&["join"]) || parser.eat_words(&["inner", "join"]) {
                        let mut source = parser.source()?;
                        parser.expect_word("on")?;
                        source.on = Some(parser.truth()?);
                        query.from.push(source);
                    } else {
                        break;
                    }
                }
            }
            if parser.eat_words(&["where"]) {
                query.condition = Some(parser.truth()?);
            }
            Ok(query)
        })
    }

    fn source(&mut self) -> Result<Source, Fault> {
        let table = if self.eat_words(&["json_each"]) {
            self.expect("(")?;
            let value = self.expr()?;
            self.expect(")")?;
            Table::Each(value)
        } else {
            let at = Place(self.at());
            Table::Named(self.table()?, at)
        };
        let named = self.eat_words(&["as"]);
        let alias = if named || self.is_name() { Some(self.name("an alias")?) } else { None };
        Ok(Source { table, alias, on: None })
    }
}

fn number(token: Token<'_>) -> Result<Expr, Fault> {
    let wrong = || Fault::new(token.at, format!("{} is no number that SQLite holds", token.text));
    if token.text.bytes().all(|byte| byte.is_ascii_digit()) {
        return token.text.parse().map(Expr::Integer).map_err(|_| wrong());
    }
    token.text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Expr::Real).ok_or_else(wrong)
}

/// The claims' arrows are one path.
fn arrow(value: Expr, step: Step, as_text: bool) -> Expr {
    match value {
        Expr::Auth(Auth::Jwt { mut path, as_text: false }) => {
            path.push(step);
            Expr::Auth(Auth::Jwt { path, as_text })
        }
        value => Expr::Arrow { value: Box::new(value), step, as_text },
    }
}

fn cast(value: Expr, kind: Option<Type>) -> Expr {
    match kind {
        Some(kind) => Expr::Cast(Box::new(value), kind),
        None => value,
    }
}

/// A text is no condition: SQLite would take `'true'` for false.
fn truth(at: usize, expr: Expr) -> Result<Expr, Fault> {
    match expr.is_text() {
        true => Err(Fault::new(at, "this is text, which is neither true nor false").hint("Compare it, or cast it: (…)::boolean.")),
        false => Ok(expr),
    }
}

/// Two operands. A text is never equal to a number, nor less than one, whatever is in it.
fn combined(at: usize, binary: Binary, left: Expr, right: Expr) -> Result<Expr, Fault> {
    let is_literal = |expr: &Expr| matches!(expr, Expr::Integer(_) | Expr::Real(_) | Expr::Bool(_) | Expr::Minus(_));
    let compares = !matches!(binary, Binary::Or | Binary::And | Binary::Concat);
    if compares && ((left.is_text() && is_literal(&right)) || (right.is_text() && is_literal(&left))) {
        return Err(Fault::new(at, "a text is compared with what is none").hint("Cast it: (…)::integer or (…)::boolean."));
    }
    let (left, right) = match binary {
        Binary::Or | Binary::And => (truth(at, left)?, truth(at, right)?),
        _ => (left, right),
    };
    Ok(Expr::Binary(binary, Box::new(left), Box::new(right)))
}
