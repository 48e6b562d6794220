//! `--redis`: the cache and the queue beside a Redis server on this machine, each over its own protocol, with the same
//! connections and threads on the client's side and the same durability. A key-value server without tenants, tokens or
//! HTTP is the limit here, and not a peer: the rows say what those cost.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tenantry::cli::load::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, Line, runtime};
use crate::engines::{CACHE, CLAIM, JOB, JOBS, TEN, VALUE, acknowledge};
use crate::results::Bound::None as Free;
use crate::results::{Goal, Measured, Results, goal};
use crate::rows::{Side, both, of};
use crate::site::{Tenantry, path, target_dir};
use crate::{Args, tell};

const GOALS: &[Goal] = &[
    goal("get", "cache get from memory / GET", Free),
    goal("set", "cache put, not flushed / SET, not logged", Free),
    goal("set everysec", "the same / SET, its log flushed every second", Free),
    goal("push", "enqueue, FULL / LPUSH, its log flushed before the answer", Free),
    goal("push everysec", "enqueue, NORMAL / LPUSH, its log flushed every second", Free),
    goal("pop", "jobs claimed by tens and acknowledged, FULL / LMOVE and LREM, flushed", Free),
    goal("pop everysec", "the same at NORMAL / flushed every second", Free),
];

/// When a Redis flushes its log.
#[derive(Clone, Copy)]
enum Log {
    None,
    EverySecond,
    Always,
}

struct Redis {
    child: Child,
    addr: SocketAddr,
}

/// A connection that sends one command and reads its reply.
struct Talk {
    stream: TcpStream,
    reply: Vec<u8>,
}

struct Pair {
    client: Client,
    full: Tenantry,
    normal: Tenantry,
    /// By [`Log`].
    redis: [Redis; 3],
}

pub fn run(args: &Args) -> Results {
    let scratch = tempfile::Builder::new().prefix("redis-").tempdir_in(target_dir()).expect("a folder");
    let tenantry = |level| {
        let built = Tenantry::build(scratch.path().join(level), level, 1);
        let put = |request: &mut Vec<u8>| wire::put(request, &built.tenants[0].caller, CACHE, VALUE.as_bytes());
        built.sample(204, "text/plain", put);
        built
    };
    let redis = [Log::None, Log::EverySecond, Log::Always].map(|log| Redis::start(scratch.path(), log));
    let client = Client { connections: args.connections, slice: args.slice() };
    let pair = Pair { client, full: tenantry("full"), normal: tenantry("normal"), redis };
    let mut results = Results::new(GOALS);
    for round in 0..args.rounds {
        tell(&format!("round {} of {}", round + 1, args.rounds));
        results.add("redis", pair.round(round));
    }
    results
}

impl Pair {
    fn round(&self, round: usize) -> Vec<Measured> {
        let caller = &self.full.tenants[0].caller;
        let get = || self.tenantry(&self.full, 200, |line| wire::get(&mut line.request, caller, CACHE));
        let put = || self.tenantry(&self.full, 204, |line| wire::put(&mut line.request, caller, CACHE, VALUE.as_bytes()));
        let value = VALUE.as_bytes();
        let set = |log| self.redis(log, &[b"SET", b"key", value], b"+OK");
        let pair = |goal, ours: &dyn Fn() -> f64, limit: &dyn Fn() -> f64| {
            of(goal, both(round, |side| if side == Side::Tenantry { ours() } else { limit() }))
        };
        set(Log::None);
        vec![
            pair("get", &get, &|| self.redis(Log::None, &[b"GET", b"key"], b"$")),
            pair("set", &put, &|| set(Log::None)),
            pair("set everysec", &put, &|| set(Log::EverySecond)),
            pair("push", &|| self.enqueue(&self.full), &|| self.push(Log::Always)),
            pair("push everysec", &|| self.enqueue(&self.normal), &|| self.push(Log::EverySecond)),
            pair("pop", &|| self.claim(&self.full), &|| self.pop(Log::Always)),
            pair("pop everysec", &|| self.claim(&self.normal), &|| self.pop(Log::EverySecond)),
        ]
    }

    /// One request over and over.
    fn tenantry(&self, tenantry: &Tenantry, status: u16, build: impl Fn(&mut Line) + Sync) -> f64 {
        self.client.rate(tenantry.target(), async |line: &mut Line| {
            while line.runs() {
                build(line);
                line.ask(status, |_| ()).await;
            }
        })
    }

    fn enqueue(&self, tenantry: &Tenantry) -> f64 {
        let caller = &tenantry.tenants[0].caller;
        self.tenantry(tenantry, 201, |line| wire::post(&mut line.request, caller, JOBS, JOB))
    }

    /// Jobs a second; each was claimed with nine others and acknowledged by itself.
    fn claim(&self, tenantry: &Tenantry) -> f64 {
        for _ in 0..2 {
            self.enqueue(tenantry);
        }
        let caller = &tenantry.tenants[0].caller;
        let requests = self.client.rate(tenantry.target(), async |line: &mut Line| {
            while line.runs() {
                wire::post(&mut line.request, caller, CLAIM, TEN);
                assert!(acknowledge(line, caller, None).await > 0, "the queue ran dry");
            }
        });
        // Eleven requests are ten jobs.
        requests * 10.0 / 11.0
    }

    fn push(&self, log: Log) -> f64 {
        self.redis(log, &[b"LPUSH", b"jobs", JOB], b":")
    }

    /// Jobs a second, each moved to a list of those being worked on, and taken from there when it is done.
    fn pop(&self, log: Log) -> f64 {
        for _ in 0..2 {
            self.push(log);
        }
        let redis = &self.redis[log as usize];
        self.client.spread(async |number, until| {
            let mut talk = redis.talk().await;
            let held = format!("held-{number}");
            let take = command(&[b"LMOVE", b"jobs", held.as_bytes(), b"RIGHT", b"LEFT"]);
            let done = command(&[b"LREM", held.as_bytes(), b"1", JOB]);
            let mut jobs = 0;
            while Instant::now() < until {
                let taken = talk.ask(&take).await;
                assert!(taken.starts_with(b"$") && taken != b"$-1\r\n", "the queue ran dry");
                assert_eq!(talk.ask(&done).await, b":1\r\n");
                jobs += 1;
            }
            jobs
        })
    }

    /// One command over and over.
    fn redis(&self, log: Log, words: &[&[u8]], reply: &[u8]) -> f64 {
        let (redis, command) = (&self.redis[log as usize], command(words));
        self.client.spread(async |_, until| {
            let mut talk = redis.talk().await;
            let mut asked = 0;
            while Instant::now() < until {
                assert!(talk.ask(&command).await.starts_with(reply));
                asked += 1;
            }
            asked
        })
    }
}

impl Redis {
    fn start(folder: &Path, log: Log) -> Redis {
        // Free at this moment; Redis takes no port 0.
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let (appendonly, appendfsync) = match log {
            Log::None => ("no", "no"),
            Log::EverySecond => ("yes", "everysec"),
            Log::Always => ("yes", "always"),
        };
        let own = folder.join(format!("redis-{}", log as usize));
        std::fs::create_dir_all(&own).expect("a folder");
        let port = addr.port().to_string();
        let args = ["--bind", "127.0.0.1", "--port", &port, "--dir", path(&own), "--save", "", "--appendonly", appendonly];
        let mut server = Command::new("redis-server");
        server.args(args).args(["--appendfsync", appendfsync, "--loglevel", "warning"]).stdin(Stdio::null()).stdout(Stdio::null());
        let child =
            server.spawn().unwrap_or_else(|error| panic!("redis-server cannot be started ({error}); `make bench-redis` installs it"));
        let redis = Redis { child, addr };
        let began = Instant::now();
        while std::net::TcpStream::connect(addr).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(runtime().block_on(async { redis.talk().await.ask(&command(&[b"PING"])).await == b"+PONG\r\n" }));
        redis
    }

    async fn talk(&self) -> Talk {
        let stream = TcpStream::connect(self.addr).await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        Talk { stream, reply: Vec::new() }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Talk {
    async fn ask(&mut self, command: &[u8]) -> &[u8] {
        self.stream.write_all(command).await.expect("a connection");
        self.reply.clear();
        while !whole(&self.reply) {
            self.reply.reserve(4 << 10);
            assert_ne!(self.stream.read_buf(&mut self.reply).await.expect("a reply"), 0, "redis-server closed the connection");
        }
        assert_ne!(self.reply[0], b'-', "{}", String::from_utf8_lossy(&self.reply));
        &self.reply
    }
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Whether a reply that is a line, or a string of so many bytes, is there to its end.
fn whole(reply: &[u8]) -> bool {
    let Some(line) = reply.windows(2).position(|two| two == b"\r\n") else { return false };
    match reply[0] {
        b'$' => {
            let length = std::str::from_utf8(&reply[1..line]).ok().and_then(|length| length.parse::<i64>().ok()).expect("a length");
            length < 0 || reply.len() == line + 2 + length as usize + 2
        }
        _ => true,
    }
}
