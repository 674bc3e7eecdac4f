//! Routes requests between the command dispatcher and the other parts of the loop.

use std::collections::BTreeSet;

use serde_json::json;
use tonic::Code;

use super::Bridge;
use super::dispatch::{BridgeRequester, Finished, Reply, Requested, TaskMessage, View};
use super::site::Site;
use crate::commands::{BridgeCommand, DeviceFailure, Failure, Outcome};
use crate::fleet::GatewayIndex;
use crate::ids::{DeviceId, GatewayName};
use crate::mqtt::{self, Message};
use crate::payload::to_bytes;
use crate::store::Key;

impl Bridge {
    /// Subscribes to the requests, once `online` is published.
    pub(crate) fn subscribe_requests(&mut self) {
        let Self { publisher, dispatcher, broker, .. } = self;
        if publisher.take_requests_wanted()
            && let Some(gateways) = dispatcher.request_owners()
        {
            broker.requests.start(&publisher.topics().request_filters(gateways));
        }
        broker.subscribe_requests();
    }

    /// Handles a message, if it is a request.
    pub(crate) fn requested(&mut self, message: &Message) {
        let Self {
            publisher, dispatcher, site: Site { fleet, directory, facts, .. }, clock, ..
        } = self;
        let prefix = dispatcher.response_prefix();
        let Some(request) = mqtt::Request::of(publisher.topics(), prefix, message) else { return };
        let (now, closes_from) = (clock.now(), publisher.answers_close_from());
        let view = View { fleet, directory, link_facts: facts, now, closes_from };
        let mut replies = Vec::new();
        let requested = dispatcher.request(&request, view, &mut replies);
        self.send_replies(replies);
        match requested {
            Requested::Nothing => {}
            Requested::Change(gateway) => self.command_started(gateway),
            Requested::Bridge(command, requester) => self.run_bridge_command(command, *requester),
        }
    }

    /// Handles what the task of a command reports.
    pub(crate) fn task_message(&mut self, message: TaskMessage) {
        match message {
            TaskMessage::Intent { gateway, intent, start } => {
                if let Some((name, intent)) = self.dispatcher.set_intent(gateway, intent, start) {
                    let key = Key::Intent(name.clone());
                    self.persistence.set(key, Some(&to_bytes(intent)));
                }
            }
            TaskMessage::History { response, requester } => {
                let closes_from = self.publisher.answers_close_from();
                let reply = self.dispatcher.history_read(&response, requester, closes_from);
                self.send_replies(vec![reply]);
            }
            TaskMessage::Finished(finished) => self.task_finished(*finished),
        }
    }

    fn task_finished(&mut self, mut finished: Finished) {
        let gateway = finished.gateway();
        let warnings = if finished.is_change() {
            let effects = finished.take_effects(self.persistence.is_durable());
            self.command_finished(gateway, effects)
        } else {
            Vec::new()
        };
        let Self {
            publisher, dispatcher, site: Site { fleet, directory, facts, .. }, clock, ..
        } = self;
        let (now, closes_from) = (clock.now(), publisher.answers_close_from());
        let view = View { fleet, directory, link_facts: facts, now, closes_from };
        let mut replies = Vec::new();
        let completed = dispatcher.finished(finished, warnings, view, &mut replies);
        self.send_replies(replies);
        if let Some(name) = completed.intent_ended {
            self.persistence.set(Key::Intent(name), None);
        }
        if completed.change_started {
            self.command_started(gateway);
        }
        if completed.list_wanted {
            self.request_list(gateway);
        }
    }

    fn run_bridge_command(&mut self, command: BridgeCommand, requester: BridgeRequester) {
        match command {
            BridgeCommand::Republish => {
                self.publisher.all_changed(&self.site.fleet);
                self.publisher.content().discovery_mut().publish_again(&self.site.fleet);
                let outcome = Outcome::done(json!({}));
                self.answer_bridge(requester, None, outcome, &BTreeSet::new());
            }
            BridgeCommand::Forget { gateway, device_ids } => {
                self.forget(&gateway, device_ids, requester);
            }
        }
    }

    fn forget(
        &mut self,
        gateway: &GatewayName,
        device_ids: Option<BTreeSet<DeviceId>>,
        requester: BridgeRequester,
    ) {
        let at = self.site.directory.gateways.iter().position(|entry| entry.name == *gateway);
        let (device_ids, outcome) = match (at, device_ids) {
            (Some(at), Some(ids)) => {
                let outcome = self.forget_devices(GatewayIndex(at), &ids);
                (ids, outcome)
            }
            (None, None) => return self.forget_gateway(gateway.clone(), requester),
            (Some(_), None) => {
                let message = "device_ids is missing; give the devices' IDs, as in [544114231]. A \
                               whole gateway is forgotten once it is removed from the \
                               configuration";
                (BTreeSet::new(), Outcome::failed(Failure::invalid(message)))
            }
            (None, Some(ids)) => {
                let message = format!(
                    "this bridge has no gateway {gateway}; its info names those that it has. Omit \
                     device_ids to clear every topic of a gateway that it does not have"
                );
                (ids, Outcome::failed(Failure::new(Code::NotFound, message)))
            }
        };
        self.answer_bridge(requester, Some(gateway), outcome, &device_ids);
    }

    /// Forgets devices of a configured gateway.
    fn forget_devices(
        &mut self,
        gateway: GatewayIndex,
        device_ids: &BTreeSet<DeviceId>,
    ) -> Outcome {
        let ids: Vec<DeviceId> = device_ids.iter().copied().collect();
        let Site { fleet, outputs, .. } = &mut self.site;
        let kept = fleet.forget(gateway, &ids, outputs);
        self.apply_outputs();
        if let Some(entry) = self.site.directory.gateway(gateway) {
            self.publisher.content().prioritize_clearing(entry, &ids);
        }
        let forgotten: Vec<_> = ids.iter().filter(|id| !kept.contains(id)).collect();
        let message = "it is in the gateway's list, in the configuration, or accepted or \
                       registered by a command; remove it there first";
        let failure = Failure::new(Code::FailedPrecondition, message);
        let device_errors = kept.iter().map(|&id| DeviceFailure::new(id, failure.clone()));
        let device_errors = device_errors.collect();
        Outcome { device_errors, ..Outcome::done(json!({ "device_ids": forgotten })) }
    }

    /// Answers a command of the bridge itself, which named these devices.
    pub(crate) fn answer_bridge(
        &mut self,
        requester: BridgeRequester,
        gateway: Option<&GatewayName>,
        outcome: Outcome,
        device_ids: &BTreeSet<DeviceId>,
    ) {
        let closes_from = self.publisher.answers_close_from();
        let reply =
            self.dispatcher.bridge_reply(requester, gateway, outcome, device_ids, closes_from);
        self.send_replies(vec![reply]);
    }

    fn send_replies(&mut self, replies: Vec<Reply>) {
        for Reply { answer, owner, command, result } in replies {
            self.metrics.command(&owner, command, result);
            if let Err(dropped) = self.publisher.answer(answer) {
                let reason = dropped.as_str();
                tracing::debug!(gateway = owner, command, reason, "answer dropped");
                self.metrics.publish_failed(reason);
            }
        }
    }
}
