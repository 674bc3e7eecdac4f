//! The gateways behind one master, for the task of its link.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::client::GatewayClient;
use super::disconnect::Disconnect;
use super::error::{ErrorCode, LinkError};
use super::link_output::LinkOutput;
use super::list_requests::ListRequests;
use super::master_client::MasterClient;
use crate::net::Peer;

/// One gateway behind a master. Clones are the same gateway.
#[derive(Clone, Debug)]
pub(crate) struct BehindMaster {
    /// Its ID at the master.
    pub(crate) id: Arc<str>,
    pub(crate) output: LinkOutput,
}

impl BehindMaster {
    /// Its link is up.
    pub(crate) fn up(&self, master: &Arc<MasterClient>) -> Result<(), Disconnect> {
        let client = GatewayClient::through(master.clone(), self.id.clone());
        self.output.up(client, master.package(), None)
    }

    /// The master has no connection to it, or does not list it.
    pub(crate) fn absent(&self, is_listed: bool, master: &Peer) -> Result<(), Disconnect> {
        let (peer, id) = (self.output.reports.peer(), &self.id);
        self.output.down_at_master(match is_listed {
            true => LinkError::new(
                ErrorCode::GatewayNotConnected,
                format!(
                    "{peer}: {master} has no connection to its gateway {id:?}; see that this \
                     gateway runs and reaches the master"
                ),
            ),
            false => LinkError::new(
                ErrorCode::GatewayNotListed,
                format!(
                    "{peer}: {master} lists no gateway {id:?} for this tenant; correct its \
                     gateway_id, or add the gateway at the master"
                ),
            ),
        })
    }
}

/// The gateways of one master. Gateways are added while its link is up too.
#[derive(Debug, Default)]
pub(crate) struct GatewaysBehind {
    gateways: Mutex<Vec<BehindMaster>>,
    /// Notified when one is added.
    pub(crate) added: Notify,
    pub(crate) list_requests: Arc<ListRequests>,
}

impl GatewaysBehind {
    pub(crate) fn add(&self, gateway: BehindMaster) {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner).push(gateway);
        self.added.notify_one();
    }

    /// Those after the first `known`.
    pub(crate) fn after(&self, known: usize) -> Vec<BehindMaster> {
        let gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        gateways.get(known..).unwrap_or_default().to_vec()
    }
}
