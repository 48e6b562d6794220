//! The configuration: small structs with their defaults, one per part, units in the docs. It is read once,
//! at start, from a TOML file, `TENANTRY_*` variables and flags, in rising order ([`source`]), and is then
//! plain data that the wiring hands out piece by piece.

pub mod source;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where every file lives; made at first start.
    pub data_dir: PathBuf,
    /// The address to accept on; port 0 takes a free one.
    pub listen: SocketAddr,
    pub http: Http,
    pub auth: Auth,
    pub durability: Durability,
    pub sqlite: Sqlite,
    pub executor: Executor,
    pub hrana: Hrana,
    pub cache: Cache,
    pub queue: Queue,
    pub rest: Rest,
    pub tenants: Tenants,
    /// Named limits. A tenant runs under `default` unless it was given another.
    pub plans: BTreeMap<String, Plan>,
    pub telemetry: Telemetry,
    pub shutdown: Shutdown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Async workers; 0 is one for each core.
    pub workers: usize,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Bytes of large request bodies on their way, over all connections.
    pub receiving_bytes: u64,
    /// Bytes of large answers that are being made or that clients have not read yet, over all tenants; one tenant has a quarter, and no more than is free.
    pub unread_bytes: u64,
    /// Connections accepted at once, over all workers.
    pub max_connections: usize,
    /// How long a client may take to send its headers, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long an idle kept-alive connection stays open, in seconds.
    pub keep_alive_s: u64,
    /// Origins whose pages may call with a tenant's token (`https://app.example.com`); `*` is any, none is none.
    pub cors_origins: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// `iss` of our own tokens.
    pub issuer: String,
    /// `aud` of our own tokens.
    pub audience: String,
    /// Clock difference allowed for `exp` and `nbf`, in seconds.
    pub leeway_s: u64,
    /// The claim that names the tenant in our own tokens: a name, or a JSON pointer such as
    /// `/app_metadata/tenant_id`.
    pub tenant_claim: String,
    /// How long a token lives that was asked for without `expires_in_s`, in seconds.
    pub token_ttl_s: u64,
    /// The longest life that can be asked for, in seconds.
    pub token_max_ttl_s: u64,
    /// How many verified tokens are remembered until they expire.
    pub remembered_tokens: u64,
    /// Identity providers whose tokens are taken beside our own.
    pub issuers: Vec<Issuer>,
}

/// An identity provider. Exactly one of `jwks_url`, `jwks_file` and `hs256_secret` is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// `iss` of its tokens, exactly.
    pub issuer: String,
    /// `aud` that its tokens must carry.
    pub audience: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hs256_secret: Option<String>,
    /// The claim that names the tenant; by default `auth.tenant_claim`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_claim: Option<String>,
    /// The claim that names the role; by default `role`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_claim: Option<String>,
    /// Scopes its tokens have when they carry no `scope` or `scopes` claim of ours.
    #[serde(default)]
    pub default_scopes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Every commit is flushed: survives a power cut.
    Full,
    /// Survives a killed process, not a power cut.
    Normal,
    /// Survives a killed process at best: for what can be made again.
    Off,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Durability {
    pub database: Level,
    pub queue: Level,
    pub cache: Level,
    /// `app` and `mark`.
    pub system: Level,
    pub analytics: Level,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sqlite {
    /// File descriptors all open databases may hold together; 0 is derived from what the process may have.
    pub descriptors: u64,
    /// Page cache of all open connections together, in bytes.
    pub page_cache_bytes: u64,
    /// The most memory SQLite may take for everything, in bytes; past it a statement fails with 503.
    pub heap_max_bytes: u64,
    /// The most memory SQLite may take for one request's statements, in bytes; past it they fail with 400; 0: no bound.
    pub statement_memory_bytes: u64,
    /// Readers of one file open at once.
    pub readers_per_file: u32,
    /// How long SQLite waits for a lock, in milliseconds.
    pub busy_timeout_ms: u64,
    /// Prepared statements kept by each connection.
    pub statement_cache: usize,
    /// The WAL length at which a commit is followed by a checkpoint, in bytes.
    pub checkpoint_bytes: u64,
    /// The WAL length past which readers that hold it back are stopped and it is cut to nothing, in bytes.
    pub wal_max_bytes: u64,
    /// A file without a write for so long is checkpointed, in milliseconds.
    pub idle_checkpoint_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Executor {
    /// Threads that read; 0 is two for each core, at least four.
    pub read_lanes: usize,
    /// Threads that write and flush; they mostly wait for the disk. 0 is sixteen.
    pub write_lanes: usize,
    /// Statements waiting for a lane, over all tenants.
    pub waiting: usize,
    /// Statements of one tenant waiting for a lane.
    pub waiting_per_tenant: usize,
    /// While one of a tenant's statements has waited so long for a lane, further ones are refused, in milliseconds.
    pub waiting_ms: u64,
    /// Most writes that share one commit.
    pub group_max: usize,
}

/// Bounds of the libSQL clients' streams and transactions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hrana {
    /// Streams open at once, over all tenants.
    pub streams: usize,
    /// Streams of one tenant open at once.
    pub streams_per_tenant: usize,
    /// A stream whose client does not come back for so long is closed, in milliseconds.
    pub stream_idle_ms: u64,
    /// WebSockets of one tenant open at once.
    pub sockets_per_tenant: usize,
    /// A WebSocket without a request for so long is closed, in seconds.
    pub socket_idle_s: u64,
    /// Transactions of one tenant open at once.
    pub transactions_per_tenant: usize,
    /// How long a transaction waits to be the one that writes, in milliseconds.
    pub turn_wait_ms: u64,
    /// A transaction without a statement for so long is rolled back, in milliseconds.
    pub transaction_idle_ms: u64,
    /// The same while others wait to write, in milliseconds.
    pub transaction_idle_contended_ms: u64,
    /// The longest a transaction may take, in milliseconds.
    pub transaction_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Memory in front of all cache files together, in bytes; one file has an eighth. 0 for none.
    pub memory_bytes: u64,
    /// Values of so many bytes and more are compressed in the file where that saves an eighth of them; 0 for none.
    pub compress_from_bytes: usize,
    /// Whether values are sealed in the file with a key of their tenant's, made from `system/keys/cache.key`.
    pub encrypt: bool,
}

/// What the server does with queues by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// Deliveries to webhooks under way at once, over all tenants.
    pub deliveries: usize,
    /// Deliveries of one tenant under way at once.
    pub deliveries_per_tenant: usize,
    /// Whether webhooks may lead to this machine and its network, over http and to any port.
    pub private_targets: bool,
}

/// Rows over HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rest {
    /// What becomes of an embed over a foreign key that no index serves: a whole table would be read for each row.
    pub unindexed_embeds: UnindexedEmbeds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnindexedEmbeds {
    /// It is answered, however long that takes.
    Allow,
    /// The index is made first, unless the table is too large for it to be made between two requests.
    Index,
    Refuse,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tenants {
    /// A folder of application migrations (`NNNN_name.up.sql`), applied to every tenant's database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migrations_dir: Option<PathBuf>,
    /// A triple nobody used for so long is closed, in seconds.
    pub idle_close_s: u64,
    /// How long a suspend or delete waits for what runs, in milliseconds; then it is interrupted.
    pub drain_ms: u64,
    /// Tenant rows remembered in memory.
    pub remembered: u64,
}

/// The limits a tenant runs under. 0 means no limit of its own (the process's bounds still hold).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    pub database_bytes: u64,
    pub cache_bytes: u64,
    pub queue_bytes: u64,
    /// Requests of the tenant in flight at once, running or waiting their turn.
    pub concurrent_statements: u32,
    pub requests_per_s: u32,
    /// Requests that may come at once before `requests_per_s` bites.
    pub burst: u32,
    /// The longest a request's statements may run, in milliseconds.
    pub statement_ms: u64,
    /// Rows in one answer.
    pub result_rows: u64,
    /// Bytes in one answer.
    pub result_bytes: u64,
    /// Origins whose pages may call with a token of such a tenant; none: as `http.cors_origins` has it.
    pub cors_origins: Vec<String>,
}

impl Http {
    /// How many async workers there are.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(2, |cores| cores.get()),
            workers => workers,
        }
    }
}

impl Plan {
    /// `result_too_large` unless an answer may have as many rows and bytes.
    pub fn admits(&self, rows: u64, bytes: u64) -> Result<()> {
        let too_large = |what: &str, bound: &str| {
            Error::new(Code::ResultTooLarge, format!("the answer has more {what} than the plan allows"))
                .hint(format!("The plan's bound is {bound}. A LIMIT, fewer columns or pages help."))
        };
        if self.result_rows > 0 && rows > self.result_rows {
            return Err(too_large("rows", "result_rows"));
        }
        if self.result_bytes > 0 && bytes > self.result_bytes {
            return Err(too_large("bytes", "result_bytes"));
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log: String,
    pub log_format: LogFormat,
    /// Statements slower than this are written to `performance_logs`, in milliseconds.
    pub slow_ms: u64,
    /// Entries waiting to be written to `analytics`; past it they are counted and dropped.
    pub waiting: usize,
    /// Rows of `performance_logs` and `error_logs` older than this are deleted, in days.
    pub keep_days: u32,
    /// When set, `/metrics` wants `Authorization: Bearer` with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_key: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long running requests may take to finish, in seconds.
    pub grace_s: u64,
    /// How long background tasks may take to finish, in seconds.
    pub background_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: PathBuf::from("./tenants"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            http: Http::default(),
            auth: Auth::default(),
            durability: Durability::default(),
            sqlite: Sqlite::default(),
            executor: Executor::default(),
            hrana: Hrana::default(),
            cache: Cache::default(),
            queue: Queue::default(),
            rest: Rest::default(),
            tenants: Tenants::default(),
            plans: BTreeMap::from([("default".to_owned(), Plan::default())]),
            telemetry: Telemetry::default(),
            shutdown: Shutdown::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http {
            workers: 0,
            max_body_bytes: 4 << 20,
            receiving_bytes: 256 << 20,
            unread_bytes: 256 << 20,
            max_connections: 10_000,
            header_timeout_ms: 5_000,
            keep_alive_s: 75,
            cors_origins: vec!["*".to_owned()],
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Auth {
            issuer: "tenantry".to_owned(),
            audience: "tenantry".to_owned(),
            leeway_s: 5,
            tenant_claim: "tenant_id".to_owned(),
            token_ttl_s: 3_600,
            token_max_ttl_s: 10 * 365 * 86_400,
            remembered_tokens: 100_000,
            issuers: Vec::new(),
        }
    }
}

impl Default for Durability {
    fn default() -> Self {
        Durability { database: Level::Full, queue: Level::Full, cache: Level::Off, system: Level::Full, analytics: Level::Normal }
    }
}

impl Default for Sqlite {
    fn default() -> Self {
        Sqlite {
            descriptors: 0,
            page_cache_bytes: 256 << 20,
            heap_max_bytes: 2 << 30,
            statement_memory_bytes: 256 << 20,
            readers_per_file: 4,
            busy_timeout_ms: 5_000,
            statement_cache: 64,
            checkpoint_bytes: 4 << 20,
            wal_max_bytes: 64 << 20,
            idle_checkpoint_ms: 5_000,
        }
    }
}

impl Default for Executor {
    fn default() -> Self {
        Executor { read_lanes: 0, write_lanes: 0, waiting: 20_000, waiting_per_tenant: 1_000, waiting_ms: 1_000, group_max: 128 }
    }
}

impl Default for Hrana {
    fn default() -> Self {
        Hrana {
            streams: 20_000,
            streams_per_tenant: 2_000,
            stream_idle_ms: 10_000,
            sockets_per_tenant: 1_000,
            socket_idle_s: 600,
            transactions_per_tenant: 32,
            turn_wait_ms: 5_000,
            transaction_idle_ms: 5_000,
            transaction_idle_contended_ms: 500,
            transaction_ms: 30_000,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Cache { memory_bytes: 64 << 20, compress_from_bytes: 1 << 10, encrypt: false }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Queue { deliveries: 64, deliveries_per_tenant: 8, private_targets: false }
    }
}

impl Default for Rest {
    fn default() -> Self {
        Rest { unindexed_embeds: UnindexedEmbeds::Refuse }
    }
}

impl Default for Tenants {
    fn default() -> Self {
        Tenants { migrations_dir: None, idle_close_s: 600, drain_ms: 5_000, remembered: 100_000 }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            database_bytes: 10 << 30,
            cache_bytes: 1 << 30,
            queue_bytes: 2 << 30,
            concurrent_statements: 1_000,
            requests_per_s: 0,
            burst: 0,
            statement_ms: 10_000,
            result_rows: 100_000,
            result_bytes: 32 << 20,
            cors_origins: Vec::new(),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry { log: "info".to_owned(), log_format: LogFormat::Text, slow_ms: 250, waiting: 4_096, keep_days: 30, scrape_key: None }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { grace_s: 30, background_s: 5 }
    }
}
