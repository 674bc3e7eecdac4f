//! What befalls a gateway and its devices: power, networks, restarts, words that lie.
//!
//! May not be reached by clients of the gateway; only tests, scenarios and the control API come
//! here.

use super::{Device, Gateway, Millis, Mode, Phase, means_connected};
use crate::proto::connect::{AsyncConnectInfo, Status};

/// A device dials in within this long of being switched on or of its gateway's start.
const FIRST_DIAL_MS: u64 = 1_000;

impl Gateway {
    /// Hangs a device on the wall. `false`, and nothing done, when its ID or address is taken.
    pub(crate) fn add_device(&mut self, now: Millis, device: Device) -> bool {
        let (id, address) = (device.id, (device.ip, device.port));
        if id == 0 || self.machines.contains_key(&id) || self.by_address.contains_key(&address) {
            return false;
        }
        self.by_address.insert(address, id);
        self.machines.insert(id, super::Machine { device, linked: false, dial_token: 0 });
        self.schedule_first_dial(now, id);
        true
    }

    /// Takes a device off the wall; its connection ends. `false` for an unknown one.
    pub(crate) fn remove_device(&mut self, now: Millis, id: u32) -> bool {
        self.link_down(now, id);
        let Some(machine) = self.machines.remove(&id) else { return false };
        self.by_address.remove(&(machine.device.ip, machine.device.port));
        self.pending.remove(&id);
        true
    }

    /// Takes no registration of this device from now on, or does again.
    pub(crate) fn refuse_registration(&mut self, id: u32, refused: bool) {
        if refused {
            self.unwelcome.insert(id);
        } else {
            self.unwelcome.remove(&id);
        }
    }

    /// The building's devices, in order of their IDs.
    pub(crate) fn building(&self) -> impl Iterator<Item = &Device> {
        self.machines.values().map(|machine| &machine.device)
    }

    fn schedule_first_dial(&mut self, now: Millis, id: u32) {
        let limit = FIRST_DIAL_MS.min(self.rules.timing.dial_interval_ms);
        let delay = self.rng.u64(0..=limit);
        self.schedule_dial(now, id, delay);
    }

    /// Switches a device on or off. `false` for an unknown one.
    ///
    /// A connected device that goes dark is noticed by the keep-alive only; one that comes back
    /// first has lost its connection all the same.
    pub(crate) fn power(&mut self, now: Millis, id: u32, on: bool) -> bool {
        let Some(machine) = self.machines.get_mut(&id) else { return false };
        if machine.device.powered == on {
            return true;
        }
        machine.device.powered = on;
        if on {
            self.link_down(now, id);
            self.schedule_first_dial(now, id);
        } else {
            self.schedule_dial(now, id, 0);
            self.schedule_death(now, id);
        }
        true
    }

    /// Takes away the gateway's network to all its devices, or gives it back.
    ///
    /// Connections that the keep-alive has not yet found dead outlive a short loss.
    pub(crate) fn set_network(&mut self, now: Millis, up: bool) {
        if self.network == up {
            return;
        }
        self.network = up;
        let linked: Vec<(u32, bool)> = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.linked)
            .map(|(id, machine)| (*id, machine.device.powered))
            .collect();
        for (id, powered) in linked {
            if !up {
                self.schedule_death(now, id);
            } else if powered && let Some(entry) = self.managed.get_mut(&id) {
                entry.dead_token = 0;
            }
        }
    }

    /// Ends a device's connection at once, as a cable pulled and put back. `false` if there was
    /// none.
    pub(crate) fn drop_device(&mut self, now: Millis, id: u32) -> bool {
        let connected = self.is_connected(id);
        self.link_down(now, id);
        connected
    }

    /// The process ends and starts again: everything that clients gave it is forgotten, every
    /// device connection is gone, and nobody is told.
    pub(crate) fn restart(&mut self, now: Millis) {
        self.managed.clear();
        self.filter = Default::default();
        self.allowed.clear();
        self.pending.clear();
        self.slaves.clear();
        self.attempts.clear();
        self.timers.clear();
        let ids: Vec<u32> = self.machines.keys().copied().collect();
        for id in ids {
            if let Some(machine) = self.machines.get_mut(&id) {
                machine.linked = false;
            }
            self.schedule_first_dial(now, id);
        }
    }

    /// Changes a managed device's state without a word to the stream. `false` if not managed.
    ///
    /// A status that means no connection ends the connection, with what follows from that; one
    /// that means a connection makes it (the device's own, TLS or plain). Any other number is
    /// only shown in the list.
    pub(crate) fn change_silently(&mut self, now: Millis, id: u32, status: i32) -> bool {
        if !self.managed.contains_key(&id) {
            return false;
        }
        let quiet_from = self.out.len();
        let known = Status::try_from(status).is_ok();
        if known && !means_connected(status) {
            self.unlink(now, id);
        } else if known && !self.is_connected(id) {
            self.force_link(id);
        }
        self.out.truncate(quiet_from);
        if let Some(entry) = self.managed.get_mut(&id) {
            entry.status = status;
        }
        true
    }

    /// Connects a managed device without a word. `false` if no such device is on the wall, is
    /// switched on and free.
    fn force_link(&mut self, id: u32) -> bool {
        let (Some(machine), Some(entry)) = (self.machines.get_mut(&id), self.managed.get_mut(&id))
        else {
            return false;
        };
        if machine.linked || !machine.device.powered {
            return false;
        }
        machine.linked = true;
        machine.dial_token = 0;
        entry.phase = Phase::Connected;
        entry.kind = machine.device.kind;
        entry.mode = machine.device.mode;
        entry.dead_token = 0;
        self.pending.remove(&id);
        true
    }

    /// Tells a status, of any device and any number, that changes nothing.
    pub(crate) fn tell_only(&mut self, now: Millis, id: u32, status: i32) {
        self.say(now, id, status);
    }

    /// Tells a managed device's status once more, as gateways before V1.9.1 do. `false` if not
    /// managed.
    pub(crate) fn repeat_status(&mut self, now: Millis, id: u32) -> bool {
        let Some(entry) = self.managed.get(&id) else { return false };
        let status = entry.status;
        self.say(now, id, status);
        true
    }

    /// One word of a storm: the device's listed status flips between connected and
    /// disconnected, and that is told; `settle` ends the connections of those left disconnected.
    /// `false` if there is no such device to flip.
    pub(crate) fn flip(&mut self, now: Millis, id: u32) -> bool {
        let Some(entry) = self.managed.get(&id) else { return false };
        let (status, phase) = (entry.status, entry.phase);
        if means_connected(status) {
            self.tell(now, id, Status::Disconnected as i32);
            return true;
        }
        if phase != Phase::Connected && !self.force_link(id) {
            return false;
        }
        self.tell(now, id, self.natural_status(id));
        true
    }

    /// The managed devices that a storm can flip: those connected or free to be.
    pub(crate) fn flippable(&self) -> Vec<u32> {
        let free = |id: &&u32| {
            self.is_connected(**id)
                || self.machines.get(id).is_some_and(|one| !one.linked && one.device.powered)
        };
        self.managed.keys().filter(free).copied().collect()
    }

    /// After a storm: makes the connections what the list says, without a word.
    pub(crate) fn settle(&mut self, now: Millis, ids: &[u32]) {
        for &id in ids {
            let Some(entry) = self.managed.get(&id) else { continue };
            let (status, up) = (entry.status, entry.phase == Phase::Connected);
            if up && !means_connected(status) {
                self.unlink(now, id);
            }
        }
    }

    /// Moves the gateway's clock ahead of the truth (behind, if negative), in milliseconds.
    pub(crate) fn set_clock_skew(&mut self, skew_ms: i64) {
        self.clock.skew_ms = skew_ms;
    }

    /// Does what a client would do to have all devices managed: registers those that wait to be
    /// dialled, and lets in those that dial.
    pub(crate) fn manage_all(&mut self, now: Millis) {
        let devices: Vec<Device> = self.building().cloned().collect();
        let (dialled, dialling): (Vec<_>, Vec<_>) =
            devices.into_iter().partition(|device| device.mode == Mode::ServerToDevice);
        for device in dialled {
            let info = AsyncConnectInfo {
                device_id: device.id,
                ip_addr: device.ip.to_string(),
                port: device.port.into(),
                use_ssl: device.ssl,
            };
            // One at a time, and of valid devices only: the bound of the list alone may refuse.
            if self.add_async(now, &[info]).is_err() {
                break;
            }
        }
        self.filter.device_i_ds.extend(dialling.iter().map(|device| device.id));
        self.filter.device_i_ds.sort_unstable();
        self.filter.device_i_ds.dedup();
        self.allowed = self.filter.device_i_ds.iter().copied().collect();
    }

    /// Whether there is such a device, on the wall or in the list.
    pub(crate) fn knows(&self, id: u32) -> bool {
        self.machines.contains_key(&id) || self.managed.contains_key(&id)
    }
}
