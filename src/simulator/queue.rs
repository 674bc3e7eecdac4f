//! A subscription's queue inside the gateway: bounded, and discarding when full.
//!
//! May not wait for its reader: whoever fills it never blocks and never disturbs another
//! subscription. That is the loss at the source which the wire's section 3 tells of.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use serde::Serialize;
use tokio_stream::Stream;
use tonic::Status;

/// Most entries a queue may hold, whatever the client asks for: 16 Mi entries are about 200 MiB.
const QUEUE_SIZE_MAX: usize = 1 << 24;

/// What a subscription has been given so far; `offered = discarded + queued + taken`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SubscriptionReport {
    /// Counts up from 1 within a simulation.
    pub id: u64,
    /// `queueSize` as the client asked for it.
    pub queue_size: i32,
    /// Changes that happened while it was there.
    pub offered: u64,
    /// Changes thrown away because the queue was full.
    pub discarded: u64,
    /// Changes waiting in the queue.
    pub queued: u64,
    /// Changes handed to the connection.
    pub taken: u64,
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
pub(crate) struct Queue<T> {
    capacity: usize,
    inner: Mutex<Inner<T>>,
}

impl<T: Clone> Queue<T> {
    /// A queue as a client asked for it, and its reading end.
    ///
    /// The gateway is a Go program and its queue a channel. So size 0 is a hand-over without a
    /// store: of changes in a burst the first gets through and the rest are lost until the reader
    /// has taken it (here: one place). A negative size cannot be made and is refused.
    pub(crate) fn open(id: u64, queue_size: i32) -> Result<(Arc<Self>, Subscription<T>), Status> {
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

    /// Puts changes in, throwing away those for which there is no room. `false` once the reader
    /// is gone.
    pub(crate) fn offer(&self, changes: &[T]) -> bool {
        let mut inner = self.lock();
        if inner.reader_gone || inner.end.is_some() {
            return false;
        }
        let room = self.capacity.saturating_sub(inner.items.len()).min(changes.len());
        inner.items.extend(changes.iter().take(room).cloned());
        inner.report.offered += changes.len() as u64;
        inner.report.discarded += (changes.len() - room) as u64;
        let waker = if room > 0 { inner.waker.take() } else { None };
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Ends the stream now, with what still waits thrown away.
    pub(crate) fn end(&self, outcome: Result<(), Status>) {
        let mut inner = self.lock();
        inner.end = Some(outcome);
        inner.items.clear();
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What it has been given so far.
    pub(crate) fn report(&self) -> SubscriptionReport {
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
            // The reason is told once; after it the stream is simply over.
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
