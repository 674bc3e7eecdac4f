//! What a master stores for one of its gateways, and adds again whenever the gateway reconnects:
//! the `...DB` calls.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::convert;
use super::error::Error;
use super::master_client::MasterClient;
use super::rpc::Rpc;
use crate::fleet::{AcceptFilter, Slaves, Target};
use crate::ids::DeviceId;
use crate::proto::connect_master as wire;

/// The stored items of one gateway.
#[derive(Clone, Debug)]
pub struct StoredItems {
    master: Arc<MasterClient>,
    gateway_id: Arc<str>,
    /// Replaces the calls' own deadlines.
    deadline: Option<Instant>,
}

impl StoredItems {
    pub(crate) const fn new(
        master: Arc<MasterClient>,
        gateway_id: Arc<str>,
        deadline: Option<Instant>,
    ) -> Self {
        Self { master, gateway_id, deadline }
    }

    /// The devices whose registration is stored.
    pub async fn registered(&self) -> Result<BTreeSet<DeviceId>, Error> {
        let request = wire::GetAsyncConnectionDbRequest { gateway_id: self.gateway_id() };
        let infos = self.call(request).await?.connect_infos;
        Ok(convert::ids(infos.into_iter().map(|info| info.device_id)))
    }

    pub async fn register(&self, devices: &[(DeviceId, Target)]) -> Result<(), Error> {
        let connect_infos = devices.iter().map(convert::async_connect_info).collect();
        let gateway_id = self.gateway_id();
        self.call(wire::AddAsyncConnectionDbRequest { gateway_id, connect_infos }).await.map(drop)
    }

    /// Removes registrations; those that are not stored are left out.
    pub async fn unregister(&self, device_ids: &BTreeSet<DeviceId>) -> Result<(), Error> {
        let stored = self.registered().await?;
        let device_i_ds = convert::numbers(device_ids.intersection(&stored));
        if device_i_ds.is_empty() {
            return Ok(());
        }
        let gateway_id = self.gateway_id();
        self.call(wire::DeleteAsyncConnectionDbRequest { gateway_id, device_i_ds }).await.map(drop)
    }

    pub async fn accept_filter(&self) -> Result<AcceptFilter, Error> {
        let request = wire::GetAcceptFilterDbRequest { gateway_id: self.gateway_id() };
        Ok(convert::accept_filter(self.call(request).await?.filter))
    }

    /// Replaces the whole stored filter.
    pub async fn set_accept_filter(&self, filter: &AcceptFilter) -> Result<(), Error> {
        let (gateway_id, filter) = (self.gateway_id(), Some(convert::wire_filter(filter)));
        self.call(wire::SetAcceptFilterDbRequest { gateway_id, filter }).await.map(drop)
    }

    pub async fn slaves(&self) -> Result<Vec<Slaves>, Error> {
        let request = wire::GetSlaveDeviceDbRequest { gateway_id: self.gateway_id() };
        let infos = self.call(request).await?.slave_device_infos;
        Ok(infos.into_iter().filter_map(convert::slaves).collect())
    }

    /// Replaces the stored slaves of these devices; removes those of devices without any.
    pub async fn set_slaves(&self, slaves: &[Slaves]) -> Result<(), Error> {
        let (removed, added): (Vec<&Slaves>, Vec<&Slaves>) =
            slaves.iter().partition(|slaves| slaves.is_empty());
        if !added.is_empty() {
            let slave_device_infos = added.into_iter().map(convert::slave_info).collect();
            let gateway_id = self.gateway_id();
            self.call(wire::AddSlaveDeviceDbRequest { gateway_id, slave_device_infos }).await?;
        }
        if !removed.is_empty() {
            let device_i_ds = convert::numbers(removed.iter().map(|slaves| &slaves.device_id));
            let gateway_id = self.gateway_id();
            self.call(wire::DeleteSlaveDeviceDbRequest { gateway_id, device_i_ds }).await?;
        }
        Ok(())
    }

    fn gateway_id(&self) -> String {
        self.gateway_id.as_ref().to_owned()
    }

    async fn call<R: Rpc>(&self, request: R) -> Result<R::Response, Error> {
        let left = |deadline: Instant| deadline.duration_since(Instant::now());
        self.master.call(request, self.deadline.map_or(R::DEADLINE, left)).await
    }
}
