//! What the policies hold a write to: which rows it may touch, and what rows are once they are written.

use serde_json::json;

use super::super::access::{self, Command};
use super::super::expression::identifier;
use super::super::render::{Renderer, alias, by_key};
use super::super::schema::Shape;
use super::super::statement::Binder;
use super::super::{execute, refusal};
use super::key::as_count;
use super::{Write, Written};
use crate::error::Result;

impl Write<'_> {
    /// What a row meets that is changed or deleted.
    pub fn touched(&self, renderer: &mut Renderer<'_>, command: Command) -> Result<String> {
        let mut all = self.open(command, &mut renderer.binder)?;
        let open = all.join(" AND ");
        all.extend(renderer.filters(&self.plan.root, Some(open.as_str()).filter(|open| !open.is_empty()))?);
        Ok(all.join(" AND "))
    }

    /// What a row meets that the caller may see, and may change or delete.
    pub fn open(&self, command: Command, binder: &mut Binder) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for command in [Command::Select, command] {
            all.extend(access::using(&self.setting.caller, self.table, command, &alias(&self.plan.root), binder)?);
        }
        Ok(all)
    }

    /// What rows meet once `command` has written them. Those that were there before, or are answered, are also such as
    /// the caller sees.
    pub fn checked(&self, command: Command, binder: &mut Binder) -> Result<Option<String>> {
        let (caller, root) = (&self.setting.caller, alias(&self.plan.root));
        let mut all: Vec<String> = access::check(caller, self.table, command, &root, binder)?.into_iter().collect();
        if command == Command::Update || self.represents() || self.is_located() {
            all.extend(access::using(caller, self.table, Command::Select, &root, binder)?);
        }
        Ok(Some(all.join(" AND ")).filter(|all| !all.is_empty()))
    }

    /// That every row as written, triggers included, is one that the caller may write. A row that is not where it was
    /// written counts as none.
    pub fn check(&self, written: &Written, command: Command) -> Result<()> {
        let held = !self.setting.caller.is_service() && self.wants_keys(command, written.merges)?.key;
        if held && written.keys.len() as u64 != written.rows {
            return Err(refusal::unwritable(self.table, self.setting.caller.is_anonymous()));
        }
        if command != Command::Insert {
            return self.hold(command, &mut written.keys.iter());
        }
        let keys = written.keys.iter().enumerate();
        let is_new = |at: &usize| !written.merged.contains(at) || self.table.shape == Shape::WithoutRowid;
        self.hold(Command::Insert, &mut keys.clone().filter(|(at, _)| is_new(at)).map(|(_, key)| key))?;
        match written.merged.is_empty() {
            true => Ok(()),
            false => self.hold(Command::Update, &mut keys.filter(|(at, _)| written.merged.contains(at)).map(|(_, key)| key)),
        }
    }

    /// That the rows of these keys are such as `command` may write.
    fn hold(&self, command: Command, keys: &mut dyn Iterator<Item = &serde_json::Value>) -> Result<()> {
        let mut binder = Binder::default();
        let root = &self.plan.root;
        let Some(condition) = self.checked(command, &mut binder)? else { return Ok(()) };
        let keys: Vec<_> = keys.collect();
        let bound = binder.bind(json!(keys).to_string());
        let sql = format!(
            "SELECT count(*) FROM json_each({bound}) AS k CROSS JOIN {} AS {} ON {} WHERE {condition}",
            identifier(&self.table.name),
            alias(root),
            by_key(self.table, root)
        );
        let mut held = None;
        execute(self.tx, &binder.reading(sql, &self.setting.caller), |cells| {
            held = cells.iter().next().map(as_count);
            Ok(())
        })?;
        let all = held == Some(keys.len() as i64);
        if all { Ok(()) } else { Err(refusal::unwritable(self.table, self.setting.caller.is_anonymous())) }
    }
}
