//! A command that has started, and its response once it has ended.

use bytes::Bytes;

use super::exchange::View;
use super::reply::{Requester, audit};
use crate::commands::{Command, FailureCode, Outcome, Request, Response, Warning, device_states};
use crate::fleet::{Effect, GatewayIndex};
use crate::payload::GatewayEntry;

/// A command that has a slot.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) gateway: GatewayIndex,
    pub(crate) request: Request,
    pub(crate) payload: Bytes,
    pub(crate) requester: Requester,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    started: Started,
    outcome: Outcome,
    was_run: bool,
}

impl Finished {
    /// `was_run`: whether the gateway was called at all.
    pub(crate) const fn new(started: Started, outcome: Outcome, was_run: bool) -> Self {
        Self { started, outcome, was_run }
    }

    pub(crate) const fn gateway(&self) -> GatewayIndex {
        self.started.gateway
    }

    pub(crate) const fn is_change(&self) -> bool {
        self.started.request.command.changes()
    }

    /// Takes what the command made at the gateway, and warns if that is not stored.
    pub(crate) fn take_effects(&mut self, is_stored: bool) -> Vec<Effect> {
        if !is_stored {
            self.outcome.warn_not_remembered("the bridge's store is in memory only");
        }
        std::mem::take(&mut self.outcome.effects)
    }

    pub(crate) const fn was_run(&self) -> bool {
        self.was_run
    }

    /// Whether its intent is removed. The next process reports a change that a stop interrupted:
    /// the answer may not reach its requester.
    pub(crate) fn ends_intent(&self) -> bool {
        self.started.request.command.has_steps() && self.was_run && !self.is_interrupted()
    }

    fn is_interrupted(&self) -> bool {
        let error = self.outcome.error.as_ref();
        error.is_some_and(|error| error.code == FailureCode::Interrupted)
    }

    /// The response. The audit line of a change is logged.
    pub(crate) fn respond(
        self,
        entry: &GatewayEntry,
        warnings: Vec<Warning>,
        view: View<'_>,
    ) -> (Started, Response) {
        if self.is_interrupted() && self.is_change() {
            let gateway = &entry.name;
            tracing::warn!(%gateway, "a stop interrupted a change; look at its devices");
        }
        let Self { started, mut outcome, .. } = self;
        let Started { gateway, request, requester, .. } = &started;
        outcome.warnings.extend(warnings);
        outcome.render_devices(|rows| {
            let known = |device_id| view.fleet.device(*gateway, device_id);
            device_states(view.directory, entry, rows, view.now, known)
        });
        let (name, transaction) = (request.name.as_str(), request.transaction.clone());
        let (owner, duration) = (Some(entry.name.to_string()), requester.elapsed());
        let response = Response::new(name, owner, transaction, outcome, duration);
        if request.name.changes() {
            let address = match &request.command {
                Command::Connect(target) => Some(target.ip),
                _ => None,
            };
            let ids = request.command.device_ids();
            audit(&response, &ids, address, request.requested_by.as_deref());
        }
        (started, response)
    }
}
