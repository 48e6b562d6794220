//! [`Permits`] are one tender's of what is bounded over all tenants: those that it has, and its place among those who wait for one. The
//! place is kept while something else comes up, so who is often disturbed has its turn all the same.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

type Place = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

pub(super) struct Permits {
    of: Arc<Semaphore>,
    place: Option<Place>,
    had: Vec<OwnedSemaphorePermit>,
}

impl Permits {
    pub fn of(bound: &Arc<Semaphore>) -> Permits {
        Permits { of: bound.clone(), place: None, had: Vec::new() }
    }

    pub fn count(&self) -> usize {
        self.had.len()
    }

    pub fn take(&mut self) -> Option<OwnedSemaphorePermit> {
        self.had.pop()
    }

    pub fn give_back(&mut self) {
        self.had.clear();
    }

    /// Until there is one, with as many more as there are then, `wanted` at most; for ever where none is wanted.
    pub async fn come(&mut self, wanted: usize) -> Result<()> {
        if wanted == 0 {
            self.place = None;
            return std::future::pending().await;
        }
        let place = self.place.get_or_insert_with(|| Box::pin(self.of.clone().acquire_owned()));
        let first = place.await.map_err(|error| Error::internal("permits cannot be counted any more", &error))?;
        self.place = None;
        self.had.push(first);
        self.more(wanted);
        Ok(())
    }

    /// As many as there are now, until it has `wanted`.
    pub fn more(&mut self, wanted: usize) {
        while self.had.len() < wanted
            && let Ok(permit) = self.of.clone().try_acquire_owned()
        {
            self.had.push(permit);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_place_is_kept_while_something_else_comes_up() {
        let bound = Arc::new(Semaphore::new(1));
        let (mut first, mut second, mut third) = (Permits::of(&bound), Permits::of(&bound), Permits::of(&bound));
        first.come(4).await.unwrap();
        assert_eq!(first.count(), 1);
        for _ in 0..3 {
            assert!(second.come(1).now_or_never().is_none());
            assert!(third.come(1).now_or_never().is_none());
        }
        drop(first.take());
        assert!(third.come(1).now_or_never().is_none(), "it is the second one's turn");
        second.come(1).await.unwrap();
        // Who wants none any more gives the place up.
        assert!(third.come(0).now_or_never().is_none());
        second.give_back();
        first.come(1).await.unwrap();
    }
}
