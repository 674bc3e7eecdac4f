//! The streams of a master, and its list of all gateways.

use tonic::Status;

use super::error::Error;
use super::master_connection::MasterConnection;
use super::rpc::Rpc;
use super::subscription::Subscription;
use crate::proto::gateway::{self, GatewayInfo, GetListRequest, GetRequest};

/// The subscriptions to the devices of all gateways, and to the gateways.
pub(crate) struct MasterStreams {
    pub(crate) devices: Subscription,
    pub(crate) gateways: Subscription<gateway::StatusChange>,
}

impl MasterStreams {
    pub(crate) fn request(master: &MasterConnection) -> Self {
        let (devices, gateways) = (master.subscribe_devices(), master.subscribe_gateways());
        Self { devices, gateways }
    }

    /// Waits for the responses to both.
    pub(crate) async fn responses(&mut self) -> Result<(), Status> {
        let Self { devices, gateways } = self;
        tokio::try_join!(devices.response(), gateways.response()).map(drop)
    }
}

/// The master's list of all its gateways: two calls.
pub(crate) async fn read_gateways(master: &MasterConnection) -> Result<Vec<GatewayInfo>, Error> {
    let ids = master.call(GetListRequest {}, GetListRequest::DEADLINE).await?.gateway_i_ds;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let request = GetRequest { gateway_i_ds: ids };
    Ok(master.call(request, GetRequest::DEADLINE).await?.gateway_infos)
}
