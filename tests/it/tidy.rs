//! What a machine can hold of the house's order: which way imports run, where SQL and the environment may
//! stand, how long a file may grow, and that the documents' links lead somewhere.

use std::path::{Path, PathBuf};

/// The layers from the ground up; a module may import from lower layers and from itself. Modules of one layer
/// stay apart, but for the ground, which is small enough to be one.
const LAYERS: &[&[&str]] = &[
    &["error", "clock", "telemetry", "config"],
    &["sqlite"],
    &["system"],
    &["auth"],
    &["tenant"],
    &["sql", "hrana", "rest", "cache", "queue", "locks", "fleet"],
    &["http"],
    &["server"],
    &["cli"],
    &["main", "lib"],
];

const MAX_LINES: usize = 500;

#[test]
fn imports_run_downward_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let from = top_module(&path);
        let rank = rank(&from).unwrap_or_else(|| panic!("{}: the module {from} has no layer; give it one", path.display()));
        for (number, line) in code(&text) {
            for (at, _) in line.match_indices("crate::") {
                let to: String = line[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if to == from || rank == LAYERS.len() - 1 {
                    continue;
                }
                if let Some(other) = self::rank(&to).filter(|&other| other > rank || (other == rank && rank > 0)) {
                    wrong.push(format!("{}:{number}: {from} (layer {rank}) imports {to} (layer {other})", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_is_no_sql_under_http() {
    let words = ["SELECT ", "INSERT INTO", "INSERT OR", "UPDATE ", "DELETE FROM", "CREATE TABLE", "PRAGMA ", "rusqlite", "r2d2"];
    let wrong = lines_with("src", |path, line| path.starts_with("src/http") && words.iter().any(|word| line.contains(word)));
    assert!(wrong.is_empty(), "SQL belongs below http:\n{}", wrong.join("\n"));
}

#[test]
fn the_environment_is_read_in_config_only() {
    let reads = ["std::env", "env::var", "use std::{env"];
    let wrong = lines_with("src", |path, line| !path.starts_with("src/config") && reads.iter().any(|read| line.contains(read)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_a_dumping_ground() {
    let banned = ["mod", "utils", "util", "helpers", "helper", "common", "misc"];
    let mut wrong = Vec::new();
    for (path, text) in sources("src").into_iter().chain(sources("tests")).chain(sources("benches")) {
        let lines = text.lines().count();
        if banned.contains(&path.file_stem().unwrap().to_string_lossy().as_ref()) {
            wrong.push(format!("{}: name it after its noun", path.display()));
        } else if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines; {MAX_LINES} is the most a reader can hold", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_opens_with_the_paragraph_that_defines_its_noun() {
    let all = sources("src").into_iter().chain(sources("tests")).chain(sources("benches"));
    // A noun's `tests.rs` stands beside the noun, which its file has defined.
    let bare: Vec<_> = all.filter(|(path, text)| !path.ends_with("tests.rs") && !text.starts_with("//! ")).map(|(path, _)| path).collect();
    assert!(bare.is_empty(), "begin with `//!`: what it is, and what holds of it: {bare:#?}");
}

#[test]
fn nothing_is_left_for_later() {
    // Spelled apart, so that this file passes its own test.
    let marks =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"], ["todo", "!("], ["unimplemented", "!("], ["dbg", "!("]].map(|mark| mark.concat());
    for folder in ["src", "tests", "benches"] {
        for (path, text) in sources(folder) {
            for (number, line) in text.lines().enumerate() {
                assert!(!marks.iter().any(|mark| line.contains(mark.as_str())), "{}:{}: {line}", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn nothing_is_re_exported_by_glob() {
    let wrong = lines_with("src", |_, line| line.trim_start().starts_with("pub use") && line.contains("::*"));
    assert!(wrong.is_empty(), "name what is exported:\n{}", wrong.join("\n"));
}

#[test]
fn a_handler_never_panics_on_purpose() {
    let panics = [".unwrap()", ".expect(", "panic!(", "unreachable!("];
    let mut wrong = Vec::new();
    for (path, text) in sources("src/http") {
        let product = text.split("#[cfg(test)]").next().unwrap_or("");
        for (number, line) in code(product) {
            if panics.iter().any(|panic| line.contains(panic)) {
                wrong.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_documents_links_lead_somewhere() {
    let mut wrong = Vec::new();
    for path in files(Path::new(""), &|path| path.extension().is_some_and(|ext| ext == "md")) {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or("");
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !root().join(&path).parent().unwrap().join(target).exists() {
                wrong.push(format!("{} → {target}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// `src/http/sql.rs` → `http`.
fn top_module(path: &Path) -> String {
    let first = path.components().nth(1).unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// `path:line: text` of each line of code (not of a comment) that is `wrong`.
fn lines_with(folder: &str, wrong: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources(folder) {
        for (number, line) in code(&text) {
            if wrong(&path, line) {
                found.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    found
}

fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(at, line)| (at + 1, line))
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let found = files(Path::new(folder), &|path| path.extension().is_some_and(|ext| ext == "rs"));
    found.into_iter().map(|path| (path.clone(), std::fs::read_to_string(root().join(&path)).unwrap())).collect()
}

/// Files of the project below `folder`, relative to its root; not what builds and runs leave behind.
fn files(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join(folder)).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = folder.join(&name);
        match entry.file_type().unwrap().is_dir() {
            true if ["target", "node_modules", "__pycache__"].contains(&name.as_str()) || name.starts_with('.') => {}
            true => found.extend(files(&path, wanted)),
            false if wanted(&path) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
