//! Changes with steps, after each of which something goes wrong: the gateway refuses, is lost, or
//! the device does not come back. The rest stops, and it is said how the device is left.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use gsdk2mqtt::simulator::{CallFault, Control, Device, Mode};

use super::{ALL, House};
use crate::harness::{eventually, patiently};

/// On each call, so that there is time for something between two of them.
const LATENCY: Duration = Duration::from_millis(150);

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// The gateway refuses this call.
    Refused(&'static str),
    /// The connection to the gateway breaks while this call is under way.
    Lost(&'static str),
    /// The device is gone once it has taken the change.
    Gone,
    /// The same, once its registration is taken back.
    GoneLate,
    /// The device is gone, and then the connection to the gateway.
    GoneAndLost,
}

use Fate::{Gone, GoneAndLost, GoneLate, Lost, Refused};

/// How a device is connected before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Registered,
    DialsIn,
    Synchronous,
}

/// A house with devices enough for each to meet its fate once.
struct Stage {
    house: House,
    used: BTreeSet<u32>,
}

impl Stage {
    async fn new() -> Self {
        Self { house: House::new(40, ALL).await, used: BTreeSet::new() }
    }

    fn control(&self) -> Control {
        self.house.simulator.control()
    }

    /// A device that nothing has befallen yet.
    async fn device(&mut self, kind: Kind) -> Device {
        let dials = kind == Kind::DialsIn;
        let fits = |device: &Device| {
            (device.mode == Mode::DeviceToServer) == dials
                && !device.ssl
                && !self.used.contains(&device.id)
        };
        let device = self.control().building().into_iter().find(fits).unwrap();
        self.used.insert(device.id);
        if kind == Kind::Synchronous {
            let id = json!({"device_id": device.id}).to_string();
            assert_eq!(self.house.ask("async/remove", &id).await["result"], "ok");
            let ip = json!({"ip": device.ip}).to_string();
            assert_eq!(self.house.ask("connect", &ip).await["result"], "ok");
        }
        device
    }

    fn calls(&self, method: &str) -> u64 {
        self.control().calls().get(method).copied().unwrap_or_default()
    }

    async fn befall(&self, device: &Device, fate: Fate) {
        let control = self.control();
        let changed = || {
            let now = control.building().into_iter().find(|now| now.id == device.id).unwrap();
            (now.mode, now.ssl) != (device.mode, device.ssl)
        };
        let registered = || {
            let mut rows = control.managed().into_iter();
            rows.any(|row| row.device_id == device.id && row.auto_reconnect)
        };
        let cut_during = async |method: &str| {
            let before = self.calls(method);
            eventually("the call is made", || (self.calls(method) > before).then_some(())).await;
            control.cut_connections();
        };
        let vanish = async |when: &dyn Fn() -> bool| {
            eventually("it is changed", || when().then_some(())).await;
            control.power(device.id, false);
            control.drop_device(device.id);
        };
        match fate {
            Refused(_) => {}
            Lost(method) => cut_during(method).await,
            Gone => vanish(&changed).await,
            GoneLate => vanish(&|| changed() && !registered()).await,
            GoneAndLost => {
                vanish(&changed).await;
                cut_during("GetDeviceList").await;
            }
        }
    }

    /// Asks for a change and lets its device meet its fate. All steps before the last are done; the
    /// last failed, and says what to do.
    async fn play(&mut self, kind: Kind, command: &str, fate: Fate, steps: &[&str], words: &str) {
        let device = self.device(kind).await;
        let control = self.control();
        let (command, mode) = command.split_once(' ').unwrap_or((command, ""));
        let mut request = json!({"device_id": device.id});
        if !mode.is_empty() {
            request["mode"] = json!(mode);
        }
        if matches!(fate, Gone | GoneLate) || matches!(fate, Refused("Connect")) {
            request["timeout_s"] = json!(4);
        }
        if let Refused(method) = fate {
            let message = "out of luck".to_owned();
            let code = tonic::Code::Internal;
            control.fail(method, CallFault { code, message, times: None });
        }
        control.latency(LATENCY);
        let request = request.to_string();
        let (answer, ()) =
            tokio::join!(self.house.ask(command, &request), self.befall(&device, fate));
        control.latency(Duration::ZERO);
        control.heal();
        let what = format!("{command} {mode} {kind:?} {fate:?}: {answer}");
        assert_eq!(answer["result"], "error", "{what}");
        assert_eq!(answer["data"]["device_ids"], json!([]), "{what}");
        let told: Vec<&Value> = answer["data"]["steps"].as_array().unwrap().iter().collect();
        let told: Vec<&Value> = told.into_iter().filter(|step| step["step"] != "looked").collect();
        let names: Vec<&str> = told.iter().map(|step| step["step"].as_str().unwrap()).collect();
        assert_eq!(names, steps, "{what}");
        let (last, before) = told.split_last().unwrap();
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
        match fate {
            Refused(_) => assert!(message.contains("out of luck"), "{what}"),
            Lost(_) => assert!(message.contains("whether it was done is not known"), "{what}"),
            Gone | GoneLate => {
                assert_eq!(error["code"], "timeout", "{what}");
                let looked = answer["data"]["steps"].as_array().unwrap().last().unwrap();
                assert_eq!(looked["step"], "looked", "{what}");
                assert!(looked["message"].as_str().unwrap().contains("list"), "{what}");
            }
            GoneAndLost => assert_ne!(error["code"], "timeout", "{what}"),
        }
        if matches!(fate, Lost(_) | GoneAndLost) {
            patiently("the link is back", async {
                while self.house.ask("pending", "{}").await["result"] != "ok" {}
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
    for (fate, steps, words) in [
        (Refused("SetAcceptFilter"), filter, "not changed"),
        (Lost("SetAcceptFilter"), filter, "not changed"),
        (Refused("SetConnectionModeMulti"), mode, "is let in"),
        (Lost("SetConnectionModeMulti"), mode, "is let in"),
        (Gone, connected, "gateway's address is set in the device"),
        (GoneAndLost, connected, "gateway's address is set in the device"),
        (Refused("DeleteAsyncConnection"), removed, "async/remove"),
        (Lost("DeleteAsyncConnection"), removed, "async/remove"),
        (GoneLate, again, "wait for it"),
    ] {
        let command = "mode/set device_to_server";
        stage.play(Kind::Registered, command, fate, steps, words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn to_server_to_device() {
    let mut stage = Stage::new().await;
    let mode = &["mode_set"][..];
    let added = &["mode_set", "async_added"][..];
    let connected = &["mode_set", "async_added", "connected"][..];
    for (fate, steps, words) in [
        (Refused("SetConnectionModeMulti"), mode, "ask again"),
        (Lost("AddAsyncConnection"), added, "to async/add"),
        (Gone, connected, "goes on dialling it"),
        (GoneAndLost, connected, "goes on dialling it"),
    ] {
        let command = "mode/set server_to_device";
        stage.play(Kind::DialsIn, command, fate, steps, words).await;
    }
    let mut stage = Stage::new().await;
    let removed = &["mode_set", "async_added", "connected", "filter_removed"][..];
    for (fate, steps, words) in [
        (Lost("SetConnectionModeMulti"), mode, "with `search`"),
        (Refused("AddAsyncConnection"), added, "to async/add"),
        (Refused("SetAcceptFilter"), removed, "accept_filter/remove"),
        (Lost("SetAcceptFilter"), removed, "accept_filter/remove"),
    ] {
        let command = "mode/set server_to_device";
        stage.play(Kind::DialsIn, command, fate, steps, words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn to_ssl() {
    let mut stage = Stage::new().await;
    let enabled = &["ssl_enabled"][..];
    let added = &["ssl_enabled", "async_added"][..];
    let added_connected = &["ssl_enabled", "async_added", "connected"][..];
    let connected = &["ssl_enabled", "connected"][..];
    for (kind, fate, steps, words) in [
        (Kind::Registered, Refused("EnableSSLMulti"), enabled, "with `search`"),
        (Kind::Registered, Lost("EnableSSLMulti"), enabled, "with `search`"),
        (Kind::Registered, Refused("AddAsyncConnection"), added, "\"ssl\":true"),
        (Kind::Registered, Lost("AddAsyncConnection"), added, "\"ssl\":true"),
        (Kind::Registered, Gone, added_connected, "add it by async/add"),
        (Kind::Registered, GoneAndLost, added_connected, "add it by async/add"),
        (Kind::DialsIn, Gone, connected, "not come back yet"),
        (Kind::Synchronous, Refused("Connect"), connected, "\"ssl\":true} to connect"),
        (Kind::Synchronous, Lost("Connect"), connected, "\"ssl\":true} to connect"),
    ] {
        stage.play(kind, "ssl/enable", fate, steps, words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_declares_is_not_contradicted() {
    let broker = crate::harness::mosquitto::Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let device = simulator.control().building()[0].clone();
    let declared = format!(
        "devices = {{ {} = {{ connect = \"async\", ip = \"{}\" }} }}",
        device.id, device.ip
    );
    let house = House::with(broker, simulator, ALL, &declared).await;
    let line = format!("gateways.lobby.devices.{}.connect", device.id);
    for command in ["async/remove", "ssl/enable"] {
        let answer = house.ask(command, &json!({"device_id": device.id}).to_string()).await;
        let (code, message) = super::refusal(&answer);
        assert_eq!(code, "invalid_request");
        assert!(message.contains(&line), "{message}");
    }
}
