//! What the task of a gateway's link gives to others: its reports, and a client while it is up.

use tokio::sync::watch;
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
    /// For calls beside the stream, while the link is up.
    client: watch::Sender<Option<GatewayClient>>,
}

impl LinkOutput {
    pub(crate) fn new(gateway: GatewayIndex, peer: Peer, queue: LinkReportSender) -> Self {
        let reports = GatewaySink::new(gateway, peer, queue);
        Self { gateway, reports, client: watch::Sender::new(None) }
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
