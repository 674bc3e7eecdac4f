//! The methods of one device gateway, for its own service and for a master's.

use std::net::Ipv4Addr;
use std::time::Duration;

use tonic::Status;

use super::gateway::{Gateway, Millis};
use super::world::World;
use crate::proto::connect::*;

/// One device gateway as its clients see it, directly or through a master.
pub(crate) struct DeviceGateway<'a> {
    world: &'a World,
    index: usize,
    address: Ipv4Addr,
}

impl<'a> DeviceGateway<'a> {
    pub(crate) fn new(world: &'a World, index: usize, address: Ipv4Addr) -> Self {
        Self { world, index, address }
    }

    pub(crate) fn ask<R>(
        &self,
        act: impl FnOnce(&mut Gateway, Millis) -> Result<R, Status>,
    ) -> Result<R, Status> {
        let absent = || Err(Status::unavailable("the gateway is not there"));
        self.world.with(self.index, act).unwrap_or_else(absent)
    }

    pub(crate) async fn connect(
        &self,
        info: Option<ConnectInfo>,
    ) -> Result<ConnectResponse, Status> {
        let device_id = self.world.connect(self.index, info.as_ref()).await?;
        Ok(ConnectResponse { device_id })
    }

    pub(crate) async fn search(&self, timeout_ms: u32) -> Result<SearchDeviceResponse, Status> {
        tokio::time::sleep(Duration::from_millis(timeout_ms.into())).await;
        self.ask(|gateway, _| {
            let device_infos = gateway.connections().subnet().search(self.address);
            Ok(SearchDeviceResponse { device_infos })
        })
    }

    pub(crate) fn add_async(&self, infos: &[AsyncConnectInfo]) -> Result<(), Status> {
        self.ask(|gateway, now| gateway.add_async(now, infos))
    }

    pub(crate) fn delete_async(&self, ids: &[u32]) -> Result<(), Status> {
        self.ask(|gateway, now| gateway.delete_async(now, ids))
    }

    pub(crate) fn set_filter(&self, filter: Option<AcceptFilter>) -> Result<(), Status> {
        self.ask(|gateway, _| gateway.set_filter(filter))
    }

    pub(crate) fn filter(&self) -> Result<GetAcceptFilterResponse, Status> {
        self.ask(|gateway, _| {
            let filter = Some(gateway.connections_mut().admission_mut().filter());
            Ok(GetAcceptFilterResponse { filter })
        })
    }

    pub(crate) fn pending(&self) -> Result<GetPendingListResponse, Status> {
        self.ask(|gateway, _| {
            Ok(GetPendingListResponse { device_infos: gateway.connections().pending() })
        })
    }

    pub(crate) fn list(&self) -> Result<GetDeviceListResponse, Status> {
        self.ask(|gateway, _| {
            Ok(GetDeviceListResponse { device_infos: gateway.connections().list() })
        })
    }

    pub(crate) fn set_slaves(&self, infos: &[SlaveDeviceInfo]) -> Result<(), Status> {
        self.ask(|gateway, _| gateway.set_slaves(infos))
    }

    pub(crate) fn slaves(&self) -> Result<GetSlaveDeviceResponse, Status> {
        self.ask(|gateway, _| Ok(GetSlaveDeviceResponse { slave_device_infos: gateway.slaves() }))
    }

    pub(crate) fn disconnect_all(&self) -> Result<(), Status> {
        self.ask(|gateway, now| {
            gateway.disconnect_all(now);
            Ok(())
        })
    }
}
