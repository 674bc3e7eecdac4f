//! One task for each gateway that connects, reads, and connects again until it is stopped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::behind_master::BehindMaster;
use super::channel::KeepAlive;
use super::client::GatewayClient;
use super::connected_link::ConnectedLink;
use super::connection::RpcObserver;
use super::disconnect::Disconnect;
use super::error::ErrorCode;
use super::error::LinkError;
use super::failure_log::LinkFailureLog;
use super::list_requests::ListRequests;
use super::options::GatewayOptions;
use super::reports::{LinkReport, LinkReportSender, ReportSink};
use super::rpc::ApiVersion;
use super::subscription::Subscription;
use crate::fleet::{GatewayIndex, LinkEvent};
use crate::net::Backoff;
use crate::task::catch_panic;

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
        mut stop: watch::Receiver<bool>,
    ) -> Self {
        let list_requests = Arc::<ListRequests>::default();
        let (client_sender, client) = watch::channel(None);
        let task = LinkTask {
            gateway,
            reports: ReportSink::new(gateway, options.peer.clone(), reports),
            observer,
            list_requests: list_requests.clone(),
            client: client_sender,
            api_version: ApiVersion::V1_5,
            keep_alive: KeepAlive::Pings,
            failures: LinkFailureLog::default(),
            options,
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                () = task.supervise() => {}
            }
        });
        Self { gateway, list_requests, client, task: Some(task) }
    }

    /// The link of a gateway behind a master.
    pub(crate) fn behind_master(gateway: &BehindMaster, requests: Arc<ListRequests>) -> Self {
        let (index, client) = (gateway.index(), gateway.clients());
        Self { gateway: index, list_requests: requests, client, task: None }
    }

    /// Requests the device list. Requests made while one is running lead to one more list. While
    /// the link is down this has no effect: request the list after `LinkUp`.
    pub fn list_now(&self) {
        self.list_requests.request(self.gateway);
    }

    /// The client for calls beside the stream; `None` while the link is down.
    #[must_use]
    pub fn client(&self) -> Option<GatewayClient> {
        self.client.borrow().clone()
    }

    /// A receiver that always holds the present link's client.
    #[must_use]
    pub fn clients(&self) -> watch::Receiver<Option<GatewayClient>> {
        self.client.clone()
    }

    /// Waits until the task has ended, if the gateway has one of its own.
    pub async fn ended(self) {
        if let Some(task) = self.task {
            let _ = task.await;
        }
    }
}

#[derive(Clone)]
struct LinkTask {
    gateway: GatewayIndex,
    options: GatewayOptions,
    reports: ReportSink,
    observer: RpcObserver,
    list_requests: Arc<ListRequests>,
    client: watch::Sender<Option<GatewayClient>>,
    /// Those below are learned from the gateway, and reset by a panic.
    api_version: ApiVersion,
    keep_alive: KeepAlive,
    failures: LinkFailureLog,
}

/// How long a link was up.
#[derive(Clone, Copy)]
struct Uptime {
    since: Instant,
    last_activity: Instant,
}

impl Uptime {
    fn duration(self) -> Duration {
        self.last_activity.saturating_duration_since(self.since)
    }
}

impl LinkTask {
    /// Runs until the receiver of the reports is gone. A panic ends the link, not the task.
    async fn supervise(self) {
        loop {
            let Err(panic) = catch_panic(self.clone().run()).await else { return };
            let peer = &self.options.peer;
            let gateway = peer.name();
            tracing::error!(gateway, panic, "internal error: gateway task panicked; restarting");
            // Nothing was observed after the last byte, even if the panic came later.
            let uptime = self.client.send_replace(None).map(|client| {
                let last_activity = client.connection().activity().last_activity();
                Uptime { since: last_activity, last_activity }
            });
            let message = format!(
                "{peer}: internal error: its task panicked and was restarted; please \
                 report this: {panic}"
            );
            let error = LinkError::new(ErrorCode::Internal, message);
            if !self.report_failure(uptime, error).await {
                return;
            }
            sleep(self.options.timing.retry.first).await;
        }
    }

    async fn run(mut self) {
        let mut backoff = Backoff::new(self.options.timing.retry);
        loop {
            let (disconnect, uptime) = self.attempt().await;
            self.client.send_replace(None);
            let (gateway, error) = (self.options.peer.name(), disconnect.error());
            let code = error.code.as_str();
            let retry_at_once = disconnect.pings_rejected() && self.keep_alive == KeepAlive::Pings;
            if retry_at_once {
                self.keep_alive = KeepAlive::Calls;
                tracing::info!(gateway, "gateway rejects HTTP/2 pings; keep-alive by calls");
            } else if self.failures.is_new(error) {
                match uptime {
                    Some(_) => {
                        let message = "disconnected from the gateway; retrying";
                        tracing::warn!(gateway, code, %error, message);
                    }
                    None => {
                        let message = "cannot connect to the gateway; retrying";
                        tracing::warn!(gateway, code, %error, message);
                    }
                }
            }
            if !self.report_failure(uptime, disconnect.error().clone()).await {
                return;
            }
            if !retry_at_once {
                let lasted = uptime.map(Uptime::duration);
                sleep(backoff.next(disconnect.is_absence(lasted), lasted)).await;
            }
        }
    }

    /// Reports that the link is down, or that an attempt failed; false if the receiver is gone.
    async fn report_failure(&self, uptime: Option<Uptime>, error: LinkError) -> bool {
        let Some(Uptime { last_activity, .. }) = uptime else {
            return self.reports.send(LinkReport::AttemptFailed(error)).await;
        };
        let down = LinkEvent::LinkDown { last_activity: last_activity.into_std() };
        self.reports.send(LinkReport::Disconnected(error)).await && self.reports.send(down).await
    }

    /// Connects and reads until the link ends; returns how long it was up, if it was.
    async fn attempt(&mut self) -> (Disconnect, Option<Uptime>) {
        let (client, subscription) = match self.connect().await {
            Ok(connected) => connected,
            Err(disconnect) => return (disconnect, None),
        };
        let since = Instant::now();
        let link = ConnectedLink::new(&self.reports, &self.list_requests, &client, subscription);
        let disconnect = link.run(self.api_version, self.keep_alive).await;
        let last_activity = client.connection().activity().last_activity();
        (disconnect, Some(Uptime { since, last_activity }))
    }

    async fn connect(&mut self) -> Result<(GatewayClient, Subscription), Disconnect> {
        let observer = self.observer.clone();
        let client =
            GatewayClient::open(&self.options, self.keep_alive, self.api_version, observer).await?;
        let (subscription, api_version) = Subscription::establish(client.connection()).await?;
        self.api_version = api_version;
        self.list_requests.discard(self.gateway);
        self.client.send_replace(Some(client.clone()));
        let certificate_expires_at = client.certificate().map(|shown| shown.not_after);
        let package = api_version.package();
        let connected = LinkReport::Connected { package, certificate_expires_at };
        self.reports.try_send(connected)?;
        self.reports.try_send(LinkEvent::LinkUp)?;
        let (gateway, failures) = (self.options.peer.name(), self.failures.connected());
        tracing::info!(gateway, package, failures, "connected to the gateway");
        Ok((client, subscription))
    }
}
