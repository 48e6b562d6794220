//! The real binary, started, killed, stopped and started again on a directory of its own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{Client, TenantClient, Wire};
use super::{SOON, binary, eventually, unique, within};

/// The operator's key of every server here.
pub const ADMIN_KEY: &str = "an-operator-key-for-tests-only";

/// What a server is started with, beside its directory and port 0.
#[derive(Default)]
pub struct Settings {
    flags: Vec<String>,
    env: Vec<(String, Option<String>)>,
    files: Option<u64>,
    /// The directory to serve; one of its own when absent.
    dir: Option<PathBuf>,
}

impl Settings {
    /// A configuration key, as `--set key=value`.
    pub fn set(&mut self, key: &str, value: impl std::fmt::Display) -> &mut Self {
        self.flag("--set").flag(&format!("{key}={value}"))
    }

    pub fn flag(&mut self, flag: &str) -> &mut Self {
        self.flags.push(flag.to_owned());
        self
    }

    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.push((name.to_owned(), Some(value.to_owned())));
        self
    }

    pub fn without_env(&mut self, name: &str) -> &mut Self {
        self.env.push((name.to_owned(), None));
        self
    }

    pub fn dir(&mut self, dir: &Path) -> &mut Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// The most files the process may have open.
    pub fn descriptor_limit(&mut self, limit: u64) -> &mut Self {
        self.files = Some(limit);
        self
    }
}

pub struct Server {
    settings: Settings,
    dir: PathBuf,
    /// Where it runs, so that no configuration file of the machine is picked up; removed at the end.
    _home: TempDir,
    child: Option<Running>,
    log: Arc<Mutex<String>>,
    wire: Arc<Wire>,
}

struct Running {
    child: Child,
    stdout: Arc<Mutex<String>>,
}

impl Server {
    /// A server with the default configuration.
    pub fn start() -> Server {
        Server::with(|_| {})
    }

    /// A server configured by `settings`.
    #[track_caller]
    pub fn with(settings: impl FnOnce(&mut Settings)) -> Server {
        let mut server = Server::stopped(settings);
        server.start_again();
        server
    }

    /// A server that is not started yet.
    pub fn stopped(settings: impl FnOnce(&mut Settings)) -> Server {
        let home = tempfile::tempdir().unwrap();
        let mut with = Settings::default();
        // On a busy machine what takes its time takes longer.
        with.set("plans.default.statement_ms", 60_000);
        settings(&mut with);
        let dir = with.dir.clone().unwrap_or_else(|| home.path().join("data"));
        Server { settings: with, dir, _home: home, child: None, log: Arc::default(), wire: Wire::new() }
    }

    /// The server that tests share which need no configuration of their own; make tenants of your own on it.
    /// It makes the indexes that embeds want, and is never stopped: it dies with the test process.
    pub fn shared() -> Shared {
        static SHARED: OnceLock<Server> = OnceLock::new();
        let server = SHARED.get_or_init(|| {
            Server::with(|with| {
                with.set("rest.unindexed_embeds", "index");
            })
        });
        Shared { server, logged: server.log().len() }
    }

    /// Starts it (again) on its directory, and waits until it accepts. Clients made earlier follow it.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let (running, lines) = self.spawn();
        let stdout = running.stdout.clone();
        self.child = Some(running);
        let base = loop {
            match lines.recv_timeout(SOON) {
                Ok(line) => match line.strip_prefix("listening on ") {
                    Some(base) => break base.to_owned(),
                    None => continue,
                },
                Err(_) => panic!("no listening line; stdout: {}; log: {}", stdout.lock().unwrap(), self.log()),
            }
        };
        assert!(base.starts_with("http://") && !base.ends_with(":0"), "listening on {base}");
        self.wire.leads_to(&base);
    }

    fn spawn(&self) -> (Running, Receiver<String>) {
        let mut child = spawn(self.command());
        let stdout = Arc::new(Mutex::new(String::new()));
        let (tell, lines) = channel();
        keep(child.stdout.take().unwrap(), stdout.clone(), Some(tell));
        keep(child.stderr.take().unwrap(), self.log.clone(), None);
        (Running { child, stdout }, lines)
    }

    /// `tenantry serve` as this server would run it.
    pub fn command(&self) -> Command {
        let mut command = binary();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&self.dir).args(&self.settings.flags);
        command.env("TENANTRY_ADMIN_KEY", ADMIN_KEY).env("RUST_BACKTRACE", "1").env("NO_COLOR", "1");
        for (name, value) in &self.settings.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(self._home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let files = self.settings.files;
        // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                if let Some(files) = files {
                    let limit = rustix::process::Rlimit { current: Some(files), maximum: Some(files) };
                    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
                }
                Ok(())
            });
        }
        command
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&mut self) {
        let mut running = self.child.take().expect("it is running");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }

    /// Waits until a request of a tenant is being worked on.
    #[track_caller]
    pub fn until_at_work(&self) {
        let leases = || self.admin().get("/admin/v1/health").expect(200).json()["triples"]["leases"].as_u64();
        eventually("a tenant's request is worked on", || leases().filter(|&leases| leases > 0));
    }

    /// Sends SIGTERM without waiting.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// After it was made to stand still.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child.as_ref().expect("it is running").child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let mut running = self.child.take().expect("it is running");
        within(2 * SOON, "the server ends", || running.child.try_wait().unwrap())
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn sigterm(&mut self) -> ExitStatus {
        self.terminate();
        self.ended()
    }

    /// Stops it in good order, which it must manage.
    #[track_caller]
    pub fn stop(&mut self) {
        let status = self.sigterm();
        assert!(status.success(), "SIGTERM ended it with {status}; log: {}", self.log());
    }

    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// A client without any key.
    pub fn anyone(&self) -> Client {
        Client::new(&self.wire, None)
    }

    /// The operator.
    pub fn admin(&self) -> Client {
        Client::new(&self.wire, Some(ADMIN_KEY))
    }

    /// A fresh tenant on the default plan; its slug begins with `stem`.
    #[track_caller]
    pub fn tenant(&self, stem: &str) -> TenantClient {
        self.provision(json!({ "slug": unique(stem), "name": stem }))
    }

    /// A fresh tenant on a plan.
    #[track_caller]
    pub fn tenant_on(&self, plan: &str, stem: &str) -> TenantClient {
        self.provision(json!({ "slug": unique(stem), "name": stem, "plan": plan }))
    }

    #[track_caller]
    pub fn provision(&self, body: Value) -> TenantClient {
        self.tenant_of(&self.admin().post("/admin/v1/tenants", body).expect(201).json())
    }

    /// The tenant in an answer `{"tenant":{…},"token"}`.
    #[track_caller]
    pub fn tenant_of(&self, answer: &Value) -> TenantClient {
        TenantClient::of(&self.wire, answer)
    }

    /// A tenant of another server whose data this one has.
    pub fn known(&self, tenant: &TenantClient) -> TenantClient {
        TenantClient::of(&self.wire, &json!({ "tenant": { "id": tenant.id, "slug": tenant.slug }, "token": tenant.token }))
    }

    /// A token of the tenant with these scopes only.
    #[track_caller]
    pub fn scoped(&self, tenant: &TenantClient, scopes: &[&str]) -> TenantClient {
        let body = json!({ "role": "service", "sub": "tests", "scopes": scopes, "expires_in_s": 600 });
        let answer = self.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), body).expect(201).json();
        tenant.with_token(answer["token"].as_str().unwrap())
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn base(&self) -> String {
        self.wire.base()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is running").child.id()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The tenant's folder: `<xx>/<id>`.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.dir.join(&id[id.len() - 2..]).join(id)
    }

    /// The tenant's file of a role: `database`, `cache` or `queue`.
    pub fn file(&self, id: &str, role: &str) -> PathBuf {
        self.folder(id).join(format!("tenant_{role}_{id}.sqlite"))
    }

    /// Every file and folder below the data directory, relative to it, sorted.
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.dir.clone()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                found.push(entry.path().strip_prefix(&self.dir).unwrap().to_string_lossy().into_owned());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }

    /// A number of `/metrics`.
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.anyone().get("/metrics").expect(200).text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.trim().parse().unwrap()
    }

    /// What it wrote to stderr, over all its starts.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// What it wrote to stdout since its last start.
    pub fn stdout(&self) -> String {
        self.child.as_ref().map(|running| running.stdout.lock().unwrap().clone()).unwrap_or_default()
    }

    /// A command of the command line against this server, with the operator's key.
    pub fn cli<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let mut command = binary();
        command.args(args).env("TENANTRY_URL", self.base()).env("TENANTRY_ADMIN_KEY", ADMIN_KEY).env("NO_COLOR", "1");
        command.current_dir(self._home.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// Bytes as they are on a connection of their own; all that comes back until the server closes, or for
    /// five seconds. Ask with `Connection: close`.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.base().trim_start_matches("http://")).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.child.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        if std::thread::panicking() {
            show(&self.log());
        }
    }
}

/// A test's hold on the shared server: a failing test shows what was logged since it began.
pub struct Shared {
    server: &'static Server,
    logged: usize,
}

impl std::ops::Deref for Shared {
    type Target = Server;
    fn deref(&self) -> &Server {
        self.server
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(self.server.log().get(self.logged..).unwrap_or(""));
        }
    }
}

fn show(log: &str) {
    let lines: Vec<_> = log.lines().collect();
    let from = lines.len().saturating_sub(60);
    eprintln!("---- the server's log, last {} of {} lines ----\n{}\n----", lines.len() - from, lines.len(), lines[from..].join("\n"));
}

/// Reads a pipe to its end on a thread: into `kept`, and line by line to whoever listens.
fn keep(pipe: impl Read + Send + 'static, kept: Arc<Mutex<String>>, tell: Option<Sender<String>>) {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            kept.lock().unwrap().push_str(&text);
            if let Some(tell) = &tell {
                // Nobody listens any more once the server is up.
                let _ = tell.send(text.trim_end().to_owned());
            }
            line.clear();
        }
    });
}

/// Starts a child on the one thread that starts children. The death signal comes when the starting *thread*
/// ends, and a test's thread ends long before the process does.
fn spawn(command: Command) -> Child {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static ORDERS: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (orders, taken) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in taken {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = channel();
    orders.lock().unwrap().send((command, answer)).unwrap();
    child.recv().unwrap().unwrap()
}
