//! The calls themselves, one function each: name on the wire, deadline, types.
//!
//! May not decide anything: the order of calls, permissions and follow-up steps are `commands/`'s.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::fleet::{Listed, Mode};
use crate::ids::DeviceId;
use crate::proto::connect as wire;

use super::client::{GatewayClient, Wire};
use super::convert;
use super::error::Error;
use super::types::{AcceptFilter, DeviceError, Found, Pending, Slaves, Target};

/// For calls that a gateway answers from its memory.
pub(super) const LIST_DEADLINE: Duration = Duration::from_secs(10);

/// For calls behind which a gateway waits for a device, 10 s at most (wire, section 3).
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_secs(20);

/// For calls behind which a gateway waits longer, up to 20 s (wire, section 3).
pub(super) const LONG_DEADLINE: Duration = Duration::from_secs(30);

/// A search answers only after its own time; this is for the rest.
const SEARCH_MARGIN: Duration = Duration::from_secs(10);

impl GatewayClient {
    /// The managed devices with their present status, in the order of their IDs, each once.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn device_list(&self) -> Result<Vec<Listed>, Error> {
        let request = wire::GetDeviceListRequest {};
        let send = |mut wire: Wire, request| async move { wire.get_device_list(request).await };
        let answer = self.call("GetDeviceList", LIST_DEADLINE, request, send).await?;
        Ok(self.rows("GetDeviceList", convert::listed(answer.device_infos)))
    }

    /// Connects a device now, for as long as the connection holds; gives its ID.
    ///
    /// # Errors
    /// As all calls; also where the gateway names no device.
    pub async fn connect(&self, target: Target) -> Result<DeviceId, Error> {
        let connect_info = Some(convert::connect_info(target));
        let request = wire::ConnectRequest { connect_info };
        let send = |mut wire: Wire, request| async move { wire.connect(request).await };
        let answer = self.call("Connect", COMMAND_DEADLINE, request, send).await?;
        DeviceId::new(answer.device_id).ok_or_else(|| Error::Answered {
            gateway: self.options().name.clone(),
            method: "Connect",
            code: "internal",
            message: "connected, but without an ID of the device".to_owned(),
        })
    }

    /// Registers devices that the gateway connects by itself, again and again.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn async_add(&self, devices: &[(DeviceId, Target)]) -> Result<(), Error> {
        let connect_infos =
            devices.iter().map(|(id, target)| convert::async_info(*id, *target)).collect();
        let request = wire::AddAsyncConnectionRequest { connect_infos };
        let send =
            |mut wire: Wire, request| async move { wire.add_async_connection(request).await };
        self.call("AddAsyncConnection", COMMAND_DEADLINE, request, send).await.map(drop)
    }

    /// Takes back registrations; the devices are disconnected first.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn async_remove(&self, device_ids: &BTreeSet<DeviceId>) -> Result<(), Error> {
        let request =
            wire::DeleteAsyncConnectionRequest { device_i_ds: convert::numbers(device_ids) };
        let send =
            |mut wire: Wire, request| async move { wire.delete_async_connection(request).await };
        self.call("DeleteAsyncConnection", COMMAND_DEADLINE, request, send).await.map(drop)
    }

    /// Disconnects devices. Registered ones come back after the gateway's delay.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn disconnect(&self, device_ids: &BTreeSet<DeviceId>) -> Result<(), Error> {
        let request = wire::DisconnectRequest { device_i_ds: convert::numbers(device_ids) };
        let send = |mut wire: Wire, request| async move { wire.disconnect(request).await };
        self.call("Disconnect", COMMAND_DEADLINE, request, send).await.map(drop)
    }

    /// Disconnects all devices.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn disconnect_all(&self) -> Result<(), Error> {
        let request = wire::DisconnectAllRequest {};
        let send = |mut wire: Wire, request| async move { wire.disconnect_all(request).await };
        self.call("DisconnectAll", COMMAND_DEADLINE, request, send).await.map(drop)
    }

    /// Searches the gateway's subnet; answers after `wait`. The deadline is longer by 10 s.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn search(&self, wait: Duration) -> Result<Vec<Found>, Error> {
        let timeout = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = wire::SearchDeviceRequest { timeout };
        let send = |mut wire: Wire, request| async move { wire.search_device(request).await };
        let deadline = wait.saturating_add(SEARCH_MARGIN);
        let answer = self.call("SearchDevice", deadline, request, send).await?;
        Ok(self.rows("SearchDevice", convert::found(answer.device_infos)))
    }

    /// The devices that dialled the gateway and were not let in.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn pending(&self) -> Result<Vec<Pending>, Error> {
        let request = wire::GetPendingListRequest {};
        let send = |mut wire: Wire, request| async move { wire.get_pending_list(request).await };
        let answer = self.call("GetPendingList", LIST_DEADLINE, request, send).await?;
        Ok(self.rows("GetPendingList", convert::pending(answer.device_infos)))
    }

    /// Which devices that dial the gateway are let in.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn accept_filter(&self) -> Result<AcceptFilter, Error> {
        let request = wire::GetAcceptFilterRequest {};
        let send = |mut wire: Wire, request| async move { wire.get_accept_filter(request).await };
        let answer = self.call("GetAcceptFilter", LIST_DEADLINE, request, send).await?;
        Ok(convert::accept_filter(answer.filter))
    }

    /// Replaces the whole filter. Another client's change since it was read is lost.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn set_accept_filter(&self, filter: &AcceptFilter) -> Result<(), Error> {
        let filter = Some(convert::wire_filter(filter));
        let request = wire::SetAcceptFilterRequest { filter };
        let send = |mut wire: Wire, request| async move { wire.set_accept_filter(request).await };
        self.call("SetAcceptFilter", COMMAND_DEADLINE, request, send).await.map(drop)
    }

    /// The slaves behind each device.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn slaves(&self) -> Result<Vec<Slaves>, Error> {
        let request = wire::GetSlaveDeviceRequest {};
        let send = |mut wire: Wire, request| async move { wire.get_slave_device(request).await };
        let answer = self.call("GetSlaveDevice", COMMAND_DEADLINE, request, send).await?;
        Ok(self.rows("GetSlaveDevice", convert::slaves(answer.slave_device_infos)))
    }

    /// Sets the slaves behind devices.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn set_slaves(&self, slaves: &[Slaves]) -> Result<(), Error> {
        let slave_device_infos = convert::slave_infos(slaves);
        let request = wire::SetSlaveDeviceRequest { slave_device_infos };
        let send = |mut wire: Wire, request| async move { wire.set_slave_device(request).await };
        self.call("SetSlaveDevice", COMMAND_DEADLINE, request, send).await.map(drop)
    }

    /// Sets who dials whom, on one connected device.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn set_mode(&self, device_id: DeviceId, mode: Mode) -> Result<(), Error> {
        let (device_id, connection_mode) = (device_id.get(), mode.code());
        let request = wire::SetConnectionModeRequest { device_id, connection_mode };
        let send = |mut wire: Wire, request| async move { wire.set_connection_mode(request).await };
        self.call("SetConnectionMode", LONG_DEADLINE, request, send).await.map(drop)
    }

    /// Sets who dials whom, on many connected devices; gives what failed on single ones.
    ///
    /// # Errors
    /// As all calls, where the answer tells of no single device.
    pub async fn set_mode_multi(
        &self,
        device_ids: &BTreeSet<DeviceId>,
        mode: Mode,
    ) -> Result<Vec<DeviceError>, Error> {
        let (device_i_ds, connection_mode) = (convert::numbers(device_ids), mode.code());
        let request = wire::SetConnectionModeMultiRequest { device_i_ds, connection_mode };
        let send =
            |mut wire: Wire, request| async move { wire.set_connection_mode_multi(request).await };
        let errors = |answer: wire::SetConnectionModeMultiResponse| answer.device_errors;
        self.call_multi("SetConnectionModeMulti", LONG_DEADLINE, request, send, errors).await
    }

    /// Switches SSL on, on one connected device, which then has to be connected again.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn enable_ssl(&self, device_id: DeviceId) -> Result<(), Error> {
        let request = wire::EnableSslRequest { device_id: device_id.get() };
        let send = |mut wire: Wire, request| async move { wire.enable_ssl(request).await };
        self.call("EnableSSL", LONG_DEADLINE, request, send).await.map(drop)
    }

    /// Switches SSL on, on many connected devices; gives what failed on single ones.
    ///
    /// # Errors
    /// As all calls, where the answer tells of no single device.
    pub async fn enable_ssl_multi(
        &self,
        device_ids: &BTreeSet<DeviceId>,
    ) -> Result<Vec<DeviceError>, Error> {
        let request = wire::EnableSslMultiRequest { device_i_ds: convert::numbers(device_ids) };
        let send = |mut wire: Wire, request| async move { wire.enable_ssl_multi(request).await };
        let errors = |answer: wire::EnableSslMultiResponse| answer.device_errors;
        self.call_multi("EnableSSLMulti", LONG_DEADLINE, request, send, errors).await
    }

    /// Switches SSL off, on one connected device, which then has to be connected again.
    ///
    /// # Errors
    /// As all calls: see [`Error`].
    pub async fn disable_ssl(&self, device_id: DeviceId) -> Result<(), Error> {
        let request = wire::DisableSslRequest { device_id: device_id.get() };
        let send = |mut wire: Wire, request| async move { wire.disable_ssl(request).await };
        self.call("DisableSSL", LONG_DEADLINE, request, send).await.map(drop)
    }

    /// Switches SSL off, on many connected devices; gives what failed on single ones.
    ///
    /// # Errors
    /// As all calls, where the answer tells of no single device.
    pub async fn disable_ssl_multi(
        &self,
        device_ids: &BTreeSet<DeviceId>,
    ) -> Result<Vec<DeviceError>, Error> {
        let request = wire::DisableSslMultiRequest { device_i_ds: convert::numbers(device_ids) };
        let send = |mut wire: Wire, request| async move { wire.disable_ssl_multi(request).await };
        let errors = |answer: wire::DisableSslMultiResponse| answer.device_errors;
        self.call_multi("DisableSSLMulti", LONG_DEADLINE, request, send, errors).await
    }
}
