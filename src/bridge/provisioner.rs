//! Adds the missing items of a gateway when its link comes up, and detects items that another
//! client removed while it was up.
//!
//! The steps of a round run in separate tasks. Items that cannot be added are retried, at growing
//! intervals, while the link is up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::access::GatewayAccess;
use super::provision_tasks::{
    BehindMasterItems, ProvisionTasks, Provisioned, TaskDone, TaskResult, may_concern_single,
};
use super::state::State;
use crate::commands::{Command, Failure, FailureCode, Progress, Warning};
use crate::desired::{
    BatchPlanner, DesiredItem, DesiredState, ReadItems, Reconciler, by_kind, registered,
};
use crate::fleet::{AcceptFilter, Effect, GatewayEvent, GatewayIndex, Listed};
use crate::ids::{DeviceId, GatewayName};
use crate::payload::to_bytes;
use crate::store::Key;

/// The first delay before a retry; each further one is twice as long, up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long after a command a device that leaves the list may be its work: the stream may say so
/// later than the list.
const JUST_CHANGED: Duration = Duration::from_secs(10);
/// Items named in one line of the log; further ones are counted.
const NAMED_MAX: usize = 10;

/// The provisioning of one gateway.
#[derive(Debug)]
pub(crate) struct Provisioner {
    index: GatewayIndex,
    name: GatewayName,
    desired: Reconciler,
    planner: BatchPlanner,
    activity: Activity,
    retry_delay: Duration,
    /// The failures logged on this link: the error's code, and whether the item failed alone. An
    /// item is logged again when these change.
    logged: BTreeMap<DesiredItem, (FailureCode, bool)>,
    tasks: ProvisionTasks,
    /// The effect of the change that runs. If the process ends before it does, what that removes
    /// counts as removed.
    attempted: Option<Effect>,
    /// When a change last ended.
    changed_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Activity {
    Idle,
    /// A step runs, or waits for its permit, beside the loop.
    Running {
        /// Whether the round has added anything so far.
        has_added: bool,
    },
    RetryAt(Instant),
}

impl Provisioner {
    pub(crate) fn new(
        index: GatewayIndex,
        name: GatewayName,
        access: GatewayAccess,
        declared: DesiredState,
        results: mpsc::Sender<TaskResult>,
    ) -> Self {
        Self {
            index,
            name,
            desired: Reconciler::new(declared),
            planner: BatchPlanner::default(),
            activity: Activity::Idle,
            retry_delay: RETRY_FIRST,
            logged: BTreeMap::new(),
            tasks: ProvisionTasks::new(index, access, results),
            attempted: None,
            changed_at: None,
        }
    }

    /// Replaces what commands made: by what is stored of it, or by nothing.
    pub(crate) fn set_commanded(&mut self, state: &mut State, commanded: DesiredState) {
        self.desired.set_commanded(commanded);
        self.store(state);
    }

    /// Stores what commands made, without what the change that runs removes, and marks the devices
    /// as kept.
    fn store(&self, state: &mut State) {
        if state.directory.gateway(self.index).is_none() {
            // It was forgotten while the change ran.
            return;
        }
        let commanded = self.desired.commanded();
        let mut stored = commanded.clone();
        if let Some(effect) = &self.attempted {
            stored.apply(effect.clone().attempted());
        }
        let value = (!stored.is_empty()).then(|| to_bytes(&stored));
        state.persistence.set(Key::Desired(self.name.clone()), value.as_deref());
        state.set_kept(self.index, commanded.kept().collect());
    }

    /// When the next retry is due.
    pub(crate) const fn retry_at(&self) -> Option<Instant> {
        match self.activity {
            Activity::RetryAt(at) => Some(at),
            Activity::Idle | Activity::Running { .. } => None,
        }
    }

    pub(crate) const fn access(&self) -> &GatewayAccess {
        self.tasks.access()
    }

    pub(crate) const fn gateway(&self) -> GatewayIndex {
        self.index
    }

    pub(crate) const fn gateway_name(&self) -> &GatewayName {
        &self.name
    }

    /// Refuses a command that contradicts what the configuration declares.
    pub(crate) fn check(&self, command: &Command) -> Result<(), Failure> {
        command.check_declared(&self.name, self.desired.declared())
    }

    /// The devices of a command that an earlier one registered.
    pub(crate) fn kept(&self, command: &Command) -> BTreeSet<DeviceId> {
        let registered = &self.desired.commanded().registered;
        command.device_ids().into_iter().filter(|id| registered.contains_key(id)).collect()
    }

    /// A command that changes something has started.
    pub(crate) const fn command_started(&mut self) {
        self.desired.command_started();
    }

    /// It has done this so far.
    pub(crate) fn command_progress(&mut self, state: &mut State, progress: Progress) {
        let Progress { effects, attempted, .. } = progress;
        self.desired.apply(effects);
        self.attempted = attempted;
        self.store(state);
    }

    /// It has finished; one that was not run has waited for another. Warns about declared items
    /// that it removed.
    pub(crate) fn command_finished(
        &mut self,
        state: &mut State,
        was_run: bool,
        effects: Vec<Effect>,
    ) -> Vec<Warning> {
        if was_run {
            self.attempted = None;
            self.changed_at = Some(Instant::now());
        }
        let retained_by_config = self.desired.command_finished(effects);
        self.store(state);
        let warning =
            |item: DesiredItem| Warning::kept_by_configuration(&self.name, item.device_id());
        retained_by_config.into_iter().map(warning).collect()
    }

    /// Whether a command may be why devices are missing in a list.
    pub(crate) fn has_just_changed(&self) -> bool {
        let has_ended = self.changed_at.is_some_and(|at| at.elapsed() < JUST_CHANGED);
        self.attempted.is_some() || has_ended
    }

    pub(crate) fn link_up(&mut self) {
        self.desired.link_up();
        self.tasks.link_up();
        self.planner = BatchPlanner::default();
        self.activity = Activity::Idle;
        self.retry_delay = RETRY_FIRST;
        self.logged.clear();
    }

    pub(crate) const fn list_requested(&mut self) {
        self.desired.list_requested();
    }

    /// Compares with a list: provisions missing items after the first of a link, and finds
    /// withdrawn ones in further lists.
    ///
    /// Behind a master it has to store what is desired: it gives that to the gateway again whenever
    /// that reconnects.
    pub(crate) fn listed(&mut self, state: &mut State, rows: &[Listed]) {
        let client = self.access().client();
        if let Some((client, stored)) = client.and_then(|it| it.stored().map(|stored| (it, stored)))
        {
            match self.desired.is_empty() {
                true => self.stored_read(state, &BehindMasterItems::default()),
                false => {
                    let wants_slaves = self.desired.wants_slaves();
                    self.tasks.read_stored(client, stored, registered(rows), wants_slaves);
                }
            }
            return;
        }
        let (is_first, withdrawn) = self.desired.listed(state.clock.steady(), rows);
        self.withdrawn(state, withdrawn);
        if is_first {
            self.start_round(state);
        } else if self.desired.wants_slaves() {
            self.tasks.read_slaves();
        }
    }

    fn stored_read(&mut self, state: &mut State, items: &BehindMasterItems) {
        let BehindMasterItems { stored, at_gateway } = items;
        let now = state.clock.steady();
        let (is_first, withdrawn) = self.desired.stored_read(now, stored, at_gateway);
        self.withdrawn(state, withdrawn);
        if is_first {
            self.start_round(state);
        }
    }

    /// Compares with the accept filter of a gateway without a master.
    pub(crate) fn filter_read(&mut self, state: &mut State, filter: AcceptFilter) {
        if self.access().client().is_some_and(|client| client.stored().is_none()) {
            self.read(state, &ReadItems { filter: Some(filter), ..ReadItems::default() });
        }
    }

    fn read(&mut self, state: &mut State, items: &ReadItems) {
        let withdrawn = self.desired.read(state.clock.steady(), items);
        self.withdrawn(state, withdrawn);
    }

    /// Handles the result of a task.
    pub(crate) fn finished(&mut self, state: &mut State, result: TaskResult) {
        match self.tasks.current(result) {
            None => {}
            Some(TaskDone::Read(items)) => self.read(state, &items),
            Some(TaskDone::Stored(items)) => self.stored_read(state, &items),
            Some(TaskDone::Permit(items, permit)) => {
                // A command may have removed some of them since.
                let step = self.desired.missing().only(&items);
                if step.is_empty() || !self.tasks.start_step(step, permit) {
                    self.next_step(state);
                }
            }
            Some(TaskDone::Step(provisioned)) => {
                self.step_finished(state, provisioned);
                self.next_step(state);
            }
        }
    }

    /// Another client removed these items. Others may be absent, which has to be confirmed.
    fn withdrawn(&mut self, state: &mut State, items: BTreeSet<DesiredItem>) {
        if self.desired.take_needs_second_look() {
            state.change(self.index, |gateway, now, _| gateway.request_second_look(now));
        }
        if !items.is_empty() {
            self.store(state);
        }
        for items in by_kind(items) {
            state.gateway_event(self.index, &GatewayEvent::Withdrawn(items));
        }
    }

    /// Starts a round, if anything is missing.
    pub(crate) fn start_round(&mut self, state: &mut State) {
        if matches!(self.activity, Activity::Running { .. }) {
            return;
        }
        self.activity = Activity::Idle;
        let missing = self.desired.missing();
        if !missing.is_empty() {
            self.planner.start(&missing);
            self.next_step(state);
        }
    }

    /// Waits for the permit of the round's next step, or ends the round.
    fn next_step(&mut self, state: &mut State) {
        let step = self.planner.next(&self.desired.missing());
        if !step.is_some_and(|step| self.tasks.wait_for_permit(step.items().collect())) {
            return self.end_round(state);
        }
        if !matches!(self.activity, Activity::Running { .. }) {
            self.activity = Activity::Running { has_added: false };
        }
    }

    fn step_finished(&mut self, state: &mut State, provisioned: Provisioned) {
        let Provisioned { added, found, failed } = provisioned;
        for present in [&added, &found] {
            self.desired.provisioned(present);
            self.planner.provisioned(present);
        }
        if let Activity::Running { has_added } = &mut self.activity {
            *has_added |= !added.is_empty();
        }
        if let Some((items, failure)) = failed {
            let postponed = self.planner.failed(&items, may_concern_single(&failure));
            self.log_failure(postponed, &failure);
        }
        for items in by_kind(added) {
            state.gateway_event(self.index, &GatewayEvent::Restored(items));
        }
    }

    /// Schedules a retry of what is still missing, and has the list read if the round has added
    /// anything.
    fn end_round(&mut self, state: &mut State) {
        let has_added = matches!(self.activity, Activity::Running { has_added: true });
        if has_added {
            self.retry_delay = RETRY_FIRST;
        }
        self.activity = Activity::Idle;
        if !self.desired.missing().is_empty() {
            self.activity = Activity::RetryAt(Instant::now() + self.retry_delay);
            self.retry_delay = (self.retry_delay * 2).min(RETRY_MAX);
        }
        if has_added {
            state.request_list(self.index);
        }
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
            let (gateway, items) = (&self.name, names.join(", ") + &more);
            tracing::warn!(%gateway, items, error = %failure, "cannot provision items; retrying");
        }
    }
}
