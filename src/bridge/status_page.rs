//! Data for the status page apart from the fleet: the latest events, and the devices that changed
//! since the last query.

use std::collections::{BTreeSet, VecDeque};

use crate::fleet::{DeviceEvent, Fleet, GatewayEvent, GatewayIndex};
use crate::http::{CHANGES_MAX, ChangedMeasures, EVENTS_MAX, EventRow};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::Directory;

/// The state of the page that is kept in the event loop.
#[derive(Debug, Default)]
pub(crate) struct StatusPage {
    /// The newest first.
    events: VecDeque<RecentEvent>,
    /// `None` once they are too many to be reported one by one.
    changed: Option<BTreeSet<(GatewayIndex, DeviceId)>>,
}

#[derive(Debug)]
enum RecentEvent {
    Device(DeviceEvent),
    Gateway(EventRow),
}

impl StatusPage {
    pub(crate) fn device_changed(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        if let Some(changed) = &mut self.changed {
            changed.insert((gateway, device_id));
            if changed.len() > CHANGES_MAX {
                self.changed = None;
            }
        }
    }

    pub(crate) fn device_event(&mut self, event: &DeviceEvent) {
        self.push(RecentEvent::Device(event.clone()));
    }

    pub(crate) fn gateway_event(
        &mut self,
        at: Moment,
        gateway: &GatewayName,
        event: &GatewayEvent,
    ) {
        let detail = match event {
            GatewayEvent::Reachable | GatewayEvent::Unreachable => String::new(),
            GatewayEvent::Corrected { count } => format!("{count} differences found"),
            GatewayEvent::Restored { what, count, .. }
            | GatewayEvent::Withdrawn { what, count, .. } => format!("{count} of {what}"),
            GatewayEvent::Stranger { device_id, status } => format!("device {device_id}: {status}"),
        };
        let (gateway, event_type) = (gateway.to_string(), event.name().into());
        let row = EventRow { at, gateway, device: None, event_type, detail, duration_ms: None };
        self.push(RecentEvent::Gateway(row));
    }

    fn push(&mut self, event: RecentEvent) {
        self.events.push_front(event);
        self.events.truncate(EVENTS_MAX);
    }

    /// The devices that changed since the previous call; too many at the first.
    pub(crate) fn take_changes(&mut self, fleet: &mut Fleet, now: Moment) -> ChangedMeasures {
        let Some(changed) = self.changed.replace(BTreeSet::new()) else {
            return ChangedMeasures::TooMany;
        };
        let devices = changed.into_iter().filter_map(|(gateway, id)| {
            let device = fleet.measures(gateway, id..=id, now).next()?;
            Some((gateway, device))
        });
        ChangedMeasures::Devices(devices.collect())
    }

    /// The latest events, the newest first.
    pub(crate) fn events(&self, directory: &Directory) -> Vec<EventRow> {
        self.events.iter().filter_map(|event| event.row(directory)).collect()
    }
}

impl RecentEvent {
    fn row(&self, directory: &Directory) -> Option<EventRow> {
        Some(match self {
            Self::Device(event) => {
                let entry = directory.gateway(event.gateway)?;
                let previous = event.previous.map(|status| format!("{status} → "));
                EventRow {
                    at: event.received_at,
                    gateway: entry.name.to_string(),
                    device: Some(
                        entry.device_name(event.device_id, event.device_type).into_owned(),
                    ),
                    event_type: event.event_type.name().into(),
                    detail: format!("{}{}", previous.unwrap_or_default(), event.status),
                    duration_ms: event.duration_ms,
                }
            }
            Self::Gateway(row) => row.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_changes_are_not_listed() {
        let now = Moment::from_millis(0);
        let clock = crate::ids::SteadyClock::new(std::time::Instant::now(), now);
        let (mut page, mut fleet) = (StatusPage::default(), Fleet::new(clock));
        let gateway = GatewayIndex(0);
        assert!(matches!(page.take_changes(&mut fleet, now), ChangedMeasures::TooMany));
        let mut change = |count| {
            for id in (1..).take(count) {
                page.device_changed(gateway, DeviceId::new(id).unwrap());
            }
            page.take_changes(&mut fleet, now)
        };
        assert!(matches!(change(CHANGES_MAX), ChangedMeasures::Devices(_)));
        assert!(matches!(change(CHANGES_MAX + 1), ChangedMeasures::TooMany));
        assert!(matches!(change(0), ChangedMeasures::Devices(_)));
    }
}
