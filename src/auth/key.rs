//! The [`KeyRing`]: our own signing keys, Ed25519, one file each in `<data-dir>/system/keys/<kid>.json`, mode
//! 0600. The newest signs; all of them verify.
//!
//! A key that was replaced goes on verifying until the last token it may have signed has expired: one
//! `auth.token_max_ttl_s` (and the leeway) after its successor was made. Then its file is deleted, at the next
//! start or rotation. [`KeyRing::replace_all`] does not wait: it is for a key that somebody else may have.
//!
//! Invariant: a key signs only after its file is on the disk, name and content.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::ed25519::signature::rand_core::{OsRng, RngCore as _};
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use jsonwebtoken::EncodingKey;
use serde::{Deserialize, Serialize};

use super::jwk::{KeySet, LiveKeys, PublicKey};
use crate::clock::{self, Millis};
use crate::config;
use crate::error::{Code, Error, Result};

/// Keys in the ring at most, the signing one included. The folder may have one more: the successor of them all, if
/// replacing them was cut short.
const KEYS_MAX: usize = 32;
/// The largest key file that is read, in bytes.
const FILE_MAX: u64 = 4_096;

pub struct KeyRing {
    dir: PathBuf,
    /// How long after its successor's birth a key goes on verifying, in seconds.
    outlives_s: i64,
    /// Oldest first; never empty. The last one signs.
    keys: RwLock<Vec<Arc<OwnKey>>>,
    public: LiveKeys,
    /// Held by whoever changes the files.
    changing: Mutex<()>,
}

/// One of our keys, with its private half.
pub struct OwnKey {
    kid: String,
    created_at: Millis,
    public: [u8; 32],
    signing: EncodingKey,
}

impl OwnKey {
    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub fn signing(&self) -> &EncodingKey {
        &self.signing
    }
}

impl KeyRing {
    /// Loads every key in `dir`, which is made with a first key in it when there is none. A file that others
    /// may read, or that is no key, is an error that names it. Blocks on the disk.
    pub fn open(dir: impl Into<PathBuf>, config: &config::Auth) -> Result<Arc<KeyRing>> {
        let dir = dir.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| failed("make the folder of keys", &dir, &e))?;
        let mut keys = load(&dir)?;
        if keys.is_empty() {
            keys.push(OwnKey::create(&dir, clock::now_ms())?);
        }
        let ring = KeyRing {
            dir,
            outlives_s: i64::try_from(config.token_max_ttl_s.saturating_add(config.leeway_s)).unwrap_or(i64::MAX),
            keys: RwLock::default(),
            public: LiveKeys::default(),
            changing: Mutex::default(),
        };
        ring.install(keys, clock::now_s());
        Ok(Arc::new(ring))
    }

    /// Makes a new signing key and returns its `kid`. The older ones go on verifying.
    pub async fn rotate(self: &Arc<Self>) -> Result<String> {
        self.change(|ring| {
            let mut keys = ring.keys();
            if keys.len() >= KEYS_MAX {
                return Err(Error::conflict(format!("there are {KEYS_MAX} keys already, the most that are kept"))
                    .hint("`{\"retire_older\":true}` replaces them all: tokens that they signed stop working."));
            }
            let key = ring.successor(&keys)?;
            let kid = key.kid.clone();
            keys.push(key);
            ring.install(keys, clock::now_s());
            Ok(kid)
        })
        .await
    }

    /// Makes a new signing key and deletes all others, however many there are; returns its `kid` and theirs. Tokens
    /// they signed are refused from now on, remembered ones too, also when an error says that a file is still there.
    pub async fn replace_all(self: &Arc<Self>) -> Result<(String, Vec<String>)> {
        self.change(|ring| {
            let older = ring.keys();
            let key = ring.successor(&older)?;
            let kid = key.kid.clone();
            ring.install(vec![key], clock::now_s());
            let left: Vec<&str> = older.iter().filter(|key| !ring.delete(key)).map(|key| key.kid()).collect();
            if left.is_empty() {
                return Ok((kid, older.iter().map(|key| key.kid.clone()).collect()));
            }
            let left = left.join(", ");
            Err(Error::new(Code::Internal, format!("{kid} signs from now on, but the files of retired keys could not be deleted: {left}"))
                .hint(
                    "They verify nothing now, and are back after a restart unless somebody deletes them by hand; the log has their paths.",
                ))
        })
        .await
    }

    /// The public halves as a JWKS document: what `/.well-known/jwks.json` answers.
    pub fn jwks_json(&self) -> String {
        let now = clock::now_s();
        let set = self.public.set();
        let keys: Vec<_> = set.iter().filter(|key| key.until.is_none_or(|until| now < until)).filter_map(PublicKey::to_jwk).collect();
        serde_json::json!({ "keys": keys }).to_string()
    }

    /// The key that signs.
    pub fn signing(&self) -> Option<Arc<OwnKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    pub fn public(&self) -> &LiveKeys {
        &self.public
    }

    fn keys(&self) -> Vec<Arc<OwnKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn change<T: Send + 'static>(self: &Arc<Self>, f: impl FnOnce(&KeyRing) -> Result<T> + Send + 'static) -> Result<T> {
        let ring = self.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let _turn = ring.changing.lock().unwrap_or_else(PoisonError::into_inner);
            f(&ring)
        });
        changed.await.map_err(|e| Error::internal("changing the signing keys was cut short", &e))?
    }

    /// Puts `keys` (oldest first) into use, without those whose last token has expired; deletes their files.
    fn install(&self, mut keys: Vec<Arc<OwnKey>>, now: i64) {
        let until: Vec<Option<i64>> = (1..=keys.len())
            .map(|next| keys.get(next).map(|successor| (successor.created_at / 1000 + 1).saturating_add(self.outlives_s)))
            .collect();
        let mut until = until.into_iter();
        let mut public = Vec::new();
        keys.retain(|key| {
            let until = until.next().flatten();
            if until.is_some_and(|until| until <= now) {
                // It verifies nothing any more even if its file stays; the next start tries again.
                self.delete(key);
                return false;
            }
            public.push(PublicKey::ed25519(key.kid.clone(), key.public, until));
            true
        });
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.public.replace(KeySet::new(public));
    }

    /// A new key on the disk, younger than all of `keys`.
    fn successor(&self, keys: &[Arc<OwnKey>]) -> Result<Arc<OwnKey>> {
        let after_newest = keys.last().map_or(0, |key| key.created_at + 1);
        OwnKey::create(&self.dir, clock::now_ms().max(after_newest))
    }

    /// Whether its file is gone; the log says why not.
    fn delete(&self, key: &OwnKey) -> bool {
        let path = file_of(&self.dir, &key.kid);
        let deleted = fs::remove_file(&path).and_then(|()| sync_dir(&self.dir));
        if let Err(error) = &deleted {
            tracing::error!(path = %path.display(), %error, "a retired signing key could not be deleted; delete it by hand");
        }
        deleted.is_ok()
    }
}

/// A key file. It is close to a private JWK; `created_at` (RFC 3339) says which key is the newest.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    kty: String,
    crv: String,
    kid: String,
    created_at: String,
    x: String,
    d: String,
}

impl OwnKey {
    fn create(dir: &Path, created_at: Millis) -> Result<Arc<OwnKey>> {
        let mut id = [0; 16];
        OsRng.fill_bytes(&mut id);
        let secret = SigningKey::generate(&mut OsRng);
        let file = KeyFile {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            kid: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            created_at: clock::rfc3339(created_at),
            x: URL_SAFE_NO_PAD.encode(secret.verifying_key().as_bytes()),
            d: URL_SAFE_NO_PAD.encode(secret.as_bytes()),
        };
        let path = file_of(dir, &file.kid);
        let text = serde_json::to_string_pretty(&file).map_err(|e| Error::internal("a signing key could not be written as JSON", &e))?;
        write_durably(dir, &path, text.as_bytes()).map_err(|e| failed("write the signing key", &path, &e))?;
        OwnKey::read(&path)
    }

    fn read(path: &Path) -> Result<Arc<OwnKey>> {
        let text = read_private(path)?;
        let broken = |what: &str| {
            Error::new(Code::Internal, format!("the signing key {} is broken: {what}", path.display()))
                .hint("Restore it from a backup, or move it away: tokens that it signed then stop working.")
        };
        let file: KeyFile = serde_json::from_slice(&text).map_err(|e| broken(&e.to_string()))?;
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(&file.kid) || file.kid.is_empty() {
            return Err(broken("its `kid` is not its file name"));
        }
        if file.kty != "OKP" || file.crv != "Ed25519" {
            return Err(broken("it is not an Ed25519 key"));
        }
        let created_at = clock::parse_rfc3339(&file.created_at).ok_or_else(|| broken("`created_at` is not an RFC 3339 time"))?;
        let secret = URL_SAFE_NO_PAD.decode(&file.d).ok().and_then(|d| <[u8; 32]>::try_from(d).ok());
        let secret = SigningKey::from_bytes(&secret.ok_or_else(|| broken("`d` is not 32 bytes in base64url"))?);
        let public = secret.verifying_key().to_bytes();
        if URL_SAFE_NO_PAD.encode(public) != file.x {
            return Err(broken("`x` is not the public half of `d`"));
        }
        let der = secret.to_pkcs8_der().map_err(|e| broken(&e.to_string()))?;
        Ok(Arc::new(OwnKey { kid: file.kid, created_at, public, signing: EncodingKey::from_ed_der(der.as_bytes()) }))
    }
}

fn file_of(dir: &Path, kid: &str) -> PathBuf {
    dir.join(format!("{kid}.json"))
}

/// Every key in the folder, oldest first. What a killed process left half-written is cleared away.
fn load(dir: &Path) -> Result<Vec<Arc<OwnKey>>> {
    let unread = |e: &std::io::Error| failed("read the folder of keys", dir, e);
    let mut keys = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| unread(&e))? {
        let path = entry.map_err(|e| unread(&e))?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") if keys.len() <= KEYS_MAX => keys.push(OwnKey::read(&path)?),
            Some("json") => {
                return Err(Error::new(Code::Internal, format!("{} holds more than {KEYS_MAX} keys", dir.display()))
                    .hint("Move the oldest away: tokens that they signed then stop working."));
            }
            Some("new") => fs::remove_file(&path).map_err(|e| failed("clear away", &path, &e))?,
            _ => {}
        }
    }
    keys.sort_by(|a, b| (a.created_at, &a.kid).cmp(&(b.created_at, &b.kid)));
    Ok(keys)
}

/// Reads a file that only its owner may read. The check is on the open file, so nothing can be put in its place.
fn read_private(path: &Path) -> Result<Vec<u8>> {
    let unread = |e: &std::io::Error| failed("read the signing key", path, e);
    let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(nofollow.bits() as i32).open(path).map_err(|e| unread(&e))?;
    let about = file.metadata().map_err(|e| unread(&e))?;
    let mode = about.permissions().mode() & 0o777;
    if !about.is_file() || about.len() > FILE_MAX {
        return Err(Error::new(Code::Internal, format!("the signing key {} is not a file of at most {FILE_MAX} bytes", path.display())));
    }
    if mode & 0o077 != 0 {
        return Err(Error::new(Code::Internal, format!("the signing key {} may be read by others (mode {mode:04o})", path.display()))
            .hint(format!("chmod 600 {}; if it may have been copied, rotate and retire it.", path.display())));
    }
    let mut text = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut text).map_err(|e| unread(&e))?;
    Ok(text)
}

fn write_durably(dir: &Path, path: &Path, text: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn failed(what: &str, path: &Path, e: &std::io::Error) -> Error {
    let hint = match e.kind() {
        ErrorKind::PermissionDenied => "The server's user needs to own the data directory.",
        ErrorKind::StorageFull => "The disk is full.",
        _ => "Look at the file and at the disk it is on.",
    };
    Error::new(Code::Internal, format!("cannot {what} {}: {e}", path.display())).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(dir: &Path) -> Result<Arc<KeyRing>> {
        KeyRing::open(dir, &config::Auth { token_max_ttl_s: 100, leeway_s: 5, ..Default::default() })
    }

    fn kids(ring: &KeyRing) -> Vec<String> {
        ring.keys().iter().map(|key| key.kid.clone()).collect()
    }

    fn error(dir: &Path) -> String {
        ring(dir).err().map(|e| e.message().to_owned()).unwrap_or_default()
    }

    #[tokio::test]
    async fn the_first_start_makes_a_key_and_the_next_one_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = ring(&dir.path().join("keys")).unwrap();
        let path = file_of(&first.dir, &kids(&first)[0]);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(kids(&first), kids(&ring(&first.dir).unwrap()));
        assert!(first.jwks_json().contains(&kids(&first)[0]));
        assert!(!first.jwks_json().contains("\"d\""));
    }

    #[tokio::test]
    async fn after_a_rotation_the_newest_signs_and_the_older_still_verify_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let ring_ = ring(dir.path()).unwrap();
        let old = kids(&ring_)[0].clone();
        let new = ring_.rotate().await.unwrap();
        for ring_ in [ring_, ring(dir.path()).unwrap()] {
            assert_eq!(kids(&ring_), [old.clone(), new.clone()]);
            assert_eq!(ring_.signing().unwrap().kid(), new);
            assert_eq!(ring_.public().set().iter().count(), 2);
            assert_eq!(ring_.public().epoch(), 0);
        }
    }

    #[tokio::test]
    async fn a_replaced_key_is_deleted_once_its_last_token_has_expired() {
        let dir = tempfile::tempdir().unwrap();
        let ring_ = ring(dir.path()).unwrap();
        let new = ring_.rotate().await.unwrap();
        ring_.install(ring_.keys(), clock::now_s() + 100);
        assert_eq!(kids(&ring_).len(), 2);
        ring_.install(ring_.keys(), clock::now_s() + 107);
        assert_eq!(kids(&ring_), std::slice::from_ref(&new));
        assert_eq!(ring_.public().epoch(), 1);
        assert_eq!(kids(&ring(dir.path()).unwrap()), [new]);
    }

    #[tokio::test]
    async fn retiring_the_older_ones_leaves_the_signing_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ring_ = ring(dir.path()).unwrap();
        let old = kids(&ring_)[0].clone();
        let (new, retired) = ring_.replace_all().await.unwrap();
        assert_eq!(retired, [old]);
        assert_eq!(kids(&ring_), std::slice::from_ref(&new));
        assert_eq!(kids(&ring(dir.path()).unwrap()), [new]);
    }

    #[tokio::test]
    async fn what_cannot_be_deleted_is_named_without_its_path_and_keeps_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let ring_ = ring(dir.path()).unwrap();
        for _ in 0..2 {
            ring_.rotate().await.unwrap();
        }
        let old = kids(&ring_);
        for kid in &old[..2] {
            let path = file_of(dir.path(), kid);
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
        let error = ring_.replace_all().await.unwrap_err();
        let told = error.to_json().to_string();
        assert!(told.contains(&old[0]) && told.contains(&old[1]) && !told.contains(&old[2]), "{told}");
        assert!(!told.contains(dir.path().to_str().unwrap()), "{told}");
        assert!(!file_of(dir.path(), &old[2]).exists());
        assert_eq!(kids(&ring_), [ring_.signing().unwrap().kid()]);
        assert!(!old.contains(&kids(&ring_)[0]));
    }

    #[tokio::test]
    async fn the_number_of_keys_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let ring_ = ring(dir.path()).unwrap();
        for _ in 1..KEYS_MAX {
            ring_.rotate().await.unwrap();
        }
        assert_eq!(ring_.rotate().await.unwrap_err().code(), Code::Conflict);
        assert_eq!(kids(&ring(dir.path()).unwrap()).len(), KEYS_MAX);

        // A crash between the new key and the deletions leaves one more, and the start goes on.
        ring_.successor(&ring_.keys()).unwrap();
        let ring_ = ring(dir.path()).unwrap();
        let (new, retired) = ring_.replace_all().await.unwrap();
        assert_eq!(retired.len(), KEYS_MAX + 1);
        assert_eq!(kids(&ring(dir.path()).unwrap()), [new]);
    }

    #[test]
    fn a_key_file_that_others_may_read_or_that_is_broken_stops_the_start_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = file_of(dir.path(), &kids(&ring(dir.path()).unwrap())[0]);
        let whole = fs::read_to_string(&path).unwrap();

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(error(dir.path()).contains("may be read by others (mode 0640)"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

        for broken in [&whole[..40], "", &whole.replace("\"OKP\"", "\"RSA\""), &whole.replace("\"d\"", "\"e\"")] {
            fs::write(&path, broken).unwrap();
            assert!(error(dir.path()).contains(path.to_str().unwrap()), "{broken}");
        }
        fs::write(&path, &whole).unwrap();
        let elsewhere = path.with_file_name("elsewhere.json");
        fs::rename(&path, &elsewhere).unwrap();
        assert!(error(dir.path()).contains("elsewhere.json"));
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(!error(dir.path()).is_empty());
    }

    #[test]
    fn what_a_killed_process_left_half_written_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("0011.new");
        fs::write(&left, "{\"kty\"").unwrap();
        assert_eq!(kids(&ring(dir.path()).unwrap()).len(), 1);
        assert!(!left.exists());
    }
}
