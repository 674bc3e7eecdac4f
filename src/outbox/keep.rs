//! The outbox on the disk: what a turn has changed is written as one batch, and read back at start.
//!
//! May not decide what follows from a failure: its caller does. Without a store the outbox lives in
//! memory alone.

use std::time::Duration;

use bytes::Bytes;

use super::order::Order;
use super::store::{Batch, Event, Key, Store, StoreError};
use super::{Outbox, Pending, Record};
use crate::fleet::Remembered;
use crate::ids::{DeviceId, GatewayName};
use crate::payload::Subject;

/// Batches of a store that begins anew are about this large, in bytes.
const ANEW_BATCH_LEN: usize = 1 << 20;

impl Outbox {
    /// From now on in this store, which holds all that waits.
    pub fn keep(&mut self, store: Store) {
        self.batch.clear();
        self.store = Some(store);
    }

    /// Whether it outlives the process.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.store.is_some()
    }

    /// Whether the disk has not answered for this long.
    #[must_use]
    pub fn disk_hangs(&self, after: Duration) -> bool {
        self.store.as_ref().is_some_and(|store| store.hangs(after))
    }

    /// Nothing more waits for the disk: the process ends, and the next goes on as after a kill.
    pub fn let_go(&mut self) {
        if let Some(store) = self.store.take() {
            store.let_go();
        }
    }

    /// Takes up what an earlier process left. To be called before anything else.
    pub fn restore(&mut self, events: Vec<Event>, lost: Vec<(Subject, u64)>) {
        for Event { number, lost, subject, event_type, payload } in events {
            self.order.enter(number, subject.clone());
            self.len += 1;
            self.bytes += payload.len();
            let queue = self.queues.entry(subject.clone()).or_default();
            let event_type = event_type.into();
            let record = Record { subject: subject.clone(), event_type, payload, read_at: None };
            queue.records.push_back(Pending { number, record, lost });
            if !std::mem::replace(&mut queue.ready, true) {
                self.ready.push_back(subject);
            }
        }
        for (subject, lost) in lost {
            self.queues.entry(subject).or_default().lost = lost;
        }
    }

    /// Takes up what an earlier process left and could not be read until now: it goes before all
    /// that is not on its way yet. Its numbers and those of what is here become others.
    pub fn restore_late(&mut self, events: Vec<Event>, lost: Vec<(Subject, u64)>) {
        let (mut on_their_way, mut at_rest) = (Vec::new(), Vec::new());
        for queue in self.queues.values_mut() {
            at_rest.extend(queue.records.split_off(usize::from(queue.in_flight)));
            on_their_way.extend(queue.records.drain(..));
        }
        at_rest.sort_unstable_by_key(|pending: &Pending| pending.number);
        let late = events.into_iter().map(|event| {
            let Event { number, lost, subject, event_type, payload } = event;
            let record = Record { subject, event_type: event_type.into(), payload, read_at: None };
            Pending { number, record, lost }
        });
        self.order = Order::default();
        self.bytes = 0;
        for pending in on_their_way.into_iter().chain(late).chain(at_rest) {
            let subject = pending.record.subject.clone();
            let number = self.order.push(subject.clone());
            self.bytes += pending.record.payload.len();
            let queue = self.queues.entry(subject).or_default();
            queue.records.push_back(Pending { number, ..pending });
        }
        for (subject, lost) in lost {
            let queue = self.queues.entry(subject).or_default();
            match queue.records.get_mut(usize::from(queue.in_flight)) {
                Some(next) => next.lost += lost,
                None => queue.lost += lost,
            }
        }
        self.len = self.queues.values().map(|queue| queue.records.len()).sum();
        self.line_up();
    }

    /// A device's last state, to be written with the events that led to it.
    pub fn remember(&mut self, gateway: &GatewayName, device_id: DeviceId, device: &Remembered) {
        let Some(store) = &self.store else { return };
        let key = Key::Device(gateway.clone(), device_id);
        let value = Batch::device_value(device);
        if store.is_news(&key, &value) {
            self.batch.value(key, &value);
        }
    }

    /// What is to outlive the process beside events and devices; `None`: nothing any more.
    pub fn note(&mut self, key: Key, value: Option<&[u8]>) {
        match value {
            Some(value) => self.batch.value(key, value),
            None => self.batch.no_value(key),
        }
    }

    /// The number of the event appended last.
    #[must_use]
    pub const fn last_number(&self) -> u64 {
        self.order.numbered
    }

    /// Gives an event that nobody has seen another payload. One that was dropped stays dropped.
    pub fn rewrite(&mut self, subject: &Subject, number: u64, payload: Bytes) {
        let queue = self.queues.get_mut(subject);
        let pending = queue.and_then(|it| it.records.iter_mut().rfind(|it| it.number == number));
        if let Some(pending) = pending {
            self.bytes = self.bytes - pending.record.payload.len() + payload.len();
            pending.record.payload = payload;
        }
    }

    /// Whether there is something to write, and it may wait: what the broker has taken, as long as
    /// nothing else is to be sent. So no more than a device's last event is ever sent again.
    #[must_use]
    pub fn can_wait(&self) -> bool {
        !self.batch.is_empty() && self.batch.can_wait() && self.ready.is_empty()
    }

    /// Writes all that has changed since the last time. Nothing of it may be published before.
    ///
    /// # Errors
    /// When it could not be written: the store is given up, the outbox lives in memory.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        let Some(store) = &mut self.store else {
            self.batch.clear();
            return Ok(());
        };
        let written = store.write(&mut self.batch);
        if written.is_err() {
            self.batch.clear();
            if let Some(store) = self.store.take() {
                store.give_up();
            }
        }
        written
    }

    /// All that waits, with these devices and notes, for a store that begins anew.
    pub fn anew<'a>(
        &'a self,
        devices: impl Iterator<Item = (&'a GatewayName, DeviceId, Remembered)> + 'a,
        mut notes: impl Iterator<Item = (Key, Vec<u8>)> + 'a,
    ) -> impl Iterator<Item = Batch> + 'a {
        let mut events: Vec<&Pending> =
            self.queues.values().flat_map(|queue| &queue.records).collect();
        events.sort_unstable_by_key(|pending| pending.number);
        let mut lost = self.queues.iter().filter(|(_, queue)| queue.lost > 0);
        let (mut events, mut devices) = (events.into_iter(), devices);
        std::iter::from_fn(move || {
            let mut batch = Batch::default();
            while batch.len() < ANEW_BATCH_LEN {
                if let Some(Pending { number, record, lost }) = events.next() {
                    let Record { subject, event_type, payload, .. } = record;
                    batch.event(*number, *lost, subject, event_type, payload);
                } else if let Some((subject, queue)) = lost.next() {
                    batch.lost_before_next(subject, queue.lost);
                } else if let Some((gateway, device_id, device)) = devices.next() {
                    batch.value(
                        Key::Device(gateway.clone(), device_id),
                        &Batch::device_value(&device),
                    );
                } else if let Some((key, value)) = notes.next() {
                    batch.value(key, &value);
                } else {
                    break;
                }
            }
            (!batch.is_empty()).then_some(batch)
        })
    }

    /// The process ends in order; what waits is there for the next.
    ///
    /// # Errors
    /// When that could not be written.
    pub fn stop(&mut self) -> Result<(), StoreError> {
        self.commit()?;
        self.store.take().map_or(Ok(()), Store::stop)
    }
}
