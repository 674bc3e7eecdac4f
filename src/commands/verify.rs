//! After a change without an answer: reads the state that the command changes.

use std::collections::BTreeSet;

use serde_json::json;

use super::calls::Calls;
use super::command::Command;
use super::failure::Failure;
use super::response::Outcome;
use super::step::{CommandStep, StepName, StepResult};
use crate::fleet::{AcceptFilter, Effect, Listed, Slaves, Target};
use crate::gsdk::Error;
use crate::ids::DeviceId;

/// The outcome of a change without an answer, with what the gateway shows. What the
/// change was to remove counts as removed, as the gateway may still do so.
pub(crate) async fn unknown(calls: &Calls, command: &Command, failure: Failure) -> Outcome {
    let Some((steps, added)) = verify(calls, command).await else {
        return Outcome::failed(failure);
    };
    let data = json!({ "device_ids": [], "steps": steps });
    let attempted = command.effect().map(Effect::attempted);
    let effects = attempted.into_iter().chain(added).collect();
    Outcome { error: Some(failure), effects, ..Outcome::done(data) }
}

/// The steps, and what the change was to add as far as the gateway has it. `None` for a command
/// that changes nothing.
async fn verify(calls: &Calls, command: &Command) -> Option<(Vec<CommandStep>, Option<Effect>)> {
    let client = calls.verifying();
    let failed = |error: &Error| vec![read_failed(None, error)];
    Some(match command {
        Command::FilterSet(_)
        | Command::FilterAdd(_)
        | Command::FilterRemove(_)
        | Command::FilterAllowAll(_) => {
            let now = client.accept_filter().await;
            let steps = now.as_ref().map_or_else(failed, |now| filter(now, command));
            (steps, now.ok().and_then(|now| filter_effect(command, &now)))
        }
        Command::SlavesSet(wanted) => {
            let now = client.slaves().await;
            let steps = now.as_deref().map_or_else(failed, |now| slaves(now, wanted));
            (steps, now.ok().map(|now| slaves_effect(wanted, &now)))
        }
        Command::Connect(target) => {
            let now = client.device_list().await;
            (now.as_deref().map_or_else(failed, |now| at_address(now, *target)), None)
        }
        Command::DisconnectAll => {
            let now = client.device_list().await;
            (now.as_deref().map_or_else(failed, |now| vec![count(now)]), None)
        }
        Command::AsyncAdd(devices) => {
            let now = client.device_list().await;
            let steps = rows(now.as_deref(), &command.device_ids());
            let is_there = |(id, target): &&(DeviceId, Target)| {
                let mut rows = now.iter().flatten().filter(|row| row.device_id == *id);
                rows.any(|row| row.info.auto_reconnect && row.info.ip == Some(target.ip))
            };
            let registered = devices.iter().filter(is_there).copied().collect();
            (steps, Some(Effect::Registered(registered)))
        }
        Command::AsyncRemove(_) | Command::Disconnect(_) | Command::Set { .. } => {
            (devices(calls, &command.device_ids()).await, None)
        }
        _ => return None,
    })
}

fn filter_effect(command: &Command, now: &AcceptFilter) -> Option<Effect> {
    match command {
        Command::FilterAdd(ids) => Some(Effect::Accepted(ids & &now.device_ids)),
        Command::FilterAllowAll(true) => now.allow_all.then_some(Effect::AllowAll(true)),
        Command::FilterSet(wanted) => {
            let device_ids = &wanted.device_ids & &now.device_ids;
            let allow_all = wanted.allow_all && now.allow_all;
            Some(Effect::Filter(AcceptFilter { allow_all, device_ids, ..AcceptFilter::default() }))
        }
        _ => None,
    }
}

fn slaves_effect(wanted: &[Slaves], now: &[Slaves]) -> Effect {
    let mut set = wanted.to_vec();
    for slaves in &mut set {
        let now = now.iter().find(|now| now.device_id == slaves.device_id);
        slaves.rs485.retain(|id| now.is_some_and(|now| now.rs485.contains(id)));
        slaves.wiegand.retain(|id| now.is_some_and(|now| now.wiegand.contains(id)));
    }
    Effect::Slaves(set)
}

/// The rows of these devices in the list, read now.
pub(crate) async fn devices(calls: &Calls, ids: &BTreeSet<DeviceId>) -> Vec<CommandStep> {
    rows(calls.verifying().device_list().await.as_deref(), ids)
}

fn rows(list: Result<&[Listed], &Error>, ids: &BTreeSet<DeviceId>) -> Vec<CommandStep> {
    let step = |&id: &DeviceId| match list {
        Err(error) => read_failed(Some(id), error),
        Ok(rows) => match rows.iter().find(|row| row.device_id == id) {
            None => verified(Some(id), "it is not in the gateway's list now"),
            Some(row) => verified(Some(id), format!("the list shows {}", describe(row))),
        },
    };
    ids.iter().map(step).collect()
}

fn filter(now: &AcceptFilter, command: &Command) -> Vec<CommandStep> {
    let all = if now.allow_all { ", and accepts every device" } else { "" };
    match command {
        Command::FilterAdd(ids) | Command::FilterRemove(ids) => {
            let step = |&id: &DeviceId| {
                let names = if now.device_ids.contains(&id) { "names" } else { "does not name" };
                verified(Some(id), format!("the accept filter {names} it{all}"))
            };
            ids.iter().map(step).collect()
        }
        _ => {
            let (allow_all, ids) = (now.allow_all, list(&now.device_ids));
            let message = format!("the accept filter has allow_all {allow_all}, device_ids {ids}");
            vec![verified(None, message)]
        }
    }
}

fn slaves(now: &[Slaves], wanted: &[Slaves]) -> Vec<CommandStep> {
    let step = |Slaves { device_id, .. }: &Slaves| {
        let message = match now.iter().find(|slaves| slaves.device_id == *device_id) {
            None => "the gateway has no slaves of it".to_owned(),
            Some(Slaves { rs485, wiegand, .. }) => {
                format!("the gateway has rs485 {}, wiegand {}", list(rs485), list(wiegand))
            }
        };
        verified(Some(*device_id), message)
    };
    wanted.iter().map(step).collect()
}

fn at_address(now: &[Listed], target: Target) -> Vec<CommandStep> {
    let rows = now.iter().filter(|row| row.info.ip == Some(target.ip));
    let step = |row: &Listed| {
        let message = format!("the list has it at {}: {}", target.ip, describe(row));
        verified(Some(row.device_id), message)
    };
    let steps: Vec<CommandStep> = rows.map(step).collect();
    if steps.is_empty() {
        let message = format!("no device at {} is in the gateway's list now", target.ip);
        return vec![verified(None, message)];
    }
    steps
}

fn count(now: &[Listed]) -> CommandStep {
    let connected = now.iter().filter(|row| row.status.connected() == Some(true)).count();
    let count = now.len();
    let message = format!("of the {count} devices in the gateway's list {connected} are connected");
    verified(None, message)
}

fn describe(Listed { status, info, .. }: &Listed) -> String {
    let (mode, ssl) = (info.mode, info.ssl);
    let registered = if info.auto_reconnect { "registered" } else { "not registered" };
    format!("{status}, mode {mode}, ssl {ssl}, {registered}")
}

/// IDs as in a request.
fn list<'a>(ids: impl IntoIterator<Item = &'a DeviceId>) -> String {
    let ids: Vec<String> = ids.into_iter().map(ToString::to_string).collect();
    format!("[{}]", ids.join(","))
}

fn verified(device_id: Option<DeviceId>, message: impl Into<String>) -> CommandStep {
    CommandStep::new(device_id, StepName::Verified, StepResult::Ok, Some(message.into()))
}

fn read_failed(device_id: Option<DeviceId>, error: &Error) -> CommandStep {
    let message = Some(format!("its state could not be read: {error}"));
    CommandStep::new(device_id, StepName::Verified, StepResult::Error, message)
}
