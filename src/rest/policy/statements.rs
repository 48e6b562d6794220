//! Reads a policy file: a list of statements, each ended by `;`. They declare what holds; nothing is altered or
//! dropped.
//!
//! ```text
//! CREATE POLICY name ON table [AS PERMISSIVE | RESTRICTIVE] [FOR ALL | SELECT | INSERT | UPDATE | DELETE]
//!     [TO role, …] [USING (expr)] [WITH CHECK (expr)];
//! GRANT ALL | SELECT [(column, …)] | INSERT … | UPDATE … | DELETE, … ON [TABLE] table, … TO role, …;
//! CREATE FUNCTION name(parameter [type], …) RETURNS [SETOF] type [LANGUAGE sql] [STABLE]
//!     [SECURITY DEFINER | INVOKER] AS $$ SELECT … $$;
//! ```

use std::sync::Arc;

use super::super::access::Command;
use super::super::lexer::{self, Kind};
use super::super::parser::Fault;
use super::parse::Parser;
use super::tree::{Expr, Function};
use super::vocabulary::RESERVED;
use super::{Grant, Policy, Role};

#[derive(Debug)]
pub enum Statement {
    Policy(Policy),
    Grant(Vec<Grant>),
    Function(Arc<Function>),
    /// Known, and true anyway.
    Nothing,
}

/// The most bytes of one file.
pub const FILE_MAX: usize = 1 << 20;

/// The statements of `text`, each with where it begins; `functions` are those of the files before, and get this one's.
pub fn file(text: &str, file: usize, functions: &mut Vec<Arc<Function>>) -> Result<Vec<(usize, Statement)>, Fault> {
    if text.len() > FILE_MAX {
        return Err(Fault::new(0, format!("a policy file has at most {FILE_MAX} bytes")));
    }
    let mut found = Vec::new();
    let mut start = 0;
    // One at a time, as each may call the functions defined before it.
    let ends = lexer::tokens(text).filter(|token| token.is_sign(";")).map(|token| token.at);
    for end in ends.chain([text.len()]) {
        let known = functions.clone();
        let mut parser = Parser::new(text, (start, end), &RESERVED, &known)?;
        start = end + 1;
        if parser.is_done() {
            continue;
        }
        let at = parser.at();
        let statement = statement(&mut parser, text, file)?;
        parser.end()?;
        if let Statement::Function(function) = &statement {
            if functions.iter().any(|other| other.name.eq_ignore_ascii_case(&function.name)) {
                return Err(Fault::new(at, format!("there is a function {}() already", function.name)));
            }
            functions.push(function.clone());
        }
        found.push((at, statement));
    }
    Ok(found)
}

fn statement(parser: &mut Parser<'_>, text: &str, file: usize) -> Result<Statement, Fault> {
    if parser.eat_words(&["create", "policy"]) {
        return policy(parser).map(Statement::Policy);
    }
    if parser.eat_words(&["grant"]) {
        return grants(parser).map(Statement::Grant);
    }
    if parser.eat_words(&["create", "function"]) || parser.eat_words(&["create", "or", "replace", "function"]) {
        return function(parser, text, file).map(|function| Statement::Function(Arc::new(function)));
    }
    if parser.eat_words(&["alter", "table"]) {
        return row_level_security(parser);
    }
    let history = ["drop", "alter", "revoke"].iter().any(|word| parser.is_word(word));
    let fault = parser.expected("CREATE POLICY, GRANT or CREATE FUNCTION");
    Err(if history { fault.hint("A file says what holds: change the statement itself instead.") } else { fault })
}

/// It is on for every table, and cannot be turned off.
fn row_level_security(parser: &mut Parser<'_>) -> Result<Statement, Fault> {
    parser.eat_words(&["only"]);
    parser.table()?;
    if parser.eat_words(&["enable", "row", "level", "security"]) || parser.eat_words(&["force", "row", "level", "security"]) {
        return Ok(Statement::Nothing);
    }
    Err(parser.expected("ENABLE ROW LEVEL SECURITY").hint("It is on for every table, and cannot be turned off."))
}

fn policy(parser: &mut Parser<'_>) -> Result<Policy, Fault> {
    let name = parser.name("the policy's name")?;
    parser.expect_word("on")?;
    let table_at = parser.at();
    let table = parser.table()?;
    let mut policy =
        Policy { name, table, table_at, file: 0, at: 0, permissive: true, command: None, roles: Vec::new(), using: None, check: None };
    if parser.eat_words(&["as"]) {
        policy.permissive = parser.eat_words(&["permissive"]);
        if !policy.permissive {
            parser.expect_word("restrictive").map_err(|_| parser.expected("PERMISSIVE or RESTRICTIVE"))?;
        }
    }
    if parser.eat_words(&["for"]) && !parser.eat_words(&["all"]) {
        policy.command = Some(command(parser)?);
    }
    if parser.eat_words(&["to"]) {
        policy.roles = parser.list(role)?;
    }
    let at = parser.at();
    if parser.eat_words(&["using"]) {
        if policy.command == Some(Command::Insert) {
            return Err(
                Fault::new(at, "a policy FOR INSERT has no USING").hint("There is no row yet: WITH CHECK (…) says which may be written.")
            );
        }
        policy.using = Some(parenthesized(parser)?);
    }
    let at = parser.at();
    if parser.eat_words(&["with"]) {
        parser.expect_word("check")?;
        if matches!(policy.command, Some(Command::Select | Command::Delete)) {
            return Err(Fault::new(at, "a policy FOR SELECT or DELETE has no WITH CHECK")
                .hint("It writes no row: USING (…) says which rows it is about."));
        }
        policy.check = Some(parenthesized(parser)?);
    }
    if policy.using.is_none() && policy.check.is_none() {
        return Err(parser.expected(if policy.command == Some(Command::Insert) { "WITH CHECK (…)" } else { "USING (…)" }));
    }
    Ok(policy)
}

fn parenthesized(parser: &mut Parser<'_>) -> Result<Expr, Fault> {
    parser.expect("(")?;
    let expr = parser.truth()?;
    parser.expect(")")?;
    Ok(expr)
}

fn command(parser: &mut Parser<'_>) -> Result<Command, Fault> {
    let commands = [("select", Command::Select), ("insert", Command::Insert), ("update", Command::Update), ("delete", Command::Delete)];
    let found = commands.into_iter().find(|(word, _)| parser.eat_words(&[word]));
    found.map(|(_, command)| command).ok_or_else(|| parser.expected("SELECT, INSERT, UPDATE, DELETE or ALL"))
}

fn role(parser: &mut Parser<'_>) -> Result<Role, Fault> {
    let at = parser.at();
    let name = parser.name("a role")?;
    match name.to_ascii_lowercase().as_str() {
        "public" => Ok(Role::Public),
        // What Supabase calls its own.
        "service" | "service_role" => {
            Err(Fault::new(at, "the role service needs no policy").hint("Policies do not hold it back. Name the roles that they are for."))
        }
        _ => Ok(Role::Named(name)),
    }
}

fn grants(parser: &mut Parser<'_>) -> Result<Vec<Grant>, Fault> {
    let privileges = parser.list(|parser| {
        let commands = if parser.eat_words(&["all"]) {
            parser.eat_words(&["privileges"]);
            Command::ALL.to_vec()
        } else {
            vec![command(parser)?]
        };
        let at = parser.at();
        let columns = match parser.eat("(") {
            true => {
                let columns = parser.list(|parser| Ok((parser.at(), parser.name("a column")?)))?;
                parser.expect(")")?;
                Some(columns)
            }
            false => None,
        };
        if columns.is_some() && commands == [Command::Delete] {
            return Err(Fault::new(at, "DELETE is granted on whole rows"));
        }
        Ok((commands, columns))
    })?;
    parser.expect_word("on")?;
    parser.eat_words(&["table"]);
    let tables = parser.list(|parser| Ok((parser.at(), parser.table()?)))?;
    parser.expect_word("to")?;
    let roles = parser.list(role)?;
    let mut grants = Vec::new();
    for (table_at, table) in &tables {
        for (commands, columns) in &privileges {
            let (table, columns, roles) = (table.clone(), columns.clone(), roles.clone());
            grants.push(Grant { table, table_at: *table_at, file: 0, commands: commands.clone(), columns, roles });
        }
    }
    Ok(grants)
}

fn function(parser: &mut Parser<'_>, text: &str, file: usize) -> Result<Function, Fault> {
    let at = parser.at();
    let name = parser.table()?;
    parser.expect("(")?;
    let mut parameters = Vec::new();
    if !parser.eat(")") {
        parameters = parser.list(parameter)?;
        parser.expect(")")?;
    }
    parser.expect_word("returns")?;
    let mut many = parser.eat_words(&["setof"]);
    if parser.eat_words(&["table"]) {
        many = true;
        parser.expect("(")?;
        parameter(parser)?;
        parser.expect(")")?;
    } else {
        parser.type_name()?;
    }
    let (mut definer, mut body) = (false, None);
    while !parser.is_done() {
        if parser.eat_words(&["language"]) {
            parser.expect_word("sql").map_err(|fault| fault.hint("A function is one SELECT."))?;
        } else if parser.eat_words(&["security", "definer"]) {
            definer = true;
        } else if parser.eat_words(&["set", "search_path"]) {
            // There is one schema.
            if !parser.eat("=") {
                parser.expect_word("to")?;
            }
            parser.list(|parser| Ok(parser.advance()))?;
        } else if parser.eat_words(&["as"]) {
            body = Some(query(parser, text)?);
        } else if !parser.eat_words(&["security", "invoker"])
            && !["stable", "immutable", "volatile"].iter().any(|word| parser.eat_words(&[word]))
        {
            return Err(parser.expected("LANGUAGE sql, STABLE, SECURITY DEFINER or AS $$ … $$"));
        }
    }
    let body = body.ok_or_else(|| Fault::new(at, "this function has no body").hint("AS $$ SELECT … $$"))?;
    Ok(Function { name, file, parameters, body, definer, many })
}

/// A name, and its type, of which nothing but that there is one is looked at.
fn parameter(parser: &mut Parser<'_>) -> Result<String, Fault> {
    let name = parser.name("a parameter's name")?;
    if parser.is_name() {
        parser.type_name()?;
    }
    Ok(name)
}

fn query(parser: &mut Parser<'_>, text: &str) -> Result<super::tree::Query, Fault> {
    let body = parser.peek();
    if body.kind != Kind::Dollars {
        return Err(parser.expected("$$ SELECT … $$"));
    }
    parser.advance();
    let inside = body.inside();
    let mut inside = Parser::new(text, (inside, inside + body.plain().len()), &RESERVED, parser.context)?;
    let query = inside.query()?;
    inside.eat(";");
    inside.end()?;
    Ok(query)
}
