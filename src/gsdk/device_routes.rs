//! Which gateway of a master has which device (pure). The master's stream names no gateway: the
//! gateways' lists decide whose a status is.
//!
//! While a gateway is connected, it has the devices of its newest list. The master's own list may
//! report more, before the gateway's next list confirms or refutes it. A status of a device
//! - that one gateway has belongs to this gateway, unless it shows an attempt to connect a device
//!   that is connected there: it is held until the master's list shows whether another one has it;
//! - that several gateways have may be of any: none gets it, and the lists of all are read again,
//!   which show what is true at each;
//! - that no gateway has is held until a list or the master's list shows whose it is.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::held_statuses::HeldStatuses;
use crate::fleet::{GatewayIndex, Status, StreamedStatus};
use crate::ids::DeviceId;

/// How long a device that no gateway has is not looked up again.
const UNASSIGNED_FOR: Duration = Duration::from_secs(60);
/// Such devices that are remembered. Further ones are found again by each of their statuses.
const UNASSIGNED_MAX: usize = 8_192;

/// The destination of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusRoute {
    Gateway(GatewayIndex),
    /// To none: several gateways have the device.
    InDoubt,
    /// To none: its gateway is not one of ours, or no gateway had the device a short time ago.
    Elsewhere,
    /// To be held: it is not known whose the device is.
    Unknown,
}

#[derive(Debug, Default)]
pub(crate) struct DeviceRoutes {
    /// Our gateways by their IDs.
    gateways: HashMap<Arc<str>, GatewayIndex>,
    /// Which of our connected gateways have which devices, and whether each is connected there.
    devices: BTreeMap<(DeviceId, GatewayIndex), bool>,
    /// Our connected gateways whose list was read.
    listed: BTreeSet<GatewayIndex>,
    /// The devices of other gateways, by the master's list.
    elsewhere: HashSet<DeviceId>,
    /// The devices that no gateway has, and until when they are not looked up again.
    unassigned: HashMap<DeviceId, Instant>,
    /// Statuses of devices that are unknown or in doubt.
    held: HeldStatuses,
}

/// What the master's list of gateways shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    /// The held statuses of devices that are ours now, with their gateways.
    pub(crate) found: Vec<(GatewayIndex, StreamedStatus)>,
    /// The gateways that have devices which were not in their lists.
    pub(crate) outdated: BTreeSet<GatewayIndex>,
    /// The number of devices with held statuses that no gateway has.
    pub(crate) unassigned: usize,
}

impl DeviceRoutes {
    /// Adds one of our gateways: it has some of the devices that other gateways seemed to have.
    pub(crate) fn add_gateway(&mut self, id: Arc<str>, gateway: GatewayIndex) {
        self.gateways.insert(id, gateway);
        self.elsewhere.clear();
    }

    pub(crate) fn gateway(&self, gateway_id: &str) -> Option<GatewayIndex> {
        self.gateways.get(gateway_id).copied()
    }

    /// A gateway that is not ours is no longer connected: one of ours may have its devices now.
    pub(crate) fn other_gateway_absent(&mut self) {
        self.elsewhere.clear();
    }

    /// The gateway is no longer connected: another one may have its devices now.
    pub(crate) fn gateway_absent(&mut self, gateway: GatewayIndex) {
        self.listed.remove(&gateway);
        self.devices.retain(|(_, owner), _| *owner != gateway);
    }

    /// Our gateways that have the device.
    pub(crate) fn owners(&self, device_id: DeviceId) -> impl Iterator<Item = GatewayIndex> {
        let all = (device_id, GatewayIndex(0))..=(device_id, GatewayIndex(usize::MAX));
        self.devices.range(all).map(|((_, owner), _)| *owner)
    }

    /// The destination of a status.
    pub(crate) fn route(
        &mut self,
        device_id: DeviceId,
        status: Status,
        now: Instant,
    ) -> StatusRoute {
        if self.held.contains(device_id) {
            return StatusRoute::Unknown;
        }
        let is_connected = status.connected() == Some(true);
        if let Some(route) = self.known(device_id) {
            let StatusRoute::Gateway(owner) = route else { return route };
            let was_connected = self.devices.insert((device_id, owner), is_connected);
            let is_attempt = status != Status::Disconnected && status.connected() == Some(false);
            let may_be_of_another = is_attempt && was_connected == Some(true);
            let is_held = may_be_of_another && !self.held.is_full();
            return if is_held { StatusRoute::Unknown } else { route };
        }
        if is_connected {
            // A gateway has accepted the device since it was looked up.
            self.unassigned.remove(&device_id);
        }
        match self.unassigned.get(&device_id) {
            Some(until) if *until > now => StatusRoute::Elsewhere,
            _ => StatusRoute::Unknown,
        }
    }

    /// `None` for a device that no gateway has.
    fn known(&self, device_id: DeviceId) -> Option<StatusRoute> {
        let (mut owners, is_elsewhere) =
            (self.owners(device_id), self.elsewhere.contains(&device_id));
        match (owners.next(), owners.next()) {
            (None, _) => is_elsewhere.then_some(StatusRoute::Elsewhere),
            (Some(owner), None) if !is_elsewhere => Some(StatusRoute::Gateway(owner)),
            (Some(_), _) => Some(StatusRoute::InDoubt),
        }
    }

    /// The master's list of gateways cannot be read: the held statuses of devices that one gateway
    /// has are that gateway's.
    pub(crate) fn not_reported(&mut self) -> Vec<(GatewayIndex, StreamedStatus)> {
        let (mut held, mut found) = (std::mem::take(&mut self.held), Vec::new());
        held.retain(|device_id, held| {
            let Some(StatusRoute::Gateway(gateway)) = self.known(device_id) else { return true };
            found.extend(held.statuses.iter().map(|status| (gateway, *status)));
            false
        });
        self.held = held;
        found
    }

    /// Holds the status of a device that is unknown or in doubt. Returns whether the master's list
    /// is needed.
    pub(crate) fn hold(&mut self, status: StreamedStatus) -> bool {
        let is_in_doubt = self.owners(status.device_id).next().is_some();
        self.held.add(status, is_in_doubt)
    }

    /// The master's list of gateways was requested.
    pub(crate) fn requested(&mut self) {
        self.held.requested();
    }

    /// The master's list of gateways: the devices of each that is connected.
    pub(crate) fn reported(
        &mut self,
        gateways: impl IntoIterator<Item = (String, Vec<DeviceId>)>,
        now: Instant,
    ) -> Reported {
        let mut reported = Reported::default();
        self.elsewhere.clear();
        self.devices.retain(|(_, owner), _| self.listed.contains(owner));
        for (gateway_id, device_ids) in gateways {
            let Some(gateway) = self.gateway(&gateway_id) else {
                self.elsewhere.extend(device_ids);
                continue;
            };
            for device_id in device_ids {
                let device = self.devices.entry((device_id, gateway));
                if let Entry::Vacant(device) = device {
                    device.insert(false);
                    if self.listed.contains(&gateway) {
                        reported.outdated.insert(gateway);
                    }
                }
            }
        }
        self.unassigned.retain(|_, until| *until > now);
        let mut held = std::mem::take(&mut self.held);
        held.retain(|device_id, held| {
            let known = self.known(device_id);
            if !held.is_requested && (held.is_in_doubt || known.is_none()) {
                return true;
            }
            match known {
                Some(StatusRoute::Gateway(gateway)) => {
                    reported.found.extend(held.statuses.iter().map(|status| (gateway, *status)));
                }
                // Where several gateways have it, their lists show what is true at each.
                Some(_) => {}
                None => {
                    reported.unassigned += 1;
                    if self.unassigned.len() < UNASSIGNED_MAX {
                        self.unassigned.insert(device_id, now + UNASSIGNED_FOR);
                    }
                }
            }
            false
        });
        self.held = held;
        reported
    }

    /// Whether statuses are held that the next report of the gateways is to explain.
    pub(crate) fn is_waiting(&self) -> bool {
        self.held.is_waiting()
    }

    /// The list of a gateway: its devices with their statuses. Returns the held statuses of those
    /// that no gateway had, which are older.
    pub(crate) fn listed(
        &mut self,
        gateway: GatewayIndex,
        rows: impl IntoIterator<Item = (DeviceId, Status)>,
    ) -> Vec<StreamedStatus> {
        let rows: BTreeMap<DeviceId, Status> = rows.into_iter().collect();
        self.listed.insert(gateway);
        self.devices.retain(|(id, owner), _| *owner != gateway || rows.contains_key(id));
        let mut found = Vec::new();
        for (device_id, status) in rows {
            self.unassigned.remove(&device_id);
            let is_connected = status.connected() == Some(true);
            if self.devices.insert((device_id, gateway), is_connected).is_none() {
                // It has moved here since the master's list was read.
                self.elsewhere.remove(&device_id);
            }
            // What is in doubt waits for the master's list.
            found.extend(self.held.take_undoubted(device_id));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::held_statuses::HELD_MAX;
    use super::*;

    fn id(number: u32) -> DeviceId {
        DeviceId::new(number).unwrap()
    }

    fn streamed(number: u32, status: Status) -> StreamedStatus {
        let received = std::time::Instant::now();
        StreamedStatus { device_id: id(number), status, timestamp_s: 0, received }
    }

    const OFF: Status = Status::Disconnected;
    const ON: Status = Status::TlsConnected;

    fn refused(number: u32) -> StreamedStatus {
        streamed(number, Status::TcpNotAllowed)
    }

    fn routes() -> DeviceRoutes {
        let mut routes = DeviceRoutes::default();
        routes.add_gateway("a".into(), GatewayIndex(0));
        routes.add_gateway("b".into(), GatewayIndex(1));
        routes
    }

    #[test]
    fn a_status_is_assigned_to_the_gateway_whose_list_has_the_device() {
        let (mut routes, now) = (routes(), Instant::now());
        assert!(routes.listed(GatewayIndex(0), [(id(1), ON)]).is_empty());
        assert_eq!(routes.route(id(1), OFF, now), StatusRoute::Gateway(GatewayIndex(0)));
        routes.listed(GatewayIndex(0), []);
        assert_eq!(routes.route(id(1), OFF, now), StatusRoute::Unknown);
    }

    #[test]
    fn an_unknown_device_is_found_or_not_looked_up_for_a_minute() {
        let (mut routes, now) = (routes(), Instant::now());
        let held = refused(1);
        for (number, status) in [(1, held), (2, refused(2)), (3, refused(3))] {
            assert_eq!(routes.route(id(number), OFF, now), StatusRoute::Unknown);
            assert!(routes.hold(status));
        }
        routes.requested();
        assert!(!routes.hold(refused(3)), "its first status has caused a lookup");
        assert!(!routes.is_waiting());
        routes.hold(refused(4));
        assert!(routes.is_waiting());
        let gateways = [("b".into(), vec![id(1)]), ("other".into(), vec![id(2)])];
        let reported = routes.reported(gateways, now);
        assert_eq!((reported.found, reported.unassigned), (vec![(GatewayIndex(1), held)], 1));
        assert_eq!(routes.route(id(2), OFF, now), StatusRoute::Elsewhere);
        assert_eq!(routes.route(id(3), OFF, now), StatusRoute::Elsewhere);
        assert_eq!(routes.route(id(3), OFF, now + UNASSIGNED_FOR), StatusRoute::Unknown);
        assert!(routes.is_waiting(), "4 came after the request");
    }

    #[test]
    fn a_device_that_connects_after_it_was_refused_is_looked_up_at_once() {
        let (mut routes, now) = (routes(), Instant::now());
        routes.hold(refused(1));
        routes.requested();
        let connected = streamed(1, Status::TcpConnected);
        assert!(routes.hold(connected), "the lookup may be older");
        assert_eq!(routes.reported([], now), Reported::default(), "it waits for another");
        routes.requested();
        assert_eq!(routes.reported([], now).unassigned, 1);
        assert_eq!(routes.route(id(1), OFF, now), StatusRoute::Elsewhere);
        assert_eq!(routes.route(id(1), ON, now), StatusRoute::Unknown);
    }

    #[test]
    fn held_statuses_of_a_device_come_before_the_list_that_makes_it_known() {
        let (mut routes, now) = (routes(), Instant::now());
        let held = streamed(1, Status::TryToConnect);
        assert!(routes.hold(held));
        assert!(routes.hold(refused(2)));
        assert_eq!(routes.listed(GatewayIndex(0), [(id(1), ON)]), [held]);
        routes.requested();
        let gateways = [("a".into(), vec![id(1)])];
        let reported = routes.reported(gateways, now);
        assert_eq!((reported.found, reported.unassigned), (vec![], 1), "none is reported late");
        assert_eq!(routes.held.len(), 0);
    }

    #[test]
    fn unknown_devices_and_held_statuses_are_bounded() {
        let (mut routes, now) = (routes(), Instant::now());
        for number in 1..=9_000 {
            routes.hold(refused(number));
        }
        assert_eq!(routes.held.len(), HELD_MAX);
        routes.requested();
        assert_eq!(routes.reported([], now).unassigned, HELD_MAX);
        assert_eq!((routes.held.len(), routes.unassigned.len()), (0, UNASSIGNED_MAX));
    }

    #[test]
    fn a_device_that_connects_during_each_lookup_leaves_room_for_others() {
        let (mut routes, now) = (routes(), Instant::now());
        for _ in 0..HELD_MAX {
            routes.hold(streamed(1, Status::TcpConnected));
            routes.requested();
            routes.hold(streamed(1, Status::TcpConnected));
            assert_eq!(routes.reported([], now), Reported::default());
        }
        assert!(routes.held.len() <= 64, "{}", routes.held.len());
        let other = refused(2);
        assert!(routes.hold(other));
        assert_eq!(routes.listed(GatewayIndex(0), [(id(2), ON)]), [other]);
    }

    #[test]
    fn a_status_of_a_device_that_two_gateways_have_is_in_doubt_until_a_list_lacks_it() {
        let (mut routes, now) = (routes(), Instant::now());
        routes.listed(GatewayIndex(0), [(id(1), ON), (id(2), ON)]);
        routes.listed(GatewayIndex(1), [(id(1), ON)]);
        assert_eq!(routes.route(id(1), ON, now), StatusRoute::InDoubt);
        assert!(routes.owners(id(1)).eq([GatewayIndex(0), GatewayIndex(1)]));
        routes.listed(GatewayIndex(0), [(id(2), ON)]);
        assert_eq!(routes.route(id(1), ON, now), StatusRoute::Gateway(GatewayIndex(1)));
        // Other gateways of the master count, until a newer list brings the device.
        routes.reported([("other".into(), vec![id(1), id(3)])], now);
        assert_eq!(routes.route(id(1), ON, now), StatusRoute::InDoubt);
        assert_eq!(routes.route(id(3), ON, now), StatusRoute::Elsewhere);
        routes.listed(GatewayIndex(1), [(id(1), ON), (id(3), ON)]);
        assert_eq!(routes.route(id(1), ON, now), StatusRoute::InDoubt, "it had it before");
        assert_eq!(routes.route(id(3), ON, now), StatusRoute::Gateway(GatewayIndex(1)));
    }

    #[test]
    fn an_attempt_to_connect_a_connected_device_waits_for_the_masters_list() {
        for is_registered_twice in [false, true] {
            let (mut routes, now) = (routes(), Instant::now());
            routes.listed(GatewayIndex(0), [(id(1), ON)]);
            let attempt = streamed(1, Status::TryToConnect);
            assert_eq!(routes.route(id(1), attempt.status, now), StatusRoute::Unknown);
            assert!(routes.hold(attempt), "a lookup is needed");
            routes.requested();
            assert_eq!(routes.route(id(1), OFF, now), StatusRoute::Unknown, "in order");
            routes.hold(streamed(1, ON));
            assert_eq!(routes.reported([("a".into(), vec![id(1)])], now).found, [], "too early");
            routes.requested();
            routes.hold(streamed(1, OFF));
            assert_eq!(routes.listed(GatewayIndex(0), [(id(1), ON)]), [], "it may be older");
            let of_b = if is_registered_twice { vec![id(1)] } else { vec![] };
            let lists = [("a".to_owned(), vec![id(1)]), ("b".to_owned(), of_b)];
            let found = routes.reported(lists, now).found;
            let of_a = [Status::TryToConnect, ON, OFF].map(|status| (GatewayIndex(0), status));
            let expected = if is_registered_twice { &[][..] } else { &of_a };
            let found: Vec<_> = found.iter().map(|(owner, it)| (*owner, it.status)).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_the_master_reports_holds_until_the_list_of_the_gateway() {
        let (mut routes, now) = (routes(), Instant::now());
        let report = |devices| [("a".to_owned(), devices)];
        let first = routes.reported(report(vec![id(1)]), now);
        assert_eq!(first.outdated, BTreeSet::new(), "its first list is read anyway");
        assert_eq!(routes.route(id(1), ON, now), StatusRoute::Gateway(GatewayIndex(0)));
        routes.listed(GatewayIndex(0), []);
        assert_eq!(routes.route(id(1), ON, now), StatusRoute::Unknown);
        let second = routes.reported(report(vec![id(1)]), now);
        assert_eq!(second.outdated, BTreeSet::from([GatewayIndex(0)]));
        assert_eq!(routes.reported(report(vec![id(1)]), now), Reported::default());
    }

    #[test]
    fn a_gateway_that_is_absent_has_no_devices() {
        let (mut routes, now) = (routes(), Instant::now());
        routes.reported([("other".into(), vec![id(3)]), ("a".into(), vec![id(4)])], now);
        assert_eq!(routes.route(id(3), ON, now), StatusRoute::Elsewhere);
        assert_eq!(routes.route(id(4), ON, now), StatusRoute::Gateway(GatewayIndex(0)));
        routes.reported([("other".into(), vec![id(3)]), ("a".into(), vec![])], now);
        assert_eq!(routes.route(id(4), ON, now), StatusRoute::Unknown, "its list was never read");
        routes.add_gateway("other".into(), GatewayIndex(2));
        assert_eq!(routes.route(id(3), ON, now), StatusRoute::Unknown, "it is ours now");
        routes.reported([("another".into(), vec![id(3)])], now);
        routes.other_gateway_absent();
        assert_eq!(routes.route(id(3), ON, now), StatusRoute::Unknown);
        routes.listed(GatewayIndex(0), [(id(1), ON)]);
        routes.listed(GatewayIndex(1), [(id(2), ON)]);
        routes.gateway_absent(GatewayIndex(0));
        assert_eq!(routes.route(id(1), ON, now), StatusRoute::Unknown);
        assert_eq!(routes.route(id(2), ON, now), StatusRoute::Gateway(GatewayIndex(1)));
    }
}
