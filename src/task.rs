//! Detects tasks that panic or hang, and yields the processor during long work.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

/// The longest time between two beats of a loop that has nothing else to do.
const BEAT_INTERVAL: Duration = Duration::from_secs(4);
/// From this age on a heartbeat counts as stopped.
const STOPPED_AFTER: Duration = Duration::from_secs(10);

/// Lets a thread run that waits for this core. Called often in work that is not urgent and takes
/// longer than a millisecond: Linux lets an event wait for the rest of its time slice, whatever its
/// priority.
pub(crate) fn give_way() {
    std::thread::yield_now();
}

/// Shows that a loop runs: the loop beats, and others read the age of the last beat.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    started: Instant,
    /// Milliseconds after `started`.
    last_ms: Arc<AtomicU64>,
}

impl Heartbeat {
    /// A heartbeat whose last beat is now.
    pub fn start() -> Self {
        Self { started: Instant::now(), last_ms: Arc::default() }
    }

    /// Called once in each iteration of the loop.
    pub fn beat(&self) {
        let millis = self.started.elapsed().as_millis();
        self.last_ms.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The loop's next beat is due then at the latest.
    pub fn next_due(&self) -> Instant {
        self.last() + BEAT_INTERVAL
    }

    /// Time since the last beat.
    pub fn age(&self) -> Duration {
        self.last().elapsed()
    }

    /// When the loop last ran, if it has stopped since.
    pub fn stopped_at(&self) -> Option<Instant> {
        (!self.is_alive()).then(|| self.last())
    }

    /// Whether the loop runs.
    pub fn is_alive(&self) -> bool {
        self.age() < STOPPED_AFTER
    }

    fn last(&self) -> Instant {
        self.started + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

/// Waits for `work`. A panic is returned as its message.
pub fn catch_panic<T>(work: impl Future<Output = T>) -> impl Future<Output = Result<T, String>> {
    // Kept once on the heap: as a part of the caller's future, work would take its size twice.
    let mut work = Box::pin(work);
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Poll::Ready(Err(text.unwrap_or("a panic without a message").to_owned()))
        }
    })
}

/// Waits for `work`. A panic is logged, and returns `None`.
pub(crate) fn log_panic<T>(work: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    let work = catch_panic(work);
    async move {
        let done = work.await.inspect_err(|panic| {
            tracing::error!(panic, "internal error: a task panicked; please report this");
        });
        done.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_returned_as_its_message() {
        assert_eq!(catch_panic(async { 7 }).await, Ok(7));
        let number = 3;
        let died = catch_panic(async { assert_eq!(number, 4, "not four") }).await;
        assert!(died.unwrap_err().contains("not four"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_is_valid_for_ten_seconds_after_its_last_beat() {
        let heartbeat = Heartbeat::start();
        tokio::time::advance(STOPPED_AFTER - Duration::from_millis(1)).await;
        assert!(heartbeat.is_alive());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!heartbeat.is_alive());
        heartbeat.beat();
        assert!(heartbeat.is_alive());
        assert_eq!(heartbeat.next_due(), Instant::now() + BEAT_INTERVAL);
    }
}
