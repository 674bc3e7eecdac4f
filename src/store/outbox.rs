//! The outbox: events from their recording until the broker has acknowledged them.
//!
//! It keeps the order of each subject: at most one event of a subject is in flight. Gateways take
//! turns. It is bounded: when it is full, the oldest event is dropped, and the next event of its
//! subject contains the number of lost ones. Changes are added to a batch, which has to be written
//! to the log.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::event::Event;
use super::log::{Key, LogBatch, Record, encode};
use super::ready::ReadyEvents;
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

/// Events that wait for the broker's acknowledgement.
#[derive(Debug)]
pub(crate) struct Outbox {
    limits: OutboxLimits,
    /// By ID, so the oldest is the first.
    events: BTreeMap<u64, Box<Waiting>>,
    /// How many events of its subject were lost before an event, where any were.
    lost_before: BTreeMap<u64, u64>,
    compressor: Compressor,
    queues: HashMap<Subject, SubjectQueue>,
    /// The first events of subjects with none in flight.
    ready: ReadyEvents,
    /// Those of them that may not be sent yet; checked again by [`Outbox::release`].
    held: BTreeSet<u64>,
    bytes: usize,
    dropped: u64,
    changes: LogBatch,
}

/// The events of one subject.
#[derive(Debug, Default)]
struct SubjectQueue {
    ids: VecDeque<u64>,
    /// The first of them.
    in_flight: bool,
    /// Dropped since the last event of the subject, of which none waits.
    lost: u64,
}

impl Outbox {
    /// An empty one.
    pub(crate) fn new(limits: OutboxLimits) -> Self {
        Self {
            limits,
            events: BTreeMap::new(),
            lost_before: BTreeMap::new(),
            compressor: Compressor::default(),
            queues: HashMap::new(),
            ready: ReadyEvents::default(),
            held: BTreeSet::new(),
            bytes: 0,
            dropped: 0,
            changes: LogBatch::default(),
        }
    }

    /// Adds an event with an ID above all others. Where that makes too many, the oldest are
    /// dropped; their subjects are returned, one for each.
    pub(crate) fn append(&mut self, event: Event) -> Vec<Subject> {
        self.changes.add(&Record::Event(Cow::Borrowed(&event)));
        let (id, subject) = (event.id, event.subject.clone());
        let lost = self.insert(event);
        if lost > 0 {
            self.changes.remove(Key::Lost(subject));
            self.changes.put(Key::LostBefore(id), &encode(&lost));
        }
        let mut dropped = Vec::new();
        while self.events.len() > self.limits.max_events || self.bytes > self.limits.max_bytes {
            match self.drop_oldest() {
                Some(subject) => dropped.push(subject),
                None => break,
            }
        }
        dropped
    }

    /// Adds an event that an earlier process has stored, or a new one; in the order of IDs. Returns
    /// how many events of its subject were lost before it.
    pub(crate) fn insert(&mut self, event: Event) -> u64 {
        let queue = self.queues.entry(event.subject.clone()).or_default();
        if queue.ids.is_empty() {
            self.ready.insert(&event.subject, event.id);
        }
        queue.ids.push_back(event.id);
        let lost = std::mem::take(&mut queue.lost);
        let (id, len) = (event.id, event.payload.len());
        let mut waiting = Box::new(Waiting::new(event));
        if self.bytes > PLAIN_BYTES_MAX {
            self.compressor.compress(&mut waiting);
        }
        self.bytes += len;
        self.events.insert(id, waiting);
        if lost > 0 {
            self.lost_before.insert(id, lost);
        }
        lost
    }

    /// Restores how many events were lost, after the events. Ignores other keys.
    pub(crate) fn restore_lost(&mut self, key: &Key, lost: u64) {
        match key {
            Key::Lost(subject) => self.queues.entry(subject.clone()).or_default().lost = lost,
            Key::LostBefore(id) if self.events.contains_key(id) => {
                self.lost_before.insert(*id, lost);
            }
            _ => {}
        }
    }

    /// The next event that may be sent, with the number of those lost before it; it is in flight
    /// from now on. One that may not be sent is checked again after [`Outbox::release`].
    pub(crate) fn next(
        &mut self,
        may_be_sent: impl Fn(&Subject) -> bool,
    ) -> Option<(Cow<'_, Event>, u64)> {
        let id = loop {
            let id = self.ready.pop()?;
            if may_be_sent(&self.events.get(&id)?.head().subject) {
                break id;
            }
            self.held.insert(id);
        };
        let waiting = self.events.get(&id)?;
        self.queues.get_mut(&waiting.head().subject)?.in_flight = true;
        Some((waiting.event(), self.lost_before.get(&id).copied().unwrap_or(0)))
    }

    /// Events that could not be sent are checked again.
    pub(crate) fn release(&mut self) {
        for id in std::mem::take(&mut self.held) {
            if let Some(waiting) = self.events.get(&id) {
                self.ready.insert(&waiting.head().subject, id);
            }
        }
    }

    /// The broker has acknowledged the subject's event in flight; returns when it was read, if this
    /// process has read it from a stream.
    pub(crate) fn acknowledge(&mut self, subject: &Subject) -> Option<Instant> {
        let queue = self.queues.get_mut(subject)?;
        if !std::mem::take(&mut queue.in_flight) {
            return None;
        }
        let id = queue.ids.pop_front()?;
        match queue.ids.front() {
            Some(&next) => self.ready.insert(subject, next),
            None if queue.lost == 0 => _ = self.queues.remove(subject),
            None => {}
        }
        self.finish(id, true)?.head().read_at
    }

    /// The subject's event in flight will never be delivered: it is dropped, and counts as lost.
    pub(crate) fn give_up(&mut self, subject: &Subject) -> bool {
        self.put_back(subject) && self.drop_first_of(subject).is_some()
    }

    /// The subject's event in flight was not delivered: it is sent again. Returns whether there was
    /// one.
    pub(crate) fn put_back(&mut self, subject: &Subject) -> bool {
        let Some(queue) = self.queues.get_mut(subject) else { return false };
        let was_in_flight = std::mem::take(&mut queue.in_flight);
        if was_in_flight && let Some(&id) = queue.ids.front() {
            self.ready.insert(subject, id);
        }
        was_in_flight
    }

    /// The connection has ended: nothing is in flight.
    pub(crate) fn put_all_back(&mut self) {
        self.release();
        for (subject, queue) in &mut self.queues {
            if std::mem::take(&mut queue.in_flight)
                && let Some(&id) = queue.ids.front()
            {
                self.ready.insert(subject, id);
            }
        }
    }

    /// Replaces the payload of an event that was not sent yet, if it still waits.
    pub(crate) fn rewrite(&mut self, id: u64, payload: Bytes) {
        if let Some(waiting) = self.events.get_mut(&id) {
            self.bytes = self.bytes - waiting.payload_len() + payload.len();
            waiting.rewrite(payload);
        }
    }

    /// The IDs of the events that wait.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.events.keys().copied()
    }

    /// How many events wait.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
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

    /// Everything that waits, for a log that begins.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let events = self.events.values().map(|waiting| Record::Event(waiting.event()));
        let before = self.lost_before.iter().map(|(id, lost)| (Key::LostBefore(*id), *lost));
        let since = self.queues.iter();
        let since = since.map(|(subject, queue)| (Key::Lost(subject.clone()), queue.lost));
        let lost = before.chain(since).filter(|(_, lost)| *lost > 0);
        events.chain(lost.map(|(key, lost)| Record::Put(key, encode(&lost).into())))
    }

    fn drop_oldest(&mut self) -> Option<Subject> {
        let subject = self.events.values().find_map(|waiting| {
            let Event { id, subject, .. } = waiting.head();
            let queue = self.queues.get(subject)?;
            let in_flight = queue.in_flight && queue.ids.front() == Some(id);
            (!in_flight).then(|| subject.clone())
        })?;
        self.drop_first_of(&subject)?;
        Some(subject)
    }

    /// Drops the subject's oldest event that is not in flight; the next one carries the loss.
    fn drop_first_of(&mut self, subject: &Subject) -> Option<()> {
        let queue = self.queues.get_mut(subject)?;
        let at = usize::from(queue.in_flight);
        let id = queue.ids.remove(at)?;
        let next = queue.ids.get(at).copied();
        self.ready.remove(subject, id);
        self.held.remove(&id);
        if !queue.in_flight
            && let Some(next) = next
        {
            self.ready.insert(subject, next);
        }
        let lost = self.lost_before.get(&id).copied().unwrap_or(0);
        self.finish(id, false)?;
        let (key, carried) = match next {
            Some(next) => (Key::LostBefore(next), self.lost_before.entry(next).or_default()),
            None => (Key::Lost(subject.clone()), &mut self.queues.get_mut(subject)?.lost),
        };
        *carried += lost + 1;
        self.changes.put(key, &encode(carried));
        self.dropped += 1;
        Some(())
    }

    /// Removes an event that was delivered, or will never be.
    fn finish(&mut self, id: u64, delivered: bool) -> Option<Box<Waiting>> {
        let waiting = self.events.remove(&id)?;
        self.bytes -= waiting.payload_len();
        self.changes.add(&Record::Done { id, delivered });
        if self.lost_before.remove(&id).is_some() {
            self.changes.remove(Key::LostBefore(id));
        }
        Some(waiting)
    }
}
