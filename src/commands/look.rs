//! What became of a change that got no answer in time: a look at what it was to change.
//!
//! May not change anything, nor judge: it says what the gateway shows now, beyond the command's own
//! time.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::calls::Calls;
use super::command::Command;
use super::failure::Failure;
use super::response::Outcome;
use super::work::Step;
use crate::fleet::Listed;
use crate::gsdk::{AcceptFilter, Error, GatewayClient, Slaves, Target};
use crate::ids::DeviceId;

/// For one look.
pub(super) const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// The outcome of a change that timed out, with what is to be seen of it.
pub(super) async fn timed_out(calls: &Calls, command: &Command, failure: Failure) -> Outcome {
    let steps = look(calls, command).await;
    let data = json!({ "device_ids": [], "steps": steps });
    Outcome { error: Some(failure), ..Outcome::done(data) }
}

async fn look(calls: &Calls, command: &Command) -> Vec<Step> {
    let client = client(calls);
    match command {
        Command::FilterSet(_)
        | Command::FilterAdd(_)
        | Command::FilterRemove(_)
        | Command::FilterAllowAll(_) => {
            client.accept_filter().await.map_or_else(in_vain, |now| filter(&now, command))
        }
        Command::SlavesSet(wanted) => {
            client.slaves().await.map_or_else(in_vain, |now| slaves(&now, wanted))
        }
        Command::Connect(target) => {
            client.device_list().await.map_or_else(in_vain, |now| at_address(&now, *target))
        }
        Command::DisconnectAll => {
            client.device_list().await.map_or_else(in_vain, |now| vec![counted(&now)])
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
        | Command::SlavesGet => Vec::new(),
    }
}

/// What the list says of these.
pub(super) async fn devices(calls: &Calls, ids: &BTreeSet<DeviceId>) -> Vec<Step> {
    let list = client(calls).device_list().await;
    let step = |&id: &DeviceId| match &list {
        Err(error) => not_seen(Some(id), error),
        Ok(rows) => match rows.iter().find(|row| row.device_id == id) {
            None => seen(Some(id), "it is not in the gateway's list now"),
            Some(row) => seen(Some(id), format!("the list says {}", words(row))),
        },
    };
    ids.iter().map(step).collect()
}

fn client(calls: &Calls) -> GatewayClient {
    calls.beyond().with_deadline(LOOK_DEADLINE)
}

fn filter(now: &AcceptFilter, command: &Command) -> Vec<Step> {
    let everybody = if now.allow_all { ", and lets everybody in" } else { "" };
    match command {
        Command::FilterAdd(ids) | Command::FilterRemove(ids) => {
            let step = |&id: &DeviceId| {
                let names = if now.device_ids.contains(&id) { "names" } else { "does not name" };
                seen(Some(id), format!("the accept filter {names} it{everybody}"))
            };
            ids.iter().map(step).collect()
        }
        _ => {
            let (allow_all, named) = (now.allow_all, list(&now.device_ids));
            let message =
                format!("the accept filter says allow_all {allow_all}, device_ids {named}");
            vec![seen(None, message)]
        }
    }
}

fn slaves(now: &[Slaves], wanted: &[Slaves]) -> Vec<Step> {
    let step = |Slaves { device_id, .. }: &Slaves| {
        let message = match now.iter().find(|slaves| slaves.device_id == *device_id) {
            None => "the gateway knows no slaves of it".to_owned(),
            Some(Slaves { rs485, wiegand, .. }) => {
                format!("the gateway says rs485 {}, wiegand {}", list(rs485), list(wiegand))
            }
        };
        seen(Some(*device_id), message)
    };
    wanted.iter().map(step).collect()
}

fn at_address(now: &[Listed], target: Target) -> Vec<Step> {
    let rows = now.iter().filter(|row| row.info.ip == Some(target.ip));
    let step = |row: &Listed| {
        let message = format!("the list has it at {}: {}", target.ip, words(row));
        seen(Some(row.device_id), message)
    };
    let steps: Vec<Step> = rows.map(step).collect();
    if steps.is_empty() {
        let message = format!("no device at {} is in the gateway's list now", target.ip);
        return vec![seen(None, message)];
    }
    steps
}

fn counted(now: &[Listed]) -> Step {
    let connected = now.iter().filter(|row| row.status.connected() == Some(true)).count();
    let count = now.len();
    seen(None, format!("of the {count} devices in the gateway's list {connected} are connected"))
}

fn words(Listed { status, info, .. }: &Listed) -> String {
    let (mode, ssl) = (info.mode, info.ssl);
    let kind = if info.auto_reconnect { "registered" } else { "not registered" };
    format!("{status}, mode {mode}, ssl {ssl}, {kind}")
}

/// IDs as in a request.
fn list<'a>(ids: impl IntoIterator<Item = &'a DeviceId>) -> String {
    let ids: Vec<String> = ids.into_iter().map(ToString::to_string).collect();
    format!("[{}]", ids.join(","))
}

fn seen(device_id: Option<DeviceId>, message: impl Into<String>) -> Step {
    Step { device_id, step: "looked", result: "ok", message: Some(message.into()) }
}

fn not_seen(device_id: Option<DeviceId>, error: &Error) -> Step {
    let message = Some(format!("looked what became of it: {error}"));
    Step { device_id, step: "looked", result: "error", message }
}

fn in_vain(error: Error) -> Vec<Step> {
    vec![not_seen(None, &error)]
}
