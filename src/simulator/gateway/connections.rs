//! The connections between a gateway and its devices: made, refused, lost and made again.

use std::collections::BTreeMap;

use super::Rules;
use super::admission::SimulatedFilter;
use super::checks;
use super::managed::{Managed, ManagedBy};
use super::reports::{GatewayClock, Logs, Reports};
use super::subnet::{Address, DialOutcome, Subnet};
use super::time::{Millis, Timer, Timers};
use crate::proto::connect::{
    AsyncConnectInfo, DeviceInfo, PendingDeviceInfo, SearchDeviceInfo, Status,
};
use crate::simulator::site::SiteDevice;

/// The managed list, the subnet, and what happens between them.
#[derive(Debug)]
pub(crate) struct Connections {
    rules: Rules,
    seed: u64,
    subnet: Subnet,
    managed: BTreeMap<u32, Managed>,
    admission: SimulatedFilter,
    timers: Timers,
    reports: Reports,
}

impl Connections {
    pub(crate) fn new(rules: Rules, clock: GatewayClock, seed: u64) -> Self {
        Self {
            rules,
            seed,
            subnet: Subnet::default(),
            managed: BTreeMap::new(),
            admission: SimulatedFilter::default(),
            timers: Timers::new(seed),
            reports: Reports::new(clock),
        }
    }

    pub(crate) fn subnet(&self) -> &Subnet {
        &self.subnet
    }

    pub(crate) fn admission_mut(&mut self) -> &mut SimulatedFilter {
        &mut self.admission
    }

    /// The managed list, in order of the IDs.
    pub(crate) fn managed(&self) -> &BTreeMap<u32, Managed> {
        &self.managed
    }

    pub(crate) fn pending(&self) -> Vec<PendingDeviceInfo> {
        self.admission.pending(|id| self.subnet.get(id))
    }

    pub(crate) fn list(&self) -> Vec<DeviceInfo> {
        self.managed.iter().map(|(&id, entry)| entry.info(id)).collect()
    }

    /// The devices that answer a search within this time.
    pub(crate) fn search(&self, timeout_ms: u32) -> Vec<SearchDeviceInfo> {
        let needs_ms = |id| self.rules.timing.search_ms(self.seed ^ u64::from(id));
        self.subnet.search(|id| needs_ms(id) <= u64::from(timeout_ms))
    }

    /// Whether there is such a device, in the subnet or in the list.
    pub(crate) fn has(&self, id: u32) -> bool {
        self.subnet.get(id).is_some() || self.managed.contains_key(&id)
    }

    /// A managed device that is connected and answers.
    pub(crate) fn responding(&self, id: u32) -> Result<&SiteDevice, tonic::Status> {
        checks::managed(&self.managed, id)?;
        self.subnet.responding(id)
    }

    pub(crate) fn logs_mut(&mut self) -> &mut Logs {
        self.subnet.logs_mut()
    }

    pub(crate) fn reports_mut(&mut self) -> &mut Reports {
        &mut self.reports
    }

    /// When `advance` has something to do next.
    pub(crate) fn next_wake(&self) -> Option<Millis> {
        self.timers.next()
    }

    /// Handles every timer that is due at `now`.
    pub(crate) fn advance(&mut self, now: Millis) {
        while let Some((due, timer)) = self.timers.pop(now) {
            match timer {
                Timer::Async(id) => self.advance_try(due, id),
                Timer::DialIn(id) => self.dial_in(due, id),
                Timer::KeepAlive(id) => {
                    self.disconnect(due, id);
                }
            }
        }
    }

    /// Sets the status in the list, without a report.
    pub(crate) fn set_listed_status(&mut self, id: u32, status: i32) {
        if let Some(entry) = self.managed.get_mut(&id) {
            entry.status = status;
        }
    }

    /// Sets a managed device's status and reports it.
    pub(crate) fn set_status(&mut self, now: Millis, id: u32, status: i32) {
        self.set_listed_status(id, status);
        self.reports.status(now, id, status);
    }

    /// A synchronous connect, once `dial_time` has passed.
    pub(crate) fn connect_sync(
        &mut self,
        now: Millis,
        address: Address,
    ) -> Result<u32, tonic::Status> {
        let dialed = self.subnet.dial(address);
        if let DialOutcome::Device(id) = dialed {
            // A registered asynchronous connection stays one.
            self.accept(now, id, ManagedBy::Sync);
        }
        dialed.result(address)
    }

    /// How long it takes to find the device at an address.
    pub(crate) fn dial_time(&self, address: Address) -> u64 {
        self.rules.timing.dial_ms(self.subnet.dial(address) != DialOutcome::NoAnswer)
    }

    /// Registers an asynchronous connection, or replaces the address of one. A connection that is
    /// up stays up, and becomes asynchronous if it was not.
    pub(crate) fn register(&mut self, now: Millis, info: &AsyncConnectInfo, port: u16) {
        let id = info.device_id;
        let registered = Managed::registered(info, port);
        let changed = match self.managed.get_mut(&id) {
            Some(entry) => entry.register_again(registered),
            None => self.managed.insert(id, registered).is_none(),
        };
        if changed && !self.subnet.is_connected(id) {
            self.schedule_try(now, id, self.rules.timing.first_try_ms);
        }
    }

    /// Disconnects and removes an asynchronous connection. `false` if it is not registered.
    pub(crate) fn unregister(&mut self, now: Millis, id: u32) -> bool {
        if !self.managed.get(&id).is_some_and(Managed::reconnects) {
            return false;
        }
        self.disconnect(now, id);
        self.managed.remove(&id);
        self.timers.cancel(Timer::Async(id));
        true
    }

    fn schedule_try(&mut self, now: Millis, id: u32, delay: u64) {
        if let Some(entry) = self.managed.get_mut(&id) {
            entry.trying = false;
            self.timers.set(Timer::Async(id), now + delay);
        }
    }

    /// Starts the next try of an asynchronous connection, or finishes the one in progress.
    fn advance_try(&mut self, now: Millis, id: u32) {
        let Some(entry) = self.managed.get_mut(&id) else { return };
        let address = entry.address();
        if !std::mem::replace(&mut entry.trying, true) {
            self.timers.set(Timer::Async(id), now + self.dial_time(address));
            if self.rules.reports_tries {
                self.set_status(now, id, Status::TryToConnect.into());
            }
        } else if self.subnet.dial(address) == DialOutcome::Device(id) {
            self.connect(now, id);
        } else {
            // Another device at the address is as good as none: the gateway expects this one.
            self.schedule_try(now, id, self.rules.timing.reconnect_interval_ms);
            self.set_status(now, id, address.cannot_connect_status());
        }
    }

    /// Connects a device that is managed, or becomes so by this connection.
    fn accept(&mut self, now: Millis, id: u32, origin: ManagedBy) {
        if let Some(device) = self.subnet.get(id) {
            self.managed.entry(id).or_insert_with(|| Managed::connected(origin, device));
            self.connect(now, id);
        }
    }

    fn connect(&mut self, now: Millis, id: u32) {
        self.connect_silently(now, id);
        self.set_status(now, id, self.subnet.connected_status(id));
    }

    /// Connects a managed device without a report. `false` if the device is not available.
    pub(crate) fn connect_silently(&mut self, now: Millis, id: u32) -> bool {
        if !self.subnet.is_available(id) {
            return false;
        }
        let (Some(device), Some(entry)) = (self.subnet.get(id), self.managed.get_mut(&id)) else {
            return false;
        };
        (entry.kind, entry.mode) = (device.kind, device.mode);
        self.subnet.connect(id, self.reports.unix_seconds(now));
        for timer in [Timer::Async(id), Timer::DialIn(id), Timer::KeepAlive(id)] {
            self.timers.cancel(timer);
        }
        self.admission.clear_pending(id);
        true
    }

    /// Ends the connection of a device and reports it. `false` if it has none.
    pub(crate) fn disconnect(&mut self, now: Millis, id: u32) -> bool {
        let had_one = self.disconnect_silently(now, id);
        if had_one {
            self.set_status(now, id, Status::Disconnected.into());
        }
        had_one
    }

    /// Ends the connection of a device without a report. `false` if it has none.
    pub(crate) fn disconnect_silently(&mut self, now: Millis, id: u32) -> bool {
        if !self.subnet.is_connected(id) {
            return false;
        }
        self.subnet.disconnect(id, self.reports.unix_seconds(now));
        self.timers.cancel(Timer::KeepAlive(id));
        if self.managed.get(&id).is_some_and(Managed::reconnects) {
            self.schedule_try(now, id, self.rules.timing.reconnect_interval_ms);
        } else {
            self.managed.remove(&id);
        }
        self.schedule_dial_in(now, id);
        true
    }

    fn schedule_first_dial_in(&mut self, now: Millis, id: u32) {
        if self.subnet.dials_in(id) {
            self.timers.set_within(Timer::DialIn(id), now, self.rules.timing.first_dial_ms());
        }
    }

    fn schedule_dial_in(&mut self, now: Millis, id: u32) {
        if self.subnet.dials_in(id) {
            self.timers.set(Timer::DialIn(id), now + self.rules.timing.dial_interval_ms);
        }
    }

    /// A device dials in: it is accepted, or refused and pending.
    fn dial_in(&mut self, now: Millis, id: u32) {
        let Some(device) = self.subnet.get(id).filter(|_| self.subnet.dials_in(id)) else { return };
        if self.subnet.is_up() && self.admission.allows(id) {
            return self.accept(now, id, ManagedBy::Accepted);
        }
        if self.subnet.is_up() {
            let status = if device.ssl { Status::TlsNotAllowed } else { Status::TcpNotAllowed };
            self.admission.set_pending(id, self.reports.unix_seconds(now));
            self.set_status(now, id, status.into());
        }
        self.schedule_dial_in(now, id);
    }

    /// Adds a device to the subnet. `false` if its ID or address is taken.
    pub(crate) fn add_device(&mut self, now: Millis, device: SiteDevice) -> bool {
        let id = device.id;
        let added = self.subnet.add(device);
        if added {
            self.schedule_first_dial_in(now, id);
        }
        added
    }

    /// Removes a device from the subnet; its connection ends. `false` if there is none.
    pub(crate) fn remove_device(&mut self, now: Millis, id: u32) -> bool {
        self.disconnect(now, id);
        self.admission.clear_pending(id);
        self.timers.cancel(Timer::DialIn(id));
        self.subnet.remove(id)
    }

    /// Changes a device. If that is a change, its connection ends, as a device restarts its network
    /// then.
    pub(crate) fn reconfigure(&mut self, now: Millis, id: u32, edit: impl FnOnce(&mut SiteDevice)) {
        if self.subnet.change(id, edit) {
            self.disconnect(now, id);
        }
    }

    /// Switches a device on or off. `false` if there is no such device.
    ///
    /// A connected device that is switched off is detected by the keep-alive only; one that is
    /// switched on again earlier has lost its connection, too.
    pub(crate) fn power(&mut self, now: Millis, id: u32, on: bool) -> bool {
        let changed = self.subnet.change(id, |device| device.powered = on);
        if changed && on {
            self.disconnect(now, id);
            self.schedule_first_dial_in(now, id);
        } else if changed {
            self.timers.cancel(Timer::DialIn(id));
            self.schedule_keep_alive(now, id);
        }
        self.subnet.get(id).is_some()
    }

    /// Interrupts or restores the gateway's network to its devices. Connections that the keep-alive
    /// has not ended survive a short interruption.
    pub(crate) fn set_network(&mut self, now: Millis, up: bool) {
        if !self.subnet.set_up(up) {
            return;
        }
        for id in self.subnet.connected() {
            if !up {
                self.schedule_keep_alive(now, id);
            } else if self.subnet.responds(id) {
                self.timers.cancel(Timer::KeepAlive(id));
            }
        }
    }

    /// A device that no longer responds is detected at a random moment within the keep-alive.
    fn schedule_keep_alive(&mut self, now: Millis, id: u32) {
        let limit = self.rules.timing.keep_alive_ms;
        if limit == 0 {
            self.disconnect(now, id);
        } else if self.subnet.is_connected(id) {
            self.timers.set_within(Timer::KeepAlive(id), now, limit);
        }
    }

    /// Restarts the process: everything that clients set is forgotten and every connection ends,
    /// without a report.
    pub(crate) fn restart(&mut self, now: Millis) {
        self.managed.clear();
        self.admission = SimulatedFilter::default();
        self.timers.clear();
        for id in self.subnet.disconnect_all(self.reports.unix_seconds(now)) {
            self.schedule_first_dial_in(now, id);
        }
    }
}
