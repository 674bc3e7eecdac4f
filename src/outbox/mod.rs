//! The outbox: events from the moment they are told until the broker has acknowledged them.
//!
//! May not touch MQTT or gateways. Keeps each subject's order: at most one event of a subject is
//! in flight. Bounded: when full the oldest is dropped, counted, and told by the next event of its
//! subject (`lost`). What it changes is gathered in a batch, which `commit` writes to the store.

mod keep;
mod order;
pub mod store;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use crate::payload::Subject;
use order::Order;
use store::{Batch, Store};

/// An event on its way to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whom it is about.
    pub subject: Subject,
    /// Its name in the topic.
    pub event_type: Cow<'static, str>,
    /// A JSON object.
    pub payload: Bytes,
    /// When it was read from the stream, for measuring its way to the broker; `None` for what did
    /// not come from a stream, or was read in an earlier process.
    pub read_at: Option<Instant>,
}

/// How much the outbox may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events.
    pub max_events: usize,
    /// Bytes of payload.
    pub max_bytes: usize,
}

/// Events waiting for the broker's acknowledgement.
#[derive(Debug)]
pub struct Outbox {
    limits: Limits,
    queues: HashMap<Subject, Queue>,
    /// Subjects with an event to send and none in flight.
    ready: VecDeque<Subject>,
    /// So many of the first of them were told that they may not go yet: nobody asks again.
    held: usize,
    order: Order,
    len: usize,
    bytes: usize,
    dropped: u64,
    /// What has changed since the last commit.
    batch: Batch,
    store: Option<Store>,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Pending>,
    in_flight: bool,
    /// Its subject stands among the ready.
    ready: bool,
    /// Dropped before what comes next.
    lost: u64,
}

#[derive(Debug)]
struct Pending {
    number: u64,
    record: Record,
    lost: u64,
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            queues: HashMap::new(),
            ready: VecDeque::new(),
            held: 0,
            order: Order::default(),
            len: 0,
            bytes: 0,
            dropped: 0,
            batch: Batch::default(),
            store: None,
        }
    }

    /// Takes an event. Where that makes it too many, the oldest are dropped; their subjects are
    /// returned, one for each.
    pub fn append(&mut self, record: Record) -> Vec<Subject> {
        let subject = record.subject.clone();
        let number = self.order.push(subject.clone());
        self.len += 1;
        self.bytes += record.payload.len();
        let queue = self.queues.entry(subject.clone()).or_default();
        let lost = std::mem::take(&mut queue.lost);
        if lost > 0 {
            self.batch.lost_before_next(&subject, 0);
        }
        self.batch.event(number, lost, &subject, &record.event_type, &record.payload);
        queue.records.push_back(Pending { number, record, lost });
        if !queue.in_flight && !std::mem::replace(&mut queue.ready, true) {
            self.ready.push_back(subject);
        }
        let mut dropped = Vec::new();
        while self.len > self.limits.max_events || self.bytes > self.limits.max_bytes {
            match self.drop_oldest() {
                Some(subject) => dropped.push(subject),
                None => break,
            }
        }
        self.tidy_order();
        dropped
    }

    /// The next event that may go, with how many before it were lost; it is in flight from now on.
    /// One that may not is asked about again after [`Outbox::release`].
    pub fn next(&mut self, may_go: impl Fn(&Subject) -> bool) -> Option<(&Record, u64)> {
        let queues = &self.queues;
        let waits = |subject: &Subject| {
            queues.get(subject).is_some_and(|queue| !queue.in_flight && !queue.records.is_empty())
        };
        let mut at = self.held;
        loop {
            let subject = self.ready.get(at)?;
            if waits(subject) {
                if may_go(subject) {
                    break;
                }
                if at == self.held {
                    self.held += 1;
                }
            }
            at += 1;
        }
        let subject = self.ready.remove(at)?;
        let queue = self.queues.get_mut(&subject)?;
        queue.ready = false;
        queue.in_flight = true;
        queue.records.front().map(|pending| (&pending.record, pending.lost))
    }

    /// The number and the type of a subject's first event.
    #[must_use]
    pub fn first_of(&self, subject: &Subject) -> Option<(u64, &str)> {
        let first = self.queues.get(subject)?.records.front()?;
        Some((first.number, &first.record.event_type))
    }

    /// What was held may go now, or is to be asked about again.
    pub const fn release(&mut self) {
        self.held = 0;
    }

    /// The subject's event in flight was acknowledged; returns when it was read, if it was by this
    /// process.
    pub fn acknowledge(&mut self, subject: &Subject) -> Option<Instant> {
        let queue = self.queues.get_mut(subject)?;
        if !std::mem::take(&mut queue.in_flight) {
            return None;
        }
        let pending = queue.records.pop_front()?;
        self.batch.gone(pending.number);
        self.len -= 1;
        self.bytes -= pending.record.payload.len();
        if !queue.records.is_empty() {
            queue.ready = true;
            self.ready.push_back(subject.clone());
        } else if queue.lost == 0 {
            self.queues.remove(subject);
        }
        pending.record.read_at
    }

    /// The subject's event in flight will never be taken: it is dropped, and counts as lost.
    pub fn give_up(&mut self, subject: &Subject) -> bool {
        let given_up = self.queues.get_mut(subject).is_some_and(|queue| {
            let in_flight = std::mem::take(&mut queue.in_flight);
            in_flight && !std::mem::replace(&mut queue.ready, true)
        });
        if given_up {
            self.ready.push_back(subject.clone());
            self.drop_first_of(subject);
        }
        given_up
    }

    /// The subject's event in flight was not taken: it is the next of its subject again.
    pub fn put_back(&mut self, subject: &Subject) {
        if let Some(queue) = self.queues.get_mut(subject) {
            queue.in_flight = false;
            if !std::mem::replace(&mut queue.ready, true) {
                self.ready.push_back(subject.clone());
            }
        }
    }

    /// The broker is gone: nothing is in flight any more.
    pub fn put_all_back(&mut self) {
        self.queues.values_mut().for_each(|queue| queue.in_flight = false);
        self.line_up();
    }

    /// Whose oldest event came first is first among the ready.
    fn line_up(&mut self) {
        let mut subjects = Vec::new();
        for (subject, queue) in &mut self.queues {
            let first = queue.records.front().filter(|_| !queue.in_flight);
            queue.ready = first.is_some();
            subjects.extend(first.map(|first| (first.number, subject.clone())));
        }
        subjects.sort_unstable();
        self.held = 0;
        self.ready = subjects.into_iter().map(|(_, subject)| subject).collect();
    }

    /// How many events wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes of payload wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many events were dropped.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn drop_oldest(&mut self) -> Option<Subject> {
        let queues = &self.queues;
        let droppable = |number: u64, subject: &Subject| {
            let queue = queues.get(subject);
            queue.is_some_and(|queue| queue.oldest_at_rest() == Some(number))
        };
        let lives = |number: u64, subject: &Subject| {
            queues.get(subject).is_some_and(|queue| queue.holds(number))
        };
        let subject = self.order.take_first(lives, droppable)?;
        self.drop_first_of(&subject)?;
        Some(subject)
    }

    /// Drops the subject's oldest event that is not in flight; the next one tells.
    fn drop_first_of(&mut self, subject: &Subject) -> Option<()> {
        let queue = self.queues.get_mut(subject)?;
        let at = usize::from(queue.in_flight);
        let oldest = queue.records.remove(at)?;
        let lost = oldest.lost + 1;
        self.batch.gone(oldest.number);
        if let Some(next) = queue.records.get_mut(at) {
            next.lost += lost;
            self.batch.lost(next.number, next.lost);
        } else {
            queue.lost += lost;
            self.batch.lost_before_next(subject, queue.lost);
        }
        self.len -= 1;
        self.bytes -= oldest.record.payload.len();
        self.dropped += 1;
        Some(())
    }

    fn tidy_order(&mut self) {
        let queues = &self.queues;
        self.order.tidy(self.len, |number, subject| {
            queues.get(subject).is_some_and(|queue| queue.holds(number))
        });
    }
}

impl Queue {
    /// Whether the event of this number is still here; they go in order.
    fn holds(&self, number: u64) -> bool {
        self.records.front().is_some_and(|front| front.number <= number)
    }

    /// The number of the oldest event that is not in flight.
    fn oldest_at_rest(&self) -> Option<u64> {
        self.records.get(usize::from(self.in_flight)).map(|pending| pending.number)
    }
}
