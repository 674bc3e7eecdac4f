//! The typed calls to a gateway, directly or through its master.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Connector, GrpcConnection, RpcObserver};
use super::convert::{self, DeviceError, FoundDevice, PendingDevice};
use super::error::Error;
use super::master_client::MasterClient;
use super::options::GatewayOptions;
use super::rpc::{ApiVersion, GatewayRpc, Method, Rpc};
use super::stored::StoredItems;
use crate::certificate::Certificate;
use crate::fleet::{AcceptFilter, DeviceDetails, Listed, Mode, Slaves, Target};
use crate::ids::DeviceId;
use crate::proto::connect as wire;
use crate::proto::device::GetInfoRequest;
use crate::proto::err::ErrorResponse;

/// Where a gateway's calls go.
#[derive(Clone, Debug)]
enum CallRoute {
    /// To the gateway itself.
    Direct(Arc<GrpcConnection>),
    /// To its master, with the gateway's ID there.
    Master { master: Arc<MasterClient>, gateway_id: Arc<str> },
}

/// A gateway's calls on one connection. Clones share the connection. Once it has ended, they fail
/// with [`Error::Broken`].
///
/// A call is never repeated, except to find out the API version: only the caller can decide whether
/// repeating it is safe.
#[derive(Clone, Debug)]
pub struct GatewayClient {
    route: CallRoute,
    /// Replaces the calls' own deadlines.
    deadline: Option<Instant>,
}

impl GatewayClient {
    /// Connects to a gateway for some calls, without a [`Link`](super::Link).
    pub async fn dial(options: &GatewayOptions, observer: RpcObserver) -> Result<Self, Error> {
        Self::open(&Connector::new(options.clone(), observer)).await
    }

    pub(crate) async fn open(connector: &Connector) -> Result<Self, Error> {
        let connection = GrpcConnection::open(connector).await?;
        Ok(Self { route: CallRoute::Direct(Arc::new(connection)), deadline: None })
    }

    /// The calls to one gateway of a master.
    pub const fn through(master: Arc<MasterClient>, gateway_id: Arc<str>) -> Self {
        Self { route: CallRoute::Master { master, gateway_id }, deadline: None }
    }

    /// The same client with one deadline for all calls together, such as a command's.
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        Self { route: self.route.clone(), deadline: Some(deadline) }
    }

    pub(crate) fn connection(&self) -> &Arc<GrpcConnection> {
        match &self.route {
            CallRoute::Direct(connection) => connection,
            CallRoute::Master { master, .. } => master.connection(),
        }
    }

    /// The certificate of the gateway, or of its master, if it could be parsed.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.connection().certificate()
    }

    /// The API version in which the gateway, or its master, has answered on this connection.
    pub fn api_version(&self) -> Option<ApiVersion> {
        self.connection().api_version()
    }

    /// What a master stores for the gateway; `None` for a gateway without a master.
    pub fn stored(&self) -> Option<StoredItems> {
        match &self.route {
            CallRoute::Direct(_) => None,
            CallRoute::Master { master, gateway_id } => {
                Some(StoredItems::new(master.clone(), gateway_id.clone(), self.deadline))
            }
        }
    }

    /// The managed devices with their present status, ordered by ID, each once.
    pub async fn device_list(&self) -> Result<Vec<Listed>, Error> {
        let response = self.call(wire::GetDeviceListRequest {}).await?;
        let rows =
            self.rows(wire::GetDeviceListRequest::METHOD, response.device_infos, convert::listed);
        Ok(convert::one_row_per_device(rows))
    }

    /// Connects to a device now; the gateway does not connect again after a disconnect.
    pub async fn connect(&self, target: Target) -> Result<DeviceId, Error> {
        let request = wire::ConnectRequest { connect_info: Some(convert::connect_info(target)) };
        let response = self.call(request).await?;
        DeviceId::new(response.device_id).ok_or_else(|| {
            let message = "connected, but without an ID of the device";
            let status = tonic::Status::internal(message);
            self.connection().error(wire::ConnectRequest::METHOD, status)
        })
    }

    /// Registers devices to which the gateway connects by itself, again after each disconnect. A
    /// master stores the registrations, too.
    pub async fn async_add(&self, devices: &[(DeviceId, Target)]) -> Result<(), Error> {
        let connect_infos = devices.iter().map(convert::async_connect_info).collect();
        self.call(wire::AddAsyncConnectionRequest { connect_infos }).await?;
        match self.stored() {
            Some(stored) => stored.register(devices).await.map_err(Error::not_stored),
            None => Ok(()),
        }
    }

    /// Removes registrations, also the stored ones of a master; the gateway disconnects the devices
    /// first.
    pub async fn async_remove(&self, device_ids: &BTreeSet<DeviceId>) -> Result<(), Error> {
        let device_i_ds = convert::numbers(device_ids);
        self.call(wire::DeleteAsyncConnectionRequest { device_i_ds }).await?;
        match self.stored() {
            Some(stored) => stored.unregister(device_ids).await.map_err(Error::not_stored),
            None => Ok(()),
        }
    }

    /// Disconnects devices. The gateway connects to registered ones again after a delay.
    pub async fn disconnect(&self, device_ids: &BTreeSet<DeviceId>) -> Result<(), Error> {
        let request = wire::DisconnectRequest { device_i_ds: convert::numbers(device_ids) };
        self.call(request).await.map(drop)
    }

    /// Disconnects all devices.
    pub async fn disconnect_all(&self) -> Result<(), Error> {
        self.call(wire::DisconnectAllRequest {}).await.map(drop)
    }

    /// Searches the gateway's subnet; the response comes after `wait`.
    pub async fn search(&self, wait: Duration) -> Result<Vec<FoundDevice>, Error> {
        let timeout = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let deadline = wait.saturating_add(wire::SearchDeviceRequest::DEADLINE);
        let request = wire::SearchDeviceRequest { timeout };
        let response = self.call_within(request, deadline).await?;
        let method = wire::SearchDeviceRequest::METHOD;
        let mut found = self.rows(method, response.device_infos, convert::found);
        found.sort_by_key(|device| device.device_id);
        Ok(found)
    }

    /// The devices that dialed the gateway and were not accepted.
    pub async fn pending(&self) -> Result<Vec<PendingDevice>, Error> {
        let response = self.call(wire::GetPendingListRequest {}).await?;
        Ok(self.rows(wire::GetPendingListRequest::METHOD, response.device_infos, convert::pending))
    }

    /// The filter of the devices that may dial the gateway.
    pub async fn accept_filter(&self) -> Result<AcceptFilter, Error> {
        let response = self.call(wire::GetAcceptFilterRequest {}).await?;
        Ok(convert::accept_filter(response.filter))
    }

    /// Replaces the whole filter. A change that another client made since it was read is lost.
    pub async fn set_accept_filter(&self, filter: &AcceptFilter) -> Result<(), Error> {
        let request = wire::SetAcceptFilterRequest { filter: Some(convert::wire_filter(filter)) };
        self.call(request).await.map(drop)
    }

    /// The slaves of all devices that have some.
    pub async fn slaves(&self) -> Result<Vec<Slaves>, Error> {
        let response = self.call(wire::GetSlaveDeviceRequest {}).await?;
        Ok(self.rows(
            wire::GetSlaveDeviceRequest::METHOD,
            response.slave_device_infos,
            convert::slaves,
        ))
    }

    /// Replaces the slaves of these devices. A master stores them, too.
    pub async fn set_slaves(&self, slaves: &[Slaves]) -> Result<(), Error> {
        let slave_device_infos = slaves.iter().map(convert::slave_info).collect();
        self.call(wire::SetSlaveDeviceRequest { slave_device_infos }).await?;
        match self.stored() {
            Some(stored) => stored.set_slaves(slaves).await.map_err(Error::not_stored),
            None => Ok(()),
        }
    }

    /// Sets whether the gateway dials connected devices or the reverse; returns those that failed.
    pub async fn set_mode(
        &self,
        device_ids: &BTreeSet<DeviceId>,
        mode: Mode,
    ) -> Result<Vec<DeviceError>, Error> {
        let (device_i_ds, connection_mode) = (convert::numbers(device_ids), mode.code());
        let request = wire::SetConnectionModeMultiRequest { device_i_ds, connection_mode };
        self.call_multi(request, |it| it.device_errors).await
    }

    /// Enables or disables SSL on connected devices, which have to be connected again afterwards;
    /// returns those that failed.
    pub async fn set_ssl(
        &self,
        device_ids: &BTreeSet<DeviceId>,
        enabled: bool,
    ) -> Result<Vec<DeviceError>, Error> {
        let device_i_ds = convert::numbers(device_ids);
        if enabled {
            let request = wire::EnableSslMultiRequest { device_i_ds };
            self.call_multi(request, |it| it.device_errors).await
        } else {
            let request = wire::DisableSslMultiRequest { device_i_ds };
            self.call_multi(request, |it| it.device_errors).await
        }
    }

    /// Model, firmware and MAC address of a connected device.
    pub async fn device_details(&self, device_id: DeviceId) -> Result<DeviceDetails, Error> {
        let response = self.call(GetInfoRequest { device_id: device_id.get() }).await?;
        Ok(convert::device_details(response.info.unwrap_or_default()))
    }

    async fn call<R: GatewayRpc>(&self, request: R) -> Result<R::Response, Error> {
        self.call_within(request, R::DEADLINE).await
    }

    /// Makes a call with this deadline, if the client has none.
    async fn call_within<R: GatewayRpc>(
        &self,
        request: R,
        deadline: Duration,
    ) -> Result<R::Response, Error> {
        let deadline = self.deadline.map_or(deadline, |at| at.duration_since(Instant::now()));
        match &self.route {
            CallRoute::Direct(connection) => connection.call(request, deadline).await,
            CallRoute::Master { master, gateway_id } => {
                master.call(request.to_master(gateway_id), deadline).await
            }
        }
    }

    /// Makes a call for many devices. Those that failed are in the response or in the details of
    /// an error.
    async fn call_multi<R: GatewayRpc>(
        &self,
        request: R,
        device_errors: impl Fn(R::Response) -> Vec<ErrorResponse>,
    ) -> Result<Vec<DeviceError>, Error> {
        match self.call(request).await {
            Ok(response) => Ok(convert::device_errors(device_errors(response))),
            Err(Error::Status { peer, method, status }) => {
                convert::multi_errors(&status).ok_or(Error::Status { peer, method, status })
            }
            Err(error) => Err(error),
        }
    }

    /// Converts the rows of a response; rows without a device ID are left out and logged.
    fn rows<Wire, Row>(
        &self,
        method: Method,
        wire: Vec<Wire>,
        convert: impl Fn(Wire) -> Option<Row>,
    ) -> Vec<Row> {
        let count = wire.len();
        let rows: Vec<Row> = wire.into_iter().filter_map(convert).collect();
        if rows.len() < count {
            self.connection().warn_about_id_0(method, count - rows.len());
        }
        rows
    }
}
