//! [`Places`] bound the tenants that are tended to at once. What is under way is bounded by its permits, so there are always
//! some places whose tenants have nothing under way; and of those, whoever waits for a permit gives way to who waits for a place.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(super) struct Places {
    max: usize,
    /// So many find none.
    wanted: AtomicUsize,
}

impl Places {
    pub fn new(max: usize) -> Places {
        Places { max, wanted: AtomicUsize::new(0) }
    }

    pub fn max(&self) -> usize {
        self.max
    }

    /// `count` of those who are due found none.
    pub fn are_wanted_by(&self, count: usize) {
        self.wanted.store(count, Relaxed);
    }

    /// Whether somebody is to have the caller's; no more are told so than there are who want one.
    pub fn is_to_go(&self) -> bool {
        self.wanted.fetch_update(Relaxed, Relaxed, |wanted| wanted.checked_sub(1)).is_ok()
    }

    /// Who was told so stays.
    pub fn is_kept(&self) {
        self.wanted.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_go_as_find_none() {
        let places = Places::new(4);
        assert!(!places.is_to_go());
        places.are_wanted_by(2);
        assert!(places.is_to_go() && places.is_to_go() && !places.is_to_go());
        places.is_kept();
        assert!(places.is_to_go() && !places.is_to_go());
    }
}
