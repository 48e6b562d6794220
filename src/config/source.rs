//! Where the configuration comes from. Four layers, in rising order: the defaults, a TOML file, `TENANTRY_*`
//! variables, flags. They are merged leaf by leaf, and every leaf keeps its [`Origin`], so that an error and
//! `tenantry config` can say which file, variable or flag is meant.
//!
//! Invariants: no key is accepted that nothing reads; a [`Config`] that [`load`] returns satisfies every rule
//! of [`rules`] and its paths are absolute; a secret's value appears in no message and in no [`Leaf`]. The
//! environment is read in [`Ambient::read`] and nowhere else in the program.

mod keys;
mod merge;
mod rules;

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;
use toml::de::{DeTable, DeValue};

use self::merge::Merged;
use crate::config::Config;
use crate::error::{Error, Result};

/// The most bytes a configuration file may have.
const FILE_MAX: u64 = 1 << 20;

/// The file that is read when none is named, if it is in the working directory.
const FILE_DEFAULT: &str = "tenantry.toml";

/// Variables with our prefix that are read for themselves and are no configuration keys.
const NOT_KEYS: [&str; 3] = ["TENANTRY_CONFIG", "TENANTRY_URL", "TENANTRY_ADMIN_KEY"];

/// Everything the configuration is made from.
pub struct Inputs {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--set key=value`, in the order given.
    pub set: Vec<String>,
    pub ambient: Ambient,
}

/// What the process's surroundings say: its `TENANTRY_*` variables and its working directory. An empty
/// variable counts as not set, which is what container files mean by it.
#[derive(Clone)]
pub struct Ambient {
    /// `TENANTRY_URL`: the server that the client commands call.
    pub url: Option<String>,
    /// `TENANTRY_ADMIN_KEY`: the client commands' key, and the first operator's key when a server starts.
    pub admin_key: Option<String>,
    /// What this program was started as, for showing commands that can be pasted.
    pub program: String,
    /// `TENANTRY_CONFIG`.
    file: Option<PathBuf>,
    /// The variables that are configuration keys, by name.
    variables: Vec<(String, String)>,
    /// What relative paths start from.
    dir: PathBuf,
}

impl Ambient {
    pub fn read() -> Result<Ambient> {
        let dir = std::env::current_dir().map_err(|e| {
            Error::bad_request(format!("the working directory cannot be read: {e}")).hint("Start from a folder that exists.")
        })?;
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with("TENANTRY_")) else { continue };
            let value = value.into_string().map_err(|_| {
                Error::bad_request(format!("the variable {name} is not valid UTF-8")).hint("Set it to UTF-8 text, or unset it.")
            })?;
            variables.push((name.to_owned(), value));
        }
        let mut ambient = Ambient::of(dir, variables);
        if let Some(program) = std::env::args().next() {
            ambient.program = program;
        }
        Ok(ambient)
    }

    /// Surroundings made of a folder and variables.
    pub fn of(dir: PathBuf, mut variables: Vec<(String, String)>) -> Ambient {
        variables.retain(|(name, value)| !value.is_empty() && !is_service_link(name, value));
        variables.sort();
        let own = |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        let (url, admin_key, file) = (own("TENANTRY_URL"), own("TENANTRY_ADMIN_KEY"), own("TENANTRY_CONFIG").map(PathBuf::from));
        variables.retain(|(name, _)| !NOT_KEYS.contains(&name.as_str()));
        Ambient { url, admin_key, program: "tenantry".to_owned(), file, variables, dir }
    }
}

/// Whether Kubernetes set this variable: it tells every container about a service called `tenantry` under our
/// own prefix, and that must not keep a server from starting.
fn is_service_link(name: &str, value: &str) -> bool {
    let rest = name.strip_prefix("TENANTRY_").unwrap_or_default();
    rest == "SERVICE_HOST"
        || rest == "SERVICE_PORT"
        || rest.starts_with("SERVICE_PORT_")
        || (rest == "PORT" && value.contains("://"))
        || rest.strip_prefix("PORT_").is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
}

/// What a value was set by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Origin::Variable(name) => write!(f, "variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One effective value. A key that may be absent and is has `null`; a secret is `"(secret)"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    pub key: String,
    pub value: serde_json::Value,
    pub origin: Origin,
}

/// The configuration in force, and where each of its values came from (sorted by key).
#[derive(Debug)]
pub struct Effective {
    pub config: Config,
    pub leaves: Vec<Leaf>,
}

impl Effective {
    /// The origin of one key; [`Origin::Default`] for a key that is not there.
    pub fn origin(&self, key: &str) -> &Origin {
        self.leaves.iter().find(|leaf| leaf.key == key).map_or(&Origin::Default, |leaf| &leaf.origin)
    }
}

/// Reads, merges and checks. The error names the key, what set it and what would be right.
pub fn load(inputs: &Inputs) -> Result<Effective> {
    let mut merged = Merged::defaults();
    if let Some(file) = chosen_file(inputs) {
        apply_file(&mut merged, &file)?;
    }
    for (name, text) in &inputs.ambient.variables {
        let path: Vec<String> = name["TENANTRY_".len()..].split("__").map(str::to_lowercase).collect();
        merged.apply_text(&path, text, Origin::Variable(name.clone()))?;
    }
    apply_flags(&mut merged, inputs)?;

    let mut config = merged.config()?;
    make_absolute(&mut config, &inputs.ambient.dir);
    rules::check(&config, &merged)?;
    let leaves = merged.leaves(&config)?;
    Ok(Effective { config, leaves })
}

fn chosen_file(inputs: &Inputs) -> Option<PathBuf> {
    let dir = &inputs.ambient.dir;
    if let Some(named) = inputs.file.as_ref().or(inputs.ambient.file.as_ref()) {
        return Some(dir.join(named));
    }
    Some(dir.join(FILE_DEFAULT)).filter(|path| path.exists())
}

fn apply_file(merged: &mut Merged, file: &Path) -> Result<()> {
    let unreadable = |why: String| {
        Error::bad_request(format!("the configuration file {} cannot be read: {why}", file.display()))
            .hint("--config or TENANTRY_CONFIG names another one; without them ./tenantry.toml is read if it is there.")
    };
    let bytes = std::fs::metadata(file).map_err(|e| unreadable(e.to_string()))?.len();
    if bytes > FILE_MAX {
        return Err(unreadable(format!("it has {bytes} bytes; the most is {FILE_MAX}")));
    }
    let text = std::fs::read_to_string(file).map_err(|e| unreadable(e.to_string()))?;
    let broken = |e: toml::de::Error| {
        let line = e.span().map_or(1, |span| line_of(&text, span.start));
        Error::bad_request(format!("{}, line {line}: not valid TOML: {}", file.display(), e.message()))
    };
    let values: toml::Table = toml::from_str(&text).map_err(broken)?;
    let places = DeTable::parse(&text).map_err(broken)?;
    let origin =
        |path: &[String]| Origin::File { path: file.to_owned(), line: line_of(&text, offset_of(places.get_ref(), path).unwrap_or(0)) };
    merged.apply(&[], &Value::Table(values), &origin)
}

/// Where in the text the key of `path` stands.
fn offset_of(table: &DeTable<'_>, path: &[String]) -> Option<usize> {
    let (first, mut rest) = path.split_first()?;
    let (key, value) = table.get_key_value(first.as_str())?;
    let mut offset = key.span().start;
    let mut value = value;
    loop {
        match value.get_ref() {
            DeValue::Table(inner) => return offset_of(inner, rest).or(Some(offset)),
            DeValue::Array(items) => {
                let Some((index, deeper)) = rest.split_first() else { return Some(offset) };
                let Some(item) = index.parse().ok().and_then(|i: usize| items.get(i)) else { return Some(offset) };
                (offset, value, rest) = (item.span().start, item, deeper);
            }
            _ => return Some(offset),
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1
}

fn apply_flags(merged: &mut Merged, inputs: &Inputs) -> Result<()> {
    for assignment in &inputs.set {
        let Some((key, text)) = assignment.split_once('=') else {
            return Err(Error::bad_request(format!("--set {assignment}: expected key=value"))
                .hint("For example: --set auth.leeway_s=10. `tenantry config` lists every key."));
        };
        let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
        merged.apply_text(&path, text.trim(), Origin::Flag("--set"))?;
    }
    if let Some(dir) = &inputs.data_dir {
        let text = dir.to_str().ok_or_else(|| Error::bad_request(format!("--data-dir {}: the path is not valid UTF-8", dir.display())))?;
        merged.apply(&["data_dir".to_owned()], &Value::String(text.to_owned()), &|_| Origin::Flag("--data-dir"))?;
    }
    if let Some(listen) = &inputs.listen {
        merged.apply(&["listen".to_owned()], &Value::String(listen.clone()), &|_| Origin::Flag("--listen"))?;
    }
    Ok(())
}

/// Relative paths start from the working directory, whichever layer set them.
fn make_absolute(config: &mut Config, dir: &Path) {
    let issuers = config.auth.issuers.iter_mut().filter_map(|issuer| issuer.jwks_file.as_mut());
    for path in issuers.chain(config.tenants.migrations_dir.as_mut()).chain([&mut config.data_dir]) {
        if !path.as_os_str().is_empty() {
            *path = dir.join(&*path).components().collect();
        }
    }
}

#[cfg(test)]
mod tests;
