//! The queues of what comes from the gateways: reports of links and masters, and results of tasks.
//! Gateways take turns, so that a burst of one delays no other.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::details::DetailsRead;
use super::provision_tasks::TaskResult;
use crate::fleet::GatewayIndex;
use crate::gsdk::{LinkReport, LinkReportSender, MasterReport, MasterReportSender};
use crate::ids::GatewayName;

/// Reports that may wait in the queue, and as many sorted by gateway. Beyond that, the link of a
/// gateway that reports more ends and is made again, which reads its list.
const REPORTS_MAX: usize = 500_000;
/// Reports of masters about themselves that may wait. A full queue ends the link of a master.
const MASTER_REPORTS_MAX: usize = 1_024;
/// Reports handled in one iteration: enough that a burst pays for few wake-ups.
const REPORTS_TAKEN_MAX: usize = 1_024;
/// Reports of a gateway before the next one has its turn.
const REPORTS_PER_TURN: usize = 64;
/// Results that may wait for the loop. A full queue makes only the tasks wait.
const RESULTS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) enum GatewayInput {
    Reports(Vec<(GatewayIndex, LinkReport)>),
    Master(GatewayName, MasterReport),
    Provisioned(TaskResult),
    Details(DetailsRead),
}

/// The queues of all gateways. The senders keep them open when the last task has ended.
#[derive(Debug)]
pub(crate) struct GatewayInputs {
    reports: Channel<(GatewayIndex, LinkReport)>,
    waiting: WaitingReports,
    /// Whether other tasks could run since reports were taken from the waiting ones.
    has_yielded: bool,
    master_reports: Channel<(GatewayName, MasterReport)>,
    results: Channel<TaskResult>,
    details: Channel<DetailsRead>,
}

type Channel<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

impl GatewayInputs {
    pub(crate) fn new() -> Self {
        Self {
            reports: mpsc::channel(REPORTS_MAX),
            waiting: WaitingReports::default(),
            has_yielded: false,
            master_reports: mpsc::channel(MASTER_REPORTS_MAX),
            results: mpsc::channel(RESULTS_MAX),
            details: mpsc::channel(RESULTS_MAX),
        }
    }

    pub(crate) fn reports(&self) -> LinkReportSender {
        self.reports.0.clone()
    }

    pub(crate) fn master_reports(&self) -> MasterReportSender {
        self.master_reports.0.clone()
    }

    pub(crate) fn results(&self) -> mpsc::Sender<TaskResult> {
        self.results.0.clone()
    }

    pub(crate) fn details(&self) -> mpsc::Sender<DetailsRead> {
        self.details.0.clone()
    }

    /// Waits for reports of links or of a master, or the result of a task. Cancel safe.
    pub(crate) async fn next(&mut self) -> GatewayInput {
        let (has_waiting, mut received) = (self.waiting.len > 0, Vec::new());
        // A burst must not keep other tasks from running, nor wait until no other input comes.
        let yields = has_waiting && !std::mem::replace(&mut self.has_yielded, true);
        let (_, queue) = &mut self.reports;
        tokio::select! {
            _ = queue.recv_many(&mut received, REPORTS_TAKEN_MAX), if !has_waiting => {}
            () = async { if yields { yield_now().await } }, if has_waiting => {}
            Some((name, report)) = self.master_reports.1.recv() => {
                return GatewayInput::Master(name, report);
            }
            Some(result) = self.results.1.recv() => return GatewayInput::Provisioned(result),
            Some(read) = self.details.1.recv() => return GatewayInput::Details(read),
        }
        if !has_waiting && received.len() < REPORTS_TAKEN_MAX {
            return GatewayInput::Reports(received);
        }
        self.has_yielded = false;
        self.waiting.fill(received, queue);
        GatewayInput::Reports(self.waiting.take(REPORTS_TAKEN_MAX))
    }
}

/// Reports of a burst, by gateway, until their turn.
#[derive(Debug, Default)]
struct WaitingReports {
    by_gateway: BTreeMap<GatewayIndex, VecDeque<LinkReport>>,
    /// Of all gateways.
    len: usize,
    /// Whose turn was the last one.
    last: Option<GatewayIndex>,
}

impl WaitingReports {
    /// Adds the received reports, then those of the queue until [`REPORTS_MAX`] wait.
    fn fill(
        &mut self,
        received: Vec<(GatewayIndex, LinkReport)>,
        queue: &mut mpsc::Receiver<(GatewayIndex, LinkReport)>,
    ) {
        received.into_iter().for_each(|report| self.push(report));
        while self.len < REPORTS_MAX
            && let Ok(report) = queue.try_recv()
        {
            self.push(report);
        }
    }

    fn push(&mut self, (gateway, report): (GatewayIndex, LinkReport)) {
        self.by_gateway.entry(gateway).or_default().push_back(report);
        self.len += 1;
    }

    /// The next reports, at most so many.
    fn take(&mut self, max: usize) -> Vec<(GatewayIndex, LinkReport)> {
        let mut taken = Vec::with_capacity(max.min(self.len));
        while taken.len() < max
            && let Some(gateway) = self.next_gateway()
            && let Some(reports) = self.by_gateway.get_mut(&gateway)
        {
            let count = REPORTS_PER_TURN.min(max - taken.len()).min(reports.len());
            taken.extend(reports.drain(..count).map(|report| (gateway, report)));
            if reports.is_empty() {
                self.by_gateway.remove(&gateway);
            }
            self.len -= count;
            self.last = Some(gateway);
        }
        taken
    }

    fn next_gateway(&self) -> Option<GatewayIndex> {
        let after = self.last.map_or(Unbounded, Excluded);
        let mut later = self.by_gateway.range((after, Unbounded));
        later.next().or_else(|| self.by_gateway.first_key_value()).map(|(gateway, _)| *gateway)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn other_tasks_run_beside_a_burst() {
        let mut inputs = GatewayInputs::new();
        for _ in 0..10 * REPORTS_TAKEN_MAX {
            inputs.reports().try_send((GatewayIndex(0), LinkReport::ListedByMaster(true))).unwrap();
        }
        let has_run = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&has_run);
        tokio::spawn(async move { set.store(true, Ordering::Relaxed) });
        for _ in 0..5 {
            inputs.next().await;
        }
        assert!(has_run.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_burst_is_handled_beside_other_inputs_that_are_always_there() {
        let mut inputs = GatewayInputs::new();
        for _ in 0..10 * REPORTS_TAKEN_MAX {
            inputs.reports().try_send((GatewayIndex(0), LinkReport::ListedByMaster(true))).unwrap();
        }
        let mut batches = 0;
        for _ in 0..30 {
            tokio::select! {
                biased;
                _ = inputs.next() => batches += 1,
                () = std::future::ready(()) => {}
            }
        }
        assert!(batches >= 10, "{batches} of 30");
    }

    #[tokio::test]
    async fn gateways_take_turns_in_a_burst_and_each_keeps_its_order() {
        let mut inputs = GatewayInputs::new();
        let report = |gateway, listed| (GatewayIndex(gateway), LinkReport::ListedByMaster(listed));
        let is_first = |number: usize| number == 0;
        for number in 0..2 * REPORTS_TAKEN_MAX {
            inputs.reports().try_send(report(0, is_first(number))).unwrap();
        }
        for number in 0..10 {
            inputs.reports().try_send(report(7, is_first(number))).unwrap();
        }
        let mut all = Vec::new();
        while all.len() < 2 * REPORTS_TAKEN_MAX + 10 {
            let GatewayInput::Reports(reports) = inputs.next().await else { panic!("no reports") };
            assert!(reports.len() <= REPORTS_TAKEN_MAX);
            all.extend(reports);
        }
        let of = |gateway| all.iter().filter(move |(at, _)| *at == GatewayIndex(gateway));
        for gateway in [0, 7] {
            let listed =
                of(gateway).map(|(_, report)| matches!(report, LinkReport::ListedByMaster(true)));
            assert!(listed.enumerate().all(|(number, listed)| listed == is_first(number)));
        }
        assert_eq!((of(0).count(), of(7).count()), (2 * REPORTS_TAKEN_MAX, 10));
        let last = all.iter().rposition(|(at, _)| *at == GatewayIndex(7)).unwrap();
        assert!(
            last < REPORTS_PER_TURN + 10,
            "the quiet one waits for one turn of the other: {last}"
        );
    }
}
