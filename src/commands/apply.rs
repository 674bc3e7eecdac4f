//! Mode and SSL with all that belongs to them, in the order that leaves no device stranded.
//!
//! May not undo anything: where a step fails, it is said how the device is left and what to do.
//! Prepare, change, connect, clean up (contract, section 4).

use std::collections::BTreeSet;

use tonic::Code;

use super::calls::Calls;
use super::dials::Dials;
use super::failure::Failure;
use super::filter;
use super::response::{DeviceFailure, Outcome};
use super::work::{CONNECT_WAIT, Work};
use crate::fleet::{Effect, Listed, Mode, Status};
use crate::gsdk::{DEVICE_PORT_DEFAULT, DeviceError, Error, Target, code_name};
use crate::ids::DeviceId;

const NOT_CHANGED: &str = "The device was not changed; ask again";

pub(super) async fn set_mode(
    calls: &Calls,
    ids: &BTreeSet<DeviceId>,
    mode: Mode,
) -> Result<Outcome, Failure> {
    let mut work = Work::begin(calls, ids).await?;
    match mode {
        Mode::DeviceToServer => to_dialling(&mut work).await,
        Mode::ServerToDevice | Mode::Unknown(_) => to_dialled(&mut work).await,
    }
    Ok(work.end().await)
}

/// The devices will dial the gateway: let them in first, take registrations back last.
async fn to_dialling(work: &mut Work<'_>) {
    let ids = work.ids();
    add_to_filter(work, ids).await;
    work.settle(|row| dials_in(row) && !row.info.auto_reconnect);
    let state = "It is let in by the accept filter, so it can be reached in either mode; see its \
                 mode with `devices`, and ask again";
    change(work, "mode_set", state, Change::Mode(Mode::DeviceToServer)).await;
    let state = "It was set to dial the gateway and is let in, but has not dialled; see that the \
                 gateway's address is set in the device. A registration it had is still there; \
                 take it back by async/remove once the device is connected";
    let dialling = |row: &Listed| is_up(row) && dials_in(row);
    work.wait(work.ids(), work.calls.end_of(CONNECT_WAIT), dialling, |_| state).await;
    let registered = work.ids_where(|row| row.info.auto_reconnect);
    if registered.is_empty() {
        return;
    }
    let removed = async { Ok(work.calls.next()?.async_remove(&registered).await?) }.await;
    if removed.is_ok() {
        work.effects.push(Effect::Unregistered(registered.clone()));
    }
    let state = "It dials the gateway and is connected; only its registration may be left, which \
                 async/remove takes back";
    work.outcome("async_removed", &registered, removed, state);
    let state = "Its registration was taken back, which ended its connection, and it has not \
                 dialled again yet; it is let in, so wait for it";
    let alone = |row: &Listed| dialling(row) && !row.info.auto_reconnect;
    work.wait(registered, work.calls.end_of(CONNECT_WAIT), alone, |_| state).await;
}

/// Lets these in too, before anything is changed.
async fn add_to_filter(work: &mut Work<'_>, ids: BTreeSet<DeviceId>) {
    if ids.is_empty() {
        return;
    }
    let added = filter::edit(work.calls, |now| now.device_ids.extend(&ids)).await;
    if added.is_ok() {
        work.effects.push(Effect::Accepted(ids.clone()));
    }
    work.outcome("filter_added", &ids, added.map(drop), NOT_CHANGED);
}

/// The gateway will dial the devices: their addresses first, their places in the filter last.
async fn to_dialled(work: &mut Work<'_>) {
    work.settle(|row| row.info.mode == Mode::ServerToDevice);
    let state = "It was not changed; find its address by `search`, set the mode with \
                 \"apply\":false, and give the address to async/add";
    need_address(work, |_| true, state);
    let state = "If it changed, it waits to be dialled: see its mode with `search`, and give its \
                 address to async/add; otherwise ask again";
    change(work, "mode_set", state, Change::Mode(Mode::ServerToDevice)).await;
    register(work, |row| Some(row.status == Status::TlsConnected)).await;
    let state = "It was set to be dialled and is registered, and the gateway goes on dialling it; \
                 see that it can be reached. Its ID is still in the accept filter, which does no \
                 harm";
    let dialled = |row: &Listed| is_up(row) && row.info.mode == Mode::ServerToDevice;
    work.wait(work.ids(), work.calls.end_of(CONNECT_WAIT), dialled, |_| state).await;
    let ids = work.ids();
    if ids.is_empty() {
        return;
    }
    let removed =
        filter::edit(work.calls, |now| now.device_ids.retain(|id| !ids.contains(id))).await;
    let state = "It is connected; only its ID may be left in the accept filter, which \
                 accept_filter/remove takes out";
    if removed.is_ok() {
        work.effects.push(Effect::Unaccepted(ids.clone()));
    }
    work.outcome("filter_removed", &ids, removed.map(drop), state);
}

/// Whom the gateway is to dial afterwards has to have an address.
fn need_address(work: &mut Work<'_>, like: impl Fn(&Listed) -> bool, state: &str) {
    for id in work.ids_where(|row| row.info.ip.is_none() && like(row)) {
        let why = Failure::new("failed_precondition", "the gateway does not tell its address");
        work.fail("address_known", id, &why, state);
    }
}

pub(super) async fn set_ssl(
    calls: &Calls,
    ids: &BTreeSet<DeviceId>,
    enable: bool,
) -> Result<Outcome, Failure> {
    let mut work = Work::begin(calls, ids).await?;
    let wanted = if enable { Status::TlsConnected } else { Status::TcpConnected };
    work.settle(|row| row.status == wanted && row.info.ssl == enable);
    let by_connect = |row: &Listed| !dials_in(row) && !row.info.auto_reconnect;
    let state = "It was not changed; find its address by `search`, change it with \
                 \"apply\":false, and give the address and that \"ssl\" to connect";
    need_address(&mut work, by_connect, state);
    let_in_again(&mut work).await;
    let step = if enable { "ssl_enabled" } else { "ssl_disabled" };
    let state = "See with `search` whether SSL is on at the device. If it changed and the gateway \
                 is to dial it, give its address to async/add with that \"ssl\"; otherwise ask \
                 again";
    change(&mut work, step, state, Change::Ssl(enable)).await;
    register(&mut work, |row| row.info.auto_reconnect.then_some(enable)).await;
    let synchronous = work.ids_where(by_connect);
    let others = &work.ids() - &synchronous;
    let targets = synchronous.iter().filter_map(|id| {
        let row = work.devices.get(id)?;
        Some((*id, target(row, enable)?))
    });
    let end = calls.end_of(CONNECT_WAIT);
    let dials = Dials::begin(calls, targets, end);
    work.wait(others, end, |row| row.status == wanted, |row| left_by_ssl(row, enable)).await;
    dials.end(&mut work).await;
    Ok(work.end().await)
}

/// Devices that dial in have to be let in when they dial again: the filter may have changed since.
async fn let_in_again(work: &mut Work<'_>) {
    let dialling = work.ids_where(dials_in);
    if dialling.is_empty() {
        return;
    }
    let now = async { Ok(work.calls.next()?.accept_filter().await?) };
    match now.await {
        Ok(now) if now.allow_all => {}
        Ok(now) => add_to_filter(work, &dialling - &now.device_ids).await,
        Err(failure) => work.outcome("filter_added", &dialling, Err(failure), NOT_CHANGED),
    }
}

/// How a device is left that has not come back after a change of SSL.
fn left_by_ssl(row: &Listed, enable: bool) -> &'static str {
    match (dials_in(row), enable) {
        (false, _) => {
            "SSL was changed at the device and the gateway was told; it has not come back yet. If \
             it does not, take it off by async/remove and add it by async/add with that \"ssl\""
        }
        (true, true) => {
            "SSL was switched on at the device and it is let in; it has not come back yet. See \
             that it can reach the gateway's port for SSL (usually 51213), and wait for it"
        }
        (true, false) => {
            "SSL was switched off at the device and it is let in; it has not come back yet. See \
             that it can reach the gateway's port without SSL (usually 51212), and wait for it"
        }
    }
}

/// Registers the devices of the work for which `ssl` says whether with SSL.
async fn register(work: &mut Work<'_>, ssl: impl Fn(&Listed) -> Option<bool>) {
    let target = |row: &Listed| Some((row.device_id, target(row, ssl(row)?)?));
    let targets: Vec<(DeviceId, Target)> = work.devices.values().filter_map(target).collect();
    if targets.is_empty() {
        return;
    }
    let added = async { Ok(work.calls.next()?.async_add(&targets).await?) }.await;
    if added.is_ok() {
        work.effects.push(Effect::Registered(targets.clone()));
    }
    for (id, target) in targets {
        let Target { ip, port, ssl } = target;
        let state = format!(
            "It was changed and nobody dials it: give {{\"device_id\":{id},\"ip\":\"{ip}\",\
             \"port\":{port},\"ssl\":{ssl}}} to async/add"
        );
        work.outcome("async_added", &[id].into(), added.clone(), &state);
    }
}

/// Where a device is, from its row; a device that dials in shows no port of its own.
fn target(row: &Listed, ssl: bool) -> Option<Target> {
    let port = u16::try_from(row.info.port).ok().filter(|port| *port != 0);
    Some(Target { ip: row.info.ip?, port: port.unwrap_or(DEVICE_PORT_DEFAULT), ssl })
}

fn is_up(row: &Listed) -> bool {
    row.status.connected() == Some(true)
}

fn dials_in(row: &Listed) -> bool {
    row.info.mode == Mode::DeviceToServer
}

#[derive(Clone, Copy)]
enum Change {
    Mode(Mode),
    Ssl(bool),
}

/// The change itself, on all devices at once; `state` is how one is left where it may have failed.
async fn change(work: &mut Work<'_>, step: &'static str, state: &str, change: Change) {
    let ids = work.ids();
    if ids.is_empty() {
        return;
    }
    match call(work.calls, &ids, change).await {
        Err(failure) => work.outcome(step, &ids, Err(failure), state),
        Ok(errors) => {
            for error in errors {
                let why = said(error.code, &error.message);
                work.fail(step, error.device_id, &why, NOT_CHANGED);
            }
            work.done(step, &ids);
        }
    }
}

async fn call(
    calls: &Calls,
    ids: &BTreeSet<DeviceId>,
    change: Change,
) -> Result<Vec<DeviceError>, Failure> {
    let client = calls.next()?;
    let errors = match change {
        Change::Mode(mode) => client.set_mode_multi(ids, mode).await?,
        Change::Ssl(enable) => client.set_ssl_multi(ids, enable).await?,
    };
    Ok(errors)
}

/// The bare call, without anything that belongs to it.
pub(super) async fn bare_mode(
    calls: &Calls,
    ids: &BTreeSet<DeviceId>,
    mode: Mode,
) -> Result<Outcome, Failure> {
    bare(calls, ids, Change::Mode(mode)).await
}

pub(super) async fn bare_ssl(
    calls: &Calls,
    ids: &BTreeSet<DeviceId>,
    enable: bool,
) -> Result<Outcome, Failure> {
    bare(calls, ids, Change::Ssl(enable)).await
}

async fn bare(calls: &Calls, ids: &BTreeSet<DeviceId>, change: Change) -> Result<Outcome, Failure> {
    let client = calls.next()?;
    let single = ids.iter().next().copied().filter(|_| ids.len() == 1);
    let errors = match (single, change) {
        (None, change) => call(calls, ids, change).await?,
        (Some(id), Change::Mode(mode)) => single_error(id, client.set_mode(id, mode).await)?,
        (Some(id), Change::Ssl(enable)) => single_error(id, client.set_ssl(id, enable).await)?,
    };
    let failed: BTreeSet<DeviceId> = errors.iter().map(|error| error.device_id).collect();
    let done: Vec<DeviceId> = ids.difference(&failed).copied().collect();
    let device_errors: Vec<DeviceFailure> = errors.into_iter().map(bare_error).collect();
    let error = device_errors.first().filter(|_| done.is_empty()).map(DeviceFailure::as_whole);
    let data = serde_json::json!({ "device_ids": done, "steps": [] });
    Ok(Outcome { device_errors, error, ..Outcome::done(data) })
}

/// What the gateway says of one device, with what to do.
fn bare_error(DeviceError { device_id, code, message }: DeviceError) -> DeviceFailure {
    let remedy = match code {
        Code::NotFound => "connect it first, or let it in",
        Code::FailedPrecondition => "connect it first",
        _ => "see with `search` whether it was changed",
    };
    let Failure { code, message } = said(code, &message);
    DeviceFailure { device_id, code, message: format!("{message}; {remedy}") }
}

fn said(code: Code, words: &str) -> Failure {
    Failure::new(code_name(code), format!("the gateway says: {words}"))
}

/// What the gateway answered of one device is that device's error.
fn single_error(id: DeviceId, called: Result<(), Error>) -> Result<Vec<DeviceError>, Failure> {
    match called {
        Ok(()) => Ok(Vec::new()),
        Err(Error::Status { status, .. }) => Ok(vec![DeviceError::from_status(id, &status)]),
        Err(other) => Err(other.into()),
    }
}
