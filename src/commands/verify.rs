//! After a change without an answer in time: reads the state that the command changes.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::calls::Calls;
use super::command::Command;
use super::failure::Failure;
use super::response::Outcome;
use super::step::{CommandStep, StepName, StepResult};
use crate::fleet::{AcceptFilter, Listed, Slaves, Target};
use crate::gsdk::{Error, GatewayClient};
use crate::ids::DeviceId;

/// For one read, beyond the command's own deadline.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// The outcome of a command that timed out; of a change with what the gateway shows.
pub(crate) async fn timed_out(calls: &Calls, command: &Command, failure: Failure) -> Outcome {
    let Some(steps) = verify(calls, command).await else { return Outcome::failed(failure) };
    let data = json!({ "device_ids": [], "steps": steps });
    Outcome { error: Some(failure), ..Outcome::done(data) }
}

/// The client for one read.
pub(crate) fn client(calls: &Calls) -> GatewayClient {
    calls.without_deadline().with_deadline(Instant::now() + READ_DEADLINE)
}

/// `None` for a command that changes nothing.
async fn verify(calls: &Calls, command: &Command) -> Option<Vec<CommandStep>> {
    let client = client(calls);
    let read_failed = |error: Error| vec![read_failed(None, &error)];
    Some(match command {
        Command::FilterSet(_)
        | Command::FilterAdd(_)
        | Command::FilterRemove(_)
        | Command::FilterAllowAll(_) => {
            client.accept_filter().await.map_or_else(read_failed, |now| filter(&now, command))
        }
        Command::SlavesSet(wanted) => {
            client.slaves().await.map_or_else(read_failed, |now| slaves(&now, wanted))
        }
        Command::Connect(target) => {
            client.device_list().await.map_or_else(read_failed, |now| at_address(&now, *target))
        }
        Command::DisconnectAll => {
            client.device_list().await.map_or_else(read_failed, |now| vec![count(&now)])
        }
        Command::Disconnect(_)
        | Command::AsyncAdd(_)
        | Command::AsyncRemove(_)
        | Command::ModeSet { .. }
        | Command::Ssl { .. } => devices(calls, &command.device_ids()).await,
        Command::Devices
        | Command::Search { .. }
        | Command::Pending
        | Command::FilterGet
        | Command::SlavesGet => return None,
    })
}

/// The rows of these devices in the list.
pub(crate) async fn devices(calls: &Calls, ids: &BTreeSet<DeviceId>) -> Vec<CommandStep> {
    let list = client(calls).device_list().await;
    let step = |&id: &DeviceId| match &list {
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
