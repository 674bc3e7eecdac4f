//! What is asked of the bridge itself: `republish` and `forget`.
//!
//! May not touch gateways.

use std::collections::BTreeSet;

use serde_json::json;
use tonic::Code;

use super::Bridge;
use super::running::{Asked, audit, audited};
use crate::commands::{
    BridgeCommand, DeviceFailure, Failure, FailureCode, Outcome, Refused, Request, Response,
    Transaction, transaction_of,
};
use crate::fleet::GatewayIndex;
use crate::ids::{CommandName, CommandScope, DeviceId, GatewayName};
use crate::mqtt;

/// Who asked for a command of the bridge itself.
#[derive(Debug)]
pub(super) struct Asker {
    name: CommandName,
    transaction: Option<Transaction>,
    requested_by: Option<String>,
    asked: Asked,
}

impl Bridge {
    pub(super) fn asked_of_the_bridge(&mut self, request: &mqtt::Request) {
        let typed = match self.check_own(request) {
            Ok(typed) => typed,
            Err(refused) => return self.refuse(request, refused),
        };
        let Request { name, command, transaction, requested_by, .. } = typed;
        let asker = Asker { name, transaction, requested_by, asked: Asked::of(request) };
        match command {
            BridgeCommand::Republish => {
                self.publisher.all_changed(&self.fleet);
                self.publisher.discovery_again(&self.fleet);
                self.answer_own(asker, None, Outcome::done(json!({})), &BTreeSet::new());
            }
            BridgeCommand::Forget { gateway, device_ids } => {
                self.forget(&gateway, device_ids, asker)
            }
        }
    }

    /// Answers a command of the bridge itself, which named these devices.
    pub(super) fn answer_own(
        &mut self,
        asker: Asker,
        gateway: Option<&GatewayName>,
        outcome: Outcome,
        devices: &BTreeSet<DeviceId>,
    ) {
        let Asker { name, transaction, requested_by, asked } = asker;
        let (gateway, took) = (gateway.map(ToString::to_string), asked.received.elapsed());
        let response = Response::new(name.as_str(), gateway, transaction, outcome, took);
        if name.changes() {
            audit(&response, &audited(devices), devices.len(), requested_by.as_deref());
        } else {
            tracing::info!(command = name.as_str(), "asked of the bridge");
        }
        let owner = self.directory.bridge.clone();
        self.answer(&owner, &response, asked);
    }

    fn check_own(&self, request: &mqtt::Request) -> Result<Request<BridgeCommand>, Refused> {
        let name = bridge_command(&request.command);
        let permitted = name.and_then(|name| self.requests.permit(name).map(|()| name));
        let name = permitted.map_err(|failure| Refused {
            transaction: transaction_of(&request.payload),
            failure,
        })?;
        BridgeCommand::read_request(name, &request.payload)
    }

    /// Forgets devices of a configured gateway.
    pub(super) fn forget_devices(
        &mut self,
        gateway: GatewayIndex,
        device_ids: &BTreeSet<DeviceId>,
    ) -> Outcome {
        let ids: Vec<DeviceId> = device_ids.iter().copied().collect();
        let mut out = std::mem::take(&mut self.out);
        let kept = self.fleet.forget(gateway, &ids, &mut out);
        self.apply_outputs(&mut out);
        self.out = out;
        if let Some(entry) = self.directory.gateway(gateway) {
            self.publisher.forgotten_on_request(entry, &ids);
        }
        let forgotten: Vec<_> = ids.iter().filter(|id| !kept.contains(id)).collect();
        let message = "it is in the gateway's list, in the configuration, or accepted or \
                       registered by a command; remove it there first";
        let failure = Failure::new(Code::FailedPrecondition, message);
        let device_errors = kept.iter().map(|&id| DeviceFailure::new(id, failure.clone()));
        let device_errors = device_errors.collect();
        Outcome { device_errors, ..Outcome::done(json!({ "device_ids": forgotten })) }
    }

    fn forget(
        &mut self,
        gateway: &GatewayName,
        device_ids: Option<BTreeSet<DeviceId>>,
        asker: Asker,
    ) {
        let at = self.directory.gateways.iter().position(|entry| entry.name == *gateway);
        let (devices, outcome) = match (at, device_ids) {
            (Some(at), Some(ids)) => {
                let outcome = self.forget_devices(GatewayIndex(at), &ids);
                (ids, outcome)
            }
            (None, None) => return self.forget_gateway(gateway.clone(), asker),
            (Some(_), None) => {
                let message = "device_ids is missing; give the devices' numbers, as in \
                               [544114231]. A gateway as a whole is forgotten once it is taken out \
                               of the configuration";
                (BTreeSet::new(), Outcome::failed(Failure::invalid(message)))
            }
            (None, Some(ids)) => {
                let message = format!(
                    "this bridge has no gateway {gateway}; its info names those it has. Leave \
                     device_ids out to clear every topic of one that it has not"
                );
                (ids, Outcome::failed(Failure::new(Code::NotFound, message)))
            }
        };
        self.answer_own(asker, Some(gateway), outcome, &devices);
    }
}

fn bridge_command(name: &str) -> Result<CommandName, Failure> {
    let is_known = |name: &CommandName| name.scope() != CommandScope::Gateway;
    name.parse().ok().filter(is_known).ok_or_else(|| {
        let message = "the bridge itself takes republish, forget and history; request everything \
                       else of a gateway, on its own request topic";
        Failure::new(FailureCode::UnknownCommand, message)
    })
}
