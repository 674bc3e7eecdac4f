//! Who runs when on one gateway: one change at a time, the others beside it, all within bounds.
//!
//! May not know what is run. Each kind of command has places of its own, so that none of them keeps
//! another out. One that finds no place is refused at once, so that nothing piles up behind a
//! gateway that hangs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::{Failure, code};

/// A kind of command, by what it makes others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It changes something.
    Change,
    /// The gateway answers it from its memory.
    Look,
    /// It lasts as long as it was asked to, up to a minute.
    Search,
}

impl Lane {
    /// How many of them run at once. A gateway takes one change at a time (contract, section 4);
    /// more searches of one subnet would find no more.
    const fn running_max(self) -> usize {
        match self {
            Self::Change => 1,
            Self::Look => 8,
            Self::Search => 2,
        }
    }

    /// How many of them run or wait. More are refused. A search that waits for many others is
    /// answered when nobody waits for it any more.
    const fn places_max(self) -> usize {
        match self {
            Self::Change | Self::Look => 32,
            Self::Search => 6,
        }
    }

    const fn plural(self) -> &'static str {
        match self {
            Self::Change => "changes",
            Self::Look => "commands without change",
            Self::Search => "searches",
        }
    }
}

/// One gateway's commands under way.
#[derive(Clone, Debug)]
pub struct Pool {
    changes: Queue,
    looks: Queue,
    searches: Queue,
}

/// Those of one kind.
#[derive(Clone, Debug)]
struct Queue {
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// A command's place among those that run or wait.
#[derive(Debug)]
pub struct Place {
    running: Arc<Semaphore>,
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
        let queue = |lane: Lane| Queue {
            places: Arc::new(Semaphore::new(lane.places_max())),
            running: Arc::new(Semaphore::new(lane.running_max())),
        };
        Self {
            changes: queue(Lane::Change),
            looks: queue(Lane::Look),
            searches: queue(Lane::Search),
        }
    }
}

impl Pool {
    /// A place for a command.
    ///
    /// # Errors
    /// When so many of its kind run or wait already that one more would only make it worse.
    pub fn enter(&self, lane: Lane) -> Result<Place, Failure> {
        let queue = match lane {
            Lane::Change => &self.changes,
            Lane::Look => &self.looks,
            Lane::Search => &self.searches,
        };
        let place = queue.places.clone().try_acquire_owned().map_err(|_| {
            let (count, what) = (lane.places_max(), lane.plural());
            let message = format!(
                "{count} {what} of this gateway run or wait already; wait for their answers, then \
                 ask again"
            );
            Failure::new(code::RATE_LIMITED, message)
        })?;
        Ok(Place { running: queue.running.clone(), place })
    }
}

impl Place {
    /// Waits for this command's turn, in the order of the places.
    pub async fn turn(self) -> Turn {
        // The semaphores are never closed; were one, the command would run beside the others.
        let run = self.running.acquire_owned().await.ok();
        Turn { _place: self.place, _run: run }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_take_turns_and_the_rest_goes_beside_them() {
        let pool = Pool::default();
        let first = pool.enter(Lane::Change).unwrap().turn().await;
        let mut second = std::pin::pin!(pool.enter(Lane::Change).unwrap().turn());
        let beside = pool.enter(Lane::Look).unwrap().turn().await;
        assert!(poll_once(second.as_mut()).await.is_none());
        drop(first);
        assert!(poll_once(second.as_mut()).await.is_some());
        drop(beside);
    }

    #[tokio::test]
    async fn no_kind_of_command_keeps_another_out() {
        const LANES: [Lane; 3] = [Lane::Change, Lane::Look, Lane::Search];
        for full in LANES {
            let pool = Pool::default();
            let places: Vec<_> =
                (0..full.places_max()).map(|_| pool.enter(full).unwrap()).collect();
            for lane in LANES {
                let refused = pool.enter(lane).err().map(|failure| failure.code);
                assert_eq!(refused, (lane == full).then_some(code::RATE_LIMITED), "{full:?}");
            }
            drop(places);
            assert!(pool.enter(full).is_ok());
        }
    }

    /// What a future gives without waiting.
    async fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }
}
