//! Subscriptions to status changes: queues that are bounded and discard when full, as those of a
//! real gateway do. Filling a queue never blocks and never affects another one.

use std::pin::Pin;
use std::task::{Context, Poll};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
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
    open: Vec<Subscriber<T>>,
    opened: u64,
}

/// The filling end of a subscription.
#[derive(Debug)]
struct Subscriber<T> {
    queue: mpsc::Sender<T>,
    end: oneshot::Sender<Result<(), Status>>,
    /// Without what the queue itself shows.
    report: SubscriptionReport,
}

impl<T> Default for Subscriptions<T> {
    fn default() -> Self {
        Self { open: Vec::new(), opened: 0 }
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
        let (queue, items) = mpsc::channel(size.clamp(1, QUEUE_SIZE_MAX));
        let (end, ended) = oneshot::channel();
        self.open.push(Subscriber { queue, end, report });
        Ok(SubscriberStream { items, ended: Some(ended) })
    }

    /// Offers changes to every subscription, and drops those whose reader is gone.
    pub(crate) fn offer(&mut self, changes: &[T]) {
        self.remove_unread();
        for subscriber in &mut self.open {
            let is_full = |change: &&T| subscriber.queue.try_send((*change).clone()).is_err();
            let discarded = changes.iter().filter(is_full).count();
            subscriber.report.offered += changes.len() as u64;
            subscriber.report.discarded += discarded as u64;
        }
    }

    /// Removes the subscriptions whose reader is gone.
    fn remove_unread(&mut self) {
        self.open.retain(|subscriber| !subscriber.queue.is_closed());
    }

    /// Ends every subscription now with `outcome`, and drops what is queued.
    pub(crate) fn end(&mut self, outcome: &Result<(), Status>) {
        for subscriber in self.open.drain(..) {
            // Fails when its reader is gone.
            let _ = subscriber.end.send(outcome.clone());
        }
    }

    pub(crate) fn reports(&mut self) -> Vec<SubscriptionReport> {
        self.remove_unread();
        let report = |Subscriber { queue, report, .. }: &Subscriber<T>| {
            let queued = (queue.max_capacity() - queue.capacity()) as u64;
            let taken = report.offered - report.discarded - queued;
            SubscriptionReport { queued, taken, ..*report }
        };
        self.open.iter().map(report).collect()
    }
}

/// The reading end: the stream of one client. Dropping it ends the subscription.
#[derive(Debug)]
pub(crate) struct SubscriberStream<T> {
    items: mpsc::Receiver<T>,
    /// `None` after the end.
    ended: Option<oneshot::Receiver<Result<(), Status>>>,
}

impl<T> Stream for SubscriberStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(ended) = &mut self.ended else { return Poll::Ready(None) };
        if let Poll::Ready(outcome) = Pin::new(ended).poll(cx) {
            self.ended = None;
            // The error is the last item.
            return Poll::Ready(outcome.ok().and_then(Result::err).map(Err));
        }
        self.items.poll_recv(cx).map(|item| item.map(Ok))
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
