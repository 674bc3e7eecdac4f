//! The gateways behind one master, for the task of its link.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::client::GatewayClient;
use super::disconnect::Disconnect;
use super::error::{ErrorCode, LinkError};
use super::list_requests::ListRequests;
use super::master_connection::MasterConnection;
use super::reports::{GatewaySink, LinkReport};
use crate::fleet::{GatewayIndex, LinkEvent};
use crate::net::Peer;

/// One gateway behind a master. Clones are the same gateway.
#[derive(Clone, Debug)]
pub(crate) struct BehindMaster {
    index: GatewayIndex,
    /// Its ID at the master.
    id: Arc<str>,
    reports: GatewaySink,
    /// The client, while its link is up.
    client: watch::Sender<Option<GatewayClient>>,
}

impl BehindMaster {
    pub(crate) fn new(index: GatewayIndex, id: Arc<str>, reports: GatewaySink) -> Self {
        Self { index, id, reports, client: watch::Sender::new(None) }
    }

    pub(crate) const fn index(&self) -> GatewayIndex {
        self.index
    }

    pub(crate) const fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub(crate) const fn reports(&self) -> &GatewaySink {
        &self.reports
    }

    pub(crate) fn clients(&self) -> watch::Receiver<Option<GatewayClient>> {
        self.client.subscribe()
    }

    pub(crate) fn client(&self) -> Option<GatewayClient> {
        self.client.borrow().clone()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.client.borrow().is_some()
    }

    /// Its link is up.
    pub(crate) fn up(&self, master: &Arc<MasterConnection>) -> Result<(), Disconnect> {
        let client = GatewayClient::through(master.clone(), self.id.clone());
        self.client.send_replace(Some(client));
        let package = master.version().master_package();
        self.reports.try_send(LinkReport::Connected { package, certificate_expires_at: None })?;
        self.reports.try_send(LinkEvent::LinkUp)
    }

    /// The master has no connection to it, or does not list it.
    pub(crate) fn absent(&self, is_listed: bool, master: &Peer) -> Result<(), Disconnect> {
        let (peer, id) = (self.reports.peer(), &self.id);
        let error = match is_listed {
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
        };
        if self.client.send_replace(None).is_some() {
            self.reports.try_send(LinkReport::Disconnected(error))?;
            let last_activity = Instant::now().into_std();
            return self.reports.try_send(LinkEvent::LinkDown { last_activity });
        }
        self.reports.try_send(LinkReport::AttemptFailed(error))
    }

    /// The link to the master is down, or an attempt failed (no `last_activity`); false if the
    /// receiver is gone.
    pub(crate) async fn master_lost(
        &self,
        error: &LinkError,
        last_activity: Option<Instant>,
    ) -> bool {
        let was_up = self.client.send_replace(None).is_some();
        self.reports.link_ended(error, last_activity.filter(|_| was_up)).await
    }
}

/// The gateways of one master. Gateways are added while its link is up too.
#[derive(Debug, Default)]
pub(crate) struct GatewaysBehind {
    gateways: Mutex<Vec<BehindMaster>>,
    added: Notify,
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

    /// Waits until a gateway is added. Cancel safe.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }
}
