//! What has happened to devices in one iteration of the loop, until it is written.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::fleet::{DeviceEvent, Fleet, GatewayIndex};
use crate::ids::DeviceId;
use crate::payload::{DeviceEventPayload, Directory, Subject, to_bytes};
use crate::store::{Event, Outbox};

/// What has happened to devices in this iteration of the loop.
#[derive(Debug, Default)]
pub(crate) struct Iteration {
    events: Vec<DeviceEvent>,
    /// The IDs of these events in the outbox.
    ids: Vec<u64>,
    touched: BTreeSet<(GatewayIndex, DeviceId)>,
}

impl Iteration {
    /// An event of a device.
    pub(crate) fn event(&mut self, event: DeviceEvent) {
        self.touch(event.gateway, event.device_id);
        self.events.push(event);
    }

    /// The stored state of this device may have changed.
    pub(crate) fn touch(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        self.touched.insert((gateway, device_id));
    }

    /// The devices whose stored state may have changed.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<(GatewayIndex, DeviceId)> {
        std::mem::take(&mut self.touched)
    }

    /// Renders the events and adds them to the outbox; returns the subjects of those that were
    /// dropped for them.
    pub(crate) fn append_to(
        &mut self,
        outbox: &mut Outbox,
        next_id: &mut u64,
        directory: &Directory,
    ) -> Vec<Subject> {
        let mut dropped = Vec::new();
        for event in &self.events {
            let Some((subject, payload)) = render(directory, event) else { continue };
            tracing::debug!(%subject, status = %event.status, seq = event.seq, "device event");
            self.ids.push(*next_id);
            dropped.extend(outbox.append(Event {
                id: *next_id,
                recorded_at: event.received_at,
                subject,
                event_type: event.event_type.name().into(),
                payload,
                read_at: event.read_at,
            }));
            *next_id += 1;
        }
        dropped
    }

    /// A new chain begins before the events were written: they become its first, and are rendered
    /// again.
    pub(crate) fn restart_chain(
        &mut self,
        fleet: &mut Fleet,
        outbox: &mut Outbox,
        directory: &Directory,
    ) {
        fleet.new_chain(&mut self.events);
        for (event, id) in self.events.drain(..).zip(self.ids.drain(..)) {
            if let Some((_, payload)) = render(directory, &event) {
                outbox.rewrite(id, payload);
            }
        }
    }

    /// The events are written.
    pub(crate) fn wrote(&mut self) {
        self.events.clear();
        self.ids.clear();
    }
}

fn render(directory: &Directory, event: &DeviceEvent) -> Option<(Subject, Bytes)> {
    let entry = directory.gateway(event.gateway)?;
    let subject = Subject::Device(entry.name.clone(), event.device_id);
    Some((subject, to_bytes(&DeviceEventPayload::new(directory, entry, event))))
}
