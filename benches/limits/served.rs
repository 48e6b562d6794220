//! The two servers, as child processes of the bench: this program again, told by an argument which one to be. Both run
//! actix-web with the same number of workers, and say on stdout where they listen.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpResponse, HttpServer};
use serde::{Deserialize, Serialize};
use tenantry::cli::load::host::{Usage, usage};
use tenantry::cli::load::wire::Target;
use tenantry::config::{Config, Level, Plan};

/// The operator's key of every Tenantry here.
pub const KEY: &str = "the-operator-of-the-benches";

/// What the bare server answers to one kind of request.
#[derive(Clone, Serialize, Deserialize)]
pub struct Canned {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

pub type Answers = HashMap<String, Canned>;

/// A server in a process of its own, killed with this value.
pub struct Served {
    child: Child,
    pub target: Target,
}

impl Served {
    pub fn start(args: &[&str]) -> Served {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        let mut child = command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a child process");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its stdout")).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("no address but {line:?}"));
        Served { target: Target::parse(url).expect("an address"), child }
    }

    /// What its process takes of the machine.
    pub fn usage(&self) -> Usage {
        usage(self.child.id()).expect("it runs")
    }

    /// Stops it in good order.
    pub fn stop(mut self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM).expect("a signal");
        assert!(self.child.wait().expect("its end").success(), "a server ended badly");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bare server: reads the request's body, as any handler does, and returns what it was given for this path.
pub fn bare(answers: &Path) {
    let answers: Answers = serde_json::from_slice(&std::fs::read(answers).expect("the answers")).expect("JSON");
    let held: HashMap<String, (StatusCode, String, Bytes)> = answers
        .into_iter()
        .map(|(name, canned)| {
            (name, (StatusCode::from_u16(canned.status).expect("a status"), canned.content_type, Bytes::from(canned.body)))
        })
        .collect();
    let held = Data::new(held);
    actix_web::rt::System::new().block_on(async move {
        let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get());
        let server = HttpServer::new(move || App::new().app_data(held.clone()).route("/{name}", web::route().to(answer)));
        let server = server.workers(workers).bind("127.0.0.1:0").expect("a port");
        say(&format!("listening on http://{}", server.addrs()[0]));
        server.run().await.expect("a server");
    });
}

async fn answer(name: web::Path<String>, _body: Bytes, answers: Data<HashMap<String, (StatusCode, String, Bytes)>>) -> HttpResponse {
    match answers.get(name.as_str()) {
        Some((status, content_type, body)) => HttpResponse::build(*status).content_type(content_type.as_str()).body(body.clone()),
        None => HttpResponse::NotFound().finish(),
    }
}

/// Tenantry, as it is deployed; only its plan lets one tenant have every connection.
pub fn tenantry(data_dir: &Path, level: Level, descriptors: u64, forgetful: bool) {
    let mut config = Config { data_dir: data_dir.to_owned(), listen: "127.0.0.1:0".parse().expect("an address"), ..Config::default() };
    "warn".clone_into(&mut config.telemetry.log);
    config.durability.database = level;
    config.durability.queue = level;
    config.sqlite.descriptors = descriptors;
    if forgetful {
        config.cache.memory_bytes = 0;
    }
    config.plans.insert("default".to_owned(), Plan { concurrent_statements: 0, ..Plan::default() });
    let running = tenantry::server::start(config, Some(KEY.to_owned())).expect("a server");
    say(&format!("listening on http://{}", running.addr));
    running.wait().expect("a good end");
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("a reader");
}
