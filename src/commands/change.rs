//! The changes that are one call: connecting, disconnecting, registering, slaves.
//!
//! May not follow a change up: `apply` does that for mode and SSL.

use std::collections::BTreeSet;

use serde_json::json;
use tonic::Code;

use super::calls::Calls;
use super::failure::Failure;
use super::response::{DeviceFailure, Outcome, Warning};
use crate::fleet::{Effect, Listed};
use crate::gsdk::{Error, Slaves, Target};
use crate::ids::DeviceId;

pub(super) async fn connect(calls: &Calls, target: Target) -> Result<Outcome, Failure> {
    let device_id = calls.next()?.connect(target).await.map_err(not_connected)?;
    Ok(Outcome::done(json!({ "device_id": device_id })))
}

/// The gateway's words, with what to do in the words of our requests.
fn not_connected(error: Error) -> Failure {
    let remedy = match error.grpc_code() {
        Some(Code::Unavailable) => {
            "; see with `search` that the device is there in mode server_to_device, and give the \
             ip, port and ssl that it shows"
        }
        Some(Code::AlreadyExists) => "; `devices` shows it",
        _ => "",
    };
    let Failure { code, message } = error.into();
    Failure::new(code, message + remedy)
}

pub(super) async fn disconnect(
    calls: &Calls,
    ids: &BTreeSet<DeviceId>,
) -> Result<Outcome, Failure> {
    let list = calls.next()?.device_list().await?;
    let (rows, device_errors) = named(ids, &list, |_| true, "it is not in the gateway's list");
    let known = known(&rows, &device_errors)?;
    calls.next()?.disconnect(&known).await?;
    let warnings = coming_back(rows);
    Ok(Outcome { device_errors, warnings, ..Outcome::done(json!({ "device_ids": known })) })
}

pub(super) async fn disconnect_all(calls: &Calls) -> Result<Outcome, Failure> {
    let list = calls.next()?.device_list().await?;
    calls.next()?.disconnect_all().await?;
    Ok(Outcome { warnings: coming_back(list.iter().collect()), ..Outcome::done(json!({})) })
}

pub(super) async fn async_add(
    calls: &Calls,
    devices: &[(DeviceId, Target)],
) -> Result<Outcome, Failure> {
    calls.next()?.async_add(devices).await?;
    let ids: BTreeSet<DeviceId> = devices.iter().map(|(id, _)| *id).collect();
    Ok(Outcome::done(json!({ "device_ids": ids }))
        .with_effect(Effect::Registered(devices.to_vec())))
}

pub(super) async fn async_remove(
    calls: &Calls,
    ids: &BTreeSet<DeviceId>,
) -> Result<Outcome, Failure> {
    let list = calls.next()?.device_list().await?;
    let registered = |row: &Listed| row.info.auto_reconnect;
    let (rows, device_errors) = named(ids, &list, registered, "it is not registered (async/add)");
    let known = known(&rows, &device_errors)?;
    calls.next()?.async_remove(&known).await?;
    let done =
        Outcome::done(json!({ "device_ids": known })).with_effect(Effect::Unregistered(known));
    Ok(Outcome { device_errors, ..done })
}

pub(super) async fn slaves_set(calls: &Calls, slaves: &[Slaves]) -> Result<Outcome, Failure> {
    calls.next()?.set_slaves(slaves).await?;
    Ok(Outcome::done(json!({})).with_effect(Effect::Slaves(slaves.to_vec())))
}

/// The rows of the devices named, and the errors of those that have none: the gateway would answer
/// for all of them with one error, though it serves the others.
fn named<'a>(
    ids: &BTreeSet<DeviceId>,
    list: &'a [Listed],
    fits: impl Fn(&Listed) -> bool,
    otherwise: &str,
) -> (Vec<&'a Listed>, Vec<DeviceFailure>) {
    let rows: Vec<&Listed> =
        list.iter().filter(|row| ids.contains(&row.device_id) && fits(row)).collect();
    let found: BTreeSet<DeviceId> = rows.iter().map(|row| row.device_id).collect();
    let errors = ids.difference(&found).map(|&device_id| DeviceFailure {
        device_id,
        code: "not_found",
        message: format!("{otherwise}; `devices` shows what is"),
    });
    (rows, errors.collect())
}

fn known(rows: &[&Listed], errors: &[DeviceFailure]) -> Result<BTreeSet<DeviceId>, Failure> {
    match (rows, errors) {
        ([], [first, ..]) => Err(first.as_whole()),
        _ => Ok(rows.iter().map(|row| row.device_id).collect()),
    }
}

fn coming_back(rows: Vec<&Listed>) -> Vec<Warning> {
    let registered = rows.into_iter().filter(|row| row.info.auto_reconnect);
    let warning = |row: &Listed| Warning {
        device_id: Some(row.device_id),
        code: "will_reconnect",
        message: "it is registered, so the gateway connects it again after its delay; \
                  async/remove ends that"
            .to_owned(),
    };
    registered.map(warning).collect()
}
