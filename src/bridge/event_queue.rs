//! The events of the bridge, from when they happen until the broker has acknowledged them, and the
//! lost ones until they are reported.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::fleet::{DeviceEvent, Fleet};
use crate::ids::Moment;
use crate::payload::{
    BridgeEventKind, DeviceEventPayload, Directory, EVENTS_LOST, Subject, to_bytes,
};
use crate::store::{Event, Key, Outbox, OutboxLimits, encode};

/// The least time between two reports of lost events.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Lost events of one subject.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct UnreportedLoss {
    pub(crate) count: u64,
    /// Of several the last by its order.
    pub(crate) cause: LossCause,
}

/// Why an event is lost. Stored by its number, so later ones are added at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum LossCause {
    #[default]
    OutboxFull,
    /// The broker does not accept it.
    Refused,
    /// By the history it waits, and it is not in the log.
    LogLost,
}

impl LossCause {
    const fn reason(self) -> &'static str {
        match self {
            Self::OutboxFull => "the outbox was full, so its oldest events were dropped",
            Self::Refused => {
                "the broker does not accept them; see the bridge's log, and raise the broker's \
                 maximum packet size if they are too large"
            }
            Self::LogLost => {
                "the log that had them is missing or damaged; those of its last second may have \
                 been delivered"
            }
        }
    }
}

/// The outbox, and what leads to it.
#[derive(Debug)]
pub(crate) struct EventQueue {
    outbox: Outbox,
    next_id: u64,
    /// Device events that are not written yet, with their IDs.
    unwritten: Vec<(u64, DeviceEvent)>,
    losses: BTreeMap<Subject, UnreportedLoss>,
    /// Subjects whose loss has changed since it was stored.
    changed_losses: BTreeSet<Subject>,
    reported_at: Option<Instant>,
}

impl EventQueue {
    pub(crate) fn new(limits: OutboxLimits, next_id: u64) -> Self {
        Self {
            outbox: Outbox::new(limits),
            next_id,
            unwritten: Vec::new(),
            losses: BTreeMap::new(),
            changed_losses: BTreeSet::new(),
            reported_at: None,
        }
    }

    pub(crate) const fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub(crate) const fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// No event has had this ID or a higher one.
    pub(crate) const fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Adds an event of the bridge or of a gateway.
    pub(crate) fn append(
        &mut self,
        recorded_at: Moment,
        subject: Subject,
        event_type: &'static str,
        payload: Bytes,
    ) {
        let (id, event_type) = (self.next_id, event_type.into());
        self.add(Event { id, recorded_at, subject, event_type, payload, read_at: None });
    }

    /// Adds a device event. It is rendered again if a new chain begins before it is written.
    pub(crate) fn device_event(&mut self, directory: &Directory, event: DeviceEvent) {
        let Some(rendered) = render(directory, self.next_id, &event) else { return };
        let subject = &rendered.subject;
        tracing::debug!(%subject, status = %event.status, seq = event.seq, "device event");
        self.unwritten.push((rendered.id, event));
        self.add(rendered);
    }

    /// Adds the event of the next ID, and counts those that are dropped for it.
    fn add(&mut self, event: Event) {
        self.next_id += 1;
        for dropped in self.outbox.append(event) {
            self.lost(dropped, LossCause::OutboxFull);
        }
    }

    /// An event will not be delivered.
    pub(crate) fn lost(&mut self, event: Event, cause: LossCause) {
        let count = 1 + losses_reported_by(&event);
        self.add_loss(event.subject, UnreportedLoss { count, cause });
    }

    /// The device events are written.
    pub(crate) fn written(&mut self) {
        self.unwritten.clear();
    }

    /// A new chain begins before the device events were written: they become its first, and are
    /// rendered again.
    pub(crate) fn restart_chain(&mut self, fleet: &mut Fleet, directory: &Directory) {
        fleet.new_chain(self.unwritten.iter_mut().map(|(_, event)| event));
        for (id, event) in self.unwritten.drain(..) {
            if let Some(event) = render(directory, id, &event) {
                self.outbox.replace(event);
            }
        }
    }

    /// Events of a subject are lost, or were lost by an earlier process, and are not reported.
    pub(crate) fn add_loss(&mut self, subject: Subject, loss: UnreportedLoss) {
        let known = self.losses.entry(subject.clone()).or_default();
        known.count += loss.count;
        known.cause = known.cause.max(loss.cause);
        self.changed_losses.insert(subject);
    }

    /// The losses that have changed since the last call, to be stored.
    pub(crate) fn next_changed_loss(&mut self) -> Option<(Key, Option<Vec<u8>>)> {
        let subject = self.changed_losses.pop_first()?;
        let loss = self.losses.get(&subject).map(encode);
        Some((Key::UnreportedLoss(subject), loss))
    }

    /// When the next report of lost events is due.
    pub(crate) fn report_due(&self, now: Instant) -> Option<Instant> {
        let next = self.reported_at.map_or(now, |reported_at| reported_at + REPORT_INTERVAL);
        (!self.losses.is_empty()).then_some(next)
    }

    /// The report of lost events that is due now, if one is.
    pub(crate) fn report(&mut self, now: Instant) -> Option<BridgeEventKind> {
        self.report_due(now).filter(|&due| due <= now)?;
        self.reported_at = Some(now);
        let losses = std::mem::take(&mut self.losses);
        let cause = losses.values().map(|loss| loss.cause).max().unwrap_or_default();
        let reason = cause.reason().to_owned();
        let count = losses.values().map(|loss| loss.count).sum();
        let is_device = |subject: &&Subject| matches!(subject, Subject::Device(..));
        let devices = losses.keys().filter(is_device).count() as u64;
        self.changed_losses.extend(losses.into_keys());
        Some(BridgeEventKind::EventsLost { count, devices, reason })
    }
}

/// How many lost events this event reports; if it is lost itself, they are not reported.
fn losses_reported_by(event: &Event) -> u64 {
    #[derive(Deserialize)]
    struct Report {
        count: u64,
    }
    if event.event_type != EVENTS_LOST {
        return 0;
    }
    serde_json::from_slice(&event.payload).map_or(0, |report: Report| report.count)
}

fn render(directory: &Directory, id: u64, event: &DeviceEvent) -> Option<Event> {
    let entry = directory.gateway(event.gateway)?;
    Some(Event {
        id,
        recorded_at: event.received_at,
        subject: Subject::Device(entry.name.clone(), event.device_id),
        event_type: event.event_type.name().into(),
        payload: to_bytes(&DeviceEventPayload::new(&directory.info, entry, event)),
        read_at: event.read_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, GatewayName};

    #[test]
    fn a_report_counts_all_lost_events_and_only_devices_as_devices() {
        let mut queue = EventQueue::new(OutboxLimits { max_events: 1, max_bytes: 1 << 20 }, 1);
        let gateway: GatewayName = "lobby".parse().unwrap();
        let device = |id| Subject::Device(gateway.clone(), DeviceId::new(id).unwrap());
        let subjects = [Subject::Bridge, Subject::Gateway(gateway.clone()), device(1), device(1)];
        for subject in subjects.into_iter().chain([device(2), device(3)]) {
            queue.append(Moment::from_millis(0), subject, "x", Bytes::new());
        }
        let report = queue.report(Instant::now());
        let Some(BridgeEventKind::EventsLost { count, devices, .. }) = &report else {
            panic!("{report:?}")
        };
        assert_eq!((*count, *devices), (5, 2));

        // A report that is dropped itself is replaced by the next.
        let append_report = |queue: &mut EventQueue, report: Option<BridgeEventKind>| {
            let (name, payload) = (report.as_ref().unwrap().name(), to_bytes(&report));
            queue.append(Moment::from_millis(0), Subject::Bridge, name, payload);
        };
        append_report(&mut queue, report);
        queue.append(Moment::from_millis(0), device(1), "x", Bytes::new());
        let report = queue.report(Instant::now() + REPORT_INTERVAL);
        let Some(BridgeEventKind::EventsLost { count, .. }) = &report else { panic!("{report:?}") };
        assert_eq!(*count, 5 + 2);

        // The same if the broker refuses it.
        append_report(&mut queue, report);
        assert!(queue.outbox_mut().next(|_| true).is_some());
        let refused = queue.outbox_mut().give_up(&Subject::Bridge).unwrap();
        queue.lost(refused, LossCause::Refused);
        let report = queue.report(Instant::now() + 2 * REPORT_INTERVAL);
        let Some(BridgeEventKind::EventsLost { count, .. }) = report else { panic!("{report:?}") };
        assert_eq!(count, 7 + 2);
    }
}
