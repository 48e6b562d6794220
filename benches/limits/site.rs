//! The [`Site`]: both servers running, tenants with rows in Tenantry, and beside them files of the same content that only
//! rusqlite opens.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry::cli::load::host::Usage;
use tenantry::cli::load::wire::{self, Caller, Target};
use tenantry::tenant::Role;

use crate::client::{Client, ask};
use crate::local::{Files, SCHEMA};
use crate::served::{Answers, Canned, KEY, Served};
use crate::{Args, tell};
use crate::{alone, rows};

/// Tenants made by one call while the site is built.
const BATCH: usize = 50;

pub struct Site {
    pub client: Client,
    pub tenantry: Tenantry,
    /// The same with files that commit at NORMAL.
    pub normal: Option<Tenantry>,
    pub bare: Served,
    /// One tenant's without memory in front of its cache file.
    pub forgetful: Option<Tenantry>,
    /// Files like the tenants' databases, caches and queues.
    pub files: Files,
    pub caches: Files,
    pub queues: Files,
    pub scratch: TempDir,
}

/// A Tenantry with its tenants.
pub struct Tenantry {
    served: Option<Served>,
    dir: PathBuf,
    level: &'static str,
    /// Descriptors its databases may hold; 0 for what the process may have.
    descriptors: u64,
    forgetful: bool,
    pub tenants: Vec<Member>,
}

pub struct Member {
    pub caller: Caller,
}

impl Site {
    pub fn build(args: &Args) -> Site {
        let scratch = tempfile::Builder::new().prefix("limits-").tempdir_in(target_dir()).expect("a folder");
        tell(&format!("provisioning {} tenants", args.tenants.unwrap_or(200)));
        let tenants = args.tenants.unwrap_or(200);
        let tenantry = Tenantry::build(scratch.path().join("full"), "full", tenants);
        let normal = args.wants("insert-many-normal").then(|| Tenantry::build(scratch.path().join("normal"), "normal", tenants));
        let forgetful = args.wants("cache-get-file").then(|| Tenantry::forgetful(scratch.path().join("forgetful")));
        let answers: Answers = rows::canned(&tenantry);
        let file = scratch.path().join("answers.json");
        std::fs::write(&file, serde_json::to_vec(&answers).expect("JSON")).expect("a file");
        let bare = Served::start(&["--serve-bare", path(&file)]);
        let local = |role: &str| scratch.path().join("local").join(role);
        let files = Files::make(&local("database"), tenants);
        let caches = Files::of(&local("cache"), Role::Cache, "OFF", 1, alone::make_cache);
        let queues = Files::of(&local("queue"), Role::Queue, "FULL", tenants, alone::make_queue);
        let client = Client { connections: args.connections, slice: args.slice() };
        Site { client, tenantry, normal, forgetful, bare, files, caches, queues, scratch }
    }
}

impl Tenantry {
    pub fn build(dir: PathBuf, level: &'static str, tenants: usize) -> Tenantry {
        Tenantry::empty(dir, level).with(tenants)
    }

    /// One with one tenant and no memory in front of its cache file.
    fn forgetful(dir: PathBuf) -> Tenantry {
        Tenantry { forgetful: true, ..Tenantry::stopped(dir, "full") }.started().with(1)
    }

    fn with(self, tenants: usize) -> Tenantry {
        let mut tenantry = self;
        for from in (0..tenants).step_by(BATCH) {
            let slugs: Vec<String> = (from..tenants.min(from + BATCH)).map(|at| format!("bench-{at}")).collect();
            for token in tenantry.provision(&slugs) {
                let caller = Caller::new(tenantry.target(), &token);
                let body = json!({ "script": SCHEMA }).to_string();
                let made = ask(tenantry.target(), |request| wire::post(request, &caller, "/v1/sql", body.as_bytes()));
                assert_eq!(made.0, 200, "{}", String::from_utf8_lossy(&made.1));
                tenantry.tenants.push(Member { caller });
            }
        }
        tenantry
    }

    /// One without tenants.
    pub fn empty(dir: PathBuf, level: &'static str) -> Tenantry {
        Tenantry::stopped(dir, level).started()
    }

    fn stopped(dir: PathBuf, level: &'static str) -> Tenantry {
        Tenantry { served: None, dir, level, descriptors: 0, forgetful: false, tenants: Vec::new() }
    }

    fn started(mut self) -> Tenantry {
        self.start();
        self
    }

    pub fn start(&mut self) {
        let descriptors = self.descriptors.to_string();
        let mut args = vec!["--serve-tenantry", path(&self.dir), "--level", self.level, "--descriptors", &descriptors];
        args.extend(self.forgetful.then_some("--forgetful"));
        self.served = Some(Served::start(&args));
    }

    /// With other descriptors, and every file closed.
    pub fn restart(&mut self, descriptors: u64) {
        self.stop();
        self.descriptors = descriptors;
        self.start();
    }

    pub fn usage(&self) -> Usage {
        self.served.as_ref().expect("it runs").usage()
    }

    pub fn stop(&mut self) {
        if let Some(served) = self.served.take() {
            served.stop();
        }
    }

    pub fn target(&self) -> &Target {
        &self.served.as_ref().expect("it runs").target
    }

    /// Makes tenants in one call: their tokens.
    pub fn provision(&self, slugs: &[String]) -> Vec<String> {
        let wishes: Vec<_> = slugs.iter().map(|slug| json!({ "slug": slug, "name": slug })).collect();
        let body = json!({ "tenants": wishes }).to_string();
        let operator = Caller::new(self.target(), KEY);
        let (status, body) = ask(self.target(), |request| wire::post(request, &operator, "/admin/v1/tenants:batch", body.as_bytes()));
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(status, 200, "{answer}");
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        let results = answer["results"].as_array().expect("results");
        results.iter().map(|result| text(&result["token"])).collect()
    }

    /// What it answers to the request, for the bare server to answer the same.
    pub fn sample(&self, status: u16, content_type: &str, build: impl FnOnce(&mut Vec<u8>)) -> Canned {
        let (answered, body) = ask(self.target(), build);
        assert_eq!(answered, status, "{}", String::from_utf8_lossy(&body));
        Canned { status, content_type: content_type.to_owned(), body: String::from_utf8(body).expect("text") }
    }
}

/// On the disk that builds are on: a folder for temporary files may be memory, which flushes nothing.
pub fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("this program has a path");
    exe.parent().and_then(Path::parent).expect("it is in target/release/deps").to_owned()
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("a path of plain text")
}
