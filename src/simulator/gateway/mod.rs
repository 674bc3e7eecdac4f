//! One device gateway as a pure state machine: requests, time and faults go in, status changes
//! come out.
//!
//! No tokio, sockets or clock: `now` is an argument, and the same calls with the same seed give the
//! same outputs. The *subnet* and the *managed list* are two things: a device can exist unmanaged,
//! and a managed entry can have no device behind it.

mod admission;
pub(crate) mod checks;
mod connections;
mod managed;
mod reports;
mod subnet;
#[cfg(test)]
mod tests;
mod time;

use std::collections::{BTreeMap, BTreeSet};

use tonic::Status as RpcStatus;

use super::site::{DialMode, SiteDevice};
use crate::proto::connect::{AcceptFilter, AsyncConnectInfo, ConnectInfo, SlaveDeviceInfo, Status};
pub(crate) use connections::Connections;
pub(crate) use reports::{GatewayClock, Logs};
use subnet::Address;
pub use time::GatewayTiming;
pub(crate) use time::Millis;

/// How a gateway behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) timing: GatewayTiming,
    /// Whether it reports `TRY_TO_CONNECT`, as newer gateways do.
    pub(crate) reports_tries: bool,
}

/// A simulated device gateway.
#[derive(Debug)]
pub(crate) struct SimulatedGateway {
    /// Its ID at a master.
    id: String,
    connections: Connections,
    slaves: BTreeMap<u32, SlaveDeviceInfo>,
    /// Devices whose registration is refused, by a fault.
    refused_registrations: BTreeSet<u32>,
    /// Whether it is connected to its master; one without a master always is.
    is_linked: bool,
    restarts: u64,
}

/// A synchronous `Connect` in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialing {
    address: Address,
    /// When it ends.
    pub(crate) until: Millis,
    /// The gateway's restarts before it.
    restarts: u64,
}

impl SimulatedGateway {
    /// A gateway just started. A device whose ID or address is taken is left out.
    pub(crate) fn new(
        id: &str,
        rules: Rules,
        devices: Vec<SiteDevice>,
        clock: GatewayClock,
        seed: u64,
    ) -> Self {
        let mut connections = Connections::new(rules, clock, seed);
        for device in devices {
            connections.add_device(0, device);
        }
        Self {
            id: id.to_owned(),
            connections,
            slaves: BTreeMap::new(),
            refused_registrations: BTreeSet::new(),
            is_linked: true,
            restarts: 0,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.is_linked
    }

    /// Connects it to its master or disconnects it; returns whether it was connected.
    pub(crate) fn set_linked(&mut self, linked: bool) -> bool {
        std::mem::replace(&mut self.is_linked, linked)
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(crate) fn connections_mut(&mut self) -> &mut Connections {
        &mut self.connections
    }

    /// Starts a `Connect`.
    pub(crate) fn start_connect(
        &self,
        now: Millis,
        info: Option<&ConnectInfo>,
    ) -> Result<Dialing, RpcStatus> {
        let info = info.ok_or_else(|| RpcStatus::invalid_argument("connectInfo is missing"))?;
        let ip = Some(checks::address(&info.ip_addr)?);
        let address = Address { ip, port: checks::port(info.port)?, ssl: info.use_ssl };
        checks::check_capacity(self.connections.managed(), 1)?;
        let until = now + self.connections.dial_time(address);
        Ok(Dialing { address, until, restarts: self.restarts })
    }

    /// Ends a `Connect` once it is time.
    pub(crate) fn finish_connect(
        &mut self,
        now: Millis,
        dialing: Dialing,
    ) -> Result<u32, RpcStatus> {
        if dialing.restarts != self.restarts {
            return Err(RpcStatus::unavailable("the gateway is restarting"));
        }
        self.connections.connect_sync(now, dialing.address)
    }

    /// `AddAsyncConnection`: all connections of the request, or none. Of an ID given twice the
    /// last counts.
    pub(crate) fn add_async(
        &mut self,
        now: Millis,
        infos: &[AsyncConnectInfo],
    ) -> Result<(), RpcStatus> {
        checks::async_connections(infos)?;
        checks::check_capacity(self.connections.managed(), infos.len())?;
        let refused =
            |info: &&AsyncConnectInfo| self.refused_registrations.contains(&info.device_id);
        if let Some(info) = infos.iter().find(refused) {
            let message = format!("device {} cannot be registered", info.device_id);
            return Err(RpcStatus::invalid_argument(message));
        }
        for info in infos {
            self.connections.register(now, info, checks::port(info.port)?);
        }
        Ok(())
    }

    /// `DeleteAsyncConnection`: disconnects first. Unknown devices are an error, after the others
    /// are done.
    pub(crate) fn delete_async(&mut self, now: Millis, ids: &[u32]) -> Result<(), RpcStatus> {
        let ids: BTreeSet<u32> = ids.iter().copied().collect();
        let unknown: Vec<u32> =
            ids.into_iter().filter(|id| !self.connections.unregister(now, *id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let message =
            format!("no asynchronous connection of device {}", checks::first_of(&unknown));
        Err(RpcStatus::not_found(message))
    }

    /// `SetAcceptFilter`: replaces the whole filter.
    pub(crate) fn set_filter(&mut self, filter: Option<AcceptFilter>) -> Result<(), RpcStatus> {
        let filter = filter.unwrap_or_default();
        checks::accept_filter(&filter)?;
        self.connections.admission_mut().set_filter(filter);
        Ok(())
    }

    /// `GetSlaveDevice`: what was set since the gateway started.
    pub(crate) fn slaves(&self) -> Vec<SlaveDeviceInfo> {
        self.slaves.values().cloned().collect()
    }

    /// `SetSlaveDevice`: replaces the slaves of managed devices.
    pub(crate) fn set_slaves(&mut self, infos: &[SlaveDeviceInfo]) -> Result<(), RpcStatus> {
        for info in infos {
            checks::managed(self.connections.managed(), info.device_id)?;
        }
        for info in infos {
            if info.rs485_slave_device_i_ds.is_empty() && info.wiegand_slave_device_i_ds.is_empty()
            {
                self.slaves.remove(&info.device_id);
            } else {
                self.slaves.insert(info.device_id, info.clone());
            }
        }
        Ok(())
    }

    /// `Disconnect` of one device. A managed device without a connection is left as it is.
    pub(crate) fn disconnect(&mut self, now: Millis, id: u32) -> Result<(), RpcStatus> {
        checks::managed(self.connections.managed(), id)?;
        self.connections.disconnect(now, id);
        Ok(())
    }

    /// `DisconnectAll`.
    pub(crate) fn disconnect_all(&mut self, now: Millis) {
        let ids: Vec<u32> = self.connections.managed().keys().copied().collect();
        for id in ids {
            self.connections.disconnect(now, id);
        }
    }

    /// Changes a connected device, which then drops its connection and connects again. No change,
    /// no drop.
    pub(crate) fn change(
        &mut self,
        now: Millis,
        id: u32,
        edit: impl FnOnce(&mut SiteDevice),
    ) -> Result<(), RpcStatus> {
        self.connections.responding(id)?;
        self.connections.reconfigure(now, id, edit);
        Ok(())
    }

    /// Refuses registrations of this device from now on, or accepts them again.
    pub(crate) fn refuse_registration(&mut self, id: u32, refused: bool) {
        if refused {
            self.refused_registrations.insert(id);
        } else {
            self.refused_registrations.remove(&id);
        }
    }

    /// Restarts the process: everything that clients set is forgotten, and nothing is reported.
    pub(crate) fn restart(&mut self, now: Millis) {
        self.slaves.clear();
        self.restarts += 1;
        self.connections.restart(now);
    }

    /// Makes all devices managed, as a client would: registers those that wait to be dialed, and
    /// allows those that dial in.
    pub(crate) fn manage_all(&mut self, now: Millis) {
        let devices: Vec<SiteDevice> = self.connections.subnet().devices().cloned().collect();
        let (dialed, dialing): (Vec<_>, Vec<_>) =
            devices.into_iter().partition(|device| device.mode == DialMode::ServerToDevice);
        for device in dialed {
            let info = AsyncConnectInfo {
                device_id: device.id,
                ip_addr: device.ip.to_string(),
                port: device.port.into(),
                use_ssl: device.ssl,
            };
            // One at a time and of valid devices: only the size of the list can refuse it.
            if self.add_async(now, &[info]).is_err() {
                break;
            }
        }
        self.connections.admission_mut().allow(dialing.iter().map(|device| device.id));
    }

    /// Changes a managed device's state without a report. `false` if it is not managed.
    ///
    /// A status that means no connection ends the connection; one that means a connection makes it
    /// (TLS or plain, as the device is). Any other number is only shown in the list.
    pub(crate) fn change_silently(&mut self, now: Millis, id: u32, status: i32) -> bool {
        if !self.connections.managed().contains_key(&id) {
            return false;
        }
        match Status::try_from(status) {
            Ok(Status::TcpConnected | Status::TlsConnected) => {
                self.connections.connect_silently(now, id);
            }
            Ok(_) => _ = self.connections.disconnect_silently(now, id),
            Err(_) => {}
        }
        self.connections.set_listed_status(id, status);
        true
    }

    /// Reports a managed device's status again, as gateways before V1.9.1 do. `false` if it is
    /// not managed.
    pub(crate) fn repeat_status(&mut self, now: Millis, id: u32) -> bool {
        let status = self.connections.managed().get(&id).map(|entry| entry.status);
        status.inspect(|status| self.connections.reports_mut().status(now, id, *status)).is_some()
    }

    /// One change of a storm: the listed status flips between connected and disconnected and is
    /// reported; `finish_storm` ends the connections of devices left disconnected. `false` if there
    /// is no such device to flip.
    pub(crate) fn flip(&mut self, now: Millis, id: u32) -> bool {
        let Some(entry) = self.connections.managed().get(&id) else { return false };
        let connected = self.connections.subnet().connected_status(id);
        if entry.shows_connection() {
            self.connections.set_status(now, id, Status::Disconnected.into());
        } else if self.connections.subnet().is_connected(id)
            || self.connections.connect_silently(now, id)
        {
            self.connections.set_status(now, id, connected);
        } else {
            return false;
        }
        true
    }

    /// The managed devices that a storm can flip: those connected or available.
    pub(crate) fn flippable(&self) -> Vec<u32> {
        let subnet = self.connections.subnet();
        let flippable = |id: &u32| subnet.is_connected(*id) || subnet.is_available(*id);
        self.connections.managed().keys().copied().filter(flippable).collect()
    }

    /// After a storm: ends the connection of a device that the list does not show as connected,
    /// without a report.
    pub(crate) fn finish_storm(&mut self, now: Millis, id: u32) {
        if self.connections.managed().get(&id).is_some_and(|entry| !entry.shows_connection()) {
            self.connections.disconnect_silently(now, id);
        }
    }
}
