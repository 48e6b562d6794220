//! The merge: a flat map from key to value and origin. A later layer replaces single leaves, with two
//! exceptions that follow from what they are: naming a new plan brings in the plan's defaults, and setting
//! `auth.issuers` as a whole replaces the list (a single field of an entry is `auth.issuers.0.hs256_secret`).

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

use super::keys::{self, Shape};
use super::{Leaf, Origin};
use crate::config::{Config, Issuer, Plan};
use crate::error::{Error, Result};

const ISSUER_NEEDS: &str = "An issuer needs `issuer`, `audience`, and one of `jwks_url`, `jwks_file` and `hs256_secret`.";

pub(super) struct Merged {
    leaves: BTreeMap<Vec<String>, (Value, Origin)>,
}

impl Merged {
    pub(super) fn defaults() -> Merged {
        let mut merged = Merged { leaves: BTreeMap::new() };
        merged.add_defaults(&[], Value::Table(keys::table_of(&Config::default())));
        merged
    }

    fn add_defaults(&mut self, path: &[String], value: Value) {
        match value {
            Value::Table(fields) => fields.into_iter().for_each(|(name, value)| self.add_defaults(&child(path, &name), value)),
            Value::Array(items) if matches!(keys::find(path), Some(Shape::List(_))) && items.is_empty() => {}
            leaf => {
                self.leaves.insert(path.to_vec(), (leaf, Origin::Default));
            }
        }
    }

    /// Sets what `value` holds at `path`, leaf by leaf; `origin` tells where each came from.
    pub(super) fn apply(&mut self, path: &[String], value: &Value, origin: &dyn Fn(&[String]) -> Origin) -> Result<()> {
        let Some(shape) = keys::find(path) else { return Err(unknown(path, &origin(path))) };
        match (shape, value) {
            (Shape::Leaf(_), value) => {
                self.begin_entry(path, &origin(path))?;
                keys::probe(path, value).map_err(|expected| wrong_type(path, value, &origin(path), &expected))?;
                self.leaves.insert(path.to_vec(), (value.clone(), origin(path)));
                Ok(())
            }
            (Shape::List(_), Value::Array(items)) => {
                self.leaves.retain(|key, _| !key.starts_with(path));
                items.iter().enumerate().try_for_each(|(i, item)| {
                    let entry = child(path, &i.to_string());
                    if item.as_table().is_some_and(Table::is_empty) {
                        return Err(Error::bad_request(format!("`{}` ({}) is empty", entry.join("."), origin(&entry))).hint(ISSUER_NEEDS));
                    }
                    self.apply(&entry, item, origin)
                })
            }
            (Shape::Table(_) | Shape::Named(_), Value::Table(fields)) => {
                if !path.is_empty() {
                    self.begin_entry(path, &origin(path))?;
                }
                fields.iter().try_for_each(|(name, value)| self.apply(&child(path, name), value, origin))
            }
            (Shape::List(_), value) => Err(wrong_type(path, value, &origin(path), "a list of tables")),
            (_, value) => Err(wrong_type(path, value, &origin(path), "a table of keys")),
        }
    }

    /// Like [`Merged::apply`] for a variable's or flag's text, which is read as the key's type wants: as it
    /// stands where a string belongs (unless it is quoted), else as a TOML value.
    pub(super) fn apply_text(&mut self, path: &[String], text: &str, origin: Origin) -> Result<()> {
        let takes_text = matches!(keys::find(path), Some(Shape::Leaf(Value::String(_))));
        let as_it_stands = takes_text && !text.starts_with(['"', '\'']);
        let value = match text.parse::<Value>() {
            Ok(value) if !as_it_stands => value,
            _ => Value::String(text.to_owned()),
        };
        self.apply(path, &value, &|_| origin.clone())
    }

    /// The first key of a plan brings in the plan's defaults; an issuer's comes in the list's order.
    fn begin_entry(&mut self, path: &[String], origin: &Origin) -> Result<()> {
        let [first, second, rest @ ..] = path else { return Ok(()) };
        if first == "plans" && !self.leaves.keys().any(|key| key.starts_with(&path[..2])) {
            let name_is_right = second.len() <= 63
                && second.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && second.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
            if !name_is_right {
                return Err(Error::bad_request(format!("`{second}` ({origin}) cannot be a plan's name"))
                    .hint("A plan's name has 1 to 63 lower-case letters, digits, `-` and `_`, and begins with a letter or digit."));
            }
            let plan = Value::try_from(Plan::default()).unwrap_or(Value::Table(Table::new()));
            self.add_defaults(&path[..2], plan);
        }
        if let (true, [index, ..]) = (first == "auth" && second == "issuers", rest) {
            let count = self.issuers().len();
            if index.parse::<usize>().is_ok_and(|i| i > count) {
                return Err(Error::bad_request(format!("`{}` ({origin}): the next entry of auth.issuers is {count}", path.join(".")))
                    .hint("Entries are counted from 0, without gaps."));
            }
        }
        Ok(())
    }

    /// What set `key`.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        self.leaves.iter().find(|(known, _)| known.starts_with(&path)).map_or(Origin::Default, |(_, (_, origin))| origin.clone())
    }

    fn issuers(&self) -> BTreeMap<usize, Table> {
        let mut issuers: BTreeMap<usize, Table> = BTreeMap::new();
        for (path, (value, _)) in &self.leaves {
            if let [auth, list, index, field] = path.as_slice()
                && auth == "auth"
                && list == "issuers"
                && let Ok(index) = index.parse()
            {
                issuers.entry(index).or_default().insert(field.clone(), value.clone());
            }
        }
        issuers
    }

    /// The merged configuration as its types.
    pub(super) fn config(&self) -> Result<Config> {
        let mut root = Table::new();
        for (path, (value, _)) in &self.leaves {
            if path.starts_with(&["auth".to_owned(), "issuers".to_owned()]) {
                continue;
            }
            let Some((field, tables)) = path.split_last() else { continue };
            let mut table = &mut root;
            for name in tables {
                let slot = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
                match slot {
                    Value::Table(inner) => table = inner,
                    _ => return Err(Error::bad_request(format!("`{}` is set both as a value and as a table", path.join(".")))),
                }
            }
            table.insert(field.clone(), value.clone());
        }
        let whole = |e: toml::de::Error| Error::bad_request(format!("the configuration cannot be read: {}", e.message()));
        let mut config = Config::deserialize(root).map_err(whole)?;
        for (index, fields) in self.issuers() {
            let key = format!("auth.issuers.{index}");
            let issuer = Issuer::deserialize(fields)
                .map_err(|e| Error::bad_request(format!("`{key}` ({}): {}", self.origin(&key), e.message())).hint(ISSUER_NEEDS))?;
            config.auth.issuers.push(issuer);
        }
        Ok(config)
    }

    /// Each effective value as it is shown: paths as `config` has them (absolute), secrets hidden, and `null`
    /// for what may be absent and is.
    pub(super) fn leaves(&self, config: &Config) -> Result<Vec<Leaf>> {
        let mut leaves: BTreeMap<String, Leaf> = BTreeMap::new();
        for path in keys::all().into_iter().filter(|path| !path.iter().any(|segment| segment.starts_with('<'))) {
            let key = path.join(".");
            leaves.insert(key.clone(), Leaf { key, value: serde_json::Value::Null, origin: Origin::Default });
        }
        let shown = keys::table_of(config);
        for (path, (value, origin)) in &self.leaves {
            let value = if keys::is_secret(path) { "(secret)".into() } else { json(at(&shown, path).unwrap_or(value))? };
            let key = path.join(".");
            leaves.insert(key.clone(), Leaf { key, value, origin: origin.clone() });
        }
        Ok(leaves.into_values().collect())
    }
}

fn at<'a>(table: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(first)?, |value, segment| match value {
        Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
        value => value.get(segment.as_str()),
    })
}

fn json(value: &Value) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| Error::internal("a configuration value as JSON", &e))
}

fn child(path: &[String], name: &str) -> Vec<String> {
    let mut path = path.to_vec();
    path.push(name.to_owned());
    path
}

fn unknown(path: &[String], origin: &Origin) -> Error {
    Error::bad_request(format!("unknown configuration key `{}` ({origin})", path.join(".")))
        .hint(format!("Did you mean `{}`? `tenantry config` lists every key.", keys::nearest(path)))
}

fn wrong_type(path: &[String], value: &Value, origin: &Origin, expected: &str) -> Error {
    // What stands where a table belongs may have a secret anywhere in it.
    let shows = matches!(keys::find(path), Some(Shape::Leaf(_))) && !keys::is_secret(path);
    let got = if shows { value.to_string() } else { format!("a value of type {}", value.type_str()) };
    Error::bad_request(format!("`{}` ({origin}): expected {expected}, got {got}", path.join(".")))
}
