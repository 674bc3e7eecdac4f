//! Service `gsdk.connect_master.ConnectMaster`: the calls of Connect, by way of a master.
//!
//! May not decide anything: a call is let in by its token, led to its device gateway, and answered
//! as that one answers. The `...DB` calls go to what the master keeps.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Request, Response, Status};

use super::connect::{Answer, StatusStream, subscribe};
use super::errors;
use super::front::{Front, Package};
use crate::proto::connect_master::connect_master_server::ConnectMaster;
use crate::proto::connect_master::*;
use crate::simulator::gateway::{Change, Gateway, Millis, Refusal};
use crate::simulator::hub::Hub;
use crate::simulator::master::Master;

/// The service of a master gateway.
pub(crate) struct ConnectMasterService {
    pub(crate) hub: Arc<Hub>,
    pub(crate) master: Arc<Master>,
    pub(crate) front: Arc<Front>,
    /// A device gateway's own address in its subnet.
    pub(crate) address: Ipv4Addr,
}

/// The token that came with a call.
pub(crate) fn token<T>(request: &Request<T>) -> Option<&str> {
    request.metadata().get("token").and_then(|token| token.to_str().ok())
}

impl ConnectMasterService {
    /// Lets a call in by its token.
    fn enter<T>(&self, request: Request<T>) -> Result<T, Status> {
        self.master.check(token(&request))?;
        Ok(request.into_inner())
    }

    /// Asks the device gateway of this ID.
    fn ask<R>(
        &self,
        gateway: &str,
        act: impl FnOnce(&mut Gateway, Millis) -> R,
    ) -> Result<R, Status> {
        let place = self.master.present(gateway)?;
        self.hub.with(place, act).ok_or_else(|| Status::unavailable("the gateway is not there"))
    }

    /// Asks the device gateway that manages this device.
    fn on_device<R>(
        &self,
        id: u32,
        act: impl FnOnce(&mut Gateway, Millis) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let unknown = || Refusal::new(Code::NotFound, format!("no gateway manages device {id}"));
        let place = self.hub.manager_of(id).ok_or_else(unknown)?;
        self.hub.with(place, act).unwrap_or_else(|| Err(unknown()))
    }

    fn change(&self, id: u32, change: Change) -> Result<(), Refusal> {
        self.on_device(id, |gateway, now| gateway.change(now, id, change))
    }

    fn change_multi(&self, mut ids: Vec<u32>, change: Change, age: Package) -> Result<(), Status> {
        ids.sort_unstable();
        ids.dedup();
        let one = |id: u32| self.change(id, change).err().map(|refusal| (id, refusal));
        let failed: Vec<(u32, Refusal)> = ids.into_iter().filter_map(one).collect();
        errors::multi(&failed, age).map_err(|status| *status)
    }
}

#[tonic::async_trait]
impl ConnectMaster for ConnectMasterService {
    type SubscribeStatusStream = StatusStream;

    async fn connect(&self, request: Request<ConnectRequest>) -> Answer<ConnectResponse> {
        let ConnectRequest { gateway_id, connect_info } = self.enter(request)?;
        let place = self.master.present(&gateway_id)?;
        let begin = |gateway: &mut Gateway, now| gateway.connect(now, connect_info.as_ref());
        let device_id = self.hub.connect(place, begin).await?;
        Ok(Response::new(ConnectResponse { device_id }))
    }

    async fn add_async_connection(
        &self,
        request: Request<AddAsyncConnectionRequest>,
    ) -> Answer<AddAsyncConnectionResponse> {
        let request = self.enter(request)?;
        let infos = request.connect_infos;
        self.ask(&request.gateway_id, |gateway, now| gateway.add_async(now, &infos))??;
        Ok(Response::new(AddAsyncConnectionResponse {}))
    }

    async fn delete_async_connection(
        &self,
        request: Request<DeleteAsyncConnectionRequest>,
    ) -> Answer<DeleteAsyncConnectionResponse> {
        let request = self.enter(request)?;
        let ids = request.device_i_ds;
        self.ask(&request.gateway_id, |gateway, now| gateway.delete_async(now, &ids))??;
        Ok(Response::new(DeleteAsyncConnectionResponse {}))
    }

    async fn add_async_connection_db(
        &self,
        request: Request<AddAsyncConnectionDbRequest>,
    ) -> Answer<AddAsyncConnectionDbResponse> {
        let request = self.enter(request)?;
        self.master.add_async(&request.gateway_id, request.connect_infos)?;
        Ok(Response::new(AddAsyncConnectionDbResponse {}))
    }

    async fn delete_async_connection_db(
        &self,
        request: Request<DeleteAsyncConnectionDbRequest>,
    ) -> Answer<DeleteAsyncConnectionDbResponse> {
        let request = self.enter(request)?;
        self.master.delete_async(&request.gateway_id, &request.device_i_ds)?;
        Ok(Response::new(DeleteAsyncConnectionDbResponse {}))
    }

    async fn get_async_connection_db(
        &self,
        request: Request<GetAsyncConnectionDbRequest>,
    ) -> Answer<GetAsyncConnectionDbResponse> {
        let request = self.enter(request)?;
        let connect_infos = self.master.connections(&request.gateway_id)?;
        Ok(Response::new(GetAsyncConnectionDbResponse { connect_infos }))
    }

    async fn set_accept_filter(
        &self,
        request: Request<SetAcceptFilterRequest>,
    ) -> Answer<SetAcceptFilterResponse> {
        let request = self.enter(request)?;
        let filter = request.filter;
        self.ask(&request.gateway_id, |gateway, _| gateway.set_filter(filter))??;
        Ok(Response::new(SetAcceptFilterResponse {}))
    }

    async fn get_accept_filter(
        &self,
        request: Request<GetAcceptFilterRequest>,
    ) -> Answer<GetAcceptFilterResponse> {
        let request = self.enter(request)?;
        let filter = Some(self.ask(&request.gateway_id, |gateway, _| gateway.filter())?);
        Ok(Response::new(GetAcceptFilterResponse { filter }))
    }

    async fn set_accept_filter_db(
        &self,
        request: Request<SetAcceptFilterDbRequest>,
    ) -> Answer<SetAcceptFilterDbResponse> {
        let request = self.enter(request)?;
        self.master.set_filter(&request.gateway_id, request.filter)?;
        Ok(Response::new(SetAcceptFilterDbResponse {}))
    }

    async fn get_accept_filter_db(
        &self,
        request: Request<GetAcceptFilterDbRequest>,
    ) -> Answer<GetAcceptFilterDbResponse> {
        let request = self.enter(request)?;
        let filter = Some(self.master.filter(&request.gateway_id)?);
        Ok(Response::new(GetAcceptFilterDbResponse { filter }))
    }

    async fn get_pending_list(
        &self,
        request: Request<GetPendingListRequest>,
    ) -> Answer<GetPendingListResponse> {
        let request = self.enter(request)?;
        let device_infos = self.ask(&request.gateway_id, |gateway, _| gateway.pending())?;
        Ok(Response::new(GetPendingListResponse { device_infos }))
    }

    async fn get_device_list(
        &self,
        request: Request<GetDeviceListRequest>,
    ) -> Answer<GetDeviceListResponse> {
        let request = self.enter(request)?;
        let device_infos = self.ask(&request.gateway_id, |gateway, _| gateway.list())?;
        Ok(Response::new(GetDeviceListResponse { device_infos }))
    }

    async fn disconnect(&self, request: Request<DisconnectRequest>) -> Answer<DisconnectResponse> {
        let request = self.enter(request)?;
        let mut first_error = None;
        for id in request.device_i_ds {
            let done = self.on_device(id, |gateway, now| gateway.disconnect(now, &[id]));
            first_error = first_error.or(done.err());
        }
        if let Some(refusal) = first_error {
            return Err(refusal.into());
        }
        Ok(Response::new(DisconnectResponse {}))
    }

    async fn disconnect_all(
        &self,
        request: Request<DisconnectAllRequest>,
    ) -> Answer<DisconnectAllResponse> {
        let request = self.enter(request)?;
        self.ask(&request.gateway_id, Gateway::disconnect_all)?;
        Ok(Response::new(DisconnectAllResponse {}))
    }

    async fn search_device(
        &self,
        request: Request<SearchDeviceRequest>,
    ) -> Answer<SearchDeviceResponse> {
        let request = self.enter(request)?;
        self.master.present(&request.gateway_id)?;
        tokio::time::sleep(Duration::from_millis(request.timeout.into())).await;
        let address = self.address;
        let device_infos = self.ask(&request.gateway_id, |gateway, _| gateway.search(address))?;
        Ok(Response::new(SearchDeviceResponse { device_infos }))
    }

    async fn get_slave_device(
        &self,
        request: Request<GetSlaveDeviceRequest>,
    ) -> Answer<GetSlaveDeviceResponse> {
        let request = self.enter(request)?;
        let slave_device_infos = self.ask(&request.gateway_id, |gateway, _| gateway.slaves())?;
        Ok(Response::new(GetSlaveDeviceResponse { slave_device_infos }))
    }

    async fn set_slave_device(
        &self,
        request: Request<SetSlaveDeviceRequest>,
    ) -> Answer<SetSlaveDeviceResponse> {
        let request = self.enter(request)?;
        let infos = request.slave_device_infos;
        self.ask(&request.gateway_id, |gateway, _| gateway.set_slaves(&infos))??;
        Ok(Response::new(SetSlaveDeviceResponse {}))
    }

    async fn get_slave_device_db(
        &self,
        request: Request<GetSlaveDeviceDbRequest>,
    ) -> Answer<GetSlaveDeviceDbResponse> {
        let request = self.enter(request)?;
        let slave_device_infos = self.master.slaves(&request.gateway_id)?;
        Ok(Response::new(GetSlaveDeviceDbResponse { slave_device_infos }))
    }

    async fn add_slave_device_db(
        &self,
        request: Request<AddSlaveDeviceDbRequest>,
    ) -> Answer<AddSlaveDeviceDbResponse> {
        let request = self.enter(request)?;
        self.master.add_slaves(&request.gateway_id, request.slave_device_infos)?;
        Ok(Response::new(AddSlaveDeviceDbResponse {}))
    }

    async fn delete_slave_device_db(
        &self,
        request: Request<DeleteSlaveDeviceDbRequest>,
    ) -> Answer<DeleteSlaveDeviceDbResponse> {
        let request = self.enter(request)?;
        self.master.delete_slaves(&request.gateway_id, &request.device_i_ds)?;
        Ok(Response::new(DeleteSlaveDeviceDbResponse {}))
    }

    async fn set_connection_mode(
        &self,
        request: Request<SetConnectionModeRequest>,
    ) -> Answer<SetConnectionModeResponse> {
        let request = self.enter(request)?;
        self.change(request.device_id, Change::Mode(request.connection_mode))?;
        Ok(Response::new(SetConnectionModeResponse {}))
    }

    async fn set_connection_mode_multi(
        &self,
        request: Request<SetConnectionModeMultiRequest>,
    ) -> Answer<SetConnectionModeMultiResponse> {
        let age = Package::of(&request);
        let request = self.enter(request)?;
        self.change_multi(request.device_i_ds, Change::Mode(request.connection_mode), age)?;
        Ok(Response::new(SetConnectionModeMultiResponse { device_errors: Vec::new() }))
    }

    async fn enable_ssl(&self, request: Request<EnableSslRequest>) -> Answer<EnableSslResponse> {
        let request = self.enter(request)?;
        self.change(request.device_id, Change::Ssl(true))?;
        Ok(Response::new(EnableSslResponse {}))
    }

    async fn enable_ssl_multi(
        &self,
        request: Request<EnableSslMultiRequest>,
    ) -> Answer<EnableSslMultiResponse> {
        let age = Package::of(&request);
        let request = self.enter(request)?;
        self.change_multi(request.device_i_ds, Change::Ssl(true), age)?;
        Ok(Response::new(EnableSslMultiResponse { device_errors: Vec::new() }))
    }

    async fn disable_ssl(&self, request: Request<DisableSslRequest>) -> Answer<DisableSslResponse> {
        let request = self.enter(request)?;
        self.change(request.device_id, Change::Ssl(false))?;
        Ok(Response::new(DisableSslResponse {}))
    }

    async fn disable_ssl_multi(
        &self,
        request: Request<DisableSslMultiRequest>,
    ) -> Answer<DisableSslMultiResponse> {
        let age = Package::of(&request);
        let request = self.enter(request)?;
        self.change_multi(request.device_i_ds, Change::Ssl(false), age)?;
        Ok(Response::new(DisableSslMultiResponse { device_errors: Vec::new() }))
    }

    async fn subscribe_status(
        &self,
        request: Request<SubscribeStatusRequest>,
    ) -> Answer<StatusStream> {
        let queue_size = self.enter(request)?.queue_size;
        subscribe(self.hub.subscribe(queue_size)?, &self.front).await
    }
}
