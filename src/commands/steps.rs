//! Runs a change with steps on several devices: which devices continue, and the result of each
//! step. A device is excluded after a failed step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::calls::Calls;
use super::failure::{Failure, FailureCode};
use super::response::{DeviceFailure, Outcome};
use super::step::{CommandStep, Progress, StepName, StepResult};
use super::verify;
use crate::fleet::{Effect, Listed};
use crate::gsdk::Error;
use crate::ids::DeviceId;

/// How long a device may take to be connected again: a gateway dials a registered device every
/// 30 s, and a device that restarts its network needs time too.
pub(crate) const CONNECT_WAIT: Duration = Duration::from_secs(75);
/// The first and the longest pause between two lists.
const LIST_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A change in progress.
#[derive(Debug)]
pub(crate) struct StepRunner<'a> {
    calls: &'a Calls,
    /// The devices that still take part, as listed before the change.
    devices: BTreeMap<DeviceId, Listed>,
    /// The devices that did not have to be changed.
    skipped: BTreeSet<DeviceId>,
    progress: Progress,
    errors: Vec<DeviceFailure>,
    /// The devices whose connection is waited for, and until when.
    waiting: BTreeMap<DeviceId, Instant>,
    /// Before the next list.
    pause: Duration,
}

impl<'a> StepRunner<'a> {
    /// Starts with those devices that are connected: only they can be changed.
    pub(crate) async fn start(calls: &'a Calls, ids: &BTreeSet<DeviceId>) -> Result<Self, Failure> {
        let rows = calls.client()?.device_list().await?;
        let mut listed: BTreeMap<DeviceId, Listed> =
            rows.into_iter().map(|row| (row.device_id, row)).collect();
        let (mut devices, mut errors) = (BTreeMap::new(), Vec::new());
        for &id in ids {
            let (code, message) = match listed.remove(&id) {
                Some(row) if row.status.connected() == Some(false) => (
                    Code::FailedPrecondition,
                    format!("it is not connected ({}); connect it first", row.status),
                ),
                Some(row) => {
                    devices.insert(id, row);
                    continue;
                }
                None => {
                    let message = "it is not in the gateway's list; connect it first, or add it \
                                   to the accept filter";
                    (Code::NotFound, message.to_owned())
                }
            };
            errors.push(DeviceFailure::new(id, Failure::new(code, message)));
        }
        Ok(Self {
            calls,
            devices,
            skipped: BTreeSet::new(),
            progress: Progress::default(),
            errors,
            waiting: BTreeMap::new(),
            pause: LIST_PAUSES.0,
        })
    }

    pub(crate) const fn calls(&self) -> &'a Calls {
        self.calls
    }

    /// The devices that still take part.
    pub(crate) fn ids(&self) -> BTreeSet<DeviceId> {
        self.devices.keys().copied().collect()
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Listed> {
        self.devices.values()
    }

    pub(crate) fn ids_where(&self, fits: impl Fn(&Listed) -> bool) -> BTreeSet<DeviceId> {
        self.rows().filter(|row| fits(row)).map(|row| row.device_id).collect()
    }

    /// Ends the change for devices that do not have to be changed.
    pub(crate) fn skip_done(&mut self, is_done: impl Fn(&Listed) -> bool) {
        let ids = self.ids_where(is_done);
        self.done(StepName::Already, &ids);
        self.devices.retain(|id, _| !ids.contains(id));
        self.skipped.extend(ids);
    }

    /// A step was done on these devices.
    pub(crate) fn done(&mut self, step: StepName, ids: &BTreeSet<DeviceId>) {
        let ids = ids.iter().filter(|id| self.devices.contains_key(id));
        let steps = ids.map(|&id| CommandStep::new(Some(id), step, StepResult::Ok, None));
        self.progress.steps.extend(steps);
        self.calls.report(&self.progress);
    }

    /// A step failed on this device; `state` describes the device and the remedy.
    pub(crate) fn fail(&mut self, step: StepName, id: DeviceId, failure: &Failure, state: &str) {
        if self.devices.remove(&id).is_none() {
            return;
        }
        let message = format!("{}. {state}", failure.message);
        let (result, text) = (StepResult::Error, Some(message.clone()));
        self.progress.steps.push(CommandStep::new(Some(id), step, result, text));
        self.calls.report(&self.progress);
        self.errors.push(DeviceFailure::new(id, Failure::new(failure.code, message)));
    }

    /// A step begins that removes something. If no answer comes, or the bridge ends before it,
    /// that counts as removed. The step does not wait until this is stored.
    pub(crate) fn attempt(&mut self, effect: Effect) {
        self.progress.attempted = Some(effect);
        self.calls.report(&self.progress);
    }

    /// A step ended alike on these devices, with its effect if it has one.
    pub(crate) fn finish_step(
        &mut self,
        step: StepName,
        ids: &BTreeSet<DeviceId>,
        result: Result<Option<Effect>, Failure>,
        state: &str,
    ) {
        let attempted = self.progress.attempted.take();
        match result {
            Ok(effect) => {
                self.progress.effects.extend(effect);
                self.done(step, ids);
            }
            Err(failure) => {
                let attempted = attempted.filter(|_| failure.may_be_made);
                self.progress.effects.extend(attempted.map(Effect::attempted));
                ids.iter().for_each(|&id| self.fail(step, id, &failure, state));
            }
        }
    }

    /// Waits for those of these devices that still take part to be connected.
    pub(crate) fn wait_for(&mut self, ids: BTreeSet<DeviceId>) {
        let end = self.calls.deadline(CONNECT_WAIT);
        let ids = ids.into_iter().filter(|id| self.devices.contains_key(id));
        self.waiting.extend(ids.map(|id| (id, end)));
        self.pause = LIST_PAUSES.0;
    }

    /// Reads the list until some of the devices that are waited for are connected as they should
    /// be, and returns these; none if no device is left. A device that is not connected in time
    /// fails; `state` describes it, by its row before the change.
    pub(crate) async fn next_connected(
        &mut self,
        is_good: impl Fn(&Listed) -> bool,
        state: impl Fn(&Listed) -> &'static str,
    ) -> BTreeSet<DeviceId> {
        let message = "it was not connected again in time";
        let mut failure = Failure::new(FailureCode::Timeout, message);
        while !self.waiting.is_empty() {
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LIST_PAUSES.1);
            let (mut good, mut is_broken) = (BTreeSet::new(), false);
            match self.calls.verifying().device_list().await {
                Ok(rows) => {
                    let rows = rows.iter().filter(|row| is_good(row)).map(|row| row.device_id);
                    good.extend(rows.filter(|id| self.waiting.contains_key(id)));
                }
                Err(error) => {
                    is_broken = matches!(error, Error::Broken { .. });
                    failure = error.into();
                }
            }
            self.done(StepName::Connected, &good);
            self.waiting.retain(|id, _| !good.contains(id));
            let next = Instant::now() + self.pause;
            let late = self.waiting.iter().filter(|(_, end)| is_broken || next > **end);
            let late: Vec<DeviceId> = late.map(|(id, _)| *id).collect();
            for id in late {
                self.waiting.remove(&id);
                let state = self.devices.get(&id).map(&state).unwrap_or_default();
                self.fail(StepName::Connected, id, &failure, state);
            }
            if !good.is_empty() {
                return good;
            }
        }
        BTreeSet::new()
    }

    /// The outcome; devices whose last step timed out are verified.
    pub(crate) async fn finish(mut self) -> Outcome {
        let unknown = self.errors.iter().filter(|error| error.code == FailureCode::Timeout);
        let unknown: BTreeSet<DeviceId> = unknown.map(|error| error.device_id).collect();
        if !unknown.is_empty() {
            self.progress.steps.extend(verify::devices(self.calls, &unknown).await);
        }
        let ids = &self.ids() | &self.skipped;
        let error = self.errors.first().filter(|_| ids.is_empty()).map(DeviceFailure::as_whole);
        let Progress { steps, effects, .. } = self.progress;
        let data = json!({ "device_ids": ids, "steps": steps });
        let device_errors = self.errors;
        Outcome { error, device_errors, effects, ..Outcome::done(data) }
    }
}
