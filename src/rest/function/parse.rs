//! From a function's file to a [`Function`].
//!
//! ```text
//! file    = "CREATE" ["OR" "REPLACE"] "FUNCTION" name "(" [param *("," param)] ")" "RETURNS" returns
//!           *option "AS" "$$" statements "$$" *option [";"] *grant
//! param   = name type ["DEFAULT" literal]
//! returns = "void" / ["SETOF"] (type / table) / "TABLE" "(" name type *("," name type) ")"
//! option  = "STABLE" / "IMMUTABLE" / "VOLATILE" / "LANGUAGE" "sql" / "SECURITY" "DEFINER"
//! grant   = "GRANT" "EXECUTE" "ON" "FUNCTION" name ["(" … ")"] "TO" role *("," role) ";"
//! ```

use rusqlite::types::Value;

use super::super::lexer::{self, Kind as Token, Token as Lexeme};
use super::super::parser::{self, Fault};
use super::{Function, Parameter, Returns, Text, shape_of};

type Parser<'t> = parser::Parser<'t, ()>;

/// The calls that say who is calling, in the order of their parameters.
const WHO: [&str; 3] = ["uid", "role", "jwt"];

/// What a request's query string means something else by.
const TAKEN: [&str; 9] = ["select", "order", "limit", "offset", "and", "or", "not", "columns", "on_conflict"];

/// The function that `text`, the file `stem`.sql, declares.
pub fn function(text: &str, stem: &str) -> Result<Function, Fault> {
    let mut parser = Parser::new(text, (0, text.len()), &[], ())?;
    parser.expect_word("create")?;
    if parser.eat_words(&["or"]) {
        parser.expect_word("replace")?;
    }
    parser.expect_word("function")?;
    let named = parser.at();
    let name = parser.name("the function's name")?;
    if name != stem {
        return Err(Fault::new(named, format!("the function {name} belongs into {name}.sql")));
    }
    let parameters = parser.parameters()?;
    parser.expect_word("returns")?;
    let returns = parser.returns(&name)?;
    let mut is_volatile = true;
    parser.options(&mut is_volatile)?;
    parser.expect_word("as")?;
    let statements = statements(parser.body()?, &parameters)?;
    parser.options(&mut is_volatile)?;
    parser.eat(";");
    let granted = parser.grants(&name)?;
    if statements.is_empty() && !matches!(returns, Returns::Nothing) {
        return Err(Fault::new(named, "it returns something, and has no statement"));
    }
    Ok(Function { name, parameters, returns, is_volatile, granted, statements })
}

impl Parser<'_> {
    fn parameters(&mut self) -> Result<Vec<Parameter>, Fault> {
        self.expect("(")?;
        if self.eat(")") {
            return Ok(Vec::new());
        }
        let parameters = self.list(Self::parameter)?;
        self.expect(")")?;
        Ok(parameters)
    }

    fn parameter(&mut self) -> Result<Parameter, Fault> {
        let place = self.at();
        let name = self.name("a parameter's name")?;
        if TAKEN.contains(&name.as_str()) {
            return Err(Fault::new(place, format!("a parameter cannot be called {name}: requests mean something else by it")));
        }
        let (declared, kind) = self.type_name()?;
        let default = if self.eat_words(&["default"]) || self.eat("=") { Some(self.literal()?) } else { None };
        Ok(Parameter { name, declared, kind, default })
    }

    fn literal(&mut self) -> Result<Value, Fault> {
        let negative = self.eat("-");
        let token = self.advance();
        let number = |text: &str| text.parse().map(Value::Integer).or_else(|_| text.parse().map(Value::Real)).ok();
        let value = match token.kind {
            Token::Number => number(&format!("{}{}", if negative { "-" } else { "" }, token.text)),
            Token::Text if !negative => Some(Value::Text(token.plain())),
            Token::Word if !negative => match token.text.to_ascii_lowercase().as_str() {
                "null" => Some(Value::Null),
                "true" => Some(Value::Integer(1)),
                "false" => Some(Value::Integer(0)),
                _ => None,
            },
            _ => None,
        };
        value.ok_or_else(|| Fault::new(token.at, "a default is a number, a text, TRUE, FALSE or NULL"))
    }

    fn returns(&mut self, function: &str) -> Result<Returns, Fault> {
        if self.eat_words(&["void"]) {
            return Ok(Returns::Nothing);
        }
        if self.eat_words(&["table"]) {
            self.expect("(")?;
            let columns = self.list(|parser| {
                let name = parser.name("a column's name")?;
                parser.type_name().map(|(declared, kind)| (name, declared, kind))
            })?;
            self.expect(")")?;
            return Ok(Returns::Rows { of: shape_of(function, columns) });
        }
        let many = self.eat_words(&["setof"]);
        match self.attempt(Self::type_name) {
            Some((declared, kind)) => Ok(Returns::Values { of: shape_of(function, vec![(function.to_owned(), declared, kind)]), many }),
            // A table's name; whether there is one, the trial finds.
            None => self.name("void, TABLE, SETOF, a type or a table").map(|name| Returns::Table { name, many }),
        }
    }

    fn options(&mut self, is_volatile: &mut bool) -> Result<(), Fault> {
        loop {
            match () {
                () if self.eat_words(&["stable"]) || self.eat_words(&["immutable"]) => *is_volatile = false,
                () if self.eat_words(&["volatile"]) => *is_volatile = true,
                () if self.eat_words(&["language"]) => self.expect_word("sql")?,
                () if self.eat_words(&["security"]) => self.expect_word("definer")?,
                () => return Ok(()),
            }
        }
    }

    /// What stands between the dollars, and where it begins.
    fn body(&mut self) -> Result<(String, usize), Fault> {
        if self.peek().kind != Token::Dollars {
            return Err(self.expected("the statements between $$ and $$"));
        }
        let token = self.advance();
        Ok((token.plain(), token.inside()))
    }

    fn grants(&mut self, function: &str) -> Result<Vec<String>, Fault> {
        let mut granted = Vec::new();
        while !self.is_done() {
            ["grant", "execute", "on", "function"].iter().try_for_each(|word| self.expect_word(word))?;
            let place = self.at();
            let name = self.name("the function's name")?;
            if name != function {
                return Err(Fault::new(place, format!("this is the file of {function}, not of {name}")));
            }
            if self.eat("(") {
                while !self.is_done() && !self.peek().is_sign(")") {
                    self.advance();
                }
                self.expect(")")?;
            }
            self.expect_word("to")?;
            granted.extend(
                self.list(|parser| parser.name("a role"))?
                    .into_iter()
                    .map(|role| if role.eq_ignore_ascii_case("public") { "public".to_owned() } else { role }),
            );
            self.expect(";")?;
        }
        Ok(granted)
    }
}

/// The statements of a body that begins at `start`: parameters and who calls as `?1`, `?2`, …, what is a comment blank,
/// and all else where it was, so that a place in one is a place in the file.
fn statements((body, start): (String, usize), parameters: &[Parameter]) -> Result<Vec<Text>, Fault> {
    let tokens: Vec<_> = lexer::tokens(&body).collect();
    let mut statements = Vec::new();
    let mut text = Text { sql: String::new(), parameters: 0, at: start };
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let place = start + token.at;
        let mut taken = 1;
        match token.kind {
            Token::Sign if token.is_sign(";") => {
                let next = Text { sql: String::new(), parameters: 0, at: place + 1 };
                statements.push(std::mem::replace(&mut text, next));
            }
            Token::Blank if text.sql.is_empty() => text.at = place + token.text.len(),
            Token::Blank => text.sql.extend(token.text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' })),
            Token::Parameter if token.text.starts_with(':') => {
                let name = &token.text[1..];
                let found = parameters.iter().position(|parameter| parameter.name == name);
                let number = found.ok_or_else(|| Fault::new(place, format!("there is no parameter {name}")))? + 1;
                put(&mut text, number, token.text.len());
            }
            Token::Parameter => return Err(Fault::new(place, "a parameter is written :name")),
            Token::Sign if ["?", "$", "@"].contains(&token.text) => return Err(Fault::new(place, "a parameter is written :name")),
            Token::Open => return Err(Fault::new(place, "this does not end")),
            Token::Word if token.is_word("auth") => match who(&tokens[at..]) {
                Some(who) => {
                    let length = tokens[at..at + CALL].iter().map(|token| token.text.len()).sum();
                    put(&mut text, parameters.len() + 1 + who, length);
                    taken = CALL;
                }
                None => text.sql.push_str(token.text),
            },
            _ => text.sql.push_str(token.text),
        }
        at += taken;
    }
    statements.push(text);
    statements.iter_mut().for_each(|text| text.sql.truncate(text.sql.trim_end().len()));
    statements.retain(|text| !text.sql.is_empty());
    Ok(statements)
}

/// `auth` `.` `uid` `(` `)`
const CALL: usize = 5;

/// Which of [`WHO`] the tokens begin with a call of.
fn who(tokens: &[Lexeme<'_>]) -> Option<usize> {
    let [_, dot, name, open, close, ..] = tokens else { return None };
    let is_call = dot.is_sign(".") && open.is_sign("(") && close.is_sign(")");
    WHO.iter().position(|who| is_call && name.is_word(who))
}

/// Writes a parameter over `length` bytes.
fn put(text: &mut Text, number: usize, length: usize) {
    let parameter = format!("?{number}");
    text.sql.push_str(&format!("{parameter:length$}"));
    text.parameters = text.parameters.max(number);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_read_in_postgresqls_words() {
        let read = function(
            "-- Tasks by their words.\nCREATE OR REPLACE FUNCTION find(project bigint, \"words\" varchar(20) DEFAULT 'it''s', most int = -1)\n\
             RETURNS SETOF tasks LANGUAGE sql STABLE SECURITY DEFINER AS $$\n\
             SELECT * FROM tasks WHERE project = :project AND name <> ':words' -- :nothing ;\n AND owner = auth.uid();\n$$;\n\
             GRANT EXECUTE ON FUNCTION find(bigint, text) TO authenticated, \"x y\"; GRANT EXECUTE ON FUNCTION find TO Public;",
            "find",
        )
        .unwrap();
        assert_eq!((read.signature().as_str(), read.is_volatile), ("find(project, words, most)", false));
        assert_eq!(read.parameters[1].default, Some(Value::Text("it's".into())));
        assert_eq!(read.parameters[2].default, Some(Value::Integer(-1)));
        assert_eq!(read.granted, ["authenticated", "x y", "public"]);
        assert!(matches!(&read.returns, Returns::Table { name, many: true } if name == "tasks"));
        let [statement] = &read.statements[..] else { panic!("{:?}", read.statements) };
        assert_eq!(statement.sql, "SELECT * FROM tasks WHERE project = ?1       AND name <> ':words'              \n AND owner = ?4");
        assert_eq!(statement.parameters, 4);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let with = |body: &str| format!("CREATE FUNCTION f(a int) RETURNS int AS $${body}$$;");
        for (text, at, why) in [
            ("CREATE FUNKTION f", 7, "\"FUNKTION\" where FUNCTION is expected"),
            ("CREATE FUNCTION g() RETURNS int", 16, "belongs into g.sql"),
            ("CREATE FUNCTION f(a strng)", 20, "type \"strng\" does not exist"),
            ("CREATE FUNCTION f(limit int)", 18, "cannot be called limit"),
            ("CREATE FUNCTION f(a int DEFAULT x)", 32, "a default is"),
            ("CREATE FUNCTION f() RETURNS int AS SELECT 1", 35, "between $$ and $$"),
            (&with("SELECT :b"), 49, "there is no parameter b"),
            (&with("SELECT $1"), 49, "written :name"),
            (&with("SELECT 'x"), 49, "does not end"),
            (&with(" -- nothing"), 16, "has no statement"),
            (&format!("{} GRANT EXECUTE ON FUNCTION g TO x;", with("SELECT 1")), 80, "not of g"),
            (&format!("{} x", with("SELECT 1")), 54, "where GRANT is expected"),
        ] {
            let fault = function(text, "f").unwrap_err();
            assert!(fault.at == at && fault.message.contains(why), "{text}: {fault:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(tail in "(RETURNS|TABLE|SETOF|AS|\\$\\$|[a-c(),;:=' -]){0,12}") {
            let _ = function(&format!("CREATE FUNCTION f(a int) {tail}"), "f");
        }
    }
}
