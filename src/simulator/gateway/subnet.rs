//! The devices in a gateway's subnet: which exist, which answers at an address, which are
//! connected.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use super::reports::Logs;
use crate::proto::connect::{SearchDeviceInfo, Status};
use crate::simulator::site::{DialMode, SiteDevice};

/// The gateway's own address, where devices in mode device-to-server dial.
const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);

/// Where a gateway dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// `None` where the client gave no valid address: nothing answers there.
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) port: u16,
    pub(crate) ssl: bool,
}

impl Address {
    /// The status of an asynchronous connection that cannot be made there.
    pub(crate) fn cannot_connect_status(self) -> i32 {
        if self.ssl { Status::TlsCannotConnect.into() } else { Status::TcpCannotConnect.into() }
    }
}

/// The outcome of dialing an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialOutcome {
    /// This device accepts the connection.
    Device(u32),
    NoAnswer,
    /// The device does not listen, because it dials by itself.
    Refused,
    /// The device uses TLS and plain was requested, or the reverse.
    SslMismatch,
    /// The device has a connection already.
    AlreadyConnected(u32),
}

impl DialOutcome {
    /// The answer to a synchronous `Connect`.
    pub(crate) fn result(self, address: Address) -> Result<u32, tonic::Status> {
        let at = address.ip.map(|ip| format!("{ip}:{}", address.port)).unwrap_or_default();
        let reason = match self {
            Self::Device(id) => return Ok(id),
            Self::AlreadyConnected(id) => {
                let message = format!("device {id} at {at} is already connected");
                return Err(tonic::Status::already_exists(message));
            }
            Self::NoAnswer => "no answer",
            Self::Refused => "connection refused (the device may be in mode DEVICE_TO_SERVER)",
            Self::SslMismatch if address.ssl => {
                "TLS handshake failed (SSL is not enabled on the device)"
            }
            Self::SslMismatch => {
                "the device closed the connection (SSL is enabled on it: set useSSL)"
            }
        };
        Err(tonic::Status::unavailable(format!("cannot connect to {at}: {reason}")))
    }
}

/// The devices of one subnet. A device exists whether or not the gateway manages it.
#[derive(Debug, Default)]
pub(crate) struct Subnet {
    devices: BTreeMap<u32, SiteDevice>,
    by_address: HashMap<(Ipv4Addr, u16), u32>,
    /// Devices with a connection to the gateway, never more than one each.
    connected: BTreeSet<u32>,
    logs: Logs,
    /// Whether the gateway's network to the devices is down.
    down: bool,
}

impl Subnet {
    /// Adds a device. `false` if its ID or address is taken.
    pub(crate) fn add(&mut self, device: SiteDevice) -> bool {
        let (id, address) = (device.id, (device.ip, device.port));
        if id == 0 || self.devices.contains_key(&id) || self.by_address.contains_key(&address) {
            return false;
        }
        self.by_address.insert(address, id);
        self.devices.insert(id, device);
        true
    }

    pub(crate) fn remove(&mut self, id: u32) -> bool {
        let Some(device) = self.devices.remove(&id) else { return false };
        self.by_address.remove(&(device.ip, device.port));
        true
    }

    pub(crate) fn get(&self, id: u32) -> Option<&SiteDevice> {
        self.devices.get(&id)
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = &SiteDevice> {
        self.devices.values()
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.down
    }

    /// `false` if nothing changed.
    pub(crate) fn set_up(&mut self, up: bool) -> bool {
        std::mem::replace(&mut self.down, !up) == up
    }

    /// Whether a device exists, is switched on and can be reached.
    pub(crate) fn responds(&self, id: u32) -> bool {
        self.is_up() && self.get(id).is_some_and(|device| device.powered)
    }

    /// A device that is connected and answers.
    pub(crate) fn responding(&self, id: u32) -> Result<&SiteDevice, tonic::Status> {
        if !self.is_connected(id) {
            let message = format!("device {id} is not connected");
            return Err(tonic::Status::failed_precondition(message));
        }
        let silent = || tonic::Status::deadline_exceeded(format!("device {id} does not answer"));
        self.get(id).filter(|_| self.responds(id)).ok_or_else(silent)
    }

    /// Changes a device. `false` if it does not exist or nothing changed.
    pub(crate) fn change(&mut self, id: u32, change: impl FnOnce(&mut SiteDevice)) -> bool {
        let Some(device) = self.devices.get_mut(&id) else { return false };
        let before = device.clone();
        change(device);
        *device != before
    }

    pub(crate) fn is_connected(&self, id: u32) -> bool {
        self.connected.contains(&id)
    }

    pub(crate) fn connected(&self) -> Vec<u32> {
        self.connected.iter().copied().collect()
    }

    pub(crate) fn connect(&mut self, id: u32, unix_s: u32) {
        self.connected.insert(id);
        self.logs.connected(id, unix_s);
    }

    pub(crate) fn disconnect(&mut self, id: u32, unix_s: u32) {
        self.connected.remove(&id);
        self.logs.disconnected(id, unix_s);
    }

    pub(crate) fn logs_mut(&mut self) -> &mut Logs {
        &mut self.logs
    }

    /// The status of a device's connection once it is up.
    pub(crate) fn connected_status(&self, id: u32) -> i32 {
        let ssl = self.get(id).is_some_and(|device| device.ssl);
        if ssl { Status::TlsConnected.into() } else { Status::TcpConnected.into() }
    }

    /// Ends all connections and monitoring; returns the IDs of all devices.
    pub(crate) fn disconnect_all(&mut self, unix_s: u32) -> Vec<u32> {
        self.connected().into_iter().for_each(|id| self.disconnect(id, unix_s));
        self.logs.forget_monitored();
        self.devices.keys().copied().collect()
    }

    /// Whether a device is switched on and has no connection.
    pub(crate) fn is_available(&self, id: u32) -> bool {
        !self.is_connected(id) && self.get(id).is_some_and(|device| device.powered)
    }

    /// Whether a device dials the gateway by itself now.
    pub(crate) fn dials_in(&self, id: u32) -> bool {
        let mode = self.get(id).map(|device| device.mode);
        mode == Some(DialMode::DeviceToServer) && self.is_available(id)
    }

    /// What is at an address now.
    pub(crate) fn dial(&self, address: Address) -> DialOutcome {
        let id = address.ip.and_then(|ip| self.by_address.get(&(ip, address.port)));
        let Some(device) = id.and_then(|id| self.devices.get(id)) else {
            return DialOutcome::NoAnswer;
        };
        if !self.responds(device.id) {
            DialOutcome::NoAnswer
        } else if self.is_connected(device.id) {
            DialOutcome::AlreadyConnected(device.id)
        } else if device.mode == DialMode::DeviceToServer {
            DialOutcome::Refused
        } else if device.ssl != address.ssl {
            DialOutcome::SslMismatch
        } else {
            DialOutcome::Device(device.id)
        }
    }

    /// The answers to a broadcast: devices that are switched on, connected or not, and that answer
    /// in time.
    pub(crate) fn search(&self, is_in_time: impl Fn(u32) -> bool) -> Vec<SearchDeviceInfo> {
        let responding = self.devices().filter(|device| self.is_up() && device.powered);
        let responding = responding.filter(|device| is_in_time(device.id));
        let info = |device: &SiteDevice| SearchDeviceInfo {
            device_id: device.id,
            r#type: device.kind,
            use_dhcp: device.dhcp,
            connection_mode: device.mode.code(),
            ip_addr: device.ip.to_string().into(),
            port: device.port.into(),
            use_ssl: device.ssl,
            server_addr: match device.mode {
                DialMode::DeviceToServer => GATEWAY_ADDRESS.to_string().into(),
                DialMode::ServerToDevice => Vec::new(),
            },
        };
        responding.map(info).collect()
    }
}
