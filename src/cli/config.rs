//! `tenantry config`: each effective value and what set it.

use serde_json::{Value, json};

use super::{Global, print};
use crate::config::source::{Ambient, Leaf};
use crate::error::Result;

pub fn run(global: &Global) -> Result<()> {
    let effective = global.effective(Ambient::read()?)?;
    if global.json {
        let leaf = |leaf: &Leaf| json!({ "key": leaf.key, "value": leaf.value, "origin": leaf.origin.to_string() });
        print::line(&json!({ "config": effective.leaves.iter().map(leaf).collect::<Vec<_>>() }).to_string());
        return Ok(());
    }
    let row = |leaf: &Leaf| {
        let value = match &leaf.value {
            Value::Null => "(not set)".to_owned(),
            value => value.to_string(),
        };
        vec![leaf.key.clone(), value, leaf.origin.to_string()]
    };
    print::line(&print::table(&["KEY", "VALUE", "FROM"], &effective.leaves.iter().map(row).collect::<Vec<_>>()));
    Ok(())
}
