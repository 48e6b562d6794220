//! Whether policies, grants and functions hold on files as the application's migrations make them, each by itself: also
//! those that no role's request would meet, and those that stand behind another one that does not hold.

use std::sync::Arc;

use super::super::expression::identifier;
use super::super::schema::load;
use super::place::Placer;
use super::tree::{Auth, Expr};
use super::{Policies, Policy, Problem, rules};
use crate::error::Result;
use crate::sqlite::Trial;

impl Policies {
    /// What does not hold, each with its place: policies and functions in the order of the files, then grants. Blocking.
    pub fn check(self: &Arc<Policies>, trial: &Trial) -> Result<Vec<Problem>> {
        let schema = load::schema(&trial.reader())?.under(self.clone());
        let mut found: Vec<(usize, usize, Problem)> = Vec::new();
        let compiled = |sql: String| trial.judge(&sql).map(drop).map_err(|flaw| flaw.message);
        for policy in &self.policies {
            // One without its table is among the rules' problems.
            let Some(table) = schema.position(&policy.table) else { continue };
            let name = identifier(&schema.table(table).name);
            for expr in policy.using.iter().chain(&policy.check) {
                let mut placer = Placer::new(self, &schema, policy.first_role());
                let why = match placer.alone(policy, table, expr) {
                    Ok(placed) => compiled(format!("SELECT 1 FROM {name} AS t0 WHERE {}", placed.sql("t0", &mut parameter)))
                        .map_err(|message| placer.whole(policy, &message)),
                    Err(problem) => Err(problem),
                };
                found.extend(why.err().map(|problem| (policy.file, policy.at, problem)));
            }
        }
        for (file, at, function) in &self.functions {
            let caller = Policy::of_function(function, *file, *at);
            let mut placer = Placer::new(self, &schema, None);
            let why = match placer.body(&caller, function) {
                Ok(query) => compiled(format!("SELECT {}", Expr::Scalar(Box::new(query)).sql("t0", &mut parameter))).map_err(|message| {
                    Problem { place: self.place(*file, *at), message: format!("function {}(): {message}", function.name) }
                }),
                Err(problem) => Err(problem),
            };
            found.extend(why.err().map(|problem| (*file, *at, problem)));
        }
        found.sort_by_key(|(file, at, _)| (*file, *at));
        let mut problems: Vec<Problem> = Vec::new();
        for problem in found.into_iter().map(|found| found.2).chain(rules::problems(self, &schema).into_iter().map(|(_, problem)| problem))
        {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        Ok(problems)
    }
}

/// Stands for whatever is asked of a token.
fn parameter(_: &Auth) -> String {
    "?1".to_owned()
}
