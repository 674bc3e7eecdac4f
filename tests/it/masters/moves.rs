//! Devices and gateways that move.

use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::{Fault, Simulator};
use serde_json::{Value, json};

use super::{Campus, NO_AUDIT, SOON_LOST};
use crate::harness::bridge::{PROGRAM, Setup};
use crate::harness::master::{Master, behind};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Watcher, check_chain};
use crate::harness::{bounded, eventually};

/// A device in the subnet of the gateway `north`.
const IP: &str = "192.168.0.77";

fn fault(fault: Value) -> Fault {
    serde_json::from_value(fault).unwrap()
}

fn add_to_north(campus: &Campus, device: u32, mode: &str) {
    campus.master.fault(&fault(json!({
        "do": "add_device", "id": device, "type": "bioentry_w2", "ip": IP, "mode": mode,
    })));
}

fn remove(campus: &Campus, device: u32) {
    campus.master.fault(&fault(json!({ "do": "remove_device", "devices": [device] })));
}

async fn register(campus: &Campus, gateway: &str, device: u32) {
    let payload = json!({ "devices": [{ "device_id": device, "ip": IP }] }).to_string();
    let answer = campus.ask(gateway, "async/add", &payload).await;
    assert_eq!(answer["result"], "ok", "{answer}");
}

async fn accept_all(campus: &Campus, gateway: &str) {
    let answer = campus.ask(gateway, "accept_filter/allow_all", r#"{"enabled":true}"#).await;
    assert_eq!(answer["result"], "ok", "{answer}");
}

async fn see_connected(campus: &Campus, gateway: &str, device: u32, connected: bool) {
    let topic = format!("gsdk/{gateway}/{device}/state");
    let what = format!("connected: {connected}");
    campus.see(&topic, &what, |state| state["connected"] == connected).await;
}

/// The names of the events of a device at a gateway.
fn events_at(campus: &Campus, gateway: &str, device: u32) -> Vec<String> {
    let prefix = format!("gsdk/{gateway}/{device}/event/");
    let all = campus.watcher.all();
    all.iter().filter_map(|seen| seen.topic.strip_prefix(&prefix).map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_a_gateway_that_is_gone_is_seen_where_it_is_registered_now() {
    let campus = Campus::named_with(2, NO_AUDIT).await;
    campus.bridge.is_ready().await;
    let device = 700_000_001;
    add_to_north(&campus, device, "server_to_device");
    campus.master.fault(&Fault::power(device, false));
    register(&campus, "south", device).await;
    see_connected(&campus, "south", device, false).await;
    campus.master.link("gateway2", false, true);
    campus.see_state("south", "offline").await;
    register(&campus, "north", device).await;
    see_connected(&campus, "north", device, false).await;
    // Long enough that no list is read after its command.
    tokio::time::sleep(Duration::from_secs(4)).await;
    campus.master.fault(&Fault::power(device, true));
    campus.see_event(&format!("north/{device}"), "connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_dials_another_gateway_is_not_shown_at_the_old_one() {
    let campus = Campus::named_with(4, NO_AUDIT).await;
    campus.bridge.is_ready().await;
    accept_all(&campus, "north").await;
    let dials = |state: &Value| state["mode"] == "device_to_server" && state["connected"] == true;
    let of_south = &campus.master.devices[1];
    let device = *of_south
        .iter()
        .find(|device| {
            let topic = format!("gsdk/south/{device}/state");
            campus.watcher.find(|seen| seen.topic == topic && dials(&seen.json())).is_some()
        })
        .unwrap();
    remove(&campus, device);
    let old = format!("gsdk/south/{device}/state");
    campus.see(&old, "no longer listed", |state| state["managed"] == false).await;
    campus.watcher.clear();
    add_to_north(&campus, device, "device_to_server");
    see_connected(&campus, "north", device, true).await;
    assert_eq!(events_at(&campus, "south", device), Vec::<String>::new());
    campus.see_cleared(&old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_two_gateways_have_is_shown_at_each_as_its_list_has_it() {
    let campus = Campus::named_with(2, NO_AUDIT).await;
    campus.bridge.is_ready().await;
    let device = 700_000_001;
    add_to_north(&campus, device, "server_to_device");
    register(&campus, "south", device).await;
    see_connected(&campus, "south", device, false).await;
    register(&campus, "north", device).await;
    see_connected(&campus, "north", device, true).await;
    // The failed attempts of the other gateway are not its own.
    campus.watcher.clear();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(events_at(&campus, "north", device), Vec::<String>::new());
    assert!(!events_at(&campus, "south", device).contains(&"connected".to_owned()));
    campus.master.fault(&Fault::power(device, false));
    see_connected(&campus, "north", device, false).await;
    campus.watcher.clear();
    campus.master.fault(&Fault::power(device, true));
    see_connected(&campus, "north", device, true).await;
    // With one gateway only, its statuses are certain again.
    let payload = json!({ "device_ids": [device] }).to_string();
    campus.ask("south", "async/remove", &payload).await;
    campus.see_cleared(&format!("gsdk/south/{device}/state")).await;
    campus.watcher.clear();
    campus.master.fault(&Fault::power(device, false));
    let event = campus.see_event(&format!("north/{device}"), "disconnected").await;
    assert_eq!(event["source"], "stream", "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_device_that_another_client_registers_elsewhere_stays_connected() {
    let campus = Campus::named_with(2, NO_AUDIT).await;
    campus.bridge.is_ready().await;
    let device = 700_000_001;
    add_to_north(&campus, device, "server_to_device");
    register(&campus, "north", device).await;
    see_connected(&campus, "north", device, true).await;
    let mut another = bounded(PROGRAM);
    another.arg("ctl").arg("--config").arg(campus.bridge.config_file());
    another.args(["--gateway", "south", "async", "add", &format!("{device}=192.0.2.9")]);
    let out = another.output().unwrap();
    assert!(out.status.success(), "{out:?}");
    // Its failed attempts are shown where they are made.
    see_connected(&campus, "south", device, false).await;
    let events = events_at(&campus, "north", device);
    assert!(!events.iter().any(|event| event == "disconnected"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_device_is_found_soon_although_a_lookup_fails() {
    let campus = Campus::named_with(2, NO_AUDIT).await;
    campus.bridge.is_ready().await;
    accept_all(&campus, "north").await;
    campus.master.fault(&fault(json!({
        "do": "fail", "method": "Get", "code": "not_found", "times": 1,
    })));
    let (device, started) = (700_000_001, Instant::now());
    add_to_north(&campus, device, "device_to_server");
    see_connected(&campus, "north", device, true).await;
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_moves_ends_at_the_old_gateway_and_begins_at_the_new_one() {
    let campus = Campus::named_with(4, NO_AUDIT).await;
    campus.bridge.is_ready().await;
    let device = campus.master.devices[1][0];
    let (old, new) = (format!("gsdk/south/{device}/state"), format!("gsdk/north/{device}/state"));
    campus.see(&old, "connected", |state| state["connected"] == true).await;
    campus.watcher.clear();
    remove(&campus, device);
    let payload = format!(r#"{{"device_ids":[{device}]}}"#);
    campus.ask("south", "async/remove", &payload).await;
    add_to_north(&campus, device, "server_to_device");
    campus.master.fault(&Fault::Manage);
    campus.see(&new, "connected", |state| state["connected"] == true).await;
    let of_new = format!("gsdk/north/{device}/event/");
    let first = campus.watcher.find(|seen| seen.topic.starts_with(&of_new));
    assert!(first.is_none_or(|event| event.json()["seq"] == 1), "it is a new device");
    let event = format!("gsdk/south/{device}/event/disconnected");
    campus.see(&event, "the last event", |_| true).await;
    campus.see_cleared(&old).await;
    // Its statuses belong to the new gateway from now on.
    campus.watcher.clear();
    campus.master.fault(&Fault::power(device, false));
    let event = format!("gsdk/north/{device}/event/disconnected");
    campus.see(&event, "an event", |_| true).await;
    assert!(
        campus
            .watcher
            .find(|seen| seen.topic.starts_with("gsdk/south/") && seen.topic.contains("event"))
            .is_none()
    );
}

/// The same gateway, first at an address of its own and then behind a master.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_moves_behind_a_master_keeps_chain_and_entities() {
    let (broker, direct) = (Mosquitto::start("").await, crate::harness::simulator(5).await);
    let watcher = Watcher::start(broker.port).await;
    let master = Master::start(&["Gateway-North"], 5).await;
    let ha = "[home_assistant]\nenabled = true\n";
    let setup = Setup::new(broker.port, "").lines(ha).gateway("north", &direct, SOON_LOST);
    let mut bridge = setup.start();
    let device = master.devices[0][0];
    let power = |simulator: &Simulator, on| {
        assert_eq!(simulator.control().apply_fault(&Fault::power(device, on)), 1);
    };
    watcher.see_text("gsdk/north/state", "online").await;
    power(&direct, false);
    eventually("the first event", || watcher.events_of(device).first().cloned()).await;
    let discovery = format!("homeassistant/device/gsdk_north_{device}/config");
    let before = watcher.see("discovery", |seen| seen.topic == discovery).await;
    bridge.terminate().await;
    let table = behind("north", "campus", "Gateway-North", SOON_LOST);
    bridge.configure(|text| {
        let head = text.split_once("[gateways.north]").unwrap().0.to_owned();
        format!("{head}{}{table}", master.table("campus", ""))
    });
    bridge.restart();
    let like = |seen: &crate::harness::watcher::Seen| {
        seen.topic == "gsdk/north/info" && seen.payload.contains("\"gateway_id\":\"Gateway-North\"")
    };
    watcher.see("behind the master", like).await;
    bridge.is_ready().await;
    power(&master.simulator, false);
    power(&master.simulator, true);
    // Back by a resync, then down and up by the stream.
    let events = eventually("four events", || {
        let events = watcher.events_of(device);
        (events.len() >= 4).then_some(events)
    })
    .await;
    check_chain(&events);
    let after = watcher.all().into_iter().rfind(|seen| seen.topic == discovery).unwrap();
    assert_eq!(after.payload, before.payload, "the entities are the same");
}
