//! Entries of a gateway's managed list.

use super::subnet::Address;
use crate::proto::connect::{AsyncConnectInfo, DeviceInfo, Status};
use crate::simulator::site::{DialMode, SiteDevice};

/// How a device came into the managed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ManagedBy {
    /// By `Connect`: leaves the list when the connection is lost.
    Sync,
    /// By `AddAsyncConnection`: stays until it is deleted.
    Async,
    /// It dialed in and the filter allowed it: leaves the list when the connection is lost.
    Accepted,
}

/// An entry of the managed list: what `GetDeviceList` shows.
#[derive(Clone, Debug)]
pub(crate) struct Managed {
    pub(crate) origin: ManagedBy,
    /// As the client gave it, which need not be an address.
    pub(crate) ip: Box<str>,
    pub(crate) port: u16,
    pub(crate) ssl: bool,
    pub(crate) mode: DialMode,
    /// 0 until the device was connected once.
    pub(crate) kind: i32,
    /// The status in the list. The stream's last status, unless a fault made them differ.
    pub(crate) status: i32,
    /// Whether an asynchronous connection is being dialed now, or waits for its next try.
    pub(crate) trying: bool,
}

impl Managed {
    /// A registered connection, not yet dialed.
    pub(crate) fn registered(info: &AsyncConnectInfo, port: u16) -> Self {
        Self {
            origin: ManagedBy::Async,
            ip: info.ip_addr.as_str().into(),
            port,
            ssl: info.use_ssl,
            mode: DialMode::ServerToDevice,
            kind: 0,
            status: Status::Disconnected.into(),
            trying: false,
        }
    }

    /// A connection that is up, made by `Connect` or by the device itself.
    pub(crate) fn connected(origin: ManagedBy, device: &SiteDevice) -> Self {
        Self {
            origin,
            ip: device.ip.to_string().into(),
            port: if origin == ManagedBy::Accepted { 0 } else { device.port },
            ssl: device.ssl,
            mode: device.mode,
            kind: device.kind,
            status: Status::Disconnected.into(),
            trying: false,
        }
    }

    /// Becomes what is registered now, and keeps its state. `true` if the address changed.
    pub(crate) fn register_again(&mut self, registered: Self) -> bool {
        let changed =
            (&self.ip, self.port, self.ssl) != (&registered.ip, registered.port, registered.ssl);
        let Self { origin, ip, port, ssl, .. } = registered;
        (self.origin, self.ip, self.port, self.ssl) = (origin, ip, port, ssl);
        changed
    }

    pub(crate) fn address(&self) -> Address {
        Address { ip: self.ip.parse().ok(), port: self.port, ssl: self.ssl }
    }

    /// Whether the list shows it as connected.
    pub(crate) fn shows_connection(&self) -> bool {
        matches!(Status::try_from(self.status), Ok(Status::TcpConnected | Status::TlsConnected))
    }

    /// Whether the connection is dialed again after it was lost; otherwise it leaves the list.
    pub(crate) fn reconnects(&self) -> bool {
        self.origin == ManagedBy::Async
    }

    pub(crate) fn info(&self, device_id: u32) -> DeviceInfo {
        DeviceInfo {
            device_id,
            connection_mode: self.mode.code(),
            ip_addr: self.ip.to_string().into(),
            port: self.port.into(),
            status: self.status,
            auto_reconnect: self.reconnects(),
            use_ssl: self.ssl,
            r#type: self.kind,
        }
    }
}
