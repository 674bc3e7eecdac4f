//! What is asked of the bridge itself: `republish` and `forget`.
//!
//! May not touch gateways.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Bridge;
use super::clock::instant_now;
use super::running::{Asked, audit, audited};
use crate::commands::{
    DeviceFailure, Failure, Outcome, Own, OwnName, OwnRequest, Refused, Response, transaction_of,
};
use crate::fleet::GatewayIndex;
use crate::ids::{DeviceId, GatewayName};
use crate::mqtt;

impl Bridge {
    pub(super) fn asked_of_the_bridge(&mut self, request: &mqtt::Request) {
        let (name, typed) = match self.check_own(request) {
            Ok(read) => read,
            Err(refused) => return self.refuse(request, refused),
        };
        let OwnRequest { own, transaction, requested_by } = typed;
        let (gateway, devices, outcome) = match own {
            Own::Republish => {
                self.publisher.all_changed(&self.fleet);
                self.publisher.discovery_again(&self.fleet);
                (None, BTreeSet::new(), Outcome::done(json!({})))
            }
            Own::Forget { gateway, device_ids } => {
                let outcome = self.forget(&gateway, &device_ids);
                (Some(gateway.to_string()), device_ids, outcome)
            }
        };
        let took = request.received.elapsed();
        let response =
            Response::new(name.as_str(), gateway, transaction, outcome, took, |_| Value::Null);
        if name.changes() {
            audit(&response, &audited(&devices), devices.len(), requested_by.as_deref());
        } else {
            tracing::info!(command = name.as_str(), "asked of the bridge");
        }
        self.answer(&request.owner, &response, Asked::of(request));
    }

    fn check_own(&self, request: &mqtt::Request) -> Result<(OwnName, OwnRequest), Refused> {
        let name: Result<OwnName, Failure> = request.command.parse();
        let permitted = name.and_then(|name| self.requests.permit(name.as_str()).map(|()| name));
        let name = permitted.map_err(|failure| Refused {
            transaction: transaction_of(&request.payload),
            failure,
        })?;
        Ok((name, OwnRequest::read(name, &request.payload)?))
    }

    fn forget(&mut self, gateway: &GatewayName, device_ids: &BTreeSet<DeviceId>) -> Outcome {
        let named = |entry: &crate::payload::GatewayEntry| entry.name == *gateway;
        let Some(at) = self.directory.gateways.iter().position(named) else {
            return Outcome::failed(Failure::new(
                "not_found",
                format!("this bridge has no gateway {gateway}; its info names those it has"),
            ));
        };
        let ids: Vec<DeviceId> = device_ids.iter().copied().collect();
        let mut out = std::mem::take(&mut self.out);
        let kept = self.fleet.forget(GatewayIndex(at), &ids, &mut out);
        self.carry_out(&mut out, instant_now());
        self.out = out;
        let forgotten: Vec<_> = ids.iter().filter(|id| !kept.contains(id)).collect();
        let device_errors = kept.iter().map(|&device_id| DeviceFailure {
            device_id,
            code: "failed_precondition",
            message:
                "it is in the gateway's list, in the configuration, or let in or registered by a \
                      command; take it out there first"
                    .to_owned(),
        });
        let device_errors = device_errors.collect();
        Outcome { device_errors, ..Outcome::done(json!({ "device_ids": forgotten })) }
    }
}
