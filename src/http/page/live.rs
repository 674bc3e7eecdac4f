//! Tells those who watch what has changed, once a second at most, and all of them the same.
//!
//! May not wait for anybody: who does not keep up is let go, and a browser comes back by itself.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;

use super::super::{Query, Served};
use super::view;

/// Browsers that may watch at once.
const WATCHERS_MAX: usize = 32;
/// Messages that may wait for one of them.
const WAITING_MAX: usize = 16;
/// How often is looked whether something changed.
const EVERY: Duration = Duration::from_secs(1);
/// How often a word is sent although nothing did, so that the dead are noticed on both sides.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

type Message = Result<Bytes, Infallible>;

/// Those who watch.
#[derive(Debug, Default)]
pub(in crate::http) struct Hub(Mutex<Vec<mpsc::Sender<Message>>>);

impl Hub {
    /// One more; `None` when they are too many.
    pub(super) fn join(&self) -> Option<ReceiverStream<Message>> {
        let mut watchers = self.watchers();
        watchers.retain(|watcher| !watcher.is_closed());
        if watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        // What happened between the page and this stream is fetched by the page anew.
        _ = sender.try_send(Ok(Bytes::from_static(b"retry: 3000\nevent: hello\ndata:\n\n")));
        watchers.push(sender);
        Some(ReceiverStream::new(receiver))
    }

    fn send(&self, message: &Bytes) {
        self.watchers().retain(|watcher| watcher.try_send(Ok(message.clone())).is_ok());
    }

    fn is_empty(&self) -> bool {
        self.watchers().is_empty()
    }

    fn close(&self) {
        self.watchers().clear();
    }

    fn watchers(&self) -> std::sync::MutexGuard<'_, Vec<mpsc::Sender<Message>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the loop what has changed while anybody watches, until the server ends.
pub(in crate::http) async fn tell_on(served: Arc<Served>, stop: impl Future<Output = ()>) {
    tokio::select! {
        () = stop => {}
        () = tell(&served) => {}
    }
    served.hub.close();
}

async fn tell(served: &Served) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = view::Told::default();
    let mut spoke = Instant::now();
    loop {
        ticks.tick().await;
        if served.hub.is_empty() {
            continue;
        }
        let Ok(changes) = served.settings.ask(Query::Changes).await else { continue };
        let message = view::changes(&changes, &mut before);
        if !message.is_empty() {
            served.hub.send(&Bytes::from(message));
            spoke = Instant::now();
        } else if spoke.elapsed() >= SIGN_OF_LIFE {
            served.hub.send(&Bytes::from_static(b": still here\n\n"));
            spoke = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_are_few_and_the_slow_are_let_go() {
        let hub = Hub::default();
        let watchers: Vec<_> = std::iter::from_fn(|| hub.join()).take(99).collect();
        assert_eq!(watchers.len(), WATCHERS_MAX);
        for _ in 0..WAITING_MAX - 1 {
            hub.send(&Bytes::from_static(b"x"));
        }
        assert!(!hub.is_empty());
        hub.send(&Bytes::from_static(b"x"));
        assert!(hub.is_empty());
        assert!(hub.join().is_some());
    }
}
