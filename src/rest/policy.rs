//! [`Policies`] say which rows of which table a role may see and write: what the application declares in the folder
//! `policies/` beside its migrations, read once at start. Nothing is granted that is not declared.
//!
//! - A command is open to a role once a permissive policy for it names the role. Permissive policies are joined with
//!   OR, restrictive ones with AND.
//! - A role that has a GRANT for a command on a table has that command on the columns which its grants list; without
//!   one, on all.
//! - A condition's sub-selects see what the caller sees of their tables, unless they are in a SECURITY DEFINER function.
//!
//! What a policy means for one schema and one role is settled when both are first met ([`rules`]); a table whose
//! policies name what the schema lacks is closed to everybody they hold for.

mod check;
mod parse;
mod place;
mod print;
pub mod rules;
mod statements;
mod tree;
mod vocabulary;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::access::Command;
use super::parser::{self, Fault};
use crate::error::{Error, Result};
pub use place::Problem;
use statements::Statement;
pub use tree::Auth;
pub use tree::Expr as Condition;
use tree::{Expr, Function, Step};

/// The folder's name, inside that of the migrations.
pub const FOLDER: &str = "policies";

/// Policies and grants in all.
const STATEMENTS_MAX: usize = 2_000;

#[derive(Debug, Default)]
pub struct Policies {
    policies: Vec<Policy>,
    grants: Vec<Grant>,
    /// Each with its file and where it stands there.
    functions: Vec<(usize, usize, Arc<Function>)>,
    /// Every role that is named.
    roles: Vec<String>,
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    /// `policies/0001_tasks.sql`
    name: String,
    text: String,
}

#[derive(Debug)]
pub struct Policy {
    pub name: String,
    table: String,
    table_at: usize,
    file: usize,
    at: usize,
    permissive: bool,
    /// `None`: ALL.
    command: Option<Command>,
    /// Empty: PUBLIC.
    roles: Vec<Role>,
    using: Option<Expr>,
    check: Option<Expr>,
}

/// Commands on a table, or on columns of it.
#[derive(Debug)]
pub struct Grant {
    table: String,
    table_at: usize,
    file: usize,
    commands: Vec<Command>,
    /// With their places.
    columns: Option<Vec<(usize, String)>>,
    roles: Vec<Role>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Everybody.
    Public,
    Named(String),
}

impl Policy {
    fn holds_for(&self, role: Option<&str>, command: Command) -> bool {
        self.command.is_none_or(|own| own == command) && (self.roles.is_empty() || names(&self.roles, role))
    }

    /// One that asks `function`, for what is wrong in that.
    fn of_function(function: &Function, file: usize, at: usize) -> Policy {
        let (name, table) = (function.name.clone(), String::new());
        let (table_at, permissive, command, roles, using, check) = (at, true, None, Vec::new(), None, None);
        Policy { name, table, table_at, file, at, permissive, command, roles, using, check }
    }

    /// One for which it holds; `None` for anybody.
    fn first_role(&self) -> Option<&str> {
        self.roles.iter().find_map(|role| if let Role::Named(name) = role { Some(name.as_str()) } else { None })
    }

    /// What it says of the rows that are there.
    fn using(&self) -> Option<&Expr> {
        self.using.as_ref()
    }

    /// What it says of rows as they are written.
    fn check(&self) -> Option<&Expr> {
        self.check.as_ref().or(self.using.as_ref())
    }
}

fn names(roles: &[Role], role: Option<&str>) -> bool {
    roles.iter().any(|one| match one {
        Role::Public => true,
        Role::Named(name) => Some(name.as_str()) == role,
    })
}

impl Policies {
    /// Those of the folder in `migrations`, in the order of its files' names; none if there is no such folder. Blocking.
    pub fn of_migrations(migrations: Option<&Path>) -> Result<Arc<Policies>> {
        match migrations.map(|migrations| migrations.join(FOLDER)) {
            Some(folder) if !matches!(std::fs::metadata(&folder), Err(error) if error.kind() == ErrorKind::NotFound) => {
                Policies::load(&folder)
            }
            _ => Ok(Arc::default()),
        }
    }

    /// Those of the `.sql` files in `folder`. Blocking.
    pub fn load(folder: &Path) -> Result<Arc<Policies>> {
        let failed = |what: &Path, error: std::io::Error| {
            Error::bad_request(format!("policies: {}: {error}", what.display())).hint("The server reads this folder at start.")
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, error))? {
            let path = entry.map_err(|error| failed(folder, error))?.path();
            if path.extension().is_some_and(|extension| extension == "sql") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let name = path.file_name().map_or_else(Default::default, |name| name.to_string_lossy().into_owned());
            files.push((format!("{FOLDER}/{name}"), std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?));
        }
        Policies::parse(files)
    }

    /// Those of these files, by name and text.
    pub fn parse(files: Vec<(String, String)>) -> Result<Arc<Policies>> {
        let mut policies = Policies::default();
        let mut functions = Vec::new();
        for (name, text) in files {
            let file = policies.files.len();
            let read = statements::file(&text, file, &mut functions);
            policies.files.push(File { name, text });
            for (at, statement) in read.map_err(|fault| policies.error(file, fault))? {
                policies.add(file, at, statement)?;
            }
        }
        policies.refuse_recursion()?;
        Ok(Arc::new(policies))
    }

    /// Whether nothing holds roles back: there is neither a policy nor a grant.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.grants.is_empty()
    }

    /// How many policies and grants.
    pub fn len(&self) -> (usize, usize) {
        (self.policies.len(), self.grants.len())
    }

    /// Every role that is named, and the number by which it is asked for ([`rules::seen_by`]); the first is nobody in
    /// particular.
    pub fn role(&self, name: &str) -> usize {
        self.roles.iter().position(|role| role == name).map_or(0, |at| at + 1)
    }

    fn role_name(&self, role: usize) -> Option<&str> {
        role.checked_sub(1).and_then(|at| self.roles.get(at)).map(String::as_str)
    }

    pub fn role_count(&self) -> usize {
        self.roles.len() + 1
    }

    /// The policies that hold on `table` for a role and a command, in their order.
    pub fn named<'p>(&'p self, table: &'p str, role: &str, command: Command) -> Vec<&'p str> {
        self.of_table(table).filter(|policy| policy.holds_for(Some(role), command)).map(|policy| policy.name.as_str()).collect()
    }

    fn of_table<'p>(&'p self, table: &'p str) -> impl Iterator<Item = &'p Policy> {
        self.policies.iter().filter(move |policy| policy.table.eq_ignore_ascii_case(table))
    }

    fn add(&mut self, file: usize, at: usize, statement: Statement) -> Result<()> {
        let too_many = || Fault::new(at, format!("there are more than {STATEMENTS_MAX} policies and grants"));
        if self.policies.len() + self.grants.len() >= STATEMENTS_MAX {
            return Err(self.error(file, too_many()));
        }
        match statement {
            Statement::Policy(policy) => {
                if let Some(other) = self.of_table(&policy.table).find(|other| other.name == policy.name) {
                    let message =
                        format!("there is a policy {:?} on {} already, in {}", policy.name, policy.table, self.place(other.file, other.at));
                    return Err(self.error(file, Fault::new(at, message)));
                }
                self.add_roles(&policy.roles);
                self.policies.push(Policy { file, at, ..policy });
            }
            Statement::Grant(grants) => {
                for grant in grants {
                    self.add_roles(&grant.roles);
                    self.grants.push(Grant { file, ..grant });
                }
            }
            Statement::Function(function) => self.functions.push((file, at, function)),
            Statement::Nothing => {}
        }
        Ok(())
    }

    fn add_roles(&mut self, roles: &[Role]) {
        for role in roles {
            if let Role::Named(name) = role
                && !self.roles.contains(name)
            {
                self.roles.push(name.clone());
            }
        }
    }

    /// `policies/0001_tasks.sql:3:14`, columns in characters.
    fn place(&self, file: usize, at: usize) -> String {
        let File { name, text } = &self.files[file];
        let (line, column) = parser::place(text, at);
        format!("{name}:{line}:{column}")
    }

    fn error(&self, file: usize, fault: Fault) -> Error {
        Error::bad_request(format!("{}: {}", self.place(file, fault.at), fault.message))
            .hint(fault.hint.unwrap_or("docs/policies.md has the grammar."))
    }

    /// A policy that asks for the rows of a table asks that table's policies. It must not come back to itself.
    fn refuse_recursion(&self) -> Result<()> {
        for role in 0..self.role_count() {
            let role = self.role_name(role);
            for policy in &self.policies {
                let mut path = Vec::new();
                if self.comes_back(role, &policy.table, &mut path) {
                    path.push(policy.table.as_str());
                    let fault = Fault::new(policy.at, format!("the policies of {} ask for themselves", path.join(" → ")));
                    return Err(self.error(
                        policy.file,
                        fault.hint("A sub-select sees what the policies of its table let it see. Put it in a SECURITY DEFINER function: that sees all rows."),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether the SELECT policies of `path`'s first table ask for its rows again. `path` gets the way there.
    fn comes_back<'p>(&'p self, role: Option<&str>, table: &'p str, path: &mut Vec<&'p str>) -> bool {
        if let Some(first) = path.first() {
            if first.eq_ignore_ascii_case(table) {
                return true;
            }
            // Another table's circle, which is found when that table is first.
            if path.iter().any(|one| one.eq_ignore_ascii_case(table)) {
                return false;
            }
        }
        path.push(table);
        let asked = self.of_table(table).filter(|policy| policy.holds_for(role, Command::Select)).filter_map(Policy::using);
        let mut tables = Vec::new();
        asked.for_each(|expr| expr.tables(&mut tables));
        tables.sort_unstable();
        tables.dedup();
        if tables.into_iter().any(|table| self.comes_back(role, table, path)) {
            return true;
        }
        path.pop();
        false
    }
}

impl Auth {
    /// What the claims say: `sub`, the role, or what their path leads to, with `->>` as text.
    pub fn of(&self, sub: &str, role: &str, payload: &str, is_anonymous: bool) -> rusqlite::types::Value {
        use rusqlite::types::Value;
        let found = match self {
            // Nobody signed in.
            Auth::Uid if is_anonymous => None,
            Auth::Uid => Some(sub.to_owned()),
            Auth::Role => Some(role.to_owned()),
            Auth::Jwt { path, .. } if path.is_empty() => Some(payload.to_owned()),
            Auth::Jwt { path, as_text } => {
                let claims: serde_json::Value = serde_json::from_str(payload).unwrap_or_default();
                let found = path.iter().try_fold(&claims, |at, step| match step {
                    Step::Key(key) => at.get(key),
                    Step::Index(index) => at.get(usize::try_from(*index).ok()?),
                });
                match found {
                    None => None,
                    Some(serde_json::Value::Null) if *as_text => None,
                    Some(serde_json::Value::String(text)) if *as_text => Some(text.clone()),
                    Some(value) => Some(value.to_string()),
                }
            }
        };
        found.map_or(Value::Null, Value::Text)
    }
}

#[cfg(test)]
mod tests;
