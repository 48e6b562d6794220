//! Walking the chain from its first entry, in bounded steps, while it may grow: the head is read first, and the
//! chain has to reach it.

use serde_json::{Value, json};

use super::Audit;
use super::chain::{ChainKey, GENESIS};
use super::entry::Entry;
use crate::error::Result;
use crate::system::app::Head;

/// Entries read at once.
const STEP: u32 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Problem {
    /// The entry is not what was written.
    Edited { seq: i64 },
    /// Entries from here on, up to the next that is there, are gone.
    Removed { seq: i64 },
    /// The chain ends before this entry, which it once had.
    CutOff { seq: i64 },
    /// The remembered head is missing or not signed by the key.
    Head,
}

impl Problem {
    pub fn message(self) -> String {
        match self {
            Problem::Edited { seq } => format!("entry {seq} was edited: its hash does not match"),
            Problem::Removed { seq } => format!("entry {seq} was removed"),
            Problem::CutOff { seq } => format!("the log was cut off: entry {seq} and what followed it is gone"),
            Problem::Head => "the remembered head of the log was changed or removed, so a cut-off end would not show".to_owned(),
        }
    }

    /// The first entry that is wrong.
    pub fn seq(self) -> Option<i64> {
        match self {
            Problem::Edited { seq } | Problem::Removed { seq } | Problem::CutOff { seq } => Some(seq),
            Problem::Head => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verification {
    /// Entries found in order.
    pub entries: u64,
    pub problem: Option<Problem>,
}

impl Verification {
    pub fn to_json(&self) -> Value {
        json!({
            "ok": self.problem.is_none(),
            "entries": self.entries,
            "problem": self.problem.map(Problem::message),
            "first_bad_seq": self.problem.and_then(Problem::seq),
        })
    }
}

impl Audit {
    /// Checks every entry.
    pub async fn verify(&self) -> Result<Verification> {
        self.drain().await?;
        let head = self.app.audit_head().await?;
        let mut walk = Walk::new(&self.key, head);
        loop {
            let entries = self.mark.audit_after(walk.seq, STEP).await?;
            let last = entries.len() < STEP as usize;
            for entry in &entries {
                if let Err(problem) = walk.next(entry) {
                    return Ok(walk.found(Some(problem)));
                }
            }
            if last {
                let problem = walk.end().err();
                return Ok(walk.found(problem));
            }
        }
    }
}

/// How far the walk is.
struct Walk<'a> {
    key: &'a ChainKey,
    head: Option<Head>,
    seq: i64,
    hash: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(key: &'a ChainKey, head: Option<Head>) -> Walk<'a> {
        Walk { key, head, seq: 0, hash: GENESIS.to_vec() }
    }

    fn next(&mut self, entry: &Entry) -> Result<(), Problem> {
        let due = self.seq + 1;
        if entry.seq != due {
            return Err(Problem::Removed { seq: due });
        }
        let hash = self.key.entry(entry.seq, &self.hash, &entry.record);
        if entry.hash != hash || entry.prev_hash != self.hash {
            return Err(Problem::Edited { seq: due });
        }
        self.seq = due;
        self.hash = entry.hash.clone();
        match &self.head {
            Some(head) if head.seq == due && head.hash != self.hash => Err(Problem::Edited { seq: due }),
            _ => Ok(()),
        }
    }

    fn end(&self) -> Result<(), Problem> {
        let Some(head) = &self.head else { return Err(Problem::Head) };
        if head.mac != self.key.head(head.seq, &head.hash) {
            return Err(Problem::Head);
        }
        if head.seq > self.seq {
            return Err(Problem::CutOff { seq: self.seq + 1 });
        }
        Ok(())
    }

    fn found(&self, problem: Option<Problem>) -> Verification {
        Verification { entries: self.seq.unsigned_abs(), problem }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Record;
    use super::*;

    fn chain(key: &ChainKey, entries: i64) -> Vec<Entry> {
        let mut prev_hash = GENESIS.to_vec();
        (1..=entries)
            .map(|seq| {
                let record = Record {
                    at: seq,
                    actor: "root".to_owned(),
                    action: "tenant.create".to_owned(),
                    target: Some(seq.to_string()),
                    request_id: None,
                    outcome: "ok".to_owned(),
                    details: "{}".to_owned(),
                };
                let hash = key.entry(seq, &prev_hash, &record).to_vec();
                Entry { seq, record, prev_hash: std::mem::replace(&mut prev_hash, hash.clone()), hash }
            })
            .collect()
    }

    fn head(key: &ChainKey, entry: &Entry) -> Option<Head> {
        Some(Head { seq: entry.seq, hash: entry.hash.clone(), mac: key.head(entry.seq, &entry.hash).to_vec() })
    }

    fn verify(key: &ChainKey, head: Option<Head>, entries: &[Entry]) -> Option<Problem> {
        let mut walk = Walk::new(key, head);
        entries.iter().try_for_each(|entry| walk.next(entry)).and_then(|()| walk.end()).err()
    }

    #[test]
    fn a_whole_chain_verifies_and_so_does_one_that_is_ahead_of_its_head() {
        let key = ChainKey::fixed(1);
        let log = chain(&key, 5);
        assert_eq!(verify(&key, head(&key, &log[4]), &log), None);
        assert_eq!(verify(&key, head(&key, &log[2]), &log), None);
    }

    #[test]
    fn an_edited_a_removed_and_a_cut_off_entry_show() {
        let key = ChainKey::fixed(1);
        let log = chain(&key, 5);
        let tip = head(&key, &log[4]);

        let mut edited = log.clone();
        edited[2].record.actor = "somebody else".to_owned();
        assert_eq!(verify(&key, tip.clone(), &edited), Some(Problem::Edited { seq: 3 }));

        let mut removed = log.clone();
        removed.remove(1);
        assert_eq!(verify(&key, tip.clone(), &removed), Some(Problem::Removed { seq: 2 }));

        let mut renumbered = removed.clone();
        for (entry, seq) in renumbered.iter_mut().zip(1..) {
            entry.seq = seq;
        }
        assert_eq!(verify(&key, tip.clone(), &renumbered), Some(Problem::Edited { seq: 2 }));

        assert_eq!(verify(&key, tip.clone(), &log[..3]), Some(Problem::CutOff { seq: 4 }));
        assert_eq!(verify(&key, tip, &[]), Some(Problem::CutOff { seq: 1 }));
    }

    #[test]
    fn a_chain_made_anew_with_another_key_shows() {
        let (key, forger) = (ChainKey::fixed(1), ChainKey::fixed(2));
        let forged = chain(&forger, 3);
        assert_eq!(verify(&key, head(&key, &chain(&key, 3)[2]), &forged), Some(Problem::Edited { seq: 1 }));
    }

    #[test]
    fn a_head_moved_back_by_hand_shows() {
        let key = ChainKey::fixed(1);
        let log = chain(&key, 5);
        let moved = Head { mac: key.head(5, &log[4].hash).to_vec(), ..head(&key, &log[2]).unwrap() };
        assert_eq!(verify(&key, Some(moved), &log[..3]), Some(Problem::Head));
        assert_eq!(verify(&key, None, &log), Some(Problem::Head));
    }
}
