//! The bytes of answers, within bounds: of one tenant, and of all. A large answer is in memory from the moment at which
//! SQLite's rows begin to be written into a [`Draft`] until its client has read the last of it, long after the statement has
//! ended. It takes room for its bytes before it grows, of the [`Allowance`] of the tenant whose rows they are, and what it has
//! [`Taken`] goes with it and is given back when it is. Who finds no room is refused: waiting for it would keep a lane and
//! what SQLite holds for a client that may never read.
//!
//! Small answers take nothing and count nothing: they are bounded by the connections.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::error::{Code, Error, Result};

/// What a draft may have without taking room.
const FREE: usize = 64 << 10;

/// What a draft may be wrong by: punctuation, and numbers, which are written without asking for room.
const SLACK: usize = 4 << 10;

/// A tenant's share of the room for all.
const SHARE: u64 = 4;

/// What all answers may take together.
#[derive(Debug)]
pub struct Allowances {
    most: AtomicU64,
    used: AtomicU64,
}

/// What one tenant's may, of that.
#[derive(Debug)]
pub struct Allowance {
    all: Arc<Allowances>,
    used: AtomicU64,
}

/// Bytes of an allowance; given back when dropped.
#[derive(Debug)]
pub struct Taken {
    of: Arc<Allowance>,
    bytes: u64,
}

/// An answer being written. What is written is its vector's; whoever writes much at once asks for room first
/// ([`Draft::expect`]), and everybody settles now and then ([`Draft::settle`]).
pub struct Draft<'a> {
    out: Vec<u8>,
    /// What the vector may have.
    room: usize,
    of: &'a Arc<Allowance>,
    taken: Option<Taken>,
}

/// What a draft came to.
#[derive(Debug, Default)]
pub struct Finished {
    pub bytes: Vec<u8>,
    pub taken: Option<Taken>,
}

impl Allowances {
    /// `most` bytes for all.
    pub fn new(most: u64) -> Arc<Allowances> {
        Arc::new(Allowances { most: most.into(), used: AtomicU64::default() })
    }

    /// From now on `most` bytes for all.
    pub fn bound(&self, most: u64) {
        self.most.store(most, Relaxed);
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// That of one more tenant.
    pub fn one(self: &Arc<Self>) -> Arc<Allowance> {
        Arc::new(Allowance { all: self.clone(), used: AtomicU64::default() })
    }
}

impl Allowance {
    /// Without a bound: for files that nobody's answers are made of.
    pub fn unbounded() -> Arc<Allowance> {
        Allowances::new(u64::MAX).one()
    }

    /// Whether there is room at all. Asked before the work, so that most of what is refused has not been done. Small answers take
    /// none: so who has none waits for nobody's.
    pub fn admit(&self) -> Result<()> {
        if self.used.load(Relaxed) == 0 { Ok(()) } else { self.within(0) }
    }

    /// Takes room, if there is. Errors: `too_many_requests` past the tenant's share; `overloaded` where the others have
    /// taken too much.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Result<Taken> {
        let mut taken = self.take_anyway(0);
        taken.grow(bytes)?;
        Ok(taken)
    }

    /// Takes it whether there is room or not: what is done is told.
    pub fn take_anyway(self: &Arc<Self>, bytes: u64) -> Taken {
        self.add(bytes);
        Taken { of: self.clone(), bytes }
    }

    /// Whether what is in use, of which `own` is the one answer's that asks, is within the bounds. A tenant has a quarter at
    /// most, and no more than he leaves free: so of what is left, the next one always finds half for himself, however many
    /// have taken what they could. An answer that no other stands beside is within the bounds whatever its size.
    fn within(&self, own: u64) -> Result<()> {
        let (used, of_all, most) = (self.used.load(Relaxed), self.all.used(), self.all.most.load(Relaxed));
        let refused = |code, whose: &str| {
            Err(Error::new(code, format!("too many bytes of answers {whose} wait to be read"))
                .hint("Read the answers that were sent, or ask for less at once. The bound is http.unread_bytes.")
                .retry_after(Duration::from_secs(1)))
        };
        if of_all == own {
            Ok(())
        } else if used > most / SHARE {
            refused(Code::TooManyRequests, "of this tenant")
        } else if used.saturating_add(of_all) > most {
            refused(Code::Overloaded, "of all tenants")
        } else {
            Ok(())
        }
    }

    fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Relaxed);
        self.all.used.fetch_add(bytes, Relaxed);
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
        self.all.used.fetch_sub(bytes, Relaxed);
    }
}

impl Taken {
    /// Takes more, if there is room: it is taken first and looked at then, so two at once may both be refused and never
    /// both be given what is there for one.
    fn grow(&mut self, more: u64) -> Result<()> {
        self.of.add(more);
        self.bytes += more;
        self.of.within(self.bytes).inspect_err(|_| self.shrink(self.bytes - more))
    }

    /// Gives back what is past `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        if let Some(surplus) = self.bytes.checked_sub(bytes) {
            self.of.give_back(surplus);
            self.bytes = bytes;
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.of.give_back(self.bytes);
    }
}

impl<'a> Draft<'a> {
    pub fn new(of: &'a Arc<Allowance>) -> Draft<'a> {
        Draft { out: Vec::with_capacity(256), room: FREE, of, taken: None }
    }

    /// Before so many bytes are written.
    pub fn expect(&mut self, bytes: usize) -> Result<()> {
        let needed = self.out.len() + bytes + SLACK;
        if needed <= self.room { Ok(()) } else { self.grow(needed) }
    }

    /// After something was written that nobody had expected, or more than was.
    pub fn settle(&mut self) -> Result<()> {
        if self.out.capacity() <= self.room { Ok(()) } else { self.grow(self.out.capacity()) }
    }

    /// Room for so many bytes, and for a quarter more than there was: a vector that doubles takes twice what it needs.
    fn grow(&mut self, needed: usize) -> Result<()> {
        let room = needed.max(self.room + self.room / 4);
        match &mut self.taken {
            Some(taken) => taken.grow((room - self.room) as u64)?,
            none => *none = Some(self.of.take(room as u64)?),
        }
        self.room = room;
        self.out.reserve_exact(room - self.out.len());
        Ok(())
    }

    pub fn finish(self) -> Finished {
        Finished { bytes: self.out, taken: self.taken }
    }
}

impl Deref for Draft<'_> {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.out
    }
}

impl DerefMut for Draft<'_> {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
}

impl Deref for Finished {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Vec<u8>> for Finished {
    fn from(bytes: Vec<u8>) -> Finished {
        Finished { bytes, taken: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn code(refused: Result<Taken>) -> Code {
        refused.unwrap_err().code()
    }

    #[test]
    fn a_tenant_has_a_quarter_and_no_more_than_it_leaves_to_the_others() {
        let all = Allowances::new(100 * MIB);
        let tenants: Vec<_> = (0..9).map(|_| all.one()).collect();
        let mut taken = vec![tenants[0].take(25 * MIB).unwrap()];
        assert_eq!(code(tenants[0].take(1)), Code::TooManyRequests);
        assert!(tenants[0].admit().is_ok(), "at its share, not past it");
        for tenant in &tenants[1..] {
            let free = 100 * MIB - all.used();
            while let Ok(more) = tenant.take(KIB) {
                taken.push(more);
            }
            // In steps of a KiB.
            assert_eq!(tenant.used.load(Relaxed), (25 * MIB).min(free / 2 / KIB * KIB));
        }
        assert_eq!(code(tenants[8].take(KIB)), Code::Overloaded);
        assert!(all.used() < 100 * MIB);
        drop(taken);
        assert_eq!(all.used(), 0);
    }

    #[test]
    fn an_answer_that_is_alone_is_within_the_bounds_and_nothing_beside_it_is() {
        let all = Allowances::new(MIB);
        let (one, other) = (all.one(), all.one());
        let alone = one.take(30 * MIB).unwrap();
        assert_eq!((code(one.take(1)), code(other.take(1))), (Code::TooManyRequests, Code::Overloaded));
        assert!(one.admit().is_err() && other.admit().is_ok(), "a small one is nobody's business");
        assert_eq!(all.used(), 30 * MIB);
        // What is done is told all the same.
        let told = other.take_anyway(5);
        assert_eq!(all.used(), 30 * MIB + 5);
        drop((alone, told));
        assert!(one.admit().is_ok() && all.used() == 0);
    }

    #[test]
    fn a_draft_has_taken_what_its_vector_has_before_that_grows() {
        let all = Allowances::new(8 * MIB);
        let one = all.one();
        let mut draft = Draft::new(&one);
        while draft.len() < FREE - SLACK {
            draft.expect(1).unwrap();
            draft.push(b'x');
            draft.settle().unwrap();
        }
        assert_eq!((all.used(), draft.taken.is_none()), (0, true), "a small one takes nothing");
        let beside = one.take(MIB).unwrap();
        let refused = loop {
            if let Err(refused) = draft.expect(100_000) {
                break refused;
            }
            draft.extend_from_slice(&[b'x'; 100_000]);
            // Twice what it was expected to be, as escapes may have it.
            draft.extend_from_slice(&[b'y'; 100_000]);
            if let Err(refused) = draft.settle() {
                break refused;
            }
            assert!(draft.capacity() as u64 <= all.used() - MIB, "{} of {}", draft.capacity(), all.used());
        };
        assert_eq!(refused.code(), Code::TooManyRequests);
        assert!(all.used() <= 2 * MIB, "within the tenant's share: {}", all.used());
        drop(draft);
        assert_eq!(all.used(), MIB);
        drop(beside);
        let mut draft = Draft::new(&one);
        draft.expect(150_000).unwrap();
        draft.extend_from_slice(&[b'x'; 150_000]);
        let Finished { bytes, taken } = draft.finish();
        assert_eq!(all.used(), bytes.capacity() as u64);
        let mut taken = taken.unwrap();
        taken.shrink(bytes.len() as u64);
        assert_eq!(all.used(), 150_000);
        drop(taken);
        assert_eq!(all.used(), 0);
    }
}
