//! Subscriptions to status changes: queues that are bounded and discard when full, as those of a
//! real gateway do (wire, section 3). Filling a queue never blocks and never affects another one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use serde::Serialize;
use tokio_stream::Stream;
use tonic::Status;

/// Most entries of a queue, whatever the client asks for: 16 Mi entries are about 200 MiB.
const QUEUE_SIZE_MAX: usize = 1 << 24;

/// The counts of a subscription; `offered = discarded + queued + taken`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SubscriptionReport {
    /// Counts up from 1 within a simulation.
    pub id: u64,
    /// `queueSize` as the client asked for it.
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
    queues: Vec<Arc<Queue<T>>>,
    opened: u64,
}

impl<T> Default for Subscriptions<T> {
    fn default() -> Self {
        Self { queues: Vec::new(), opened: 0 }
    }
}

impl<T: Clone> Subscriptions<T> {
    pub(crate) fn open(&mut self, queue_size: i32) -> Result<Subscription<T>, Status> {
        self.opened += 1;
        let (queue, subscription) = Queue::open(self.opened, queue_size)?;
        self.queues.push(queue);
        Ok(subscription)
    }

    /// Offers changes to every subscription, and drops those whose reader is gone.
    pub(crate) fn offer(&mut self, changes: &[T]) {
        self.queues.retain(|queue| queue.offer(changes));
    }

    /// Ends every subscription with `outcome`.
    pub(crate) fn end(&mut self, outcome: &Result<(), Status>) {
        for queue in self.queues.drain(..) {
            queue.end(outcome.clone());
        }
    }

    pub(crate) fn reports(&self) -> Vec<SubscriptionReport> {
        self.queues.iter().map(|queue| queue.report()).collect()
    }
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<T>,
    report: SubscriptionReport,
    end: Option<Result<(), Status>>,
    reader_gone: bool,
    waker: Option<Waker>,
}

/// The gateway's end of a subscription.
#[derive(Debug)]
struct Queue<T> {
    capacity: usize,
    inner: Mutex<Inner<T>>,
}

impl<T: Clone> Queue<T> {
    /// A queue as a client asked for it, and its reading end.
    ///
    /// The gateway is a Go program and its queue a channel. So size 0 is a hand-over without a
    /// buffer: of a burst the first change gets through and the rest is lost until the reader has
    /// taken it (here: one place). A negative size cannot be made and is refused.
    fn open(id: u64, queue_size: i32) -> Result<(Arc<Self>, Subscription<T>), Status> {
        let Ok(size) = usize::try_from(queue_size) else {
            let message = format!("queueSize {queue_size} is negative");
            return Err(Status::invalid_argument(message));
        };
        let report = SubscriptionReport { id, queue_size, ..SubscriptionReport::default() };
        let inner =
            Inner { items: VecDeque::new(), report, end: None, reader_gone: false, waker: None };
        let queue =
            Arc::new(Self { capacity: size.clamp(1, QUEUE_SIZE_MAX), inner: Mutex::new(inner) });
        Ok((queue.clone(), Subscription(queue)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds changes and discards those that do not fit. `false` once the reader is gone.
    fn offer(&self, changes: &[T]) -> bool {
        let mut inner = self.lock();
        if inner.reader_gone || inner.end.is_some() {
            return false;
        }
        let free = self.capacity.saturating_sub(inner.items.len()).min(changes.len());
        inner.items.extend(changes.iter().take(free).cloned());
        inner.report.offered += changes.len() as u64;
        inner.report.discarded += (changes.len() - free) as u64;
        let waker = if free > 0 { inner.waker.take() } else { None };
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Ends the stream now and drops what is queued.
    fn end(&self, outcome: Result<(), Status>) {
        let mut inner = self.lock();
        inner.end = Some(outcome);
        inner.items.clear();
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn report(&self) -> SubscriptionReport {
        let inner = self.lock();
        SubscriptionReport { queued: inner.items.len() as u64, ..inner.report }
    }
}

/// The reading end: the stream of one client. Dropping it ends the subscription.
#[derive(Debug)]
pub(crate) struct Subscription<T: Clone>(Arc<Queue<T>>);

impl<T: Clone> Stream for Subscription<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut inner = self.0.lock();
        if let Some(outcome) = &mut inner.end {
            // The error is the last item.
            let outcome = std::mem::replace(outcome, Ok(()));
            return Poll::Ready(outcome.err().map(Err));
        }
        if let Some(item) = inner.items.pop_front() {
            inner.report.taken += 1;
            return Poll::Ready(Some(Ok(item)));
        }
        inner.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T: Clone> Drop for Subscription<T> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.reader_gone = true;
        inner.items = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_discards_and_counts_exactly() {
        let (queue, mut stream) = Queue::open(1, 3).unwrap();
        assert!(queue.offer(&[1, 2, 3, 4, 5]));
        let report = queue.report();
        assert_eq!((report.offered, report.discarded, report.queued), (5, 2, 3));
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        assert!(queue.offer(&[6]));
        for expected in [2, 3, 6] {
            assert_eq!(stream.next().await.unwrap().unwrap(), expected);
        }
        let report = queue.report();
        assert_eq!((report.offered, report.discarded, report.taken), (6, 2, 4));
        drop(stream);
        assert!(!queue.offer(&[7]));
    }

    #[tokio::test]
    async fn an_ended_stream_tells_why_once() {
        let (queue, mut stream) = Queue::<u32>::open(1, 3).unwrap();
        queue.offer(&[1]);
        queue.end(Err(Status::unavailable("gone")));
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
        assert!(stream.next().await.is_none());
        assert!(stream.next().await.is_none());
    }

    #[test]
    fn sizes_that_no_channel_has() {
        assert!(Queue::<u32>::open(1, -1).is_err());
        let (queue, _stream) = Queue::open(1, 0).unwrap();
        queue.offer(&[1, 2]);
        assert_eq!(queue.report().discarded, 1);
    }
}
