//! What commands and the configuration want kept is stored by the master, which gives it to a
//! gateway again.

use gsdk2mqtt::gsdk::{AcceptFilter, Target};
use gsdk2mqtt::ids::{DEVICE_PORT, DeviceId};
use gsdk2mqtt::simulator::{DialMode, Fault, SimulatorSettings};
use serde_json::Value;
use tonic::Code;

use super::{Campus, SOON_LOST};
use crate::harness::bridge::PROGRAM;
use crate::harness::master::{Master, behind};
use crate::harness::{bounded, eventually};

async fn unmanaged() -> Master {
    let change = |settings| SimulatorSettings { managed: false, ..settings };
    Master::idle(&["Gateway-North", "gateway2"], 10, change).await
}

/// The same; a `...DB` call does not change a connected gateway, so that it can lack what is
/// stored.
async fn storing_only() -> Master {
    let change = |mut settings: SimulatorSettings| {
        settings.master.as_mut().unwrap().stored_is_applied = false;
        SimulatorSettings { managed: false, ..settings }
    };
    Master::idle(&["Gateway-North", "gateway2"], 10, change).await
}

fn registration(id: u32, ip: &str) -> (DeviceId, Target) {
    let target = Target { ip: ip.parse().unwrap(), port: DEVICE_PORT, ssl: false };
    (DeviceId::new(id).unwrap(), target)
}

/// A device of a gateway in this mode, without SSL.
fn device(master: &Master, at: usize, mode: DialMode) -> (u32, String) {
    let devices = master.simulator.control().devices();
    let fits = |device: &&gsdk2mqtt::simulator::SiteDevice| {
        master.devices[at].contains(&device.id) && device.mode == mode && !device.ssl
    };
    let device = devices.iter().find(fits).unwrap();
    (device.id, device.ip.to_string())
}

/// Another client of the master, with the same configuration.
fn another_client(campus: &Campus, words: &[&str]) {
    let mut command = bounded(PROGRAM);
    command.arg("ctl").arg("--config").arg(campus.bridge.config_file());
    let out = command.args(["--gateway", "north"]).args(words).output().unwrap();
    assert!(out.status.success(), "{out:?}");
}

/// The gateway `north` with one device to register, and one to accept.
fn declared(registered: u32, ip: &str, accepted: u32) -> String {
    let devices = format!(
        "{SOON_LOST}\n[gateways.north.devices]\n\
         {registered} = {{ connect = \"async\", ip = \"{ip}\" }}\n\
         {accepted} = {{ connect = \"accept\" }}"
    );
    behind("north", "campus", "Gateway-North", &devices)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_registers_comes_back_with_its_gateway() {
    let master = unmanaged().await;
    let (id, ip) = device(&master, 0, DialMode::ServerToDevice);
    let (dialing, _) = device(&master, 0, DialMode::DeviceToServer);
    let lines = behind("north", "campus", "Gateway-North", SOON_LOST);
    let campus = Campus::with(master, "", &lines).await;
    campus.see_state("north", "online").await;
    campus.bridge.is_ready().await;
    let payload = format!(r#"{{"devices":[{{"device_id":{id},"ip":"{ip}"}}]}}"#);
    let answer = campus.ask("north", "async/add", &payload).await;
    assert_eq!(answer["result"], "ok", "{answer}");
    let payload = format!(r#"{{"device_ids":[{dialing}]}}"#);
    let answer = campus.ask("north", "accept_filter/add", &payload).await;
    assert_eq!(answer["result"], "ok", "{answer}");
    let connected = |state: &Value| state["connected"] == true;
    let topics = [id, dialing].map(|id| format!("gsdk/north/{id}/state"));
    for topic in &topics {
        let state = campus.see(topic, "connected", connected).await;
        assert_eq!(state["kept"], "command", "{state}");
    }
    campus.watcher.clear();
    campus.master.link("Gateway-North", false, true);
    campus.see_state("north", "offline").await;
    campus.watcher.clear();
    campus.master.link("Gateway-North", true, false);
    for topic in &topics {
        campus.see(topic, "connected", connected).await;
    }
    let added = campus.master.calls("AddAsyncConnection");
    assert_eq!(added, 1, "the master gave it again, not the bridge");
    let restored = "gsdk/north/event/restored";
    assert!(campus.watcher.find(|seen| seen.topic == restored).is_none());
    // A change that only the gateway has is reported as such.
    for (method, command, payload) in [
        (
            "AddAsyncConnectionDB",
            "async/add",
            format!(r#"{{"devices":[{{"device_id":{id},"ip":"{ip}"}}]}}"#),
        ),
        ("SetAcceptFilterDB", "accept_filter/allow_all", r#"{"enabled":true}"#.to_owned()),
    ] {
        campus.master.fault(&Fault::fail(method, Code::Internal, "no space"));
        let answer = campus.ask("north", command, &payload).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("unless it is repeated the master may undo it"),
            "{command}: {answer}"
        );
        campus.master.fault(&Fault::Heal);
        let answer = campus.ask("north", command, &payload).await;
        assert_eq!(answer["result"], "ok", "{command}: {answer}");
    }
    // Removed is removed in both places.
    let payload = format!(r#"{{"device_ids":[{id}]}}"#);
    let answer = campus.ask("north", "async/remove", &payload).await;
    assert_eq!(answer["result"], "ok", "{answer}");
    campus.watcher.clear();
    campus.master.link("Gateway-North", false, true);
    campus.see_state("north", "offline").await;
    campus.master.link("Gateway-North", true, false);
    campus.see_event("north", "reachable").await;
    campus.see(&topics[0], "gone", |state| state["managed"] == false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_client_takes_out_of_the_database_is_withdrawn() {
    let master = unmanaged().await;
    let (id, ip) = device(&master, 0, DialMode::ServerToDevice);
    let lines = behind("north", "campus", "Gateway-North", SOON_LOST);
    let campus = Campus::with(master, "", &lines).await;
    campus.see_state("north", "online").await;
    campus.bridge.is_ready().await;
    let payload = format!(r#"{{"devices":[{{"device_id":{id},"ip":"{ip}"}}]}}"#);
    assert_eq!(campus.ask("north", "async/add", &payload).await["result"], "ok");
    // Seen in the database once, after a list that was requested when the command had ended: one
    // may have been requested while it ran.
    let read = campus.master.calls("GetAsyncConnectionDB");
    eventually("the database is read", || {
        (campus.master.calls("GetAsyncConnectionDB") > read + 1).then_some(())
    })
    .await;
    another_client(&campus, &["async", "remove", &id.to_string()]);
    let event = campus.see_event("north", "withdrawn").await;
    assert_eq!(event["device_ids"], serde_json::json!([id]), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_declares_is_stored_once() {
    let master = unmanaged().await;
    let (id, ip) = device(&master, 0, DialMode::ServerToDevice);
    let (dialing, _) = device(&master, 0, DialMode::DeviceToServer);
    let lines = declared(id, &ip, dialing);
    let mut campus = Campus::with(master, "", &lines).await;
    for id in [id, dialing] {
        let topic = format!("gsdk/north/{id}/state");
        let state = campus.see(&topic, "connected", |state| state["connected"] == true).await;
        assert_eq!(state["kept"], "config");
    }
    campus.see_event("north", "restored").await;
    let stored = campus.master.calls("AddAsyncConnectionDB");
    assert_eq!((stored, campus.master.calls("SetAcceptFilterDB")), (1, 1));
    // The next process finds it in the database.
    campus.bridge.terminate().await;
    campus.watcher.clear();
    campus.bridge.restart();
    campus.see_state("north", "online").await;
    let read = campus.master.calls("GetAsyncConnectionDB");
    eventually("the database is read", || {
        (campus.master.calls("GetAsyncConnectionDB") > read).then_some(())
    })
    .await;
    assert_eq!(campus.master.calls("AddAsyncConnectionDB"), stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_master_has_is_given_to_the_gateway_at_the_next_link() {
    let master = storing_only().await;
    let (id, ip) = device(&master, 0, DialMode::ServerToDevice);
    let (dialing, _) = device(&master, 0, DialMode::DeviceToServer);
    let lines = declared(id, &ip, dialing);
    let campus = Campus::with(master, "", &lines).await;
    let topics = [id, dialing].map(|id| format!("gsdk/north/{id}/state"));
    for topic in &topics {
        campus.see(topic, "connected", |state| state["connected"] == true).await;
    }
    // Another client takes both away at the gateway, and leaves them in the database.
    let (registered, other) = (registration(id, &ip), campus.master.client("Gateway-North").await);
    let stored = other.stored().unwrap();
    other.async_remove(&[registered.0].into()).await.unwrap();
    stored.register(&[registered]).await.unwrap();
    other.set_accept_filter(&AcceptFilter::default()).await.unwrap();
    assert!(stored.registered().await.unwrap().contains(&registered.0));
    assert!(!stored.accept_filter().await.unwrap().device_ids.is_empty());
    campus.watcher.clear();
    campus.master.fault(&Fault::CutConnections);
    for what in ["accept_filter", "async_connections"] {
        let is_it = |event: &Value| event["what"] == what;
        campus.see("gsdk/north/event/restored", what, is_it).await;
    }
    campus.see(&topics[0], "connected", |state| state["connected"] == true).await;
    let other = campus.master.client("Gateway-North").await;
    let filter = other.accept_filter().await.unwrap();
    assert_eq!(filter.device_ids, [DeviceId::new(dialing).unwrap()].into());
    let withdrawn = "gsdk/north/event/withdrawn";
    assert!(campus.watcher.find(|seen| seen.topic == withdrawn).is_none());
}

/// The gateway would dial it again at its next connection to the master.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_only_the_master_has_can_be_removed() {
    let master = storing_only().await;
    let (id, ip) = device(&master, 0, DialMode::ServerToDevice);
    let lines = behind("north", "campus", "Gateway-North", SOON_LOST);
    let campus = Campus::with(master, "", &lines).await;
    campus.see_state("north", "online").await;
    campus.bridge.is_ready().await;
    let other = campus.master.client("Gateway-North").await;
    let stored = other.stored().unwrap();
    stored.register(&[registration(id, &ip)]).await.unwrap();
    let answer =
        campus.ask("north", "async/remove", &format!(r#"{{"device_ids":[{id},1]}}"#)).await;
    assert_eq!(answer["result"], "partial", "{answer}");
    assert_eq!(answer["data"]["device_ids"], serde_json::json!([id]), "{answer}");
    assert_eq!(answer["device_errors"][0]["device_id"], 1, "{answer}");
    assert!(stored.registered().await.unwrap().is_empty());
    let answer = campus.ask("north", "async/remove", &format!(r#"{{"device_ids":[{id}]}}"#)).await;
    assert_eq!(answer["error"]["code"], "not_found", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slaves_are_stored_and_undone() {
    let campus = Campus::named(3).await;
    campus.bridge.is_ready().await;
    let [master, slave] = [campus.master.devices[0][0], campus.master.devices[0][1]];
    let payload =
        format!(r#"{{"slaves":[{{"device_id":{master},"rs485":[{slave}],"wiegand":[]}}]}}"#);
    let answer = campus.ask("north", "slaves/set", &payload).await;
    assert_eq!(answer["result"], "ok", "{answer}");
    assert_eq!(campus.master.calls("AddSlaveDeviceDB"), 1);
    let answer = campus.ask("north", "slaves/get", "{}").await;
    assert_eq!(answer["data"]["slaves"][0]["rs485"], serde_json::json!([slave]), "{answer}");
    let payload = format!(r#"{{"slaves":[{{"device_id":{master},"rs485":[],"wiegand":[]}}]}}"#);
    assert_eq!(campus.ask("north", "slaves/set", &payload).await["result"], "ok");
    assert_eq!(campus.master.calls("DeleteSlaveDeviceDB"), 1);
}
