//! Where an identity provider's keys come from: a JWKS [`file`](FileKeys), looked at again when it changes, or a
//! JWKS [`url`](UrlKeys), fetched again when it has grown old or a token names a key that is not there.
//!
//! Bounds: one fetch at a time, [`FETCH_TIME`] long, [`DOCUMENT_MAX`] large, and no two within
//! [`REFRESH_EVERY`], whatever tokens arrive. No redirect is followed, so only the configured host is ever
//! asked. A refresh that fails keeps the keys there are, and is logged once until one succeeds.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;

use super::jwk::{KeySet, LiveKeys};
use crate::error::{Error, Result};

/// The largest JWKS document, in bytes.
const DOCUMENT_MAX: u64 = 1 << 20;
/// The longest a fetch may take, from the name's resolution to the last byte.
const FETCH_TIME: Duration = Duration::from_secs(5);
/// The shortest time between two fetches from one issuer.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// The same while there are no keys at all, because the first fetch failed.
const FIRST_EVERY: Duration = Duration::from_secs(5);
/// How long keys are taken as fresh, when the answer's `max-age` does not say.
const FRESH_DEFAULT: Duration = Duration::from_secs(600);
const FRESH_MIN: Duration = Duration::from_secs(60);
const FRESH_MAX: Duration = Duration::from_secs(86_400);
/// How often a file's metadata is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Logs the first failure of a row, and the end of the row.
#[derive(Default)]
struct Failing(AtomicBool);

impl Failing {
    fn heard(&self, source: &str, outcome: Result<(), &str>) {
        match outcome {
            Ok(()) => {
                if self.0.swap(false, Ordering::Relaxed) {
                    tracing::info!(source, "an issuer's keys can be read again");
                }
            }
            Err(why) => {
                if !self.0.swap(true, Ordering::Relaxed) {
                    tracing::warn!(source, why, "an issuer's keys cannot be read; the ones there are stay in use");
                }
            }
        }
    }
}

/// Keys from a file on this machine.
pub struct FileKeys {
    path: PathBuf,
    live: LiveKeys,
    seen: Mutex<Seen>,
    failing: Failing,
}

struct Seen {
    /// Which file was read: modification time in nanoseconds, length, inode. `None` when reading it failed.
    stamp: Option<(i128, u64, u64)>,
    look_again: Instant,
}

impl FileKeys {
    /// Reads the file; one that cannot be read is an error here, at start, and none later.
    pub fn open(path: &Path) -> Result<FileKeys> {
        let unusable = |why: &str| {
            Error::bad_request(format!("`jwks_file` {}: {why}", path.display()))
                .hint("Save the provider's JWKS document there: {\"keys\":[…]} with RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA) keys.")
        };
        let stamp = stamp(path).map_err(|e| unusable(&e.to_string()))?;
        let set = read(path).map_err(|why| unusable(&why))?;
        let seen = Seen { stamp: Some(stamp), look_again: Instant::now() + LOOK_EVERY };
        Ok(FileKeys { path: path.to_owned(), live: LiveKeys::new(set), seen: Mutex::new(seen), failing: Failing::default() })
    }

    pub fn live(&self) -> &LiveKeys {
        &self.live
    }

    /// Looks whether the file changed, at most once in [`LOOK_EVERY`]; then reads it.
    pub fn keep_fresh(&self, now: Instant) {
        // Whoever finds somebody looking goes on with the keys there are.
        let Ok(mut seen) = self.seen.try_lock() else { return };
        if now < seen.look_again {
            return;
        }
        seen.look_again = now + LOOK_EVERY;
        let current = stamp(&self.path).ok();
        if current.is_some() && current == seen.stamp {
            return;
        }
        let source = self.path.display().to_string();
        match read(&self.path) {
            Ok(set) => {
                self.live.replace(set);
                seen.stamp = current;
                self.failing.heard(&source, Ok(()));
            }
            Err(why) => {
                seen.stamp = None;
                self.failing.heard(&source, Err(&why));
            }
        }
    }
}

fn stamp(path: &Path) -> std::io::Result<(i128, u64, u64)> {
    let about = fs::metadata(path)?;
    Ok((i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec()), about.len(), about.ino()))
}

fn read(path: &Path) -> Result<KeySet, String> {
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(DOCUMENT_MAX + 1).read_to_end(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > DOCUMENT_MAX {
        return Err(format!("it is larger than {DOCUMENT_MAX} bytes"));
    }
    KeySet::parse(&text).map_err(str::to_owned)
}

/// Keys from the provider's web server.
pub struct UrlKeys {
    url: String,
    agent: ureq::Agent,
    live: LiveKeys,
    pace: Mutex<Pace>,
    /// Held by the fetch that runs, also when nobody waits for it any more; whoever waits finds what it brought.
    turn: Arc<tokio::sync::Mutex<()>>,
    failing: Failing,
}

impl UrlKeys {
    /// No I/O: the first token of the issuer fetches. `https`, or `http` to this very machine.
    pub fn new(url: &str) -> Result<UrlKeys> {
        let here = is_loopback_http(url);
        if !(url.starts_with("https://") || here) {
            return Err(Error::bad_request(format!("`jwks_url` {url} is not https"))
                .hint("Whoever can change the answer on its way can sign tokens. Only a server on this machine may be asked over http."));
        }
        let mut settings = ureq::Agent::config_builder()
            .timeout_global(Some(FETCH_TIME))
            .max_redirects(0)
            .max_redirects_will_error(true)
            .https_only(!here)
            .max_idle_connections(0)
            .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")));
        if here {
            settings = settings.proxy(None);
        }
        Ok(UrlKeys {
            url: url.to_owned(),
            agent: settings.build().into(),
            live: LiveKeys::default(),
            pace: Mutex::default(),
            turn: Arc::default(),
            failing: Failing::default(),
        })
    }

    pub fn live(&self) -> &LiveKeys {
        &self.live
    }

    /// Fetches in the background when the keys have grown old. Returns at once.
    pub fn keep_fresh(self: &Arc<Self>, now: Instant) {
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return };
        let claimed = self.pace.try_lock().is_ok_and(|mut pace| pace.stale(now) && pace.claim(now));
        if claimed {
            self.start_fetch(turn);
        }
    }

    /// Fetches because a key is missing, unless that was done just now; returns when the keys are as new as
    /// they get.
    pub async fn refresh(self: &Arc<Self>) {
        let turn = self.turn.clone().lock_owned().await;
        let claimed = self.pace.lock().unwrap_or_else(PoisonError::into_inner).claim(Instant::now());
        if claimed {
            // The fetch logs its own failures, and one that panicked changed nothing.
            let _ = self.start_fetch(turn).await;
        }
    }

    fn start_fetch(self: &Arc<Self>, turn: OwnedMutexGuard<()>) -> JoinHandle<()> {
        let keys = self.clone();
        tokio::task::spawn_blocking(move || {
            keys.fetch();
            drop(turn);
        })
    }

    fn fetch(&self) {
        match self.get() {
            Ok((set, fresh)) => {
                self.live.replace(set);
                self.pace.lock().unwrap_or_else(PoisonError::into_inner).succeeded(Instant::now(), fresh);
                self.failing.heard(&self.url, Ok(()));
            }
            Err(why) => self.failing.heard(&self.url, Err(&why)),
        }
    }

    fn get(&self) -> Result<(KeySet, Duration), String> {
        let mut answer = self.agent.get(&self.url).call().map_err(|e| e.to_string())?;
        let fresh = answer.headers().get("cache-control").and_then(|value| value.to_str().ok()).and_then(max_age);
        let body = answer.body_mut().with_config().limit(DOCUMENT_MAX).read_to_vec().map_err(|e| e.to_string())?;
        Ok((KeySet::parse(&body)?, fresh.unwrap_or(FRESH_DEFAULT).clamp(FRESH_MIN, FRESH_MAX)))
    }
}

/// When an issuer may be asked, and when it should be.
#[derive(Default)]
struct Pace {
    tried: Option<Instant>,
    /// `None` before the first success.
    fresh_until: Option<Instant>,
}

impl Pace {
    /// Whether there are keys and they have grown old.
    fn stale(&self, now: Instant) -> bool {
        self.fresh_until.is_some_and(|until| now >= until)
    }

    /// Whether the caller is to fetch now; nobody else is until the next interval.
    fn claim(&mut self, now: Instant) -> bool {
        let every = if self.fresh_until.is_some() { REFRESH_EVERY } else { FIRST_EVERY };
        let due = self.tried.is_none_or(|tried| now.duration_since(tried) >= every);
        if due {
            self.tried = Some(now);
        }
        due
    }

    fn succeeded(&mut self, now: Instant, fresh: Duration) {
        self.fresh_until = Some(now + fresh);
    }
}

/// Whether it is http, to a server on this machine. The host is the one that the client itself will ask.
fn is_loopback_http(url: &str) -> bool {
    let Ok(url) = url.parse::<ureq::http::Uri>() else { return false };
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    url.scheme_str() == Some("http") && (host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

fn max_age(cache_control: &str) -> Option<Duration> {
    cache_control.split(',').find_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| value.trim_matches('"').parse().ok().map(Duration::from_secs))?
    })
}

#[cfg(test)]
pub(in crate::auth) mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const ONE: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"}]}"#;

    fn kids(live: &LiveKeys) -> usize {
        live.set().iter().count()
    }

    #[test]
    fn an_issuer_is_asked_at_most_once_an_interval() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut pace = Pace::default();
        assert!(!pace.stale(start) && pace.claim(start));
        assert!(!pace.claim(at(4)));
        assert!(pace.claim(at(5)));
        pace.succeeded(at(6), Duration::from_secs(600));
        assert!(!pace.stale(at(605)) && pace.stale(at(606)));
        assert!(!pace.claim(at(34)) && pace.claim(at(35)) && !pace.claim(at(64)));
    }

    #[test]
    fn freshness_is_read_from_cache_control() {
        assert_eq!(max_age("public, Max-Age=3600, must-revalidate"), Some(Duration::from_secs(3600)));
        assert_eq!(max_age("s-maxage=5"), None);
        assert_eq!(max_age("max-age=-1"), None);
    }

    #[test]
    fn only_https_or_this_machine_is_asked() {
        for url in ["https://idp.example/jwks", "http://127.0.0.1:80/jwks", "http://localhost/jwks", "http://[::1]:8/jwks"] {
            assert!(UrlKeys::new(url).is_ok(), "{url}");
        }
        for url in ["http://idp.example/jwks", "http://localhost@idp.example/", "http://127.0.0.1.idp.example/", "file:///etc/passwd", ""] {
            assert!(UrlKeys::new(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_keeps_the_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        assert!(FileKeys::open(&path).is_err());
        fs::write(&path, ONE).unwrap();
        let keys = FileKeys::open(&path).unwrap();
        let later = |s: u64| Instant::now() + Duration::from_secs(s);
        let two = ONE.replace("]}", r#",{"kty":"OKP","crv":"Ed25519","kid":"two","x":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI"}]}"#);
        fs::write(&path, &two).unwrap();
        keys.keep_fresh(Instant::now());
        assert_eq!(kids(keys.live()), 1);
        keys.keep_fresh(later(2));
        assert_eq!((kids(keys.live()), keys.live().epoch()), (2, 0));
        fs::write(&path, &two[..50]).unwrap();
        keys.keep_fresh(later(4));
        assert_eq!(kids(keys.live()), 2);
        fs::write(&path, ONE).unwrap();
        keys.keep_fresh(later(6));
        assert_eq!((kids(keys.live()), keys.live().epoch()), (1, 1));
    }

    /// A provider's web server: gives each request the answer of the moment, and counts them.
    pub struct Provider {
        pub url: String,
        answer: Arc<Mutex<String>>,
        asked: Arc<AtomicUsize>,
    }

    impl Provider {
        pub fn start(answer: String) -> Provider {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/jwks", listener.local_addr().unwrap());
            let provider = Provider { url, answer: Arc::new(Mutex::new(answer)), asked: Arc::default() };
            let (answer, asked) = (provider.answer.clone(), provider.asked.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let _ = stream.read(&mut [0; 4096]);
                    asked.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(answer.lock().unwrap().as_bytes());
                }
            });
            provider
        }

        fn answers(&self, answer: String) {
            *self.answer.lock().unwrap() = answer;
        }

        pub fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    pub fn ok(body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: max-age=3600\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    /// As if the interval between two fetches had passed.
    fn may_ask(keys: &UrlKeys) {
        keys.pace.lock().unwrap().tried = None;
    }

    #[tokio::test]
    async fn a_hundred_tokens_with_unknown_keys_are_one_fetch() {
        let provider = Provider::start(ok(ONE));
        let keys = Arc::new(UrlKeys::new(&provider.url).unwrap());
        let many: Vec<_> = (0..100).map(|_| keys.refresh()).collect();
        futures_util::future::join_all(many).await;
        assert_eq!((provider.asked(), kids(keys.live())), (1, 1));
        keys.refresh().await;
        assert_eq!(provider.asked(), 1);
        let stale = |after: u64| keys.pace.lock().unwrap().stale(Instant::now() + Duration::from_secs(after));
        assert!(!stale(3_500) && stale(3_700));
    }

    #[tokio::test]
    async fn a_failed_refresh_keeps_the_keys() {
        let provider = Provider::start(ok(ONE));
        let keys = Arc::new(UrlKeys::new(&provider.url).unwrap());
        keys.refresh().await;
        let large = ok(&ONE.replace("one", "large").replace("]}", &format!("],\"x\":\"{}\"}}", "x".repeat(DOCUMENT_MAX as usize))));
        let failures =
            ["HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_owned(), ok("<html>"), ok("{\"keys\":[]}"), "no HTTP".to_owned(), large];
        for (n, failure) in failures.into_iter().enumerate() {
            provider.answers(failure);
            may_ask(&keys);
            keys.refresh().await;
            assert_eq!((provider.asked(), kids(keys.live()), keys.live().epoch()), (n + 2, 1, 0));
        }
        provider.answers(ok(&ONE.replace("one", "two")));
        may_ask(&keys);
        keys.refresh().await;
        assert_eq!((kids(keys.live()), keys.live().epoch()), (1, 1));
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let elsewhere = Provider::start(ok(ONE));
        let moved = format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url);
        let provider = Provider::start(moved);
        let keys = Arc::new(UrlKeys::new(&provider.url).unwrap());
        keys.refresh().await;
        assert_eq!((provider.asked(), elsewhere.asked(), kids(keys.live())), (1, 0, 0));
    }

    #[test]
    fn https_speaks_tls_or_fails() {
        let provider = Provider::start(ok(ONE));
        let keys = UrlKeys::new(&provider.url.replace("http:", "https:")).unwrap();
        assert!(keys.get().is_err());
    }
}
