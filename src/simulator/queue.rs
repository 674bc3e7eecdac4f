//! Subscriptions to status changes: queues that are bounded and discard when full, as those of a
//! real gateway do. Filling a queue never blocks and never affects another one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use serde::Serialize;
use tokio_stream::Stream;
use tonic::Status;

/// The maximum of entries that a client can request: 16 Mi entries are about 200 MiB.
const QUEUE_SIZE_MAX: usize = 1 << 24;

/// The counts of a subscription; `offered = discarded + queued + taken`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SubscriptionReport {
    /// Counts up from 1 within a simulation.
    pub id: u64,
    /// `queueSize` as requested by the client.
    pub queue_size: i32,
    /// Changes since it was opened.
    pub offered: u64,
    /// Changes discarded because the queue was full.
    pub discarded: u64,
    /// Changes in the queue.
    pub queued: u64,
    /// Changes passed to the connection.
    pub taken: u64,
}

/// The open subscriptions of one kind.
#[derive(Debug)]
pub(crate) struct Subscriptions<T> {
    queues: Vec<Arc<Mutex<SubscriberQueue<T>>>>,
    opened: u64,
}

impl<T> Default for Subscriptions<T> {
    fn default() -> Self {
        Self { queues: Vec::new(), opened: 0 }
    }
}

impl<T: Clone> Subscriptions<T> {
    /// Opens a subscription with a queue as requested by a client.
    ///
    /// The gateway is a Go program and its queue a channel. So size 0 is a hand-over without a
    /// buffer: of a burst the first change gets through and the rest is lost until the reader has
    /// taken it (here: one place). A negative size cannot be made and is refused.
    pub(crate) fn open(&mut self, queue_size: i32) -> Result<SubscriberStream<T>, Status> {
        self.opened += 1;
        let Ok(size) = usize::try_from(queue_size) else {
            let message = format!("queueSize {queue_size} is negative");
            return Err(Status::invalid_argument(message));
        };
        let report =
            SubscriptionReport { id: self.opened, queue_size, ..SubscriptionReport::default() };
        let capacity = size.clamp(1, QUEUE_SIZE_MAX);
        let queue =
            SubscriberQueue { capacity, items: VecDeque::new(), report, end: None, waker: None };
        let queue = Arc::new(Mutex::new(queue));
        self.queues.push(queue.clone());
        Ok(SubscriberStream(queue))
    }

    /// Offers changes to every subscription, and drops those whose reader is gone.
    pub(crate) fn offer(&mut self, changes: &[T]) {
        self.remove_unread();
        self.queues.iter().for_each(|queue| lock(queue).offer(changes));
    }

    /// Removes the subscriptions whose reader is gone.
    fn remove_unread(&mut self) {
        self.queues.retain(|queue| Arc::strong_count(queue) > 1);
    }

    /// Ends every subscription now with `outcome`, and drops what is queued.
    pub(crate) fn end(&mut self, outcome: &Result<(), Status>) {
        for queue in self.queues.drain(..) {
            let mut queue = lock(&queue);
            queue.end = Some(outcome.clone());
            queue.items.clear();
            queue.wake();
        }
    }

    pub(crate) fn reports(&mut self) -> Vec<SubscriptionReport> {
        self.remove_unread();
        self.queues.iter().map(|queue| lock(queue).report()).collect()
    }
}

#[derive(Debug)]
struct SubscriberQueue<T> {
    capacity: usize,
    items: VecDeque<T>,
    report: SubscriptionReport,
    end: Option<Result<(), Status>>,
    waker: Option<Waker>,
}

fn lock<T>(queue: &Mutex<SubscriberQueue<T>>) -> MutexGuard<'_, SubscriberQueue<T>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone> SubscriberQueue<T> {
    /// Adds changes and discards those that do not fit.
    fn offer(&mut self, changes: &[T]) {
        let free = self.capacity.saturating_sub(self.items.len()).min(changes.len());
        self.items.extend(changes.iter().take(free).cloned());
        self.report.offered += changes.len() as u64;
        self.report.discarded += (changes.len() - free) as u64;
        if free > 0 {
            self.wake();
        }
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    fn report(&self) -> SubscriptionReport {
        SubscriptionReport { queued: self.items.len() as u64, ..self.report }
    }
}

/// The reading end: the stream of one client. Dropping it ends the subscription.
#[derive(Debug)]
pub(crate) struct SubscriberStream<T>(Arc<Mutex<SubscriberQueue<T>>>);

impl<T: Clone> Stream for SubscriberStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = lock(&self.0);
        if let Some(outcome) = &mut queue.end {
            // The error is the last item.
            let outcome = std::mem::replace(outcome, Ok(()));
            return Poll::Ready(outcome.err().map(Err));
        }
        if let Some(item) = queue.items.pop_front() {
            queue.report.taken += 1;
            return Poll::Ready(Some(Ok(item)));
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_discards_and_counts_exactly() {
        let mut subscriptions = Subscriptions::default();
        let mut stream = subscriptions.open(3).unwrap();
        subscriptions.offer(&[1, 2, 3, 4, 5]);
        let report = subscriptions.reports()[0];
        assert_eq!((report.offered, report.discarded, report.queued), (5, 2, 3));
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        subscriptions.offer(&[6]);
        for expected in [2, 3, 6] {
            assert_eq!(stream.next().await.unwrap().unwrap(), expected);
        }
        let report = subscriptions.reports()[0];
        assert_eq!((report.offered, report.discarded, report.taken), (6, 2, 4));
        drop(stream);
        assert!(subscriptions.reports().is_empty());
    }

    #[tokio::test]
    async fn an_ended_stream_reports_why_once() {
        let mut subscriptions = Subscriptions::default();
        let mut stream = subscriptions.open(3).unwrap();
        subscriptions.offer(&[1]);
        subscriptions.end(&Err(Status::unavailable("gone")));
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
        assert!(stream.next().await.is_none());
        assert!(stream.next().await.is_none());
    }

    #[test]
    fn sizes_that_no_channel_has() {
        let mut subscriptions = Subscriptions::default();
        assert!(subscriptions.open(-1).is_err());
        let _stream = subscriptions.open(0).unwrap();
        subscriptions.offer(&[1, 2]);
        assert_eq!(subscriptions.reports()[0].discarded, 1);
    }
}
