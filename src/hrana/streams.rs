//! [`Streams`]: the streams that are open, over HTTP and on sockets, counted for each tenant and over all. Over HTTP a
//! stream lives between two requests of its client and waits here, behind a *baton*.
//!
//! Invariants:
//! - A baton serves once, for the tenant and the subject that it was given to: it is the stream's number and the step it
//!   is at, under a MAC over both and over whose it is, with a key of this process. One that is stale, forged or somebody
//!   else's is refused with the same words.
//! - A stream is either here or with the one request that took it; whoever does not give it back has closed it.
//! - A stream here that nobody asks for expires.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::sync::watch;
use uuid::Uuid;

use super::stream::Stream;
use crate::config;
use crate::error::{Code, Error, Result};
use crate::sqlite::Bounds;

pub struct Streams {
    key: [u8; 32],
    bounds: config::Hrana,
    table: Mutex<Table>,
    closing: watch::Sender<bool>,
}

#[derive(Default)]
struct Table {
    waiting: HashMap<u64, Waiting>,
    places: Places,
    sockets: Places,
    last: u64,
}

/// A stream whose client is to come back.
struct Waiting {
    held: Held,
    until: Instant,
}

#[derive(Default)]
struct Places {
    all: usize,
    by_tenant: HashMap<Uuid, usize>,
}

/// Whose a stream is.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub tenant: Uuid,
    pub subject: &'a str,
}

/// A stream, taken by a request. Dropped, it is closed.
pub struct Held {
    pub stream: Stream,
    number: u64,
    step: u64,
    _place: Place,
}

/// Counts one stream, or one socket, of a tenant until it is dropped.
pub struct Place {
    streams: Arc<Streams>,
    tenant: Uuid,
    of: fn(&mut Table) -> &mut Places,
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.of)(&mut self.streams.table()).leave(self.tenant);
    }
}

impl Streams {
    /// `key` signs the batons: 32 bytes that nobody can guess.
    pub fn new(bounds: config::Hrana, key: [u8; 32]) -> Arc<Streams> {
        Arc::new(Streams { key, bounds, table: Mutex::default(), closing: watch::Sender::new(false) })
    }

    /// The stream behind the baton, or a new one.
    pub fn take(self: &Arc<Self>, owner: Owner<'_>, baton: Option<&str>) -> Result<Held> {
        let Some(baton) = baton else {
            let place = self.place(owner.tenant)?;
            let mut table = self.table();
            table.last += 1;
            return Ok(Held { stream: Stream::new(), number: table.last, step: 0, _place: place });
        };
        let found = self.open_baton(owner, baton).and_then(|(number, step)| {
            let mut table = self.table();
            if table.waiting.get(&number)?.held.step == step { table.waiting.remove(&number) } else { None }
        });
        found.map(|waiting| waiting.held).ok_or_else(|| {
            Error::bad_request("the baton is not, or no longer, that of a stream of yours")
                .hint("A stream that is not used expires (hrana.stream_idle_ms). Open a new one: send \"baton\": null.")
        })
    }

    /// Keeps the stream for its client's next request, which brings this baton.
    pub fn give_back(&self, owner: Owner<'_>, mut held: Held) -> Option<String> {
        held.step += 1;
        let baton = self.baton(owner, held.number, held.step);
        let until = Instant::now() + Duration::from_millis(self.bounds.stream_idle_ms);
        let mut table = self.table();
        if *self.closing.borrow() {
            drop(table);
            return None;
        }
        table.waiting.insert(held.number, Waiting { held, until });
        Some(baton)
    }

    /// A stream's place, outside this table.
    pub fn place(self: &Arc<Self>, tenant: Uuid) -> Result<Place> {
        let bounds = [("hrana.streams", self.bounds.streams), ("hrana.streams_per_tenant", self.bounds.streams_per_tenant)];
        self.enter(tenant, "streams", bounds, |table| &mut table.places)
    }

    /// A socket's place.
    pub fn socket(self: &Arc<Self>, tenant: Uuid) -> Result<Place> {
        let bounds = [("http.max_connections", usize::MAX), ("hrana.sockets_per_tenant", self.bounds.sockets_per_tenant)];
        self.enter(tenant, "sockets", bounds, |table| &mut table.sockets)
    }

    fn enter(
        self: &Arc<Self>,
        tenant: Uuid,
        what: &str,
        [all, one]: [(&str, usize); 2],
        of: fn(&mut Table) -> &mut Places,
    ) -> Result<Place> {
        let over = |code, whose: &str, bound: &str| {
            Err(Error::new(code, format!("too many {what} of {whose} are open"))
                .hint(format!("Close those that are done. The bound is {bound}."))
                .retry_after(Duration::from_secs(1)))
        };
        let mut table = self.table();
        let places = of(&mut table);
        let of_tenant = places.by_tenant.get(&tenant).copied().unwrap_or(0);
        if of_tenant >= one.1 {
            return over(Code::TooManyRequests, "this tenant", one.0);
        }
        if places.all >= all.1 {
            return over(Code::Overloaded, "all tenants", all.0);
        }
        places.all += 1;
        places.by_tenant.insert(tenant, of_tenant + 1);
        Ok(Place { streams: self.clone(), tenant, of })
    }

    /// Closes what has expired. Called about once a second by the server.
    pub fn tick(&self) {
        self.close_waiting(|waiting, now| waiting.until <= now);
    }

    /// Closes every stream that waits here, and has the sockets close theirs.
    pub fn close(&self) {
        self.closing.send_replace(true);
        self.close_waiting(|_, _| true);
    }

    /// Told when the server stops.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// What transactions of one file may take.
    pub fn transactions(&self) -> Bounds {
        (&self.bounds).into()
    }

    /// A socket without a request for so long is closed.
    pub fn socket_idle(&self) -> Duration {
        Duration::from_secs(self.bounds.socket_idle_s)
    }

    /// The most streams that one tenant has.
    pub fn most(&self) -> usize {
        self.bounds.streams_per_tenant
    }

    /// How many streams are open, and how many sockets.
    pub fn open(&self) -> (usize, usize) {
        let table = self.table();
        (table.places.all, table.sockets.all)
    }

    fn close_waiting(&self, which: impl Fn(&Waiting, Instant) -> bool) {
        let now = Instant::now();
        let closed: Vec<_> = self.table().waiting.extract_if(|_, waiting| which(waiting, now)).collect();
        // Not under the lock: each gives its place back.
        drop(closed);
    }

    fn baton(&self, owner: Owner<'_>, number: u64, step: u64) -> String {
        let named = [number.to_be_bytes(), step.to_be_bytes()].concat();
        let mac = self.mac(owner, &named).finalize().into_bytes();
        BASE64.encode([&named[..], &mac].concat())
    }

    fn open_baton(&self, owner: Owner<'_>, baton: &str) -> Option<(u64, u64)> {
        let bytes: [u8; 48] = BASE64.decode(baton).ok()?.try_into().ok()?;
        let (named, mac) = bytes.split_at(16);
        self.mac(owner, named).verify_slice(mac).ok()?;
        let (number, step) = named.split_at(8);
        Some((u64::from_be_bytes(number.try_into().ok()?), u64::from_be_bytes(step.try_into().ok()?)))
    }

    fn mac(&self, owner: Owner<'_>, named: &[u8]) -> Hmac<Sha256> {
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.chain_update(named).chain_update(owner.tenant.as_bytes()).chain_update(owner.subject.as_bytes())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn leave(&mut self, tenant: Uuid) {
        self.all = self.all.saturating_sub(1);
        if let Some(count) = self.by_tenant.get_mut(&tenant) {
            *count -= 1;
            if *count == 0 {
                self.by_tenant.remove(&tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: Uuid = Uuid::from_u128(1);
    const ANN: Owner<'static> = Owner { tenant: TENANT, subject: "ann" };

    fn streams(bounds: config::Hrana) -> Arc<Streams> {
        Streams::new(bounds, [7; 32])
    }

    #[test]
    fn a_baton_serves_once_and_the_next_one_leads_to_the_same_stream() {
        let streams = streams(config::Hrana::default());
        let held = streams.take(ANN, None).unwrap();
        let number = held.number;
        let first = streams.give_back(ANN, held).unwrap();
        let held = streams.take(ANN, Some(&first)).unwrap();
        assert!(streams.take(ANN, Some(&first)).is_err(), "while it is used");
        let second = streams.give_back(ANN, held).unwrap();
        assert!(streams.take(ANN, Some(&first)).is_err(), "after it was used");
        assert_eq!(streams.take(ANN, Some(&second)).unwrap().number, number);
        assert!(streams.take(ANN, Some(&second)).is_err(), "after the stream was dropped");
        assert_eq!(streams.open().0, 0);
    }

    #[test]
    fn somebody_elses_baton_is_refused_like_a_forged_one_and_stays_good() {
        let streams = streams(config::Hrana::default());
        let baton = streams.give_back(ANN, streams.take(ANN, None).unwrap()).unwrap();
        let refused = |owner: Owner<'_>, baton: &str| streams.take(owner, Some(baton)).err().unwrap().to_json();
        let forged = BASE64.encode([0; 48]);
        let all = [
            refused(Owner { subject: "bob", ..ANN }, &baton),
            refused(Owner { tenant: Uuid::from_u128(2), ..ANN }, &baton),
            refused(ANN, &forged),
            refused(ANN, ""),
            refused(ANN, &"A".repeat(10_000)),
            Streams::new(config::Hrana::default(), [8; 32]).take(ANN, Some(&baton)).err().unwrap().to_json(),
        ];
        assert!(all.iter().all(|body| *body == all[0]), "{all:#?}");
        assert!(streams.take(ANN, Some(&baton)).is_ok());
    }

    #[test]
    fn streams_are_bounded_for_each_tenant_and_over_all() {
        let streams = streams(config::Hrana { streams: 3, streams_per_tenant: 2, ..config::Hrana::default() });
        let other = Owner { tenant: Uuid::from_u128(2), ..ANN };
        let code = |owner| streams.take(owner, None).map(|_| ()).map_err(|error| error.code());
        let (_one, two) = (streams.take(ANN, None).unwrap(), streams.take(ANN, None).unwrap());
        assert_eq!(code(ANN), Err(Code::TooManyRequests));
        let three = streams.take(other, None).unwrap();
        assert_eq!(code(other), Err(Code::Overloaded));
        let baton = streams.give_back(ANN, two).unwrap();
        assert_eq!(code(ANN), Err(Code::TooManyRequests), "one that waits counts too");
        drop(streams.take(ANN, Some(&baton)));
        assert_eq!(code(ANN), Ok(()));
        drop(three);
        assert_eq!(streams.open().0, 1);
    }

    #[test]
    fn a_stream_that_nobody_asks_for_expires() {
        let streams = streams(config::Hrana { stream_idle_ms: 0, ..config::Hrana::default() });
        let baton = streams.give_back(ANN, streams.take(ANN, None).unwrap()).unwrap();
        streams.tick();
        assert_eq!(streams.open().0, 0);
        assert!(streams.take(ANN, Some(&baton)).is_err());
        let kept = self::streams(config::Hrana::default());
        let baton = kept.give_back(ANN, kept.take(ANN, None).unwrap()).unwrap();
        kept.tick();
        assert!(kept.take(ANN, Some(&baton)).is_ok());
    }

    #[test]
    fn nothing_waits_once_the_server_stops() {
        let streams = streams(config::Hrana::default());
        let baton = streams.give_back(ANN, streams.take(ANN, None).unwrap()).unwrap();
        let held = streams.take(ANN, None).unwrap();
        streams.close();
        assert!(*streams.closing().borrow());
        assert!(streams.take(ANN, Some(&baton)).is_err());
        assert_eq!(streams.give_back(ANN, held), None);
        assert_eq!(streams.open().0, 0);
    }
}
