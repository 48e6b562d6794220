//! A [`JobId`] is a UUIDv7 that says where its job is: the 74 bits beside the time are the job's place in the file
//! (`seq`, 42 bits, the counter of RFC 9562 §6.2) and 32 random ones. So a job is found by its id without an index,
//! and a place that is used again for another job gives another id.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::{Uuid, Variant};

use crate::clock::Millis;
use crate::error::{Error, Result};

const SEQ_BITS: u32 = 42;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(into = "Uuid", try_from = "Uuid")]
pub struct JobId {
    created_at: Millis,
    seq: i64,
    salt: u32,
}

/// The UUID is no job's.
#[derive(Clone, Copy, Debug)]
pub struct NoJob;

impl JobId {
    /// Of the row of `jobs` with these columns.
    pub fn of(created_at: Millis, seq: i64, salt: u32) -> JobId {
        JobId { created_at, seq, salt }
    }

    pub fn created_at(self) -> Millis {
        self.created_at
    }

    pub fn seq(self) -> i64 {
        self.seq
    }

    pub fn salt(self) -> u32 {
        self.salt
    }

    /// Errors: `bad_request` for what is no UUID; `not_found` for one that was never a job's.
    pub fn parse(text: &str) -> Result<JobId> {
        let id = Uuid::try_parse(text)
            .map_err(|_| Error::bad_request("a job's id is a UUID").hint("Take it from the answer of the enqueue or of the claim."))?;
        JobId::try_from(id).map_err(|NoJob| not_found(id))
    }
}

/// 404 for a job that is not there.
pub(super) fn not_found(id: impl fmt::Display) -> Error {
    Error::not_found(format!("there is no job {id}")).hint("It may have been finished and cleared away.")
}

impl From<JobId> for Uuid {
    fn from(id: JobId) -> Uuid {
        let random = u128::from(id.seq.unsigned_abs() & ((1 << SEQ_BITS) - 1)) << 32 | u128::from(id.salt);
        // 12 bits before the variant, 62 behind it.
        let fields = (random >> 62) << 64 | random & ((1 << 62) - 1);
        let time = u128::from(id.created_at.unsigned_abs() & 0xffff_ffff_ffff) << 80;
        Uuid::from_u128(time | 0x7 << 76 | fields | 0b10 << 62)
    }
}

impl TryFrom<Uuid> for JobId {
    type Error = NoJob;

    fn try_from(id: Uuid) -> Result<JobId, NoJob> {
        if id.get_version_num() != 7 || id.get_variant() != Variant::RFC4122 {
            return Err(NoJob);
        }
        let bits = id.as_u128();
        let random = (bits >> 64 & 0xfff) << 62 | bits & ((1 << 62) - 1);
        let seq = i64::try_from(random >> 32).map_err(|_| NoJob)?;
        let created_at = Millis::try_from(bits >> 80).map_err(|_| NoJob)?;
        Ok(JobId { created_at, seq, salt: (random & 0xffff_ffff) as u32 })
    }
}

impl fmt::Display for NoJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the id of a job")
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_a_uuid_of_version_7_and_comes_back_whole(created_at in 0_i64..1 << 48, seq in 1_i64..1 << 42, salt: u32) {
            let id = JobId { created_at, seq, salt };
            let uuid = Uuid::from(id);
            prop_assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, Variant::RFC4122));
            let at = uuid.get_timestamp().unwrap().to_unix();
            prop_assert_eq!(at.0 as i64 * 1_000 + i64::from(at.1) / 1_000_000, created_at);
            prop_assert_eq!(JobId::parse(&uuid.to_string()).unwrap(), id);
        }
    }

    #[test]
    fn later_jobs_have_higher_ids() {
        let id = |seq, salt| Uuid::from(JobId { created_at: 1_795_214_602_000, seq, salt });
        assert!(id(1, u32::MAX) < id(2, 0) && id((1 << 30) - 1, 9) < id(1 << 30, 0));
    }

    #[test]
    fn what_is_no_job_says_so() {
        assert_eq!(JobId::parse("x").unwrap_err().code(), crate::error::Code::BadRequest);
        assert_eq!(JobId::parse(&Uuid::new_v4().to_string()).unwrap_err().code(), crate::error::Code::NotFound);
    }
}
