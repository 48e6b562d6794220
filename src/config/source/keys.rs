//! The keys that exist. They are read off a serialized [`Config`] in which everything optional is set, so that
//! this list cannot differ from the structs: a key is known exactly when a struct has the field. Two places
//! take names of the user's own: `plans.<name>` and the positions of the list `auth.issuers`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use toml::{Table, Value};

use crate::config::{Config, Issuer};

/// What may stand at a key.
pub(super) enum Shape {
    /// A value; the sample tells its type.
    Leaf(Value),
    Table(BTreeMap<String, Shape>),
    /// A table whose keys are the user's own names.
    Named(Box<Shape>),
    /// A list of tables.
    List(Box<Shape>),
}

static ROOT: LazyLock<Shape> = LazyLock::new(|| shape_of("", &Value::Table(table_of(&sample()))));

/// A configuration with every key in it.
fn sample() -> Config {
    let mut sample = Config::default();
    sample.tenants.migrations_dir = Some("migrations".into());
    sample.telemetry.scrape_key = Some("key".to_owned());
    let some = || Some("text".to_owned());
    sample.auth.issuers.push(Issuer {
        issuer: "text".to_owned(),
        audience: "text".to_owned(),
        jwks_url: some(),
        jwks_file: Some("text".into()),
        hs256_secret: some(),
        tenant_claim: some(),
        role_claim: some(),
        default_scopes: vec!["text".to_owned()],
    });
    sample
}

pub(super) fn table_of(config: &Config) -> Table {
    // Integers beyond what TOML can hold are the only thing that cannot be serialized, and no default is one.
    Table::try_from(config).unwrap_or_default()
}

fn shape_of(key: &str, value: &Value) -> Shape {
    match value {
        Value::Table(fields) if key == "plans" => match fields.get("default") {
            Some(plan) => Shape::Named(Box::new(shape_of("plans.default", plan))),
            None => Shape::Table(BTreeMap::new()),
        },
        Value::Table(fields) => {
            let child = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
            Shape::Table(fields.iter().map(|(name, value)| (name.clone(), shape_of(&child(name), value))).collect())
        }
        Value::Array(items) => match items.first() {
            Some(item @ Value::Table(_)) => Shape::List(Box::new(shape_of(key, item))),
            _ => Shape::Leaf(value.clone()),
        },
        leaf => Shape::Leaf(leaf.clone()),
    }
}

/// The shape at `path`, if there is such a key.
pub(super) fn find(path: &[String]) -> Option<&'static Shape> {
    let mut shape = &*ROOT;
    for segment in path {
        shape = match shape {
            Shape::Leaf(_) => return None,
            Shape::Table(fields) => fields.get(segment)?,
            Shape::Named(inner) => inner,
            Shape::List(inner) => {
                segment.parse::<usize>().ok().filter(|index| index.to_string() == *segment)?;
                inner
            }
        };
    }
    Some(shape)
}

/// Every key, with `<name>` and `<n>` where the user's own names stand.
pub(super) fn all() -> Vec<Vec<String>> {
    fn walk(shape: &Shape, path: &mut Vec<String>, keys: &mut Vec<Vec<String>>) {
        let mut step = |segment: &str, inner: &Shape| {
            path.push(segment.to_owned());
            walk(inner, path, keys);
            path.pop();
        };
        match shape {
            Shape::Leaf(_) => keys.push(path.clone()),
            Shape::Table(fields) => fields.iter().for_each(|(name, inner)| step(name, inner)),
            Shape::Named(inner) => step("<name>", inner),
            Shape::List(inner) => step("<n>", inner),
        }
    }
    let mut keys = Vec::new();
    walk(&ROOT, &mut Vec::new(), &mut keys);
    keys
}

/// The known key that an unknown one most likely stands for. The right field in the wrong table counts for
/// more than a similar spelling.
pub(super) fn nearest(path: &[String]) -> String {
    let wanted = path.join(".");
    let scored = all().into_iter().map(|mut known| {
        for (segment, given) in known.iter_mut().zip(path) {
            if segment.starts_with('<') {
                segment.clone_from(given);
            }
        }
        let field = match (known.last(), path.last()) {
            (Some(known), Some(given)) => strsim::normalized_damerau_levenshtein(known, given),
            _ => 0.0,
        };
        let known = known.join(".");
        let whole = strsim::normalized_damerau_levenshtein(&known, &wanted);
        (whole + field, known)
    });
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known).unwrap_or_default()
}

/// Whether the value of this key is never shown.
pub(super) fn is_secret(path: &[String]) -> bool {
    matches!(path.last().map(String::as_str), Some("hs256_secret" | "scrape_key"))
}

/// Tries one leaf's value in an otherwise valid configuration, so that what is right is said by the very type
/// that will read it. `Err` says what is expected.
pub(super) fn probe(path: &[String], value: &Value) -> Result<(), String> {
    let mut root = Value::Table(table_of(&sample()));
    let mut slot = &mut root;
    for segment in path {
        let next = match slot {
            Value::Table(fields) => {
                let name = if fields.contains_key(segment) { segment } else { "default" };
                fields.get_mut(name)
            }
            Value::Array(items) => items.first_mut(),
            _ => None,
        };
        match next {
            Some(next) => slot = next,
            None => return Err("another key".to_owned()),
        }
    }
    let before = std::mem::replace(slot, value.clone());
    match Config::deserialize(root) {
        Ok(_) => Ok(()),
        Err(e) => Err(expected(&before, e.message())),
    }
}

/// serde's words (`invalid type: string "x", expected u32`) in a person's.
fn expected(sample: &Value, complaint: &str) -> String {
    let (_, wanted) = complaint.rsplit_once("expected ").unwrap_or_default();
    match sample {
        Value::Integer(_) if wanted == "u32" => format!("a whole number from 0 to {}", u32::MAX),
        Value::Integer(_) => "a whole number, 0 or more".to_owned(),
        Value::Array(_) => "a list of strings, such as [\"sql:read\", \"cache\"]".to_owned(),
        Value::String(_) if complaint.contains("socket address") => "an address and a port, such as \"127.0.0.1:8080\"".to_owned(),
        Value::String(_) if complaint.starts_with("unknown variant") => wanted.to_owned(),
        Value::String(_) => "a string".to_owned(),
        _ => wanted.to_owned(),
    }
}
