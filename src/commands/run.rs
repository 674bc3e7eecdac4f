//! Runs commands of one or two calls; `mode_ssl` and `filter` run the others.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tonic::Code;

use super::calls::Calls;
use super::command::Command;
use super::failure::{Failure, FailureCode};
use super::response::{DeviceFailure, Outcome, Warning, WarningCode};
use super::{filter, mode_ssl, verify};
use crate::fleet::{Effect, Listed, Slaves, Target};
use crate::gsdk::Error;
use crate::ids::DeviceId;

/// Runs a permitted command on its gateway.
pub async fn run(command: &Command, calls: &Calls) -> Outcome {
    let mut failure = match dispatch(command, calls).await {
        Ok(outcome) => return outcome,
        Err(failure) => failure,
    };
    let is_replayable = calls.has_changed() || !command.name().changes();
    if !is_replayable {
        failure.message += "; nothing was changed";
    }
    let is_unknown = failure.code == FailureCode::Timeout || failure.may_be_made;
    let outcome = if calls.has_changed() && is_unknown {
        verify::unknown(calls, command, failure).await
    } else {
        Outcome::failed(failure)
    };
    Outcome { is_replayable, ..outcome }
}

async fn dispatch(command: &Command, calls: &Calls) -> Result<Outcome, Failure> {
    match command {
        Command::Devices => {
            let listed = Some(calls.client()?.device_list().await?);
            Ok(Outcome { listed, ..Outcome::done(Value::Null) })
        }
        Command::Search { wait } => {
            Ok(Outcome::done(json!({ "devices": calls.client()?.search(*wait).await? })))
        }
        Command::Pending => {
            Ok(Outcome::done(json!({ "devices": calls.client()?.pending().await? })))
        }
        Command::FilterGet => Ok(Outcome::done(json!(calls.client()?.accept_filter().await?))),
        Command::SlavesGet => {
            Ok(Outcome::done(json!({ "slaves": calls.client()?.slaves().await? })))
        }
        Command::Connect(target) => connect(calls, *target).await,
        Command::Disconnect(ids) => disconnect(calls, ids).await,
        Command::DisconnectAll => disconnect_all(calls).await,
        Command::AsyncAdd(devices) => async_add(calls, devices).await,
        Command::AsyncRemove(ids) => async_remove(calls, ids).await,
        Command::FilterSet(wanted) => filter::change(calls, Effect::Filter(wanted.clone())).await,
        Command::FilterAdd(ids) => filter::change(calls, Effect::Accepted(ids.clone())).await,
        Command::FilterRemove(ids) => filter::change(calls, Effect::Unaccepted(ids.clone())).await,
        Command::FilterAllowAll(enabled) => filter::change(calls, Effect::AllowAll(*enabled)).await,
        Command::Set { device_ids, setting, apply } => {
            mode_ssl::set(calls, device_ids, *setting, *apply).await
        }
        Command::SlavesSet(slaves) => set_slaves(calls, slaves).await,
    }
}

async fn connect(calls: &Calls, target: Target) -> Result<Outcome, Failure> {
    let device_id = calls.changing()?.connect(target).await.map_err(not_connected)?;
    Ok(Outcome::done(json!({ "device_id": device_id })))
}

/// The gateway's error, with what to do in terms of our requests.
fn not_connected(error: Error) -> Failure {
    let remedy = match error.grpc_code() {
        Some(Code::Unavailable) => {
            "; see with `search` that the device is there in mode server_to_device, and give the \
             ip, port and ssl that it shows"
        }
        Some(Code::AlreadyExists) => "; `devices` shows it",
        _ => "",
    };
    let failure = Failure::from(error);
    Failure { message: failure.message + remedy, ..failure }
}

async fn disconnect(calls: &Calls, ids: &BTreeSet<DeviceId>) -> Result<Outcome, Failure> {
    let list = calls.client()?.device_list().await?;
    let rows: Vec<&Listed> = list.iter().filter(|row| ids.contains(&row.device_id)).collect();
    let listed = rows.iter().map(|row| row.device_id).collect();
    let device_errors = not_found(ids, &listed, "it is not in the gateway's list");
    if listed.is_empty() {
        return Ok(Outcome::failed_on_all(device_errors));
    }
    calls.changing()?.disconnect(&listed).await?;
    let data = json!({ "device_ids": listed });
    Ok(Outcome { device_errors, warnings: will_reconnect(rows), ..Outcome::done(data) })
}

async fn disconnect_all(calls: &Calls) -> Result<Outcome, Failure> {
    let list = calls.client()?.device_list().await?;
    calls.changing()?.disconnect_all().await?;
    Ok(Outcome { warnings: will_reconnect(list.iter().collect()), ..Outcome::done(json!({})) })
}

async fn async_add(calls: &Calls, devices: &[(DeviceId, Target)]) -> Result<Outcome, Failure> {
    calls.changing()?.async_add(devices).await?;
    let ids: BTreeSet<DeviceId> = devices.iter().map(|(id, _)| *id).collect();
    let outcome = Outcome::done(json!({ "device_ids": ids }));
    Ok(outcome.with_effect(Effect::Registered(devices.to_vec())))
}

async fn async_remove(calls: &Calls, ids: &BTreeSet<DeviceId>) -> Result<Outcome, Failure> {
    let list = calls.client()?.device_list().await?;
    let listed = list.iter().filter(|row| row.info.auto_reconnect).map(|row| row.device_id);
    let listed: BTreeSet<DeviceId> = listed.filter(|id| ids.contains(id)).collect();
    // The gateway may have lost these, and they are not registered again.
    let mut lost = calls.kept().clone();
    if let Some(stored) = calls.client()?.stored() {
        let stored = stored.registered().await?;
        lost.extend(stored.intersection(ids));
    }
    let lost = &lost - &listed;
    let removed = &listed | &lost;
    let device_errors = not_found(ids, &removed, "it is not registered (async/add)");
    if removed.is_empty() {
        // An earlier command may have made the bridge keep them meanwhile.
        let effect = Effect::Unregistered(ids.clone());
        return Ok(Outcome::failed_on_all(device_errors).with_effect(effect));
    }
    let client = calls.changing()?;
    if !listed.is_empty() {
        client.async_remove(&listed).await?;
    }
    if let Some(stored) = client.stored().filter(|_| !lost.is_empty()) {
        let unregistered = stored.unregister(&lost).await;
        let is_half_done = !listed.is_empty();
        unregistered.map_err(|error| if is_half_done { error.not_stored() } else { error })?;
    }
    let outcome = Outcome::done(json!({ "device_ids": removed }));
    Ok(Outcome { device_errors, ..outcome.with_effect(Effect::Unregistered(removed)) })
}

/// The errors of the devices of a request that are not among the known ones: the gateway would
/// answer for all of them with one error, although it serves the others.
fn not_found(
    ids: &BTreeSet<DeviceId>,
    known: &BTreeSet<DeviceId>,
    message: &str,
) -> Vec<DeviceFailure> {
    let error = |&device_id: &DeviceId| {
        let message = format!("{message}; `devices` returns the list");
        DeviceFailure::new(device_id, Failure::new(Code::NotFound, message))
    };
    ids.difference(known).map(error).collect()
}

async fn set_slaves(calls: &Calls, slaves: &[Slaves]) -> Result<Outcome, Failure> {
    match calls.changing()?.set_slaves(slaves).await {
        Err(error) if error.grpc_code() == Some(Code::NotFound) => {
            let list = calls.client()?.device_list().await?;
            let is_listed = |id| list.iter().any(|row| row.device_id == id);
            // A device that the gateway does not have has no slaves there.
            let (done, rest): (Vec<Slaves>, Vec<Slaves>) = slaves
                .iter()
                .cloned()
                .partition(|slaves| slaves.is_empty() && !is_listed(slaves.device_id));
            if done.is_empty() {
                return Err(error.into());
            }
            let client = calls.changing()?;
            if !rest.is_empty() {
                client.set_slaves(&rest).await?;
            }
            if let Some(stored) = client.stored() {
                stored.set_slaves(&done).await.map_err(Error::not_stored)?;
            }
        }
        result => result?,
    }
    Ok(Outcome::done(json!({})).with_effect(Effect::Slaves(slaves.to_vec())))
}

fn will_reconnect(rows: Vec<&Listed>) -> Vec<Warning> {
    let registered = rows.into_iter().filter(|row| row.info.auto_reconnect);
    let warning = |row: &Listed| Warning {
        device_id: Some(row.device_id),
        code: WarningCode::WillReconnect,
        message: "it is registered, so the gateway connects it again after its delay; \
                  async/remove ends that"
            .to_owned(),
    };
    registered.map(warning).collect()
}
