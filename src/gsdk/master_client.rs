//! Single calls to a master, without a [`MasterLink`](super::MasterLink).

use std::sync::Arc;

use super::client::GatewayClient;
use super::connection::{Connector, RpcObserver};
use super::error::Error;
use super::master_connection::MasterConnection;
use super::options::GatewayOptions;
use crate::certificate::Certificate;

/// A connection to a master that is logged in.
#[derive(Clone, Debug)]
pub struct MasterClient {
    master: Arc<MasterConnection>,
}

/// A master's status of one of its gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGateway {
    pub id: String,
    pub is_connected: bool,
    /// How many devices it has.
    pub devices: usize,
}

impl MasterClient {
    /// Connects and logs in.
    pub async fn dial(options: &GatewayOptions, observer: RpcObserver) -> Result<Self, Error> {
        let master = MasterConnection::open(&Connector::new(options.clone(), observer)).await?;
        Ok(Self { master: Arc::new(master) })
    }

    /// The calls to one of its gateways.
    #[must_use]
    pub fn gateway(&self, gateway_id: &str) -> GatewayClient {
        GatewayClient::through(self.master.clone(), gateway_id.into())
    }

    /// The gateways of the tenant.
    pub async fn gateways(&self) -> Result<Vec<ListedGateway>, Error> {
        let infos = self.master.gateways().await?.into_iter();
        let gateway = infos.map(|info| ListedGateway {
            id: info.gateway_id,
            is_connected: info.is_connected,
            devices: info.device_i_ds.len(),
        });
        Ok(gateway.collect())
    }

    /// Opens both streams of status changes, as a link does, and closes them.
    pub async fn try_streams(&self) -> Result<(), Error> {
        let connection = self.master.connection();
        let grace = connection.options().timing.subscribe_grace;
        let mut streams = self.master.subscribe();
        match tokio::time::timeout(grace, streams.responses()).await {
            Ok(Err(status)) => Err(connection.error(super::rpc::SUBSCRIBE_STATUS, status)),
            // Some servers respond only with the first change.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// The package in which the master answers.
    #[must_use]
    pub fn package(&self) -> &'static str {
        self.master.version().master_package()
    }

    /// The master's certificate, if it could be parsed.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.master.connection().certificate()
    }
}
