//! One task for each gateway that connects, reads, and connects again until it is stopped.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::client::GatewayClient;
use super::connected_link::ConnectedLink;
use super::connection::{Connector, RpcObserver};
use super::disconnect::Disconnect;
use super::error::LinkError;
use super::link_output::{LinkOutput, ListRequests};
use super::options::GatewayOptions;
use super::reports::LinkReportSender;
use super::subscription::Subscription;
use super::supervisor::{self, AttemptState, Supervised};
use crate::fleet::GatewayIndex;

/// A handle to a gateway's link.
#[derive(Debug)]
pub struct Link {
    gateway: GatewayIndex,
    list_requests: Arc<ListRequests>,
    client: watch::Receiver<Option<GatewayClient>>,
    /// `None` for a gateway behind a master, whose task serves the link.
    task: Option<JoinHandle<()>>,
}

impl Link {
    /// Starts the task. It ends when `stop` becomes true, or when its sender or the receiver of
    /// the reports is gone.
    #[must_use]
    pub fn start(
        gateway: GatewayIndex,
        options: GatewayOptions,
        reports: LinkReportSender,
        observer: RpcObserver,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let output = LinkOutput::new(gateway, options.peer.clone(), reports, Default::default());
        let task =
            supervisor::start(GatewayTask(output.clone()), Connector::new(options, observer), stop);
        Self::new(&output, Some(task))
    }

    /// The link whose task has this output. `task`: its own, if it is not served by its master's.
    pub(crate) fn new(output: &LinkOutput, task: Option<JoinHandle<()>>) -> Self {
        let (gateway, list_requests) = (output.gateway, output.list_requests.clone());
        Self { gateway, list_requests, client: output.clients(), task }
    }

    /// Requests the device list. Requests made while one is running lead to one more list. While
    /// the link is down this has no effect: request the list after `LinkReport::Up`.
    pub fn list_now(&self) {
        self.list_requests.request(self.gateway);
    }

    /// A receiver of the client for calls beside the stream; `None` while the link is down.
    pub fn clients(&self) -> watch::Receiver<Option<GatewayClient>> {
        self.client.clone()
    }

    /// When something last came from the gateway, or its master; `None` while the link is down.
    pub fn last_activity(&self) -> Option<Instant> {
        let client = self.client.borrow();
        client.as_ref().map(|client| client.connection().activity().last_activity())
    }

    /// Waits until the task has ended, if the gateway has one of its own.
    pub async fn ended(self) {
        if let Some(task) = self.task {
            let _ = task.await;
        }
    }
}

/// The task of a link to a gateway at its own address.
struct GatewayTask(LinkOutput);

impl Supervised for GatewayTask {
    async fn attempt(&self, state: &mut AttemptState) -> Result<Infallible, Disconnect> {
        let client = GatewayClient::open(&state.connector).await?;
        let (subscription, api_version) = Subscription::establish(client.connection()).await?;
        state.connector.api_version = api_version;
        self.0.list_requests.discard(self.0.gateway);
        let certificate_expires_at = client.certificate().map(|shown| shown.not_after);
        let package = api_version.package();
        state.connected(client.connection(), package);
        self.0.up(client.clone(), package, certificate_expires_at)?;
        ConnectedLink::new(&self.0, &client, subscription).run().await
    }

    async fn ended(&self, error: &LinkError, last_activity: Option<Instant>) -> bool {
        self.0.connection_ended(error.clone(), last_activity).await
    }
}
