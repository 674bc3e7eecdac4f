//! What a gateway does when a client calls.
//!
//! May not know how calls arrive: no tonic service, no waiting. A call that takes time begins
//! here and ends in an `Output`. What the wire's facts leave open is decided here, with the
//! reason beside it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use tonic::Code;

use super::{
    Gateway, MANAGED_MAX, Managed, Millis, Mode, Origin, Phase, Refusal, connected_status,
};
use crate::proto::connect::{
    AcceptFilter, AsyncConnectInfo, ConnectInfo, DeviceInfo, PendingDeviceInfo, SearchDeviceInfo,
    SlaveDeviceInfo, Status,
};
use crate::simulator::building::DEVICE_PORT;

/// A port as clients give it: 0 is the devices' default (the vendor's clients leave it out).
fn checked_port(port: i32) -> Result<u16, Refusal> {
    match u16::try_from(port) {
        Ok(0) => Ok(DEVICE_PORT),
        Ok(port) => Ok(port),
        Err(_) => Err(Refusal::new(
            Code::InvalidArgument,
            format!("port {port} is out of range; it is 1 to 65535"),
        )),
    }
}

fn checked_address(ip: &str) -> Result<Ipv4Addr, Refusal> {
    ip.parse()
        .map_err(|_| Refusal::new(Code::InvalidArgument, format!("{ip:?} is not an IPv4 address")))
}

fn not_managed(id: u32) -> Refusal {
    Refusal::new(Code::NotFound, format!("device {id} is not managed by this gateway"))
}

/// Whether connections can be registered as they are given.
pub(crate) fn check_async(infos: &[AsyncConnectInfo]) -> Result<(), Refusal> {
    for info in infos {
        if info.device_id == 0 {
            return Err(Refusal::new(Code::InvalidArgument, "deviceID 0 is no device"));
        }
        if !info.ip_addr.is_empty() {
            checked_address(&info.ip_addr)?;
        }
        checked_port(info.port)?;
    }
    Ok(())
}

/// Whether a filter can be set as it is given.
pub(crate) fn check_filter(filter: &AcceptFilter) -> Result<(), Refusal> {
    for address in filter.ip_addrs.iter().chain(&filter.subnet_masks) {
        let bare = address.split_once('/').map_or(address.as_str(), |(bare, _)| bare);
        checked_address(bare)?;
    }
    if filter.device_i_ds.contains(&0) {
        return Err(Refusal::new(Code::InvalidArgument, "deviceID 0 is no device"));
    }
    Ok(())
}

/// What to change in a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// `SetConnectionMode`, the number as sent.
    Mode(i32),
    /// `EnableSSL` (true) and `DisableSSL`.
    Ssl(bool),
}

impl Gateway {
    /// `Connect`: begins; the output `Connected` with the returned number ends it.
    pub(crate) fn connect(
        &mut self,
        now: Millis,
        info: Option<&ConnectInfo>,
    ) -> Result<u64, Refusal> {
        let Some(info) = info else {
            return Err(Refusal::new(Code::InvalidArgument, "connectInfo is missing"));
        };
        let ip = checked_address(&info.ip_addr)?;
        let port = checked_port(info.port)?;
        self.room_for(1)?;
        Ok(self.begin_attempt(now, ip, port, info.use_ssl))
    }

    /// The client of a `Connect` has gone: the attempt is given up.
    pub(crate) fn abandon(&mut self, attempt: u64) {
        self.attempts.remove(&attempt);
    }

    fn room_for(&self, more: usize) -> Result<(), Refusal> {
        if self.managed.len().saturating_add(more) > MANAGED_MAX {
            let message = format!("more than {MANAGED_MAX} managed devices");
            return Err(Refusal::new(Code::ResourceExhausted, message));
        }
        Ok(())
    }

    /// `AddAsyncConnection`: all of the request or nothing.
    ///
    /// An ID given twice counts as given last. Adding a registered device again replaces its
    /// address, which a connection that is up outlives; a device connected in another way becomes
    /// asynchronous and keeps its connection. An empty address is taken, and fails to connect, as
    /// the vendor's tutorial shows.
    pub(crate) fn add_async(
        &mut self,
        now: Millis,
        infos: &[AsyncConnectInfo],
    ) -> Result<(), Refusal> {
        check_async(infos)?;
        self.room_for(infos.len())?;
        if let Some(info) = infos.iter().find(|info| self.unwelcome.contains(&info.device_id)) {
            let message = format!("device {} cannot be registered", info.device_id);
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        for info in infos {
            let port = checked_port(info.port)?.into();
            let ip: Box<str> = info.ip_addr.as_str().into();
            let ssl = info.use_ssl;
            if let Some(entry) = self.managed.get_mut(&info.device_id) {
                let same = (&entry.ip, entry.port, entry.ssl) == (&ip, port, ssl);
                (entry.origin, entry.ip, entry.port, entry.ssl) = (Origin::Async, ip, port, ssl);
                if !same && entry.phase != Phase::Connected {
                    self.wait(now, info.device_id, self.rules.timing.first_try_ms);
                }
                continue;
            }
            let entry = Managed {
                origin: Origin::Async,
                ip,
                port,
                ssl,
                mode: Mode::ServerToDevice,
                kind: 0,
                status: Status::Disconnected as i32,
                phase: Phase::Waiting(0),
                dead_token: 0,
            };
            self.managed.insert(info.device_id, entry);
            self.wait(now, info.device_id, self.rules.timing.first_try_ms);
        }
        Ok(())
    }

    /// `DeleteAsyncConnection`: disconnects first. Those not registered are told after the
    /// others are done.
    pub(crate) fn delete_async(&mut self, now: Millis, ids: &[u32]) -> Result<(), Refusal> {
        let mut unknown = Vec::new();
        for id in ids.iter().copied().collect::<BTreeSet<_>>() {
            if self.managed.get(&id).is_some_and(|entry| entry.origin == Origin::Async) {
                self.link_down(now, id);
                self.managed.remove(&id);
            } else {
                unknown.push(id);
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let message = format!("no asynchronous connection of device {}", listed(&unknown));
        Err(Refusal::new(Code::NotFound, message))
    }

    /// `SetAcceptFilter`: replaces the whole filter. It is asked when a device dials in; a
    /// connection that is up stays up.
    ///
    /// Addresses and masks are kept and have no effect, as gateways do not support them yet; what
    /// is not even an IPv4 address is refused.
    pub(crate) fn set_filter(&mut self, filter: Option<AcceptFilter>) -> Result<(), Refusal> {
        let filter = filter.unwrap_or_default();
        check_filter(&filter)?;
        self.allowed = filter.device_i_ds.iter().copied().collect();
        self.filter = filter;
        Ok(())
    }

    /// `GetAcceptFilter`, as it was set.
    pub(crate) fn filter(&self) -> AcceptFilter {
        self.filter.clone()
    }

    /// `GetPendingList`.
    pub(crate) fn pending(&self) -> Vec<PendingDeviceInfo> {
        let info = |(&id, &last_try): (&u32, &u32)| {
            let device = self.machines.get(&id).map(|machine| &machine.device);
            PendingDeviceInfo {
                device_id: id,
                ip_addr: device.map_or_else(Vec::new, |device| device.ip.to_string().into()),
                last_try,
                r#type: device.map_or(0, |device| device.kind),
            }
        };
        self.pending.iter().map(info).collect()
    }

    /// `GetDeviceList`.
    pub(crate) fn list(&self) -> Vec<DeviceInfo> {
        let info = |(&id, entry): (&u32, &Managed)| DeviceInfo {
            device_id: id,
            connection_mode: entry.mode.code(),
            ip_addr: entry.ip.to_string().into(),
            port: entry.port,
            status: entry.status,
            auto_reconnect: entry.origin == Origin::Async,
            use_ssl: entry.ssl,
            r#type: entry.kind,
        };
        self.managed.iter().map(info).collect()
    }

    /// The IDs of the managed list.
    pub(crate) fn managed_ids(&self) -> Vec<u32> {
        self.managed.keys().copied().collect()
    }

    /// `Disconnect`. A managed device without a connection is left as it is; those not managed
    /// are told after the others are done.
    pub(crate) fn disconnect(&mut self, now: Millis, ids: &[u32]) -> Result<(), Refusal> {
        let mut unknown = Vec::new();
        for id in ids.iter().copied().collect::<BTreeSet<_>>() {
            if self.managed.contains_key(&id) {
                self.link_down(now, id);
            } else {
                unknown.push(id);
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let message = format!("device {} is not managed by this gateway", listed(&unknown));
        Err(Refusal::new(Code::NotFound, message))
    }

    /// `DisconnectAll`.
    pub(crate) fn disconnect_all(&mut self, now: Millis) {
        for id in self.managed_ids() {
            self.link_down(now, id);
        }
    }

    /// What a broadcast in the subnet is answered with: every device that is switched on,
    /// connected or not. `server` is where the devices that dial in are told to dial.
    pub(crate) fn search(&self, server: Ipv4Addr) -> Vec<SearchDeviceInfo> {
        if !self.network {
            return Vec::new();
        }
        let on = self.machines.values().map(|machine| &machine.device);
        let on = on.filter(|device| device.powered);
        on.map(|device| SearchDeviceInfo {
            device_id: device.id,
            r#type: device.kind,
            use_dhcp: device.dhcp,
            connection_mode: device.mode.code(),
            ip_addr: device.ip.to_string().into(),
            port: device.port.into(),
            use_ssl: device.ssl,
            server_addr: match device.mode {
                Mode::DeviceToServer => server.to_string().into(),
                Mode::ServerToDevice => Vec::new(),
            },
        })
        .collect()
    }

    /// `GetSlaveDevice`: what was set since the gateway started.
    pub(crate) fn slaves(&self) -> Vec<SlaveDeviceInfo> {
        self.slaves.values().cloned().collect()
    }

    /// `SetSlaveDevice`: replaces the slaves of the devices named, which must be managed; one
    /// without slaves is forgotten.
    pub(crate) fn set_slaves(&mut self, infos: &[SlaveDeviceInfo]) -> Result<(), Refusal> {
        let unknown = infos.iter().find(|info| !self.managed.contains_key(&info.device_id));
        if let Some(info) = unknown {
            return Err(not_managed(info.device_id));
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

    /// Why a device cannot be changed now, if so.
    fn check_change(&self, id: u32, change: Change) -> Result<(), Refusal> {
        if let Change::Mode(code) = change
            && Mode::from_code(code).is_none()
        {
            let message = format!("{code} is no connection mode; it is 0 or 1");
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        if !self.managed.contains_key(&id) {
            return Err(not_managed(id));
        }
        if !self.is_connected(id) {
            let message = format!("device {id} is not connected");
            return Err(Refusal::new(Code::FailedPrecondition, message));
        }
        Ok(())
    }

    /// Changes a connected device, which then drops its connection to come up anew, as a device
    /// does whose network settings change. No change, no drop.
    pub(crate) fn change(&mut self, now: Millis, id: u32, change: Change) -> Result<(), Refusal> {
        self.check_change(id, change)?;
        let Some(machine) = self.machines.get_mut(&id) else { return Err(not_managed(id)) };
        if !machine.device.powered || !self.network {
            let message = format!("device {id} does not answer");
            return Err(Refusal::new(Code::DeadlineExceeded, message));
        }
        let before = machine.device.clone();
        match change {
            Change::Mode(code) => machine.device.mode = Mode::from_code(code).unwrap_or_default(),
            Change::Ssl(ssl) => machine.device.ssl = ssl,
        }
        if machine.device != before {
            self.link_down(now, id);
        }
        Ok(())
    }

    /// The `Multi` calls: every device on its own, with those that failed. An ID given twice
    /// counts once.
    pub(crate) fn change_multi(
        &mut self,
        now: Millis,
        ids: &[u32],
        change: Change,
    ) -> Vec<(u32, Refusal)> {
        let ids: BTreeSet<u32> = ids.iter().copied().collect();
        let one = |id: u32| self.change(now, id, change).err().map(|refusal| (id, refusal));
        ids.into_iter().filter_map(one).collect()
    }

    /// The connected status that the physical device behind an ID would have.
    pub(super) fn natural_status(&self, id: u32) -> i32 {
        connected_status(self.machines.get(&id).is_some_and(|machine| machine.device.ssl))
    }
}

/// IDs as text, the first ten.
fn listed(ids: &[u32]) -> String {
    let shown: Vec<String> = ids.iter().take(10).map(u32::to_string).collect();
    let more = if ids.len() > 10 { format!(" and {} more", ids.len() - 10) } else { String::new() };
    shown.join(", ") + &more
}
