//! The links to the gateways, and the queue of what they report.

use tokio::sync::{mpsc, watch};

use crate::fleet::GatewayIndex;
use crate::gsdk::{GatewayOptions, Link, LinkReport, RpcObserver};

/// Reports that may wait for the loop (design, decision 1). When full, the stream of a gateway that
/// reports more is closed, and its list is read again.
const REPORTS_MAX: usize = 1_000_000;
/// Reports handled in one iteration: enough that a burst pays for few wake-ups.
const REPORTS_TAKEN_MAX: usize = 1_024;

/// One link for each gateway.
#[derive(Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
    reports: mpsc::Receiver<(GatewayIndex, LinkReport)>,
    /// Keeps the queue open when the last gateway's task has ended.
    queue: mpsc::Sender<(GatewayIndex, LinkReport)>,
    stop: watch::Sender<bool>,
    /// Reports that are not handled yet, the newest first.
    taken: Vec<(GatewayIndex, LinkReport)>,
}

impl Links {
    pub(crate) fn new() -> Self {
        let (queue, reports) = mpsc::channel(REPORTS_MAX);
        let stop = watch::Sender::new(false);
        Self { links: Vec::new(), reports, queue, stop, taken: Vec::new() }
    }

    /// Starts the link of the next gateway.
    pub(crate) fn start(
        &mut self,
        gateway: GatewayIndex,
        options: GatewayOptions,
        observer: RpcObserver,
    ) {
        let (queue, stopped) = (self.queue.clone(), self.stop.subscribe());
        self.links.push(Link::start(gateway, options, queue, observer, stopped));
    }

    pub(crate) fn all(&self) -> &[Link] {
        &self.links
    }

    pub(crate) fn get(&self, gateway: GatewayIndex) -> Option<&Link> {
        self.links.get(gateway.0)
    }

    /// Waits for reports. Cancel safe.
    pub(crate) async fn wait(&mut self) {
        self.reports.recv_many(&mut self.taken, REPORTS_TAKEN_MAX).await;
        self.taken.reverse();
    }

    /// The next report that is not handled yet.
    pub(crate) fn next_report(&mut self) -> Option<(GatewayIndex, LinkReport)> {
        let next = self.taken.pop();
        if next.is_none() {
            self.taken.shrink_to(REPORTS_TAKEN_MAX);
        }
        next
    }

    /// Becomes true when the links are stopped.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }
}
