//! The gRPC services of a gateway, method by method.
//!
//! A device gateway and a master serve the same methods with messages that are equal on the wire,
//! but for the gateway's ID in some of a master's requests. So both use the messages of
//! `gsdk.connect` wherever they can, and `DeviceGateway` answers for both. An empty message is
//! `()`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tonic::Status;

use super::call::{Answer, Call};
use super::device_gateway::DeviceGateway;
use super::gateway::{Change, Gateway, Millis, first_of};
use super::interceptor::{Interceptor, Package};
use super::master::Master;
use super::multi;
use super::world::World;
use crate::proto::connect::*;

/// What a simulated gateway serves.
pub(crate) struct Services {
    pub(crate) world: Arc<World>,
    pub(crate) master: Option<Arc<Master>>,
    pub(crate) interceptor: Arc<Interceptor>,
    /// The address of the gateway in its subnet.
    pub(crate) address: Ipv4Addr,
}

impl Services {
    pub(crate) fn device_gateway(&self, index: usize) -> DeviceGateway<'_> {
        DeviceGateway::new(&self.world, index, self.address)
    }

    /// `gsdk.connect.Connect`.
    pub(crate) async fn connect(&self, method: &str, call: Call) -> Option<Answer> {
        let gateway = self.device_gateway(0);
        Some(match method {
            "Connect" => {
                call.answer_later(|r: ConnectRequest| gateway.connect(r.connect_info)).await
            }
            "SearchDevice" => {
                call.answer_later(|r: SearchDeviceRequest| gateway.search(r.timeout)).await
            }
            "AddAsyncConnection" => {
                call.answer(|r: AddAsyncConnectionRequest| gateway.add_async(&r.connect_infos))
                    .await
            }
            "DeleteAsyncConnection" => {
                call.answer(|r: DeleteAsyncConnectionRequest| gateway.delete_async(&r.device_i_ds))
                    .await
            }
            "SetAcceptFilter" => {
                call.answer(|r: SetAcceptFilterRequest| gateway.set_filter(r.filter)).await
            }
            "SetSlaveDevice" => {
                call.answer(|r: SetSlaveDeviceRequest| gateway.set_slaves(&r.slave_device_infos))
                    .await
            }
            "GetAcceptFilter" => call.answer(|()| gateway.filter()).await,
            "GetPendingList" => call.answer(|()| gateway.pending()).await,
            "GetDeviceList" => call.answer(|()| gateway.list()).await,
            "GetSlaveDevice" => call.answer(|()| gateway.slaves()).await,
            "DisconnectAll" => call.answer(|()| gateway.disconnect_all()).await,
            _ => return self.by_device(method, call).await,
        })
    }

    /// The methods without a gateway's ID, which are the same everywhere.
    pub(crate) async fn by_device(&self, method: &str, call: Call) -> Option<Answer> {
        let package = call.package();
        let change_multi = |ids: Vec<u32>, change| self.change_multi(ids, change, package);
        Some(match method {
            "Disconnect" => {
                call.answer(|r: DisconnectRequest| self.disconnect(r.device_i_ds)).await
            }
            "SetConnectionMode" => {
                let set = |r: SetConnectionModeRequest| {
                    self.change(r.device_id, Change::Mode(r.connection_mode))
                };
                call.answer(set).await
            }
            "SetConnectionModeMulti" => {
                let set = |r: SetConnectionModeMultiRequest| {
                    change_multi(r.device_i_ds, Change::Mode(r.connection_mode))
                };
                call.answer(set).await
            }
            "EnableSSL" => {
                call.answer(|r: EnableSslRequest| self.change(r.device_id, Change::Ssl(true))).await
            }
            "DisableSSL" => {
                call.answer(|r: DisableSslRequest| self.change(r.device_id, Change::Ssl(false)))
                    .await
            }
            "EnableSSLMulti" => {
                let set = |r: EnableSslMultiRequest| change_multi(r.device_i_ds, Change::Ssl(true));
                call.answer(set).await
            }
            "DisableSSLMulti" => {
                let set =
                    |r: DisableSslMultiRequest| change_multi(r.device_i_ds, Change::Ssl(false));
                call.answer(set).await
            }
            "SubscribeStatus" => {
                let lazy_headers = self.interceptor.lazy_headers();
                call.subscribe(lazy_headers, |size| self.world.subscribe(size)).await
            }
            _ => return None,
        })
    }

    /// Acts on the gateway that manages the device; the first one refuses a device that none does.
    fn on_manager<R>(
        &self,
        id: u32,
        act: impl FnOnce(&mut Gateway, Millis) -> Result<R, Status>,
    ) -> Result<R, Status> {
        self.device_gateway(self.world.manager_of(id).unwrap_or(0)).ask(act)
    }

    /// Unknown devices are an error, after the others are done.
    fn disconnect(&self, ids: Vec<u32>) -> Result<(), Status> {
        let disconnected =
            |id: &u32| self.on_manager(*id, |gateway, now| gateway.disconnect(now, *id)).is_ok();
        let ids: BTreeSet<u32> = ids.into_iter().collect();
        let unknown: Vec<u32> = ids.into_iter().filter(|id| !disconnected(id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown = first_of(&unknown);
        Err(Status::not_found(format!("device {unknown} is not managed by this gateway")))
    }

    fn change(&self, id: u32, change: Change) -> Result<(), Status> {
        self.on_manager(id, |gateway, now| gateway.change(now, id, change))
    }

    /// Changes each device on its own. An ID given twice counts once.
    fn change_multi(&self, ids: Vec<u32>, change: Change, package: Package) -> Result<(), Status> {
        let ids: BTreeSet<u32> = ids.into_iter().collect();
        let failed = |id| self.change(id, change).err().map(|status| (id, status));
        multi::result(&ids.into_iter().filter_map(failed).collect::<Vec<_>>(), package)
    }
}
