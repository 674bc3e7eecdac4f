//! The queues of what comes from the gateways: reports of their links, and results of tasks.

use tokio::sync::mpsc;

use super::details::DetailsRead;
use super::masters;
use super::provision_tasks::TaskResult;
use crate::fleet::GatewayIndex;
use crate::gsdk::{LinkReport, LinkReportSender};

/// Reports that may wait for the loop. Beyond that, the link of a gateway that reports more ends
/// and is made again, which reads its list.
const REPORTS_MAX: usize = 1_000_000;
/// Reports handled in one iteration: enough that a burst pays for few wake-ups.
const REPORTS_TAKEN_MAX: usize = 1_024;
/// Results that may wait for the loop. A full queue makes only the tasks wait.
const RESULTS_MAX: usize = 64;

/// What has come from the gateways.
#[derive(Debug)]
pub(crate) enum GatewayInput {
    Reports(Vec<(GatewayIndex, LinkReport)>),
    Master(masters::Report),
    Provisioned(TaskResult),
    Details(DetailsRead),
}

/// The queues of all gateways. The senders keep them open when the last task has ended.
#[derive(Debug)]
pub(crate) struct GatewayInputs {
    reports: Channel<(GatewayIndex, LinkReport)>,
    results: Channel<TaskResult>,
    details: Channel<DetailsRead>,
}

type Channel<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

impl GatewayInputs {
    pub(crate) fn new() -> Self {
        Self {
            reports: mpsc::channel(REPORTS_MAX),
            results: mpsc::channel(RESULTS_MAX),
            details: mpsc::channel(RESULTS_MAX),
        }
    }

    pub(crate) fn reports(&self) -> LinkReportSender {
        self.reports.0.clone()
    }

    pub(crate) fn results(&self) -> mpsc::Sender<TaskResult> {
        self.results.0.clone()
    }

    pub(crate) fn details(&self) -> mpsc::Sender<DetailsRead> {
        self.details.0.clone()
    }

    /// Waits for reports of links or the result of a task. Cancel safe.
    pub(crate) async fn next(&mut self) -> GatewayInput {
        let mut reports = Vec::new();
        tokio::select! {
            _ = self.reports.1.recv_many(&mut reports, REPORTS_TAKEN_MAX) => {}
            Some(result) = self.results.1.recv() => return GatewayInput::Provisioned(result),
            Some(read) = self.details.1.recv() => return GatewayInput::Details(read),
        }
        GatewayInput::Reports(reports)
    }
}
