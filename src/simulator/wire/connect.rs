//! Service `gsdk.connect.Connect` of a device gateway: all nineteen calls.
//!
//! May not decide anything: each call asks the gateway and waits where the wire makes one wait.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::errors;
use super::front::{Front, Package};
use crate::proto::connect::connect_server::Connect;
use crate::proto::connect::*;
use crate::simulator::gateway::{Change, Gateway, Millis};
use crate::simulator::hub::Hub;
use crate::simulator::queue::Subscription;

/// The service of one device gateway.
pub(crate) struct ConnectService {
    pub(crate) hub: Arc<Hub>,
    /// The gateway's place in the hub.
    pub(crate) place: usize,
    pub(crate) front: Arc<Front>,
    /// The gateway's own address in its subnet.
    pub(crate) address: Ipv4Addr,
}

/// What a call is answered with.
pub(crate) type Answer<T> = Result<Response<T>, Status>;

/// A stream of status changes, as tonic wants it.
pub(crate) type StatusStream = BoxStream<StatusChange>;

impl ConnectService {
    fn ask<R>(&self, act: impl FnOnce(&mut Gateway, Millis) -> R) -> Result<R, Status> {
        let gone = || Status::unavailable("the gateway is not there");
        self.hub.with(self.place, act).ok_or_else(gone)
    }
}

/// A subscription's stream, as tonic wants it.
pub(crate) type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers with a subscription's stream.
///
/// grpc-go and Python servers send a stream's response headers only with its first message;
/// with `lazy_headers` this one does so too, and the client's call does not return before.
pub(crate) async fn subscribe<T: Clone + Send + 'static>(
    mut stream: Subscription<T>,
    front: &Front,
) -> Answer<BoxStream<T>> {
    if !front.lazy_headers() {
        return Ok(Response::new(Box::pin(stream)));
    }
    match stream.next().await {
        Some(Err(status)) => Err(status),
        Some(first) => Ok(Response::new(Box::pin(tokio_stream::once(first).chain(stream)))),
        None => Ok(Response::new(Box::pin(stream))),
    }
}

#[tonic::async_trait]
impl Connect for ConnectService {
    type SubscribeStatusStream = StatusStream;

    async fn connect(&self, request: Request<ConnectRequest>) -> Answer<ConnectResponse> {
        let info = request.into_inner().connect_info;
        let begin = |gateway: &mut Gateway, now| gateway.connect(now, info.as_ref());
        let device_id = self.hub.connect(self.place, begin).await?;
        Ok(Response::new(ConnectResponse { device_id }))
    }

    async fn add_async_connection(
        &self,
        request: Request<AddAsyncConnectionRequest>,
    ) -> Answer<AddAsyncConnectionResponse> {
        let infos = request.into_inner().connect_infos;
        self.ask(|gateway, now| gateway.add_async(now, &infos))??;
        Ok(Response::new(AddAsyncConnectionResponse {}))
    }

    async fn delete_async_connection(
        &self,
        request: Request<DeleteAsyncConnectionRequest>,
    ) -> Answer<DeleteAsyncConnectionResponse> {
        let ids = request.into_inner().device_i_ds;
        self.ask(|gateway, now| gateway.delete_async(now, &ids))??;
        Ok(Response::new(DeleteAsyncConnectionResponse {}))
    }

    async fn set_accept_filter(
        &self,
        request: Request<SetAcceptFilterRequest>,
    ) -> Answer<SetAcceptFilterResponse> {
        let filter = request.into_inner().filter;
        self.ask(|gateway, _| gateway.set_filter(filter))??;
        Ok(Response::new(SetAcceptFilterResponse {}))
    }

    async fn get_accept_filter(
        &self,
        _: Request<GetAcceptFilterRequest>,
    ) -> Answer<GetAcceptFilterResponse> {
        let filter = Some(self.ask(|gateway, _| gateway.filter())?);
        Ok(Response::new(GetAcceptFilterResponse { filter }))
    }

    async fn get_pending_list(
        &self,
        _: Request<GetPendingListRequest>,
    ) -> Answer<GetPendingListResponse> {
        let device_infos = self.ask(|gateway, _| gateway.pending())?;
        Ok(Response::new(GetPendingListResponse { device_infos }))
    }

    async fn get_device_list(
        &self,
        _: Request<GetDeviceListRequest>,
    ) -> Answer<GetDeviceListResponse> {
        let device_infos = self.ask(|gateway, _| gateway.list())?;
        Ok(Response::new(GetDeviceListResponse { device_infos }))
    }

    async fn disconnect(&self, request: Request<DisconnectRequest>) -> Answer<DisconnectResponse> {
        let ids = request.into_inner().device_i_ds;
        self.ask(|gateway, now| gateway.disconnect(now, &ids))??;
        Ok(Response::new(DisconnectResponse {}))
    }

    async fn disconnect_all(
        &self,
        _: Request<DisconnectAllRequest>,
    ) -> Answer<DisconnectAllResponse> {
        self.ask(Gateway::disconnect_all)?;
        Ok(Response::new(DisconnectAllResponse {}))
    }

    async fn search_device(
        &self,
        request: Request<SearchDeviceRequest>,
    ) -> Answer<SearchDeviceResponse> {
        let timeout = request.into_inner().timeout;
        tokio::time::sleep(Duration::from_millis(timeout.into())).await;
        let device_infos = self.ask(|gateway, _| gateway.search(self.address))?;
        Ok(Response::new(SearchDeviceResponse { device_infos }))
    }

    async fn get_slave_device(
        &self,
        _: Request<GetSlaveDeviceRequest>,
    ) -> Answer<GetSlaveDeviceResponse> {
        let slave_device_infos = self.ask(|gateway, _| gateway.slaves())?;
        Ok(Response::new(GetSlaveDeviceResponse { slave_device_infos }))
    }

    async fn set_slave_device(
        &self,
        request: Request<SetSlaveDeviceRequest>,
    ) -> Answer<SetSlaveDeviceResponse> {
        let infos = request.into_inner().slave_device_infos;
        self.ask(|gateway, _| gateway.set_slaves(&infos))??;
        Ok(Response::new(SetSlaveDeviceResponse {}))
    }

    async fn set_connection_mode(
        &self,
        request: Request<SetConnectionModeRequest>,
    ) -> Answer<SetConnectionModeResponse> {
        let SetConnectionModeRequest { device_id, connection_mode } = request.into_inner();
        self.ask(|gateway, now| gateway.change(now, device_id, Change::Mode(connection_mode)))??;
        Ok(Response::new(SetConnectionModeResponse {}))
    }

    async fn set_connection_mode_multi(
        &self,
        request: Request<SetConnectionModeMultiRequest>,
    ) -> Answer<SetConnectionModeMultiResponse> {
        let package = Package::of(&request);
        let SetConnectionModeMultiRequest { device_i_ds, connection_mode } = request.into_inner();
        let change = Change::Mode(connection_mode);
        let failed = self.ask(|gateway, now| gateway.change_multi(now, &device_i_ds, change))?;
        errors::multi(&failed, package).map_err(|status| *status)?;
        Ok(Response::new(SetConnectionModeMultiResponse { device_errors: Vec::new() }))
    }

    async fn enable_ssl(&self, request: Request<EnableSslRequest>) -> Answer<EnableSslResponse> {
        let id = request.into_inner().device_id;
        self.ask(|gateway, now| gateway.change(now, id, Change::Ssl(true)))??;
        Ok(Response::new(EnableSslResponse {}))
    }

    async fn enable_ssl_multi(
        &self,
        request: Request<EnableSslMultiRequest>,
    ) -> Answer<EnableSslMultiResponse> {
        let package = Package::of(&request);
        let ids = request.into_inner().device_i_ds;
        let failed = self.ask(|gateway, now| gateway.change_multi(now, &ids, Change::Ssl(true)))?;
        errors::multi(&failed, package).map_err(|status| *status)?;
        Ok(Response::new(EnableSslMultiResponse { device_errors: Vec::new() }))
    }

    async fn disable_ssl(&self, request: Request<DisableSslRequest>) -> Answer<DisableSslResponse> {
        let id = request.into_inner().device_id;
        self.ask(|gateway, now| gateway.change(now, id, Change::Ssl(false)))??;
        Ok(Response::new(DisableSslResponse {}))
    }

    async fn disable_ssl_multi(
        &self,
        request: Request<DisableSslMultiRequest>,
    ) -> Answer<DisableSslMultiResponse> {
        let package = Package::of(&request);
        let ids = request.into_inner().device_i_ds;
        let failed =
            self.ask(|gateway, now| gateway.change_multi(now, &ids, Change::Ssl(false)))?;
        errors::multi(&failed, package).map_err(|status| *status)?;
        Ok(Response::new(DisableSslMultiResponse { device_errors: Vec::new() }))
    }

    async fn subscribe_status(
        &self,
        request: Request<SubscribeStatusRequest>,
    ) -> Answer<StatusStream> {
        let stream = self.hub.subscribe(request.into_inner().queue_size)?;
        subscribe(stream, &self.front).await
    }
}
