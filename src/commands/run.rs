//! Runs a typed command on its gateway.
//!
//! May not ask whether it is permitted: that is done.

use std::time::Duration;

use serde_json::{Value, json};

use super::calls::Calls;
use super::command::Command;
use super::failure::{Failure, code};
use super::response::{Data, Outcome};
use super::{apply, change, filter, look, show};

/// Runs a command to its end.
pub async fn run(command: &Command, calls: &Calls) -> Outcome {
    match dispatch(command, calls).await {
        Ok(outcome) => outcome,
        Err(failure) if failure.code == code::TIMEOUT && command.changes() => {
            look::timed_out(calls, command, failure).await
        }
        Err(failure) => Outcome::failed(failure),
    }
}

async fn dispatch(command: &Command, calls: &Calls) -> Result<Outcome, Failure> {
    match command {
        Command::Devices => devices(calls).await,
        Command::Search { wait } => search(calls, *wait).await,
        Command::Pending => Ok(rows("devices", &calls.next()?.pending().await?, show::pending)),
        Command::FilterGet => {
            Ok(Outcome::done(show::filter(&calls.next()?.accept_filter().await?)))
        }
        Command::SlavesGet => Ok(rows("slaves", &calls.next()?.slaves().await?, show::slaves)),
        Command::Connect(target) => change::connect(calls, *target).await,
        Command::Disconnect(ids) => change::disconnect(calls, ids).await,
        Command::DisconnectAll => change::disconnect_all(calls).await,
        Command::AsyncAdd(devices) => change::async_add(calls, devices).await,
        Command::AsyncRemove(ids) => change::async_remove(calls, ids).await,
        Command::FilterSet(wanted) => filter::set(calls, wanted).await,
        Command::FilterAdd(ids) => filter::add(calls, ids).await,
        Command::FilterRemove(ids) => filter::remove(calls, ids).await,
        Command::FilterAllowAll(enabled) => filter::allow_all(calls, *enabled).await,
        Command::ModeSet { device_ids, mode, apply: true } => {
            apply::set_mode(calls, device_ids, *mode).await
        }
        Command::ModeSet { device_ids, mode, apply: false } => {
            apply::bare_mode(calls, device_ids, *mode).await
        }
        Command::Ssl { device_ids, enable, apply: true } => {
            apply::set_ssl(calls, device_ids, *enable).await
        }
        Command::Ssl { device_ids, enable, apply: false } => {
            apply::bare_ssl(calls, device_ids, *enable).await
        }
        Command::SlavesSet(slaves) => change::slaves_set(calls, slaves).await,
    }
}

/// An answer's rows under their name.
fn rows<T>(name: &str, rows: &[T], show: fn(&T) -> Value) -> Outcome {
    Outcome::done(json!({ name: rows.iter().map(show).collect::<Vec<_>>() }))
}

async fn devices(calls: &Calls) -> Result<Outcome, Failure> {
    let rows = calls.next()?.device_list().await?;
    Ok(Outcome { data: Data::Devices(rows), ..Outcome::done(Value::Null) })
}

async fn search(calls: &Calls, wait: Duration) -> Result<Outcome, Failure> {
    Ok(rows("devices", &calls.next()?.search(wait).await?, show::found))
}
