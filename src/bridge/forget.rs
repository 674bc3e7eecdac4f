//! Runs the command `forget`.

use std::collections::BTreeSet;

use serde_json::json;
use tonic::Code;

use super::gateways::Gateways;
use super::state::State;
use crate::commands::{DeviceFailure, Failure, Outcome};
use crate::fleet::GatewayIndex;
use crate::ids::{DeviceId, GatewayName};

/// Forgets these devices of a gateway, or without any the gateway itself. `None` for a gateway that
/// this bridge does not have: what the broker retains of it has to be read first.
pub(crate) fn forget(
    state: &mut State,
    gateways: &mut Gateways,
    gateway: &GatewayName,
    device_ids: Option<&BTreeSet<DeviceId>>,
) -> Option<Outcome> {
    let outcome = match (state.directory.find(gateway), device_ids) {
        (None, None) => return None,
        (Some(at), Some(ids)) => forget_devices(state, at, ids),
        (Some(at), None) if gateways.discovered.may_be_forgotten(state, at) => {
            let (entry, ids) = gateways.forget(state, at)?;
            state.publisher.content.prioritize_clearing(&entry, &ids);
            Outcome::done(json!({ "device_ids": ids }))
        }
        (Some(at), None) => {
            gateways.list_now(at);
            Outcome::failed(Failure::invalid(
                "device_ids is missing; give the devices' IDs, as in [544114231]. A whole gateway \
                 is forgotten once it is removed from the configuration, a discovered one once its \
                 master no longer lists it, which the bridge checks now",
            ))
        }
        (None, Some(_)) => {
            let message = format!(
                "this bridge has no gateway {gateway}; its info names those that it has. Omit \
                 device_ids to clear every topic of a gateway that it does not have"
            );
            Outcome::failed(Failure::new(Code::NotFound, message))
        }
    };
    Some(outcome)
}

fn forget_devices(state: &mut State, gateway: GatewayIndex, ids: &BTreeSet<DeviceId>) -> Outcome {
    let list: Vec<DeviceId> = ids.iter().copied().collect();
    for &id in &list {
        if state.fleet.device(gateway, id).is_none() {
            // Its topics may remain from before this store.
            state.device_removed(gateway, id);
        }
    }
    let expected = state.forget(gateway, &list);
    if let Some(entry) = state.directory.gateway(gateway) {
        state.publisher.content.prioritize_clearing(entry, ids);
    }
    let forgotten: Vec<_> = ids.iter().filter(|id| !expected.contains(id)).collect();
    let message = "it is in the gateway's list, in the configuration, or accepted or registered by \
                   a command; remove it there first";
    let failure = Failure::new(Code::FailedPrecondition, message);
    let device_errors = expected.iter().map(|&id| DeviceFailure::new(id, failure.clone()));
    let device_errors: Vec<DeviceFailure> = device_errors.collect();
    let first = device_errors.first().filter(|_| forgotten.is_empty());
    let error = first.map(DeviceFailure::as_whole);
    Outcome { error, device_errors, ..Outcome::done(json!({ "device_ids": forgotten })) }
}
