//! Mode and SSL with all related steps, in an order that leaves no device unreachable: prepare,
//! change, connect, clean up (docs/commands.md). If a step fails, nothing is undone: the message
//! describes the state of the device and the remedy.

use std::collections::BTreeSet;

use serde_json::json;
use tonic::Code;

use super::calls::Calls;
use super::command::ModeOrSsl;
use super::failure::Failure;
use super::filter;
use super::reconnect::Reconnector;
use super::response::{DeviceFailure, Outcome};
use super::step::StepName;
use super::steps::{CONNECT_WAIT, StepRunner};
use crate::fleet::{Effect, Listed, Mode, Status, Target};
use crate::gsdk::{DeviceError, GatewayClient};
use crate::ids::{DEVICE_PORT, DeviceId};

const NOT_CHANGED: &str = "The device was not changed; send the request again";

pub(crate) async fn set(
    calls: &Calls,
    ids: &BTreeSet<DeviceId>,
    setting: ModeOrSsl,
    apply: bool,
) -> Result<Outcome, Failure> {
    if !apply {
        return set_only(calls, ids, setting).await;
    }
    let mut runner = StepRunner::start(calls, ids).await?;
    match setting {
        ModeOrSsl::Mode(Mode::DeviceToServer) => to_device_to_server(&mut runner).await,
        ModeOrSsl::Mode(Mode::ServerToDevice | Mode::Unknown(_)) => {
            to_server_to_device(&mut runner).await;
        }
        ModeOrSsl::Ssl(enable) => set_ssl(&mut runner, enable).await,
    }
    Ok(runner.finish().await)
}

/// The devices will dial the gateway: accept them first, remove registrations last.
async fn to_device_to_server(runner: &mut StepRunner<'_>) {
    let ids = runner.ids();
    add_to_filter(runner, ids).await;
    runner.skip_done(|row| dials_in(row) && !row.info.auto_reconnect);
    let state = "It is accepted by the accept filter, so it can be reached in either mode; see its \
                 mode with `devices`, and repeat the request";
    change(runner, ModeOrSsl::Mode(Mode::DeviceToServer), state).await;
    let not_dialed = "It was set to dial the gateway and is accepted, but has not dialed; check \
                      that the gateway's address is set in the device. A registration it had is \
                      still there; remove it by async/remove once the device is connected";
    let not_again = "Its registration was removed, which ended its connection, and it has not \
                     dialed again yet; it is accepted, so wait for it";
    // Each loses its registration once it has dialed, and then has to dial again.
    let registered = runner.ids_where(|row| row.info.auto_reconnect);
    let mut removed = BTreeSet::new();
    runner.wait_for(runner.ids());
    loop {
        let was_removed =
            |row: &Listed| row.info.auto_reconnect && removed.contains(&row.device_id);
        let dials = |row: &Listed| is_up(row) && dials_in(row) && !was_removed(row);
        let state = |row: &Listed| if was_removed(row) { not_again } else { not_dialed };
        let connected = runner.next_connected(dials, state).await;
        if connected.is_empty() {
            return;
        }
        let leaving = &(&connected & &registered) - &removed;
        if !leaving.is_empty() {
            removed.extend(&leaving);
            unregister(runner, &leaving).await;
            runner.wait_for(leaving);
        }
    }
}

/// Removes the registrations of devices that are connected without them.
async fn unregister(runner: &mut StepRunner<'_>, ids: &BTreeSet<DeviceId>) {
    runner.attempt(Effect::Unregistered(ids.clone()));
    let removed = async {
        runner.calls().changing()?.async_remove(ids).await?;
        Ok(Some(Effect::Unregistered(ids.clone())))
    };
    let removed = removed.await;
    let state = "It dials the gateway and is connected; only its registration may be left, which \
                 async/remove removes";
    runner.finish_step(StepName::AsyncRemoved, ids, removed, state);
}

/// Accepts these devices too, before anything is changed.
async fn add_to_filter(runner: &mut StepRunner<'_>, ids: BTreeSet<DeviceId>) {
    if ids.is_empty() {
        return;
    }
    let effect = Effect::Accepted(ids.clone());
    let added = filter::edit(runner.calls(), &effect).await.map(|_| Some(effect));
    runner.finish_step(StepName::FilterAdded, &ids, added, NOT_CHANGED);
}

/// The gateway will dial the devices: check their addresses first, change the filter last.
async fn to_server_to_device(runner: &mut StepRunner<'_>) {
    runner.skip_done(|row| row.info.mode == Mode::ServerToDevice);
    let state = "It was not changed; find its address by `search`, set the mode with \
                 \"apply\":false, and give the address to async/add";
    need_address(runner, |_| true, state);
    let state = "If it changed, it waits to be dialed: see its mode with `search`, and give its \
                 address to async/add; otherwise repeat the request";
    change(runner, ModeOrSsl::Mode(Mode::ServerToDevice), state).await;
    register(runner, |row| Some(row.status == Status::TlsConnected)).await;
    let not_connected = "It was set to be dialed and is registered, and the gateway keeps dialling \
                         it; check that it can be reached. Its ID is still in the accept filter, \
                         which does no harm";
    let is_dialed = |row: &Listed| is_up(row) && row.info.mode == Mode::ServerToDevice;
    runner.wait_for(runner.ids());
    loop {
        let ids = runner.next_connected(is_dialed, |_| not_connected).await;
        if ids.is_empty() {
            return;
        }
        let effect = Effect::Unaccepted(ids.clone());
        runner.attempt(effect.clone());
        let removed = filter::edit(runner.calls(), &effect).await.map(|_| Some(effect));
        let state = "It is connected; only its ID may be left in the accept filter, which \
                     accept_filter/remove removes";
        runner.finish_step(StepName::FilterRemoved, &ids, removed, state);
    }
}

/// A device that the gateway has to dial afterwards needs an address.
fn need_address(runner: &mut StepRunner<'_>, has_to: impl Fn(&Listed) -> bool, state: &str) {
    let failure = Failure::new(Code::FailedPrecondition, "the gateway does not report its address");
    for id in runner.ids_where(|row| row.info.ip.is_none() && has_to(row)) {
        runner.fail(StepName::AddressKnown, id, &failure, state);
    }
}

/// Prepares the connection that each device needs afterwards, and waits for it.
async fn set_ssl(runner: &mut StepRunner<'_>, enable: bool) {
    let wanted = if enable { Status::TlsConnected } else { Status::TcpConnected };
    runner.skip_done(|row| row.status == wanted && row.info.ssl == enable);
    let by_connect = |row: &Listed| !dials_in(row) && !row.info.auto_reconnect;
    let state = "It was not changed; find its address by `search`, change it with \
                 \"apply\":false, and give the address and that \"ssl\" to connect";
    need_address(runner, by_connect, state);
    accept_again(runner).await;
    let state = "See with `search` whether SSL is on at the device. If it changed and the gateway \
                 has to dial it, give its address to async/add with that \"ssl\"; otherwise ask \
                 again";
    change(runner, ModeOrSsl::Ssl(enable), state).await;
    register(runner, |row| row.info.auto_reconnect.then_some(enable)).await;
    let synchronous = runner.ids_where(by_connect);
    let others = &runner.ids() - &synchronous;
    let is_synchronous = |row: &&Listed| synchronous.contains(&row.device_id);
    let targets = runner.rows().filter(is_synchronous).filter_map(|row| target(row, enable));
    let calls = runner.calls();
    let reconnector = Reconnector::start(calls, targets, calls.deadline(CONNECT_WAIT));
    runner.wait_for(others);
    let state = |row: &Listed| state_without_connection(row, enable);
    while !runner.next_connected(|row| row.status == wanted, state).await.is_empty() {}
    reconnector.finish(runner).await;
}

/// Devices that dial in have to be accepted again: the filter may have changed since they were.
async fn accept_again(runner: &mut StepRunner<'_>) {
    let dialing = runner.ids_where(dials_in);
    if dialing.is_empty() {
        return;
    }
    let filter = async { Ok(runner.calls().client()?.accept_filter().await?) };
    match filter.await {
        Ok(filter) if filter.allow_all => {}
        Ok(filter) => add_to_filter(runner, &dialing - &filter.device_ids).await,
        Err(failure) => {
            runner.finish_step(StepName::FilterAdded, &dialing, Err(failure), NOT_CHANGED);
        }
    }
}

/// How a device is left that is not connected again after a change of SSL.
fn state_without_connection(row: &Listed, enable: bool) -> &'static str {
    match (dials_in(row), enable) {
        (false, _) => {
            "SSL was changed at the device and at the gateway; it is not connected again \
             yet. If this persists, remove it by async/remove and add it by async/add with that \
             \"ssl\""
        }
        (true, true) => {
            "SSL was switched on at the device and it is accepted; it is not connected again yet. \
             Check that it can reach the gateway's port for SSL (usually 51213), and wait for it"
        }
        (true, false) => {
            "SSL was switched off at the device and it is accepted; it is not connected again yet. \
             Check that it can reach the gateway's port without SSL (usually 51212), and wait"
        }
    }
}

/// Registers the devices for which `ssl` returns a value, with or without SSL.
async fn register(runner: &mut StepRunner<'_>, ssl: impl Fn(&Listed) -> Option<bool>) {
    let targets = runner.rows().filter_map(|row| target(row, ssl(row)?));
    let targets: Vec<(DeviceId, Target)> = targets.collect();
    if targets.is_empty() {
        return;
    }
    let added: Result<(), Failure> =
        async { Ok(runner.calls().changing()?.async_add(&targets).await?) }.await;
    for (id, target) in targets {
        let Target { ip, port, ssl } = target;
        let added = added.clone().map(|()| Some(Effect::Registered(vec![(id, target)])));
        let state = format!(
            "It was changed, and the gateway does not dial it: give {{\"device_id\":{id},\
             \"ip\":\"{ip}\",\"port\":{port},\"ssl\":{ssl}}} to async/add"
        );
        runner.finish_step(StepName::AsyncAdded, &[id].into(), added, &state);
    }
}

/// The address of a device by its row; a device that dials in shows no port of its own.
fn target(row: &Listed, ssl: bool) -> Option<(DeviceId, Target)> {
    let port = u16::try_from(row.info.port).ok().filter(|port| *port != 0);
    let port = port.unwrap_or(DEVICE_PORT);
    Some((row.device_id, Target { ip: row.info.ip?, port, ssl }))
}

fn is_up(row: &Listed) -> bool {
    row.status.connected() == Some(true)
}

fn dials_in(row: &Listed) -> bool {
    row.info.mode == Mode::DeviceToServer
}

/// Makes the change on all devices at once; `state` is how one is left where the call failed.
async fn change(runner: &mut StepRunner<'_>, setting: ModeOrSsl, state: &str) {
    let step = match setting {
        ModeOrSsl::Mode(_) => StepName::ModeSet,
        ModeOrSsl::Ssl(true) => StepName::SslEnabled,
        ModeOrSsl::Ssl(false) => StepName::SslDisabled,
    };
    let ids = runner.ids();
    if ids.is_empty() {
        return;
    }
    match call_multi(runner.calls(), &ids, setting).await {
        Err(failure) => runner.finish_step(step, &ids, Err(failure), state),
        Ok(errors) => {
            for DeviceError { device_id, code, message } in errors {
                runner.fail(step, device_id, &gateway_says(code, &message), NOT_CHANGED);
            }
            runner.done(step, &ids);
        }
    }
}

async fn call_multi(
    calls: &Calls,
    ids: &BTreeSet<DeviceId>,
    setting: ModeOrSsl,
) -> Result<Vec<DeviceError>, Failure> {
    let client = calls.changing()?;
    let errors = match setting {
        ModeOrSsl::Mode(mode) => client.set_mode(ids, mode).await?,
        ModeOrSsl::Ssl(enable) => client.set_ssl(ids, enable).await?,
    };
    Ok(errors)
}

/// The change alone, without the steps that belong to it.
async fn set_only(
    calls: &Calls,
    ids: &BTreeSet<DeviceId>,
    setting: ModeOrSsl,
) -> Result<Outcome, Failure> {
    let client = calls.client()?;
    let strangers = not_of_this_gateway(&client, ids).await?;
    let ids = &(ids - &strangers);
    let errors = if ids.is_empty() { Vec::new() } else { call_multi(calls, ids, setting).await? };
    let failed: BTreeSet<DeviceId> = errors.iter().map(|error| error.device_id).collect();
    let done = ids - &failed;
    let mut device_errors: Vec<DeviceFailure> = errors.into_iter().map(with_remedy).collect();
    device_errors.extend(strangers.into_iter().map(|device_id| {
        let message = "it is not in this gateway's list; `devices` returns the list";
        DeviceFailure::new(device_id, Failure::new(Code::NotFound, message))
    }));
    let error = device_errors.first().filter(|_| done.is_empty()).map(DeviceFailure::as_whole);
    let data = json!({ "device_ids": done, "steps": [] });
    Ok(Outcome { device_errors, error, ..Outcome::done(data) })
}

/// Those of these devices that the gateway does not have. A master would change a device of any of
/// its gateways, as its call names none.
async fn not_of_this_gateway(
    client: &GatewayClient,
    ids: &BTreeSet<DeviceId>,
) -> Result<BTreeSet<DeviceId>, Failure> {
    if client.stored().is_none() {
        return Ok(BTreeSet::new());
    }
    let listed = client.device_list().await?.iter().map(|row| row.device_id).collect();
    Ok(ids - &listed)
}

/// The gateway's error for one device, with what to do.
fn with_remedy(DeviceError { device_id, code, message }: DeviceError) -> DeviceFailure {
    let remedy = match code {
        Code::NotFound => "connect it first, or add it to the accept filter",
        Code::FailedPrecondition => "connect it first",
        _ => "see with `search` whether it was changed",
    };
    let Failure { code, message, .. } = gateway_says(code, &message);
    DeviceFailure::new(device_id, Failure::new(code, format!("{message}; {remedy}")))
}

fn gateway_says(code: Code, message: &str) -> Failure {
    Failure::new(code, format!("the gateway reports: {message}"))
}
