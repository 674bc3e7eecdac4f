//! The bookkeeping of a change with steps: which devices are still in it, what each step did.
//!
//! May not decide on the order of steps: `apply` does. Where a step fails on a device, that device
//! takes part in no further one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::calls::Calls;
use super::failure::{Failure, code};
use super::look::{self, LOOK_DEADLINE};
use super::response::{DeviceFailure, Outcome};
use crate::fleet::{Effect, Listed};
use crate::gsdk::Error;
use crate::ids::DeviceId;

/// How long the devices of a change may take to be connected again, all together: a gateway dials a
/// registered one every 30 s (wire, section 3), and a device that restarts its network needs some
/// of its own.
pub(super) const CONNECT_WAIT: Duration = Duration::from_secs(75);
/// Between two looks at the list, at first and at most.
const LOOK_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// One step, on one device where it is about one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device_id: Option<DeviceId>,
    pub(super) step: &'static str,
    pub(super) result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) calls: &'a Calls,
    /// The devices still in it, as they were listed before.
    pub(super) devices: BTreeMap<DeviceId, Listed>,
    /// Those that were already as they should be.
    settled: BTreeSet<DeviceId>,
    steps: Vec<Step>,
    errors: Vec<DeviceFailure>,
    pub(super) effects: Vec<Effect>,
}

impl<'a> Work<'a> {
    /// Begins with the devices that are connected, as the change needs them to be.
    pub(super) async fn begin(calls: &'a Calls, ids: &BTreeSet<DeviceId>) -> Result<Self, Failure> {
        let rows = calls.next()?.device_list().await?;
        let rows = rows.into_iter().map(|row| (row.device_id, row));
        let devices = rows.filter(|(id, _)| ids.contains(id)).collect();
        let mut work = Self {
            calls,
            devices,
            settled: BTreeSet::new(),
            steps: Vec::new(),
            errors: Vec::new(),
            effects: Vec::new(),
        };
        for &id in ids {
            let failure = match work.devices.get(&id) {
                Some(row) if row.status.connected() == Some(false) => Failure::new(
                    "failed_precondition",
                    format!("it is not connected ({}); connect it first", row.status),
                ),
                Some(_) => continue,
                None => Failure::new(
                    "not_found",
                    "it is not in the gateway's list; connect it first, or let it in",
                ),
            };
            work.errors.push(DeviceFailure {
                device_id: id,
                code: failure.code,
                message: failure.message,
            });
            work.devices.remove(&id);
        }
        Ok(work)
    }

    pub(super) fn ids(&self) -> BTreeSet<DeviceId> {
        self.devices.keys().copied().collect()
    }

    /// The devices like this.
    pub(super) fn ids_where(&self, like: impl Fn(&Listed) -> bool) -> BTreeSet<DeviceId> {
        self.devices.values().filter(|row| like(row)).map(|row| row.device_id).collect()
    }

    /// The devices like this are as they should be: nothing more is done to them.
    pub(super) fn settle(&mut self, like: impl Fn(&Listed) -> bool) {
        let ids = self.ids_where(like);
        self.done("already", &ids);
        self.devices.retain(|id, _| !ids.contains(id));
        self.settled.extend(ids);
    }

    /// A step was done on these.
    pub(super) fn done(&mut self, step: &'static str, ids: &BTreeSet<DeviceId>) {
        let done = |&id: &DeviceId| Step { device_id: Some(id), step, result: "ok", message: None };
        self.steps.extend(ids.iter().filter(|id| self.devices.contains_key(id)).map(done));
        self.calls.tell(&self.steps);
    }

    /// A step failed on this device; `state` says how the device is left and what to do by hand.
    pub(super) fn fail(&mut self, step: &'static str, id: DeviceId, why: &Failure, state: &str) {
        if self.devices.remove(&id).is_none() {
            return;
        }
        let message = format!("{}. {state}", why.message);
        let told = Some(message.clone());
        self.steps.push(Step { device_id: Some(id), step, result: "error", message: told });
        self.calls.tell(&self.steps);
        self.errors.push(DeviceFailure { device_id: id, code: why.code, message });
    }

    /// A step's outcome on these, all alike.
    pub(super) fn outcome(
        &mut self,
        step: &'static str,
        ids: &BTreeSet<DeviceId>,
        outcome: Result<(), Failure>,
        state: &str,
    ) {
        match outcome {
            Ok(()) => self.done(step, ids),
            Err(failure) => {
                for &id in ids {
                    self.fail(step, id, &failure, state);
                }
            }
        }
    }

    /// Looks at the list until each of these is as it should be, or it has taken too long; `state`
    /// says how one is left that is not, by its row of before.
    pub(super) async fn wait(
        &mut self,
        mut waiting: BTreeSet<DeviceId>,
        end: Instant,
        good: impl Fn(&Listed) -> bool,
        state: impl Fn(&Listed) -> &'static str,
    ) {
        const STEP: &str = "connected";
        waiting.retain(|id| self.devices.contains_key(id));
        let mut pause = LOOK_PAUSES.0;
        let mut failure = Failure::new(code::TIMEOUT, "it was not connected again in time");
        while !waiting.is_empty() {
            match self.calls.beyond().with_deadline(LOOK_DEADLINE).device_list().await {
                Ok(rows) => {
                    let good = rows.iter().filter(|row| good(row)).map(|row| row.device_id);
                    let good = good.filter(|id| waiting.contains(id)).collect();
                    self.done(STEP, &good);
                    waiting.retain(|id| !good.contains(id));
                }
                Err(error) => {
                    let broken = matches!(error, Error::Broken { .. });
                    failure = error.into();
                    if broken {
                        break;
                    }
                }
            }
            if waiting.is_empty() || Instant::now() + pause > end {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_PAUSES.1);
        }
        for id in waiting {
            let state = self.devices.get(&id).map(&state).unwrap_or_default();
            self.fail(STEP, id, &failure, state);
        }
    }

    /// What came of it all.
    pub(super) async fn end(mut self) -> Outcome {
        let unknown = self.errors.iter().filter(|error| error.code == code::TIMEOUT);
        let unknown: BTreeSet<DeviceId> = unknown.map(|error| error.device_id).collect();
        if !unknown.is_empty() {
            self.steps.extend(look::devices(self.calls, &unknown).await);
        }
        let ids = &self.ids() | &self.settled;
        let mut outcome = Outcome::done(json!({ "device_ids": ids, "steps": self.steps }));
        if let ([first, ..], true) = (self.errors.as_slice(), ids.is_empty()) {
            outcome.error = Some(first.as_whole());
        }
        outcome.device_errors = self.errors;
        outcome.effects = self.effects;
        outcome
    }
}
