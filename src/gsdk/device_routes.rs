//! Which gateway of a master has which device (pure). The master's stream names no gateway: a
//! status belongs to the gateway whose list has the device.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::LinkEvent;
use crate::ids::DeviceId;

/// How long a device that no gateway has is not looked up again.
const STRANGER_FOR: Duration = Duration::from_secs(60);
/// Strangers that are remembered. Further ones are found again by each of their statuses.
const STRANGERS_MAX: usize = 8_192;
/// Statuses of unknown devices that are held until it is known whose they are.
const HELD_MAX: usize = 8_192;

/// The destination of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusRoute {
    /// To the gateway at this place.
    Gateway(usize),
    /// To none: its gateway is not one of ours, or no gateway had the device a short time ago.
    Elsewhere,
    /// To be held: it is not known whose the device is.
    Unknown,
}

#[derive(Debug, Default)]
pub(crate) struct DeviceRoutes {
    /// The places of our gateways by their IDs.
    places: HashMap<Arc<str>, usize>,
    /// By the gateways' lists.
    listed: HashMap<DeviceId, usize>,
    /// By the master's list of gateways: the gateway's ID.
    reported: HashMap<DeviceId, Arc<str>>,
    /// Until when a device counts as a stranger.
    strangers: HashMap<DeviceId, Instant>,
    /// Statuses of unknown devices, and whether the gateways have been requested since.
    held: BTreeMap<DeviceId, (bool, Vec<LinkEvent>)>,
    held_len: usize,
}

impl DeviceRoutes {
    /// Adds one of our gateways.
    pub(crate) fn add_gateway(&mut self, id: Arc<str>, place: usize) {
        self.places.insert(id, place);
    }

    pub(crate) fn place(&self, gateway_id: &str) -> Option<usize> {
        self.places.get(gateway_id).copied()
    }

    pub(crate) fn route(&mut self, device_id: DeviceId, now: Instant) -> StatusRoute {
        if let Some(&place) = self.listed.get(&device_id) {
            return StatusRoute::Gateway(place);
        }
        if let Some(gateway_id) = self.reported.get(&device_id) {
            return self.place(gateway_id).map_or(StatusRoute::Elsewhere, StatusRoute::Gateway);
        }
        match self.strangers.get(&device_id) {
            Some(until) if *until > now => StatusRoute::Elsewhere,
            Some(_) => {
                self.strangers.remove(&device_id);
                StatusRoute::Unknown
            }
            None => StatusRoute::Unknown,
        }
    }

    /// Holds the status of an unknown device; one too many is dropped. Returns whether the gateways
    /// have to be requested: they are not yet since the device's first status.
    pub(crate) fn hold(&mut self, device_id: DeviceId, status: LinkEvent) -> bool {
        if self.held_len >= HELD_MAX {
            return false;
        }
        self.held_len += 1;
        let (is_covered, statuses) = self.held.entry(device_id).or_default();
        statuses.push(status);
        !*is_covered
    }

    /// The master's list of gateways was requested.
    pub(crate) fn requested(&mut self) {
        self.held.values_mut().for_each(|(is_covered, _)| *is_covered = true);
    }

    /// The master's list of gateways: the devices of each. Returns the held statuses of
    /// devices that are ours now, with their places, and the number of devices that no gateway has.
    pub(crate) fn reported(
        &mut self,
        gateways: impl IntoIterator<Item = (Arc<str>, Vec<DeviceId>)>,
        now: Instant,
    ) -> (Vec<(usize, LinkEvent)>, usize) {
        self.reported.clear();
        for (gateway_id, device_ids) in gateways {
            self.reported.extend(device_ids.into_iter().map(|id| (id, gateway_id.clone())));
        }
        self.strangers.retain(|_, until| *until > now);
        let (mut found, mut strangers) = (Vec::new(), 0);
        for (device_id, (is_covered, statuses)) in std::mem::take(&mut self.held) {
            match self.route(device_id, now) {
                StatusRoute::Gateway(place) => {
                    found.extend(statuses.into_iter().map(|status| (place, status)));
                }
                StatusRoute::Unknown if !is_covered => {
                    self.held.insert(device_id, (false, statuses));
                }
                StatusRoute::Unknown => {
                    strangers += 1;
                    if self.strangers.len() < STRANGERS_MAX {
                        self.strangers.insert(device_id, now + STRANGER_FOR);
                    }
                }
                StatusRoute::Elsewhere => {}
            }
        }
        self.held_len = self.held.values().map(|(_, statuses)| statuses.len()).sum();
        (found, strangers)
    }

    /// Whether statuses are held that the next report of the gateways is to explain.
    pub(crate) fn is_waiting(&self) -> bool {
        self.held.values().any(|(is_covered, _)| !is_covered)
    }

    /// The list of the gateway at this place: its devices, and whether each is connected. Where two
    /// lists have a device, it belongs to the one that shows it as connected, else to the earlier.
    /// Returns the other places that had some of these devices: their lists are to be read again.
    pub(crate) fn listed(
        &mut self,
        place: usize,
        rows: impl IntoIterator<Item = (DeviceId, bool)>,
    ) -> BTreeSet<usize> {
        let rows: BTreeMap<DeviceId, bool> = rows.into_iter().collect();
        self.listed.retain(|device_id, at| *at != place || rows.contains_key(device_id));
        let mut others = BTreeSet::new();
        for (device_id, is_connected) in rows {
            match self.listed.get(&device_id) {
                Some(&other) if other != place => {
                    others.insert(other);
                    if is_connected {
                        self.listed.insert(device_id, place);
                    }
                }
                Some(_) => {}
                None => _ = self.listed.insert(device_id, place),
            }
            self.strangers.remove(&device_id);
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Status;

    fn id(number: u32) -> DeviceId {
        DeviceId::new(number).unwrap()
    }

    fn status(number: u32) -> LinkEvent {
        let received = std::time::Instant::now();
        let (device_id, status) = (id(number), Status::TcpConnected);
        LinkEvent::Status { device_id, status, timestamp_s: 0, received }
    }

    fn routes() -> DeviceRoutes {
        let mut routes = DeviceRoutes::default();
        routes.add_gateway("a".into(), 0);
        routes.add_gateway("b".into(), 1);
        routes
    }

    #[test]
    fn a_status_is_assigned_to_the_gateway_whose_list_has_the_device() {
        let (mut routes, now) = (routes(), Instant::now());
        assert_eq!(routes.listed(0, [(id(1), true)]), BTreeSet::new());
        assert_eq!(routes.route(id(1), now), StatusRoute::Gateway(0));
        routes.listed(0, []);
        assert_eq!(routes.route(id(1), now), StatusRoute::Unknown);
    }

    #[test]
    fn an_unknown_device_is_found_or_not_looked_up_for_a_minute() {
        let (mut routes, now) = (routes(), Instant::now());
        let held = status(1);
        for (number, status) in [(1, held.clone()), (2, status(2)), (3, status(3))] {
            assert_eq!(routes.route(id(number), now), StatusRoute::Unknown);
            assert!(routes.hold(id(number), status));
        }
        routes.requested();
        assert!(!routes.hold(id(3), status(3)), "its first status has caused a lookup");
        assert!(!routes.is_waiting());
        routes.hold(id(4), status(4));
        assert!(routes.is_waiting());
        let gateways = [("b".into(), vec![id(1)]), ("other".into(), vec![id(2)])];
        let (found, strangers) = routes.reported(gateways, now);
        assert_eq!((found, strangers), (vec![(1, held)], 1));
        assert_eq!(routes.route(id(2), now), StatusRoute::Elsewhere);
        assert_eq!(routes.route(id(3), now), StatusRoute::Elsewhere);
        assert_eq!(routes.route(id(3), now + STRANGER_FOR), StatusRoute::Unknown);
        assert!(routes.is_waiting(), "4 came after the request");
    }

    #[test]
    fn unknown_devices_and_held_statuses_are_bounded() {
        let (mut routes, now) = (routes(), Instant::now());
        for number in 1..=9_000 {
            routes.hold(id(number), status(number));
        }
        assert_eq!(routes.held_len, HELD_MAX);
        routes.requested();
        assert_eq!(routes.reported([], now).1, HELD_MAX);
        assert_eq!((routes.held_len, routes.strangers.len()), (0, STRANGERS_MAX));
    }

    #[test]
    fn a_device_in_two_lists_belongs_to_the_one_that_has_it_connected() {
        let (mut routes, now) = (routes(), Instant::now());
        routes.listed(0, [(id(1), true)]);
        assert_eq!(routes.listed(1, [(id(1), false)]), BTreeSet::from([0]));
        assert_eq!(routes.route(id(1), now), StatusRoute::Gateway(0));
        assert_eq!(routes.listed(1, [(id(1), true)]), BTreeSet::from([0]));
        assert_eq!(routes.route(id(1), now), StatusRoute::Gateway(1));
        assert_eq!(routes.listed(0, []), BTreeSet::new());
        assert_eq!(routes.route(id(1), now), StatusRoute::Gateway(1));
    }
}
