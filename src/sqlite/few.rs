//! [`Few`] at once open and close files. SQLite's own VFS does part of both under one mutex of the process, held over system
//! calls, and lanes that met there put each other to sleep a dozen times for each file. Ours does not; opening is computing all the same, and
//! more lanes at it than cores only take turns. It is manners, not a promise: who has waited
//! [`PATIENCE`] goes on, so that nobody hangs on another's file.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long somebody stands back for those who are at it.
const PATIENCE: Duration = Duration::from_millis(50);

pub struct Few {
    places: Mutex<Places>,
    freed: Condvar,
}

struct Places {
    free: isize,
    /// Who waits. Telling somebody is a system call, also where nobody listens.
    waiting: usize,
}

/// A place, given back when dropped.
pub struct Place<'a>(&'a Few);

impl Few {
    pub fn new(places: usize) -> Few {
        let free = isize::try_from(places).unwrap_or(isize::MAX);
        Few { places: Mutex::new(Places { free, waiting: 0 }), freed: Condvar::new() }
    }

    pub fn place(&self) -> Place<'_> {
        let mut places = self.lock();
        if places.free <= 0 {
            places.waiting += 1;
            (places, _) =
                self.freed.wait_timeout_while(places, PATIENCE, |places| places.free <= 0).unwrap_or_else(PoisonError::into_inner);
            places.waiting -= 1;
        }
        places.free -= 1;
        Place(self)
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.0.lock();
        places.free += 1;
        if places.waiting > 0 {
            drop(places);
            self.0.freed.notify_one();
        }
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
        assert_eq!(few.lock().free, -1);
        drop((first, second));
        assert_eq!(few.lock().free, 1);
    }
}
