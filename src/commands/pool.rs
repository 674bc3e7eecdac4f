//! Who runs when on one gateway: one change at a time, some others beside it, and a bound on all.
//!
//! May not know what is run. A command that finds no place is refused at once, so that nothing
//! piles up behind a gateway that hangs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::{Failure, code};

/// Commands without change that run at once. A gateway answers them from its memory, but for
/// searches, of which more at once make no sense.
const READING_MAX: usize = 8;
/// Commands that run or wait. More are refused.
const PLACES_MAX: usize = 64;

/// One gateway's commands under way.
#[derive(Clone, Debug)]
pub struct Pool {
    places: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    changing: Arc<Semaphore>,
}

/// A command's place among those that run or wait.
#[derive(Debug)]
pub struct Place {
    queue: Arc<Semaphore>,
    place: OwnedSemaphorePermit,
}

/// A command's leave to run, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _place: OwnedSemaphorePermit,
    _run: Option<OwnedSemaphorePermit>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES_MAX)),
            reading: Arc::new(Semaphore::new(READING_MAX)),
            changing: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Pool {
    /// A place for a command.
    ///
    /// # Errors
    /// When so many run or wait already that one more would only make it worse.
    pub fn enter(&self, changes: bool) -> Result<Place, Failure> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            let message = format!(
                "{PLACES_MAX} commands of this gateway run or wait already; wait for their answers"
            );
            Failure::new(code::RATE_LIMITED, message)
        })?;
        let queue = if changes { &self.changing } else { &self.reading };
        Ok(Place { queue: queue.clone(), place })
    }
}

impl Place {
    /// Waits for this command's turn, in the order of the places.
    pub async fn turn(self) -> Turn {
        // The semaphores are never closed; were one, the command would run beside the others.
        let run = self.queue.acquire_owned().await.ok();
        Turn { _place: self.place, _run: run }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_take_turns_and_the_rest_goes_beside_them() {
        let pool = Pool::default();
        let first = pool.enter(true).unwrap().turn().await;
        let mut second = std::pin::pin!(pool.enter(true).unwrap().turn());
        let beside = pool.enter(false).unwrap().turn().await;
        assert!(futures_poll(second.as_mut()).await.is_none());
        drop(first);
        assert!(futures_poll(second.as_mut()).await.is_some());
        drop(beside);
    }

    #[tokio::test]
    async fn beyond_the_bound_all_is_refused() {
        let pool = Pool::default();
        let places: Vec<_> = (0..PLACES_MAX).map(|_| pool.enter(true).unwrap()).collect();
        assert_eq!(pool.enter(false).unwrap_err().code, code::RATE_LIMITED);
        drop(places);
        assert!(pool.enter(false).is_ok());
    }

    /// What a future gives without waiting.
    async fn futures_poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }
}
