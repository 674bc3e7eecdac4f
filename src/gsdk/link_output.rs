//! What the task of a gateway's link gives to others: its reports, and a client while it is up; and
//! the lists that they request of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::client::GatewayClient;
use super::disconnect::Disconnect;
use super::error::LinkError;
use super::reports::{GatewaySink, LinkReport, LinkReportSender};
use crate::fleet::GatewayIndex;
use crate::ids::Moment;
use crate::net::Peer;

/// Clones belong to the same link.
#[derive(Clone, Debug)]
pub(crate) struct LinkOutput {
    pub(crate) gateway: GatewayIndex,
    pub(crate) reports: GatewaySink,
    /// Its own; behind a master, those of all of its gateways.
    pub(crate) list_requests: Arc<ListRequests>,
    /// For calls beside the stream, while the link is up.
    client: watch::Sender<Option<GatewayClient>>,
}

impl LinkOutput {
    pub(crate) fn new(
        gateway: GatewayIndex,
        peer: Peer,
        queue: LinkReportSender,
        list_requests: Arc<ListRequests>,
    ) -> Self {
        let reports = GatewaySink::new(gateway, peer, queue);
        Self { gateway, reports, list_requests, client: watch::Sender::new(None) }
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

    /// The link is up.
    pub(crate) fn up(
        &self,
        client: GatewayClient,
        package: &'static str,
        certificate_expires_at: Option<Moment>,
    ) -> Result<(), Disconnect> {
        // The reader of the report uses the client.
        self.client.send_replace(Some(client));
        let reported = self.reports.try_send(LinkReport::Up { package, certificate_expires_at });
        // A link that was not reported as up is not reported as down.
        reported.inspect_err(|_| _ = self.client.send_replace(None))
    }

    /// The master has no connection to the gateway, while the connection to the master stands. Does
    /// not wait: the reports that follow on that connection must not be held up.
    pub(crate) fn down_at_master(&self, error: LinkError) -> Result<(), Disconnect> {
        // The reader of the report finds no client.
        let client = self.client.send_replace(None);
        let last_activity = client.is_some().then(|| Instant::now().into_std());
        let reported = self.reports.try_send(LinkReport::Down { error, last_activity });
        // With a full queue the connection to the master ends, and with it this link.
        reported.inspect_err(|_| _ = self.client.send_replace(client))
    }

    /// The connection has ended, or could not be established. Waits for space in the queue; false
    /// if the receiver of the reports is gone.
    pub(crate) async fn connection_ended(
        &self,
        error: LinkError,
        last_activity: Option<Instant>,
    ) -> bool {
        let was_up = self.client.send_replace(None).is_some();
        let last_activity = last_activity.unwrap_or_else(Instant::now);
        let last_activity = was_up.then(|| last_activity.into_std());
        self.reports.send(LinkReport::Down { error, last_activity }).await
    }
}

/// The gateways whose list has to be read: requested by the loop, read by the task of the link.
/// A gateway that is requested again while its list is being read is in here again.
#[derive(Debug, Default)]
pub(crate) struct ListRequests {
    /// In the order of their requests, each once.
    gateways: Mutex<VecDeque<GatewayIndex>>,
    requested: Notify,
}

impl ListRequests {
    fn lock(&self) -> MutexGuard<'_, VecDeque<GatewayIndex>> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn request(&self, gateway: GatewayIndex) {
        let mut gateways = self.lock();
        if !gateways.contains(&gateway) {
            gateways.push_back(gateway);
        }
        self.requested.notify_one();
    }

    /// Discards a request made while the link was down.
    pub(crate) fn discard(&self, gateway: GatewayIndex) {
        self.lock().retain(|other| *other != gateway);
    }

    /// Takes the first one that may be read now.
    pub(crate) fn take(&self, may_read: impl Fn(GatewayIndex) -> bool) -> Option<GatewayIndex> {
        let mut gateways = self.lock();
        let first = gateways.iter().position(|gateway| may_read(*gateway))?;
        gateways.remove(first)
    }

    /// Waits for a request. Cancel safe.
    pub(crate) async fn requested(&self) {
        self.requested.notified().await;
    }
}
