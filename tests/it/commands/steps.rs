//! Changes with steps, after each of which something fails: the gateway refuses, is lost, or the
//! device does not reconnect. The remaining steps are skipped, and the state of the device is
//! reported.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use gsdk2mqtt::simulator::{Control, DialMode, Fault, SiteDevice};

use super::{ALL, Stack};
use crate::harness::{eventually, patiently};

/// On each call, so that there is time between two of them.
const LATENCY: Duration = Duration::from_millis(150);

/// The failure.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// The gateway refuses this call.
    Refused(&'static str),
    /// The connection to the gateway breaks during this call.
    Lost(&'static str),
    /// The device is switched off after it has applied the change.
    Gone,
    /// The same, after its registration was removed.
    GoneLate,
    /// The device is switched off, and then the connection to the gateway is lost.
    GoneAndLost,
    /// The same, after its registration was removed.
    GoneLateAndLost,
}

use Failure::{Gone, GoneAndLost, GoneLate, GoneLateAndLost, Lost, Refused};

/// The connection of a device before the change.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Registered,
    DialsIn,
    Synchronous,
}

/// A stack with a device for each failure.
struct Stage {
    stack: Stack,
    used: BTreeSet<u32>,
}

impl Stage {
    async fn new() -> Self {
        Self { stack: Stack::new(40, ALL).await, used: BTreeSet::new() }
    }

    fn control(&self) -> Control {
        self.stack.simulator.control()
    }

    /// A device without a failure so far.
    async fn device(&mut self, kind: Kind, ssl: bool) -> SiteDevice {
        let dials = kind == Kind::DialsIn;
        let fits = |device: &SiteDevice| {
            (device.mode == DialMode::DeviceToServer) == dials
                && device.ssl == ssl
                && !self.used.contains(&device.id)
        };
        let device = self.control().devices().into_iter().find(fits).unwrap();
        self.used.insert(device.id);
        if kind == Kind::Synchronous {
            let id = json!({"device_id": device.id}).to_string();
            assert_eq!(self.stack.ask("async/remove", &id).await["result"], "ok");
            let ip = json!({"ip": device.ip, "ssl": ssl}).to_string();
            assert_eq!(self.stack.ask("connect", &ip).await["result"], "ok");
        }
        device
    }

    fn calls(&self, method: &str) -> u64 {
        self.control().calls().get(method).copied().unwrap_or_default()
    }

    async fn apply_failure(&self, device: &SiteDevice, failure: Failure) {
        let control = self.control();
        let changed = || {
            let now = control.devices().into_iter().find(|now| now.id == device.id).unwrap();
            (now.mode, now.ssl) != (device.mode, device.ssl)
        };
        let registered = || {
            let mut rows = control.managed().into_iter();
            rows.any(|row| row.device_id == device.id && row.auto_reconnect)
        };
        let cut_during = async |method: &str| {
            let before = self.calls(method);
            eventually("the call is made", || (self.calls(method) > before).then_some(())).await;
            control.apply_fault(&Fault::CutConnections);
        };
        let vanish = async |when: &dyn Fn() -> bool| {
            eventually("it is changed", || when().then_some(())).await;
            control.apply_fault(&Fault::power(device.id, false));
            control.apply_fault(&Fault::Drop { devices: device.id.into() });
        };
        match failure {
            Refused(_) => {}
            Lost(method) => cut_during(method).await,
            Gone => vanish(&changed).await,
            GoneLate => vanish(&|| changed() && !registered()).await,
            GoneAndLost => {
                vanish(&changed).await;
                cut_during("GetDeviceList").await;
            }
            GoneLateAndLost => {
                vanish(&|| changed() && !registered()).await;
                cut_during("GetDeviceList").await;
            }
        }
    }

    /// Requests a change and applies the failure to its device. All steps before the last are done;
    /// the last failed, and its message has the remedy.
    async fn play(
        &mut self,
        kind: Kind,
        command: &str,
        failure: Failure,
        steps: &[&str],
        words: &str,
    ) {
        let device = self.device(kind, command == "ssl/disable").await;
        let control = self.control();
        let (command, mode) = command.split_once(' ').unwrap_or((command, ""));
        let mut request = json!({"device_id": device.id});
        if !mode.is_empty() {
            request["mode"] = json!(mode);
        }
        if matches!(failure, Gone | GoneLate) || matches!(failure, Refused("Connect")) {
            request["timeout_s"] = json!(4);
        }
        if let Refused(method) = failure {
            control.apply_fault(&Fault::fail(method, tonic::Code::Internal, "out of luck"));
        }
        control.apply_fault(&Fault::latency(LATENCY));
        let request = request.to_string();
        let (answer, ()) =
            tokio::join!(self.stack.ask(command, &request), self.apply_failure(&device, failure));
        control.apply_fault(&Fault::latency(Duration::ZERO));
        control.apply_fault(&Fault::Heal);
        let what = format!("{command} {mode} {kind:?} {failure:?}: {answer}");
        assert_eq!(answer["result"], "error", "{what}");
        assert_eq!(answer["data"]["device_ids"], json!([]), "{what}");
        let reported: Vec<&Value> = answer["data"]["steps"].as_array().unwrap().iter().collect();
        let reported: Vec<&Value> =
            reported.into_iter().filter(|step| step["step"] != "looked").collect();
        let names: Vec<&str> = reported.iter().map(|step| step["step"].as_str().unwrap()).collect();
        assert_eq!(names, steps, "{what}");
        let (last, before) = reported.split_last().unwrap();
        assert!(before.iter().all(|step| step["result"] == "ok"), "{what}");
        assert_eq!(last["result"], "error", "{what}");
        let error = &answer["device_errors"][0];
        assert_eq!(
            (&error["device_id"], &error["message"]),
            (&json!(device.id), &last["message"]),
            "{what}"
        );
        let message = last["message"].as_str().unwrap();
        assert!(message.contains(words), "{words}: {what}");
        match failure {
            Refused(_) => assert!(message.contains("out of luck"), "{what}"),
            Lost(_) => assert!(message.contains("whether it was done is not known"), "{what}"),
            Gone | GoneLate => {
                assert_eq!(error["code"], "timeout", "{what}");
                let looked = answer["data"]["steps"].as_array().unwrap().last().unwrap();
                assert_eq!(looked["step"], "looked", "{what}");
                assert!(looked["message"].as_str().unwrap().contains("list"), "{what}");
            }
            GoneAndLost | GoneLateAndLost => assert_ne!(error["code"], "timeout", "{what}"),
        }
        if matches!(failure, Lost(_) | GoneAndLost | GoneLateAndLost) {
            patiently("the link is back", async {
                while self.stack.ask("pending", "{}").await["result"] != "ok" {}
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn to_device_to_server() {
    let mut stage = Stage::new().await;
    let filter = &["filter_added"][..];
    let mode = &["filter_added", "mode_set"][..];
    let connected = &["filter_added", "mode_set", "connected"][..];
    let removed = &["filter_added", "mode_set", "connected", "async_removed"][..];
    let again = &["filter_added", "mode_set", "connected", "async_removed", "connected"][..];
    for (failure, steps, words) in [
        (Refused("SetAcceptFilter"), filter, "not changed"),
        (Lost("SetAcceptFilter"), filter, "not changed"),
        (Refused("SetConnectionModeMulti"), mode, "is accepted"),
        (Lost("SetConnectionModeMulti"), mode, "is accepted"),
        (Gone, connected, "gateway's address is set in the device"),
        (GoneAndLost, connected, "gateway's address is set in the device"),
        (Refused("DeleteAsyncConnection"), removed, "async/remove"),
        (Lost("DeleteAsyncConnection"), removed, "async/remove"),
        (GoneLate, again, "wait for it"),
        (GoneLateAndLost, again, "wait for it"),
    ] {
        let command = "mode/set device_to_server";
        stage.play(Kind::Registered, command, failure, steps, words).await;
    }
    for (failure, steps, words) in [
        (Refused("SetConnectionModeMulti"), mode, "is accepted"),
        (Gone, connected, "gateway's address is set in the device"),
        (GoneAndLost, connected, "gateway's address is set in the device"),
    ] {
        let command = "mode/set device_to_server";
        stage.play(Kind::Synchronous, command, failure, steps, words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn to_server_to_device() {
    let mut stage = Stage::new().await;
    let mode = &["mode_set"][..];
    let added = &["mode_set", "async_added"][..];
    let connected = &["mode_set", "async_added", "connected"][..];
    for (failure, steps, words) in [
        (Refused("SetConnectionModeMulti"), mode, "repeat the request"),
        (Lost("AddAsyncConnection"), added, "to async/add"),
        (Gone, connected, "keeps dialling it"),
        (GoneAndLost, connected, "keeps dialling it"),
    ] {
        let command = "mode/set server_to_device";
        stage.play(Kind::DialsIn, command, failure, steps, words).await;
    }
    let mut stage = Stage::new().await;
    let removed = &["mode_set", "async_added", "connected", "filter_removed"][..];
    for (failure, steps, words) in [
        (Lost("SetConnectionModeMulti"), mode, "with `search`"),
        (Refused("AddAsyncConnection"), added, "to async/add"),
        (Refused("SetAcceptFilter"), removed, "accept_filter/remove"),
        (Lost("SetAcceptFilter"), removed, "accept_filter/remove"),
    ] {
        let command = "mode/set server_to_device";
        stage.play(Kind::DialsIn, command, failure, steps, words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn to_ssl() {
    let mut stage = Stage::new().await;
    let filter = &["filter_added"][..];
    let enabled = &["ssl_enabled"][..];
    let added = &["ssl_enabled", "async_added"][..];
    let added_connected = &["ssl_enabled", "async_added", "connected"][..];
    let connected = &["ssl_enabled", "connected"][..];
    for (kind, failure, steps, words) in [
        (Kind::Registered, Refused("EnableSSLMulti"), enabled, "with `search`"),
        (Kind::Registered, Lost("EnableSSLMulti"), enabled, "with `search`"),
        (Kind::Registered, Refused("AddAsyncConnection"), added, "\"ssl\":true"),
        (Kind::Registered, Lost("AddAsyncConnection"), added, "\"ssl\":true"),
        (Kind::Registered, Gone, added_connected, "add it by async/add"),
        (Kind::Registered, GoneAndLost, added_connected, "add it by async/add"),
        (Kind::DialsIn, Refused("GetAcceptFilter"), filter, "not changed"),
        (Kind::DialsIn, Lost("EnableSSLMulti"), enabled, "with `search`"),
        (Kind::DialsIn, Gone, connected, "port for SSL"),
        (Kind::DialsIn, GoneAndLost, connected, "port for SSL"),
        (Kind::Synchronous, Refused("Connect"), connected, "\"ssl\":true} to connect"),
        (Kind::Synchronous, Lost("Connect"), connected, "\"ssl\":true} to connect"),
    ] {
        stage.play(kind, "ssl/enable", failure, steps, words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_ssl() {
    let mut stage = Stage::new().await;
    let disabled = &["ssl_disabled"][..];
    let added = &["ssl_disabled", "async_added"][..];
    let added_connected = &["ssl_disabled", "async_added", "connected"][..];
    let connected = &["ssl_disabled", "connected"][..];
    for (kind, failure, steps, words) in [
        (Kind::Registered, Refused("DisableSSLMulti"), disabled, "with `search`"),
        (Kind::Registered, Lost("AddAsyncConnection"), added, "\"ssl\":false"),
        (Kind::Registered, Gone, added_connected, "add it by async/add"),
        (Kind::DialsIn, Gone, connected, "port without SSL"),
        (Kind::Synchronous, Refused("Connect"), connected, "\"ssl\":false} to connect"),
    ] {
        stage.play(kind, "ssl/disable", failure, steps, words).await;
    }
}

/// Aim: a device that does not reconnect does not affect the others. Method: of two devices
/// connected by `connect` and two registered ones, the first of each is switched off after it has
/// applied the change.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_that_fails_holds_up_no_other() {
    let mut stage = Stage::new().await;
    let mut devices = Vec::new();
    for kind in [Kind::Synchronous, Kind::Registered, Kind::Synchronous, Kind::Registered] {
        devices.push(stage.device(kind, false).await);
    }
    let ids: Vec<u32> = devices.iter().map(|device| device.id).collect();
    let (gone, back) = ids.split_at(2);
    let request = json!({"device_ids": ids, "timeout_s": 6}).to_string();
    let control = stage.control();
    control.apply_fault(&Fault::latency(LATENCY));
    let the_others_come_back = async {
        tokio::join!(
            stage.apply_failure(&devices[0], Gone),
            stage.apply_failure(&devices[1], Gone)
        );
        control.apply_fault(&Fault::latency(Duration::ZERO));
        let is_back =
            |id: &u32| control.managed().iter().any(|row| row.device_id == *id && row.status == 2);
        eventually("the others are back", || back.iter().all(is_back).then_some(())).await;
        Instant::now()
    };
    let asked = stage.stack.ask("ssl/enable", &request);
    let (answer, came_back) = tokio::join!(asked, the_others_come_back);
    assert!(came_back.elapsed() > Duration::from_secs(1), "not only when there was no time left");
    assert_eq!(answer["result"], "partial", "{answer}");
    assert_eq!(answer["data"]["device_ids"], json!(back), "{answer}");
    let errors = answer["device_errors"].as_array().unwrap();
    let failed: BTreeSet<u64> =
        errors.iter().map(|error| error["device_id"].as_u64().unwrap()).collect();
    assert_eq!(failed, gone.iter().map(|&id| id.into()).collect(), "{answer}");
    assert!(answer["duration_s"].as_f64().unwrap() < 7.0, "{answer}");
}

/// Aim: a device that is connected gets its next steps while another is waited for. Method: of two
/// devices the first is switched off after it has applied the change.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_reconnect_holds_up_no_step_of_another() {
    let mut stage = Stage::new().await;
    for (kind, mode, expected) in [
        (
            Kind::Registered,
            "device_to_server",
            &["filter_added", "mode_set", "connected", "async_removed", "connected"][..],
        ),
        (
            Kind::DialsIn,
            "server_to_device",
            &["mode_set", "async_added", "connected", "filter_removed"],
        ),
    ] {
        let (gone, back) = (stage.device(kind, false).await, stage.device(kind, false).await);
        let request = json!({"device_ids": [gone.id, back.id], "mode": mode, "timeout_s": 6});
        let request = request.to_string();
        let control = stage.control();
        control.apply_fault(&Fault::latency(LATENCY));
        let fails = async {
            stage.apply_failure(&gone, Gone).await;
            control.apply_fault(&Fault::latency(Duration::ZERO));
        };
        let (answer, ()) = tokio::join!(stage.stack.ask("mode/set", &request), fails);
        assert_eq!(answer["result"], "partial", "{answer}");
        assert_eq!(answer["data"]["device_ids"], json!([back.id]), "{answer}");
        // In the order of time: the other one is ready before the time of the first is over.
        let steps = answer["data"]["steps"].as_array().unwrap().iter();
        let before_the_failure = steps.take_while(|step| step["result"] == "ok");
        let of_other = before_the_failure.filter(|step| step["device_id"] == back.id);
        let names: Vec<&str> = of_other.map(|step| step["step"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{answer}");
    }
}

/// The steps of a response as text.
fn steps(answer: &Value) -> Vec<String> {
    let steps = answer["data"]["steps"].as_array().unwrap().iter();
    steps.map(|step| format!("{} {}", step["step"], step["result"]).replace('"', "")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_dials_the_gateway_is_accepted_before_its_ssl_is_changed() {
    let mut stage = Stage::new().await;
    let device = stage.device(Kind::DialsIn, false).await;
    let control = stage.control();
    let stack = &stage.stack;
    let request = json!({"device_id": device.id}).to_string();
    let emptied = stack.ask("accept_filter/set", r#"{"device_ids":[]}"#).await;
    assert_eq!(emptied["result"], "ok", "{emptied}");
    let answer = stack.ask("ssl/enable", &request).await;
    assert_eq!(answer["result"], "ok", "{answer}");
    assert_eq!(steps(&answer), ["filter_added ok", "ssl_enabled ok", "connected ok"]);
    assert_eq!(control.filter().device_i_ds, [device.id]);
    // A device that is already in the filter is not added.
    let answer = stack.ask("ssl/disable", &request).await;
    assert_eq!(steps(&answer), ["ssl_disabled ok", "connected ok"], "{answer}");
    let open = r#"{"allow_all":true}"#;
    assert_eq!(stack.ask("accept_filter/set", open).await["result"], "ok");
    let answer = stack.ask("ssl/enable", &request).await;
    assert_eq!(steps(&answer), ["ssl_enabled ok", "connected ok"], "{answer}");
    assert!(control.filter().device_i_ds.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_the_requested_value_is_not_changed() {
    let mut stage = Stage::new().await;
    let by_connect = stage.device(Kind::Synchronous, false).await;
    let dialling = stage.device(Kind::DialsIn, false).await;
    let registered = stage.device(Kind::Registered, true).await;
    let before = stage.control().managed();
    let mode = |id: u32, mode: &str| json!({"device_id": id, "mode": mode}).to_string();
    for (command, request, expected) in [
        ("mode/set", mode(by_connect.id, "server_to_device"), &["already ok"][..]),
        ("mode/set", mode(dialling.id, "device_to_server"), &["filter_added ok", "already ok"]),
        ("ssl/enable", json!({"device_id": registered.id}).to_string(), &["already ok"]),
        ("ssl/disable", json!({"device_id": by_connect.id}).to_string(), &["already ok"]),
    ] {
        let answer = stage.stack.ask(command, &request).await;
        assert_eq!(answer["result"], "ok", "{answer}");
        assert_eq!(steps(&answer), expected, "{answer}");
        assert_eq!(answer["data"]["device_ids"].as_array().unwrap().len(), 1, "{answer}");
    }
    assert_eq!(stage.control().managed(), before);
    for method in ["SetConnectionModeMulti", "EnableSSLMulti", "DisableSSLMulti"] {
        assert_eq!(stage.calls(method), 0, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_cannot_contradict_the_configuration() {
    let broker = crate::harness::mosquitto::Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let [device, accepted] = [0, 1].map(|at| simulator.control().devices()[at].clone());
    let declared = format!(
        "devices = {{ {} = {{ connect = \"async\", ip = \"{}\" }}, \
         {} = {{ connect = \"accept\" }} }}",
        device.id, device.ip, accepted.id
    );
    let stack = Stack::with(broker, simulator, ALL, &declared).await;
    let line = |id: u32| format!("gateways.lobby.devices.{id}.connect");
    let id = json!({"device_id": device.id});
    let mode = json!({"device_id": device.id, "mode": "device_to_server"});
    let register = |id, ip, port, ssl| {
        let device = json!({"device_id": id, "ip": ip, "port": port, "ssl": ssl});
        json!({ "devices": [device] })
    };
    for (command, request, contradicted) in [
        ("async/remove", &id, device.id),
        ("ssl/enable", &id, device.id),
        ("mode/set", &mode, device.id),
        ("async/add", &register(device.id, "10.9.9.9".parse().unwrap(), 51_211, false), device.id),
        ("async/add", &register(device.id, device.ip, 51_212, false), device.id),
        ("async/add", &register(device.id, device.ip, 51_211, true), device.id),
        ("async/add", &register(accepted.id, accepted.ip, 51_211, false), accepted.id),
    ] {
        let answer = stack.ask(command, &request.to_string()).await;
        let (code, message) = super::refusal(&answer);
        assert_eq!(code, "invalid_request");
        assert!(message.contains(&line(contradicted)), "{message}");
    }
    let same = json!({"devices": [{"device_id": device.id, "ip": device.ip}]});
    let answer = stack.ask("async/add", &same.to_string()).await;
    assert_eq!(answer["result"], "ok", "{answer}");
}
