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
use super::step::{CommandStep, StepName, StepResult};
use super::verify;
use crate::fleet::{Effect, Listed};
use crate::gsdk::Error;
use crate::ids::DeviceId;

/// How long the devices of a change may take to be connected again, all together: a gateway dials a
/// registered device every 30 s, and a device that restarts its network needs time too.
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
    steps: Vec<CommandStep>,
    errors: Vec<DeviceFailure>,
    effects: Vec<Effect>,
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
        let (skipped, steps, effects) = (BTreeSet::new(), Vec::new(), Vec::new());
        Ok(Self { calls, devices, skipped, steps, errors, effects })
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
        self.steps.extend(ids.map(|&id| CommandStep::new(Some(id), step, StepResult::Ok, None)));
        self.calls.report(&self.steps);
    }

    /// A step failed on this device; `state` describes the device and the remedy.
    pub(crate) fn fail(&mut self, step: StepName, id: DeviceId, failure: &Failure, state: &str) {
        if self.devices.remove(&id).is_none() {
            return;
        }
        let message = format!("{}. {state}", failure.message);
        let (result, text) = (StepResult::Error, Some(message.clone()));
        self.steps.push(CommandStep::new(Some(id), step, result, text));
        self.calls.report(&self.steps);
        self.errors.push(DeviceFailure::new(id, Failure::new(failure.code, message)));
    }

    /// A step ended alike on these devices, with its effect if it has one.
    pub(crate) fn finish_step(
        &mut self,
        step: StepName,
        ids: &BTreeSet<DeviceId>,
        result: Result<Option<Effect>, Failure>,
        state: &str,
    ) {
        match result {
            Ok(effect) => {
                self.effects.extend(effect);
                self.done(step, ids);
            }
            Err(failure) => ids.iter().for_each(|&id| self.fail(step, id, &failure, state)),
        }
    }

    /// Reads the list until each of these devices is connected as it should be, or until `end`;
    /// `state` describes a device whose step failed, by its row before the change.
    pub(crate) async fn wait_connected(
        &mut self,
        mut waiting: BTreeSet<DeviceId>,
        end: Instant,
        is_good: impl Fn(&Listed) -> bool,
        state: impl Fn(&Listed) -> &'static str,
    ) {
        waiting.retain(|id| self.devices.contains_key(id));
        let mut pause = LIST_PAUSES.0;
        let message = "it was not connected again in time";
        let mut failure = Failure::new(FailureCode::Timeout, message);
        while !waiting.is_empty() {
            match verify::client(self.calls).device_list().await {
                Ok(rows) => {
                    let good = rows.iter().filter(|row| is_good(row)).map(|row| row.device_id);
                    let good = good.filter(|id| waiting.contains(id)).collect();
                    self.done(StepName::Connected, &good);
                    waiting.retain(|id| !good.contains(id));
                }
                Err(error) => {
                    let is_broken = matches!(error, Error::Broken { .. });
                    failure = error.into();
                    if is_broken {
                        break;
                    }
                }
            }
            if waiting.is_empty() || Instant::now() + pause > end {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LIST_PAUSES.1);
        }
        for id in waiting {
            let state = self.devices.get(&id).map(&state).unwrap_or_default();
            self.fail(StepName::Connected, id, &failure, state);
        }
    }

    /// The outcome; devices whose last step timed out are verified.
    pub(crate) async fn finish(mut self) -> Outcome {
        let unknown = self.errors.iter().filter(|error| error.code == FailureCode::Timeout);
        let unknown: BTreeSet<DeviceId> = unknown.map(|error| error.device_id).collect();
        if !unknown.is_empty() {
            self.steps.extend(verify::devices(self.calls, &unknown).await);
        }
        let ids = &self.ids() | &self.skipped;
        let error = self.errors.first().filter(|_| ids.is_empty()).map(DeviceFailure::as_whole);
        let data = json!({ "device_ids": ids, "steps": self.steps });
        let (device_errors, effects) = (self.errors, self.effects);
        Outcome { error, device_errors, effects, ..Outcome::done(data) }
    }
}
