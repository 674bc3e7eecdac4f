//! Provisions what is missing at a gateway when its link comes up, and finds what another client
//! removed while it was up.
//!
//! The steps of a round run beside the loop. What cannot be provisioned is retried, at growing
//! intervals, while the link is up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::provision::{Provisioned, may_concern_single, provision};
use crate::commands::{Failure, FailureCode, Slot};
use crate::desired::{ChangeResult, DesiredItem, DesiredState, Reconciler, Round, by_kind};
use crate::fleet::{AcceptFilter, Effect, GatewayEvent, GatewayIndex, Listed, Slaves};
use crate::gsdk::{GatewayClient, Link};
use crate::ids::{DeviceId, GatewayName};
use crate::payload::to_bytes;

/// The first delay before a retry; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(2);
/// The longest delay.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Items named in one line of the log; further ones are counted.
const NAMED_MAX: usize = 10;

/// Acquires a slot among a gateway's changes; `None` if there is none.
pub(crate) type AcquireSlot<'a> = &'a dyn Fn() -> Option<Slot>;

/// The result of a task beside the loop.
#[derive(Debug)]
pub(crate) struct TaskResult {
    pub(crate) gateway: GatewayIndex,
    /// The number of the link on which the task ran.
    link: u64,
    done: Done,
}

#[derive(Debug)]
enum Done {
    Step(Provisioned),
    Slaves(Vec<Slaves>),
}

/// What has to be done for a gateway.
#[derive(Debug, Default)]
pub(crate) struct Consequences {
    /// To be published.
    pub(crate) events: Vec<GatewayEvent>,
    /// The items made by commands have changed: persist them.
    pub(crate) is_changed: bool,
    /// Items were added: read the list.
    pub(crate) is_list_wanted: bool,
}

/// The provisioning of one gateway.
#[derive(Debug)]
pub(crate) struct GatewayProvisioner {
    index: GatewayIndex,
    name: GatewayName,
    desired: Reconciler,
    /// Counts the links: a result of an earlier link is ignored.
    link: u64,
    round: Round,
    activity: Activity,
    retry_delay: Duration,
    /// The failures logged on this link: the error's code, and whether the item failed alone. An
    /// item is logged again when these change.
    logged: BTreeMap<DesiredItem, (FailureCode, bool)>,
    results: mpsc::Sender<TaskResult>,
}

#[derive(Clone, Copy, Debug)]
enum Activity {
    Idle,
    /// A step runs beside the loop.
    Running {
        /// Whether the round has added anything so far.
        has_added: bool,
    },
    RetryAt(Instant),
}

impl GatewayProvisioner {
    pub(crate) fn new(
        index: GatewayIndex,
        name: GatewayName,
        declared: DesiredState,
        results: mpsc::Sender<TaskResult>,
    ) -> Self {
        Self {
            index,
            name,
            desired: Reconciler::new(declared),
            link: 0,
            round: Round::default(),
            activity: Activity::Idle,
            retry_delay: RETRY_FIRST,
            logged: BTreeMap::new(),
            results,
        }
    }

    pub(crate) const fn name(&self) -> &GatewayName {
        &self.name
    }

    /// Restores what commands of earlier processes made.
    pub(crate) fn restore(&mut self, note: &[u8]) {
        match serde_json::from_slice::<DesiredState>(note) {
            Ok(items) => self.desired.restore(&items),
            Err(error) => {
                let what = "the persisted desired state cannot be read; forgotten";
                tracing::error!(gateway = %self.name, %error, what);
            }
        }
    }

    /// The items made by commands, to be persisted.
    pub(crate) fn note(&self) -> Option<Vec<u8>> {
        let commanded = self.desired.commanded();
        (*commanded != DesiredState::default()).then(|| to_bytes(commanded).to_vec())
    }

    /// The devices that are provisioned again because of a command.
    pub(crate) fn kept(&self) -> BTreeSet<DeviceId> {
        self.desired.kept().collect()
    }

    /// When the next retry is due.
    pub(crate) const fn retry_at(&self) -> Option<Instant> {
        match self.activity {
            Activity::RetryAt(at) => Some(at),
            Activity::Idle | Activity::Running { .. } => None,
        }
    }

    /// A command that changes something has started.
    pub(crate) const fn command_started(&mut self) {
        self.desired.command_started();
    }

    /// It has finished.
    pub(crate) fn command_finished(&mut self, effects: Vec<Effect>) -> ChangeResult {
        self.desired.command_finished(effects)
    }

    pub(crate) fn link_up(&mut self) {
        self.desired.link_up();
        self.link += 1;
        self.round = Round::default();
        self.activity = Activity::Idle;
        self.retry_delay = RETRY_FIRST;
        self.logged.clear();
    }

    pub(crate) const fn list_requested(&mut self) {
        self.desired.list_requested();
    }

    /// Compares with a list: provisions missing items after the first of a link, and finds
    /// withdrawn ones in further lists.
    pub(crate) fn listed(
        &mut self,
        rows: &[Listed],
        link: &Link,
        acquire: AcquireSlot<'_>,
    ) -> Consequences {
        let (is_first, withdrawn) = self.desired.listed(rows);
        let mut consequences = self.withdrawn(withdrawn);
        if is_first {
            self.start_round(link, acquire, &mut consequences);
        } else if self.desired.wants_slaves() {
            self.read_slaves(link.client());
        }
        consequences
    }

    pub(crate) fn filter_read(&mut self, filter: &AcceptFilter) -> Consequences {
        let withdrawn = self.desired.filter_read(filter);
        self.withdrawn(withdrawn)
    }

    /// Starts a retry that is due.
    pub(crate) fn retry(&mut self, link: &Link, acquire: AcquireSlot<'_>) -> Consequences {
        let mut consequences = Consequences::default();
        self.start_round(link, acquire, &mut consequences);
        consequences
    }

    /// Handles the result of a task.
    pub(crate) fn finished(
        &mut self,
        result: TaskResult,
        link: &Link,
        acquire: AcquireSlot<'_>,
    ) -> Consequences {
        if result.link != self.link {
            return Consequences::default();
        }
        match result.done {
            Done::Slaves(slaves) => {
                let withdrawn = self.desired.slaves_read(&slaves);
                self.withdrawn(withdrawn)
            }
            Done::Step(provisioned) => {
                let mut consequences = self.step_finished(provisioned);
                self.start_step(link, acquire, &mut consequences);
                consequences
            }
        }
    }

    /// Starts a round, if anything is missing.
    fn start_round(
        &mut self,
        link: &Link,
        acquire: AcquireSlot<'_>,
        consequences: &mut Consequences,
    ) {
        if matches!(self.activity, Activity::Running { .. }) {
            return;
        }
        self.activity = Activity::Idle;
        let missing = self.desired.missing();
        if !missing.is_empty() {
            self.round.start(&missing);
            self.start_step(link, acquire, consequences);
        }
    }

    /// Starts the round's next step, or ends it.
    fn start_step(
        &mut self,
        link: &Link,
        acquire: AcquireSlot<'_>,
        consequences: &mut Consequences,
    ) {
        let step = self.round.next(&self.desired.missing());
        let (Some(step), Some(client), Some(slot)) = (step, link.client(), acquire()) else {
            consequences.is_list_wanted = self.end_round();
            return;
        };
        if !matches!(self.activity, Activity::Running { .. }) {
            self.activity = Activity::Running { has_added: false };
        }
        let (gateway, link, results) = (self.index, self.link, self.results.clone());
        tokio::spawn(async move {
            let provisioned = tokio::spawn(provision(step, client, slot)).await;
            let provisioned = provisioned.unwrap_or_else(|_| {
                tracing::error!("internal error: a provisioning task panicked; please report this");
                Provisioned::default()
            });
            // The receiver is gone when the process ends.
            _ = results.send(TaskResult { gateway, link, done: Done::Step(provisioned) }).await;
        });
    }

    fn step_finished(&mut self, provisioned: Provisioned) -> Consequences {
        let Provisioned { added, found, failed } = provisioned;
        for present in [&added, &found] {
            self.desired.provisioned(present);
            self.round.provisioned(present);
        }
        if let Activity::Running { has_added } = &mut self.activity {
            *has_added |= !added.is_empty();
        }
        if let Some((items, failure)) = failed {
            let postponed = self.round.failed(items, may_concern_single(&failure));
            self.log_failure(postponed, &failure);
        }
        let events = events(added, |what, count, device_ids| GatewayEvent::Restored {
            what,
            count,
            device_ids,
        });
        Consequences { events, ..Consequences::default() }
    }

    /// Schedules a retry of what is still missing; returns whether the round has added anything.
    fn end_round(&mut self) -> bool {
        let has_added = matches!(self.activity, Activity::Running { has_added: true });
        if has_added {
            self.retry_delay = RETRY_FIRST;
        }
        self.activity = Activity::Idle;
        if !self.desired.missing().is_empty() {
            self.activity = Activity::RetryAt(Instant::now() + self.retry_delay);
            self.retry_delay = (self.retry_delay * 2).min(RETRY_MAX);
        }
        has_added
    }

    fn read_slaves(&self, client: Option<GatewayClient>) {
        let Some(client) = client else { return };
        let (gateway, link, results) = (self.index, self.link, self.results.clone());
        tokio::spawn(async move {
            // Slaves that cannot be read are no failure of the link.
            if let Ok(slaves) = client.slaves().await {
                _ = results.send(TaskResult { gateway, link, done: Done::Slaves(slaves) }).await;
            }
        });
    }

    fn withdrawn(&self, items: BTreeSet<DesiredItem>) -> Consequences {
        let is_changed = !items.is_empty();
        let events = events(items, |what, count, device_ids| GatewayEvent::Withdrawn {
            what,
            count,
            device_ids,
        });
        Consequences { events, is_changed, ..Consequences::default() }
    }

    /// Logs the items whose failure is not logged yet.
    fn log_failure(&mut self, items: BTreeSet<DesiredItem>, failure: &Failure) {
        let key = (failure.code, items.len() == 1);
        let mut new = items;
        new.retain(|item| self.logged.insert(*item, key) != Some(key));
        let names: Vec<String> = new.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = match new.len() - names.len() {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        if !names.is_empty() {
            let (gateway, names) = (&self.name, names.join(", "));
            tracing::warn!(%gateway, "cannot provision {names}{more}; retrying: {failure}");
        }
    }
}

/// One event for each kind of items.
fn events(
    items: BTreeSet<DesiredItem>,
    event: impl Fn(&'static str, u64, BTreeSet<DeviceId>) -> GatewayEvent,
) -> Vec<GatewayEvent> {
    let event = |(what, items): (_, BTreeSet<DesiredItem>)| {
        let device_ids = items.iter().filter_map(|item| item.device_id()).collect();
        event(what, items.len() as u64, device_ids)
    };
    by_kind(items).into_iter().map(event).collect()
}
