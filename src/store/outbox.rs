//! The outbox: events from their recording until the broker has acknowledged them.
//!
//! It keeps the order of each subject: at most one event of a subject is in flight. Gateways take
//! turns. It is bounded: when it is full, the oldest event is dropped, and the next event of its
//! subject contains the number of lost ones. Changes are added to a batch, which has to be written
//! to the log.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Instant;

use super::log::{Event, Key, LogBatch, Record, encode};
use super::ready::ReadySubjects;
use super::waiting::{Compressor, Waiting};
use crate::payload::Subject;

/// Bytes of payload that may wait before more are compressed: more than what a busy broker has not
/// acknowledged yet.
const PLAIN_BYTES_MAX: usize = 1 << 20;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutboxLimits {
    /// Events.
    pub(crate) max_events: usize,
    /// Bytes of payload.
    pub(crate) max_bytes: usize,
}

/// Events that wait for the broker's acknowledgement. The first event of each subject is ready,
/// held, or in flight.
#[derive(Debug)]
pub(crate) struct Outbox {
    limits: OutboxLimits,
    queues: HashMap<Subject, SubjectQueue>,
    ready: ReadySubjects,
    /// May not be sent yet; checked again by [`Outbox::release`].
    held: HashSet<Subject>,
    in_flight: HashSet<Subject>,
    /// How many events of its subject were lost before an event, where any were.
    lost_before: BTreeMap<u64, u64>,
    compressor: Compressor,
    len: usize,
    bytes: usize,
    dropped: u64,
    changes: LogBatch,
}

/// The events of one subject.
#[derive(Debug, Default)]
struct SubjectQueue {
    events: VecDeque<Box<Waiting>>,
    /// Dropped since the last event of the subject, of which none waits.
    lost: u64,
}

impl SubjectQueue {
    fn first(&self) -> Option<u64> {
        self.events.front().map(|event| event.id)
    }
}

impl Outbox {
    /// An empty one.
    pub(crate) fn new(limits: OutboxLimits) -> Self {
        Self {
            limits,
            queues: HashMap::new(),
            ready: ReadySubjects::default(),
            held: HashSet::new(),
            in_flight: HashSet::new(),
            lost_before: BTreeMap::new(),
            compressor: Compressor::default(),
            len: 0,
            bytes: 0,
            dropped: 0,
            changes: LogBatch::default(),
        }
    }

    /// Adds an event with an ID above all others. Where that makes too many, the oldest are
    /// dropped and returned.
    pub(crate) fn append(&mut self, event: Event) -> Vec<Event> {
        self.changes.add(&Record::Event(Cow::Borrowed(&event)));
        let (id, subject) = (event.id, event.subject.clone());
        let lost = self.insert(event);
        if lost > 0 {
            self.changes.remove(Key::Lost(subject));
            self.changes.put(Key::LostBefore(id), &encode(&lost));
        }
        let mut dropped = Vec::new();
        while self.len > self.limits.max_events || self.bytes > self.limits.max_bytes {
            match self.drop_oldest() {
                Some(event) => dropped.push(event),
                None => break,
            }
        }
        dropped
    }

    /// Adds an event that an earlier process has stored, or a new one; in the order of IDs. Returns
    /// how many events of its subject were lost before it.
    pub(crate) fn insert(&mut self, event: Event) -> u64 {
        let id = event.id;
        let queue = self.queues.entry(event.subject.clone()).or_default();
        if queue.events.is_empty() {
            self.ready.insert(event.subject.clone(), id);
        }
        let mut waiting = Box::new(Waiting::new(event));
        self.len += 1;
        self.bytes += waiting.payload_len();
        if self.bytes > PLAIN_BYTES_MAX {
            self.compressor.compress(&mut waiting);
        }
        queue.events.push_back(waiting);
        let lost = std::mem::take(&mut queue.lost);
        if lost > 0 {
            self.lost_before.insert(id, lost);
        }
        lost
    }

    /// Restores how many events were lost, after the events. Ignores other keys.
    pub(crate) fn restore_lost(&mut self, key: &Key, lost: u64) {
        match key {
            Key::Lost(subject) => self.queues.entry(subject.clone()).or_default().lost = lost,
            Key::LostBefore(id) => _ = self.lost_before.insert(*id, lost),
            _ => {}
        }
    }

    /// The next event that may be sent, with the number of those lost before it; it is in flight
    /// from now on. One that may not be sent is checked again after [`Outbox::release`].
    pub(crate) fn next(
        &mut self,
        may_be_sent: impl Fn(&Subject) -> bool,
    ) -> Option<(Cow<'_, Event>, u64)> {
        let subject = loop {
            let subject = self.ready.pop()?;
            if may_be_sent(&subject) {
                break subject;
            }
            self.held.insert(subject);
        };
        let waiting = self.queues.get(&subject)?.events.front()?;
        self.in_flight.insert(subject);
        Some((waiting.event(), self.lost_before.get(&waiting.id).copied().unwrap_or(0)))
    }

    /// Events that could not be sent are checked again.
    pub(crate) fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        held.into_iter().for_each(|subject| self.make_ready(subject));
    }

    /// The broker has acknowledged the subject's event in flight; returns when it was read, if this
    /// process has read it from a stream.
    pub(crate) fn acknowledge(&mut self, subject: &Subject) -> Option<Instant> {
        let subject = self.in_flight.take(subject)?;
        let queue = self.queues.get_mut(&subject)?;
        let delivered = queue.events.pop_front()?;
        if queue.events.is_empty() && queue.lost == 0 {
            self.queues.remove(&subject);
        }
        self.make_ready(subject);
        self.finish(&delivered, true);
        delivered.read_at
    }

    /// The subject's event in flight will never be delivered: it is dropped, and counts as lost.
    pub(crate) fn give_up(&mut self, subject: &Subject) -> Option<Event> {
        if self.put_back(subject) { self.drop_first_of(subject) } else { None }
    }

    /// The subject's event in flight was not delivered: it is sent again. Returns whether there was
    /// one.
    pub(crate) fn put_back(&mut self, subject: &Subject) -> bool {
        let subject = self.in_flight.take(subject);
        let was_in_flight = subject.is_some();
        subject.into_iter().for_each(|subject| self.make_ready(subject));
        was_in_flight
    }

    /// The connection has ended: nothing is in flight.
    pub(crate) fn put_all_back(&mut self) {
        self.release();
        let in_flight = std::mem::take(&mut self.in_flight);
        in_flight.into_iter().for_each(|subject| self.make_ready(subject));
    }

    /// Replaces an event that was not sent yet by one with its subject and ID, if it still waits.
    pub(crate) fn replace(&mut self, event: Event) {
        let Some(queue) = self.queues.get_mut(&event.subject) else { return };
        if let Ok(at) = queue.events.binary_search_by_key(&event.id, |waiting| waiting.id) {
            let waiting = &mut queue.events[at];
            self.bytes = self.bytes - waiting.payload_len() + event.payload.len();
            **waiting = Waiting::new(event);
        }
    }

    /// The IDs of the events that wait.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.queues.values().flat_map(|queue| queue.events.iter().map(|event| event.id))
    }

    /// How many events wait.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether an event could be sent now.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many bytes of payload wait.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many events were dropped.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What has changed and is not written yet. Values of other keys may be added.
    pub(crate) const fn changes(&mut self) -> &mut LogBatch {
        &mut self.changes
    }

    /// Everything that waits, for a log that begins; the events in the order of their IDs.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let events = self.queues.values().flat_map(|queue| &queue.events);
        let mut events: Vec<&Waiting> = events.map(Box::as_ref).collect();
        events.sort_unstable_by_key(|waiting| waiting.id);
        let events = events.into_iter().map(|waiting| Record::Event(waiting.event()));
        let before = self.lost_before.iter().map(|(id, lost)| (Key::LostBefore(*id), *lost));
        let since = self.queues.iter();
        let since = since.map(|(subject, queue)| (Key::Lost(subject.clone()), queue.lost));
        let lost = before.chain(since).filter(|(_, lost)| *lost > 0);
        events.chain(lost.map(|(key, lost)| Record::Put(key, encode(&lost).into())))
    }

    /// Makes a subject ready that is neither in flight nor held, if it has events.
    fn make_ready(&mut self, subject: Subject) {
        if let Some(first) = self.queues.get(&subject).and_then(SubjectQueue::first) {
            self.ready.insert(subject, first);
        }
    }

    /// Drops the oldest event that is not in flight.
    fn drop_oldest(&mut self) -> Option<Event> {
        let not_ready = self.held.iter().map(|subject| (subject, 0));
        let not_ready = not_ready.chain(self.in_flight.iter().map(|subject| (subject, 1)));
        let not_ready = not_ready.filter_map(|(subject, at)| {
            let event = self.queues.get(subject)?.events.get(at)?;
            Some((event.id, subject))
        });
        let (_, subject) = not_ready.chain(self.ready.oldest()).min()?;
        self.drop_first_of(&subject.clone())
    }

    /// Drops the subject's oldest event that is not in flight; the next one carries the loss.
    fn drop_first_of(&mut self, subject: &Subject) -> Option<Event> {
        let queue = self.queues.get_mut(subject)?;
        let in_flight = self.in_flight.contains(subject);
        let at = usize::from(in_flight);
        let dropped = queue.events.remove(at)?;
        let next = queue.events.get(at).map(|event| event.id);
        if !in_flight {
            self.ready.remove(subject, dropped.id);
            self.held.remove(subject);
            self.make_ready(subject.clone());
        }
        let lost = self.lost_before.get(&dropped.id).copied().unwrap_or(0);
        self.finish(&dropped, false);
        let (key, carried) = match next {
            Some(next) => (Key::LostBefore(next), self.lost_before.entry(next).or_default()),
            None => (Key::Lost(subject.clone()), &mut self.queues.get_mut(subject)?.lost),
        };
        *carried += lost + 1;
        self.changes.put(key, &encode(carried));
        self.dropped += 1;
        Some(dropped.event().into_owned())
    }

    /// An event was delivered, or will never be.
    fn finish(&mut self, event: &Waiting, delivered: bool) {
        self.len -= 1;
        self.bytes -= event.payload_len();
        self.changes.add(&Record::Done { id: event.id, delivered });
        if self.lost_before.remove(&event.id).is_some() {
            self.changes.remove(Key::LostBefore(event.id));
        }
    }
}
