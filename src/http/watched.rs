//! A value that is read at intervals while someone watches it: nothing wakes the program while
//! there is no watcher.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

#[derive(Debug)]
pub(crate) struct Watched<T> {
    value: watch::Sender<T>,
    /// Notified when there is another watcher.
    opened: Notify,
}

impl<T: PartialEq> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: watch::Sender::new(value), opened: Notify::new() }
    }

    pub(crate) fn watchers(&self) -> usize {
        self.value.receiver_count()
    }

    /// Another watcher, until the receiver is dropped.
    pub(crate) fn subscribe(&self) -> watch::Receiver<T> {
        let receiver = self.value.subscribe();
        self.opened.notify_one();
        receiver
    }

    /// Reads the value while it is watched; it stays as it is where `read` returns `None`.
    pub(crate) async fn follow<F>(&self, every: Duration, read: impl Fn() -> F)
    where
        F: Future<Output = Option<T>>,
    {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.opened.notified().await;
            while self.watchers() > 0 {
                ticks.tick().await;
                if let Some(now) = read().await {
                    self.value.send_if_modified(|value| {
                        let is_new = *value != now;
                        *value = now;
                        is_new
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_is_read_only_while_it_is_watched() {
        let (watched, reads) = (Watched::new(0), Cell::new(0));
        let follow = async |seconds| {
            let read = || {
                reads.set(reads.get() + 1);
                ready(Some(reads.get() / 2))
            };
            let following = watched.follow(Duration::from_secs(1), read);
            _ = timeout(Duration::from_secs(seconds), following).await;
            reads.get()
        };
        assert_eq!(follow(10).await, 0);
        // One that leaves at once, as a request for the head of the answer does.
        drop(watched.subscribe());
        assert_eq!(follow(10).await, 0);
        let mut watcher = watched.subscribe();
        let read = follow(10).await;
        assert!((9..=11).contains(&read), "{read} times");
        assert_eq!(*watcher.borrow_and_update(), read / 2);
        drop(watcher);
        assert_eq!(follow(10).await, read);
    }
}
