//! [`Few`] at once open and close files. SQLite does part of both under one mutex of the process, held over system calls:
//! lanes that meet there put each other to sleep a dozen times for each file. It is manners, not a promise: who has waited
//! [`PATIENCE`] goes on, so that nobody hangs on another's file.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long somebody stands back for those who are at it.
const PATIENCE: Duration = Duration::from_millis(50);

pub struct Few {
    free: Mutex<isize>,
    freed: Condvar,
}

/// A place, given back when dropped.
pub struct Place<'a>(&'a Few);

impl Few {
    pub fn new(places: usize) -> Few {
        Few { free: Mutex::new(isize::try_from(places).unwrap_or(isize::MAX)), freed: Condvar::new() }
    }

    pub fn place(&self) -> Place<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut free, _) = self.freed.wait_timeout_while(free, PATIENCE, |free| *free <= 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_nobody_gives_back_holds_nobody_up_for_good() {
        let few = Few::new(1);
        let first = few.place();
        let second = few.place();
        assert_eq!(*few.free.lock().unwrap(), -1);
        drop((first, second));
        assert_eq!(*few.free.lock().unwrap(), 1);
    }
}
