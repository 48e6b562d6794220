//! A [`State`] is where a job stands in its life. The numbers are those of `jobs.state`. What the passing of time alone
//! changes is written down by a later claim; [`State::shown`] says what it is already.

use crate::clock::Millis;
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Other jobs have to end first.
    Waiting = 0,
    /// For later: a delay, a retry's backoff, a snooze.
    Scheduled = 1,
    Ready = 2,
    /// Ready, but as many with its `limit` key as may be are leased.
    Blocked = 3,
    Leased = 4,
    Done = 10,
    /// Out of attempts, or given up by its worker.
    Dead = 11,
    Cancelled = 12,
    /// Its `ttl_s` was over before anybody began it.
    Expired = 13,
}

impl State {
    pub const ALL: [State; 9] = [
        State::Waiting,
        State::Scheduled,
        State::Ready,
        State::Blocked,
        State::Leased,
        State::Done,
        State::Dead,
        State::Cancelled,
        State::Expired,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Scheduled => "scheduled",
            State::Ready => "ready",
            State::Blocked => "blocked",
            State::Leased => "leased",
            State::Done => "done",
            State::Dead => "dead",
            State::Cancelled => "cancelled",
            State::Expired => "expired",
        }
    }

    /// Of `jobs.state`, which has no other numbers.
    pub(super) fn of(number: i64) -> State {
        State::ALL.into_iter().find(|state| *state as i64 == number).unwrap_or(State::Ready)
    }

    /// Errors: `bad_request`, naming them all.
    pub fn parse(name: &str) -> Result<State> {
        State::ALL.into_iter().find(|state| state.as_str() == name).ok_or_else(|| {
            let names = State::ALL.map(State::as_str).join(", ");
            Error::bad_request("there is no such state of a job").hint(format!("One of {names}."))
        })
    }

    pub fn is_finished(self) -> bool {
        self as i64 >= State::Done as i64
    }

    /// Its bit in a set of states.
    pub const fn bit(self) -> i64 {
        1 << self as i64
    }

    /// The state of a row with these columns at `now`: a job whose time has come is ready, one whose lease ended is
    /// nobody's.
    pub fn shown(row: &Standing, now: Millis) -> State {
        match State::of(row.state) {
            State::Scheduled if row.due_at <= now => State::Ready,
            State::Leased if row.lease_until.is_some_and(|until| until <= now) => {
                if row.cancelled {
                    State::Cancelled
                } else if row.attempt < row.max_attempts {
                    State::Ready
                } else {
                    State::Dead
                }
            }
            state => state,
        }
    }
}

/// The columns of `jobs` that its state follows from.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub state: i64,
    pub due_at: Millis,
    pub lease_until: Option<Millis>,
    pub cancelled: bool,
    pub attempt: i64,
    pub max_attempts: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_alone_makes_ready_and_takes_back() {
        let row = Standing { state: 1, due_at: 10, lease_until: None, cancelled: false, attempt: 1, max_attempts: 2 };
        assert_eq!((State::shown(&row, 9), State::shown(&row, 10)), (State::Scheduled, State::Ready));
        let leased = Standing { state: 4, lease_until: Some(20), ..row };
        assert_eq!((State::shown(&leased, 19), State::shown(&leased, 20)), (State::Leased, State::Ready));
        assert_eq!(State::shown(&Standing { attempt: 2, ..leased }, 20), State::Dead);
        assert_eq!(State::shown(&Standing { cancelled: true, ..leased }, 20), State::Cancelled);
    }

    #[test]
    fn a_state_is_known_by_its_name() {
        assert!(State::ALL.into_iter().all(|state| State::parse(state.as_str()).ok() == Some(state)));
        assert!(State::parse("running").is_err());
    }
}
