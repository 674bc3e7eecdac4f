//! Discovery in a real Home Assistant. Not part of `make test`: these tests need a Home Assistant,
//! which `make test-homeassistant` installs.

use std::time::Instant;

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use gsdk2mqtt::simulator::{Fault, Simulator, StatusCode};

use super::hass::Hass;
use super::{ENABLED, id};
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Watcher, publish};

/// A broker without limits of its queues.
const BROKER: &str = "max_queued_messages 0";

fn ids(simulator: &Simulator) -> Vec<u32> {
    simulator.control().managed().iter().map(|device| device.device_id).collect()
}

/// Aim: correct states and no warning after a disconnect, a lost gateway, a restart of the bridge
/// and of Home Assistant. Method: each in turn, and the states in Home Assistant.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Home Assistant: make test-homeassistant"]
async fn states_are_right_after_every_restart() {
    let broker = Mosquitto::start(BROKER).await;
    let mut hass = Hass::start(broker.port, "homeassistant");
    hass.sees("itself", |_| true).await;
    let simulator = crate::harness::simulator(3).await;
    let ids = ids(&simulator);
    let (door, other) = (id(ids[0], "connection"), id(ids[1], "connection"));
    let devices = format!(
        "[gateways.lobby.devices]\n{} = {{ name = \"Front door\", area = \"Lobby\" }}\n",
        ids[0]
    );
    let mut bridge = Setup::new(broker.port, "")
        .lines(ENABLED)
        .gateway("lobby", &simulator, "unknown_after = \"1s\"\narea = \"Cellar\"")
        .lines(&devices)
        .start();
    bridge.is_ready().await;
    hass.state(&door, "on").await;
    let seen = hass.state(&other, "on").await;
    assert_eq!(seen["attributes"]["device_class"], "connectivity");
    looks_as_documented(&hass, ids[0]).await;

    // A disconnect, and the event for automations.
    simulator.control().apply_fault(&Fault::power(ids[0], false));
    hass.state(&door, "off").await;
    hass.state(&id(ids[0], "status"), "tcp_cannot_connect").await;
    event_is(&hass, ids[0], "disconnected").await;
    hass.ran("automation.a_door_has_disconnected").await;
    assert!(hass.automation("automation.gateway_is_lost").await.is_null());
    hass.state(&other, "on").await;
    simulator.control().apply_fault(&Fault::power(ids[0], true));
    hass.state(&door, "on").await;
    event_is(&hass, ids[0], "connected").await;
    an_old_event_is_passed_over(&hass, broker.port, &simulator, [ids[0], ids[1]]).await;

    // A status that is unknown to this version: unknown, without a warning for each.
    simulator
        .control()
        .apply_fault(&Fault::Tell { devices: ids[0].into(), status: StatusCode(0x203) });
    hass.state(&door, "unknown").await;
    hass.state(&id(ids[0], "status"), "unknown").await;
    simulator.control().apply_fault(&Fault::Drop { devices: ids[0].into() });
    hass.state(&door, "on").await;
    let alert = hass.ran("automation.a_door_has_disconnected").await;

    // A lost gateway: its devices are unavailable, never disconnected.
    simulator.control().stop_listening();
    hass.state(&door, "unavailable").await;
    hass.state("gsdk_lobby_gateway_connection", "off").await;
    hass.state("gsdk_lobby_gateway_connected_devices", "unavailable").await;
    hass.ran("automation.gateway_is_lost").await;
    hass.state("gsdk_bridge_connection", "on").await;
    simulator.control().start_listening();
    simulator.control().apply_fault(&Fault::Manage);
    hass.state(&door, "on").await;
    hass.state("gsdk_lobby_gateway_connection", "on").await;
    hass.state("gsdk_lobby_gateway_connected_devices", "3").await;

    // The bridge is killed and started again.
    bridge.kill();
    hass.state("gsdk_bridge_connection", "off").await;
    hass.state("gsdk_lobby_gateway_connection", "unavailable").await;
    hass.state(&door, "unavailable").await;
    bridge.restart();
    hass.state(&door, "on").await;
    hass.state("gsdk_bridge_connection", "on").await;

    // None of this was a disconnect of the door.
    let now = hass.automation("automation.a_door_has_disconnected").await;
    assert_eq!(now, alert);

    // Home Assistant itself starts again.
    hass.restart();
    hass.sees("itself", |_| true).await;
    hass.state(&door, "on").await;
    hass.state("gsdk_lobby_gateway_connected_devices", "3").await;
    assert_eq!(hass.complaints(), Vec::<String>::new());
}

async fn event_is(hass: &Hass, device: u32, event_type: &str) {
    let key = id(device, "event");
    let what = format!("the event {event_type}");
    hass.sees(&what, |seen| {
        seen["entities"][&key]["attributes"]["event_type"] == event_type
            && seen["entities"][&key]["attributes"]["name"] == "Front door"
    })
    .await;
}

/// An event that has waited for more than five minutes starts no automation; a current one does.
async fn an_old_event_is_passed_over(
    hass: &Hass,
    broker: u16,
    simulator: &Simulator,
    [device, other]: [u32; 2],
) {
    let event = id(device, "event");
    let topic = format!("gsdk/lobby/{device}/event/disconnected");
    let mut payload = json!({ "event_type": "disconnected", "name": "Front door" });
    let ago = |minutes: i64| json!((Timestamp::now() - minutes.minutes()).to_string());
    let before = hass.sees("the event", |_| true).await["entities"][&event].clone();
    payload["received_at"] = ago(6);
    publish(broker, &["-t", &topic, "-m", &payload.to_string()]);
    // It reads in order: after a later event of another device, the old one has been read.
    simulator.control().apply_fault(&Fault::power(other, false));
    hass.state(&id(other, "connection"), "off").await;
    simulator.control().apply_fault(&Fault::power(other, true));
    hass.state(&id(other, "connection"), "on").await;
    let after = hass.sees("the event", |_| true).await["entities"][&event].clone();
    assert_eq!(after, before);
    payload["received_at"] = ago(4);
    publish(broker, &["-t", &topic, "-m", &payload.to_string()]);
    event_is(hass, device, "disconnected").await;
}

/// Names, areas, parents, categories, as in docs/home-assistant.md.
async fn looks_as_documented(hass: &Hass, door: u32) {
    hass.state("gsdk_lobby_gateway_devices", "3").await;
    let seen = hass
        .sees("the whole", |seen| seen["entities"].as_object().is_some_and(|all| all.len() == 21))
        .await;
    let device = |key: &str| seen["devices"][key].clone();
    let reader = device(&format!("gsdk_lobby_{door}"));
    assert_eq!((&reader["name"], &reader["area"]), (&json!("Front door"), &json!("Lobby")));
    assert_eq!((&reader["manufacturer"], &reader["via"]), (&json!("Suprema"), &json!(GATEWAY)));
    let gateway = device(GATEWAY);
    assert_eq!((&gateway["area"], &gateway["via"]), (&json!("Cellar"), &json!("gsdk_bridge")));
    assert_eq!(device("gsdk_bridge")["via"], Value::Null);
    let entity = |key: &str| seen["entities"][&id(door, key)].clone();
    assert_eq!(entity("connection")["entity_id"], "binary_sensor.front_door_connection");
    assert_eq!(entity("connection")["category"], Value::Null);
    assert_eq!(entity("event")["entity_id"], "event.front_door_connection_event");
    assert_eq!(entity("status")["category"], "diagnostic");
    for key in ["since", "firmware"] {
        let sensor = entity(key);
        assert_eq!(sensor["category"], "diagnostic", "{key}");
        assert_eq!(sensor["disabled"], true, "{key}");
    }
}

const GATEWAY: &str = "gsdk_lobby_gateway";

/// Aim: names with special characters, another prefix, controls that are enabled and disabled, and
/// nothing left when discovery is disabled. Method: the same bridge with four configurations.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Home Assistant: make test-homeassistant"]
async fn odd_names_another_prefix_controls_and_the_end_of_discovery() {
    let broker = Mosquitto::start(BROKER).await;
    let hass = Hass::start(broker.port, "home/ha");
    hass.sees("itself", |_| true).await;
    let simulator = crate::harness::simulator(4).await;
    let ids = ids(&simulator);
    let names = ["T\u{fc}r \"A\" 'B' {{ 1 }}", "\u{1f6aa}\u{1f510}", &"x".repeat(200)];
    let mut devices = "[gateways.lobby.devices]\n".to_owned();
    for (id, name) in ids.iter().zip(names) {
        devices += &format!("{id} = {{ name = {} }}\n", json!(name));
    }
    let mut bridge = Setup::new(broker.port, "")
        .lines("[commands]\nallow = [\"*\"]\n[home_assistant]\nenabled = true\ncontrols = true\n")
        .lines("discovery_prefix = \"home/ha\"\n")
        .gateway("lobby", &simulator, "")
        .lines(&devices)
        .start();
    bridge.is_ready().await;
    for &id in &ids {
        hass.state(&super::id(id, "connection"), "on").await;
    }
    let seen = hass.sees("names", |_| true).await;
    for (id, name) in ids.iter().zip(names) {
        assert_eq!(seen["devices"][format!("gsdk_lobby_{id}")]["name"], name);
    }

    // The controls run their commands.
    let button = id(ids[0], "disconnect");
    hass.state(&button, "unknown").await;
    let watcher = Watcher::start(broker.port).await;
    hass.call("button", "press", &button);
    let gone = |seen: &crate::harness::watcher::Seen| {
        seen.is_event_of(ids[0]) && seen.topic.ends_with("/disconnected")
    };
    watcher.see("the device is disconnected", gone).await;
    let switch = "gsdk_lobby_gateway_allow_all";
    hass.sees("the switch", |seen| {
        ["on", "off"].iter().any(|state| seen["entities"][switch]["state"] == *state)
    })
    .await;
    hass.call("switch", "turn_on", switch);
    hass.state(switch, "on").await;
    assert!(simulator.control().filter().allow_all);
    hass.call("switch", "turn_off", switch);
    hass.state(switch, "off").await;

    // Controls disabled: they are removed, the rest remains.
    restart(&mut bridge, "controls = true", "controls = false").await;
    hass.sees("no button", |seen| {
        seen["entities"].get(&button).is_none() && seen["entities"].get(switch).is_none()
    })
    .await;
    hass.state(&id(ids[0], "connection"), "on").await;

    // A forgotten device is removed. It is the one without a configuration: configured ones remain.
    let gone = format!("gsdk_lobby_{}", ids[3]);
    assert_eq!(simulator.control().apply_fault(&Fault::RemoveDevice { devices: ids[3].into() }), 1);
    let forget = json!({ "gateway": "lobby", "device_ids": [ids[3]] }).to_string();
    hass.sees("no forgotten device", |seen| {
        publish(broker.port, &["-t", "gsdk/bridge/request/forget", "-m", &forget]);
        let entities = seen["entities"].as_object().unwrap();
        seen["devices"].get(&gone).is_none() && !entities.keys().any(|key| key.starts_with(&gone))
    })
    .await;
    hass.state(&id(ids[1], "connection"), "on").await;

    // Discovery disabled: nothing remains.
    restart(&mut bridge, "enabled = true", "enabled = false").await;
    hass.sees("nothing", |seen| seen["entities"] == json!({}) && seen["devices"] == json!({}))
        .await;
    let mut complaints = hass.complaints();
    // If a device has a disabled entity, it clears the topic a second time, and warns about that.
    complaints.retain(|line| !line.contains("No device components to cleanup for gsdk_lobby_5"));
    assert_eq!(complaints, Vec::<String>::new());
}

/// Aim: the script for users sends the request and shows the response. Method: permitted, and not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Home Assistant: make test-homeassistant"]
async fn the_script_sends_a_request_and_shows_the_response() {
    let broker = Mosquitto::start(BROKER).await;
    let hass = Hass::start(broker.port, "homeassistant");
    let script = "script.gsdk_disconnect";
    hass.sees("the script", |seen| seen["automations"].get(script).is_some()).await;
    let simulator = crate::harness::simulator(2).await;
    let mut bridge = Setup::new(broker.port, "")
        .lines("[commands]\nallow = [\"disconnect\"]\n")
        .gateway("lobby", &simulator, "")
        .start();
    bridge.is_ready().await;
    let id = ids(&simulator)[0];
    let asked = |hass: &Hass| {
        hass.call_with("script", "gsdk_disconnect", &json!({ "device_id": id }));
    };
    asked(&hass);
    assert_eq!(simulator.control().calls().get("Disconnect"), Some(&1));
    let title = format!("Disconnect {id}");
    hass.sees("that it is done", |seen| seen["notified"][&title] == "done").await;
    restart(&mut bridge, "allow = [\"disconnect\"]", "allow = [\"devices\"]").await;
    asked(&hass);
    hass.sees("why it may not", |seen| {
        seen["notified"][&title].as_str().is_some_and(|text| text.contains("does not permit"))
    })
    .await;
    assert_eq!(simulator.control().calls().get("Disconnect"), Some(&1));
    assert_eq!(hass.complaints(), Vec::<String>::new());
}

async fn restart(bridge: &mut Bridge, from: &str, to: &str) {
    bridge.terminate().await;
    bridge.change(from, to);
    bridge.restart();
    bridge.is_ready().await;
}

/// Aim: a thousand devices discovered at once all have correct states, before and after a restart
/// of Home Assistant, and do not delay an event. Method: 1,000 devices on a gateway, one of which
/// disconnects during discovery.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Home Assistant: make test-homeassistant"]
async fn a_thousand_devices_are_discovered_at_once() {
    const COUNT: usize = 1_000;
    let broker = Mosquitto::start("").await;
    let mut hass = Hass::start(broker.port, "homeassistant");
    hass.sees("itself", |_| true).await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(COUNT).await;
    let ids = ids(&simulator);
    let began = Instant::now();
    let _bridge =
        Setup::new(broker.port, "").lines(ENABLED).gateway("lobby", &simulator, "").start();
    watcher.see("discovery", |seen| seen.topic.starts_with("homeassistant/device/")).await;
    let dropped = Instant::now();
    simulator.control().apply_fault(&Fault::power(ids[COUNT - 1], false));
    watcher.see("an event meanwhile", |seen| seen.is_event_of(ids[COUNT - 1])).await;
    println!("an event during discovery after {:?}", dropped.elapsed());

    let right = |seen: &Value| {
        let shows = |(at, device): (usize, &u32)| {
            let state = if at == COUNT - 1 { "off" } else { "on" };
            seen["entities"][id(*device, "connection")]["state"] == state
        };
        ids.iter().enumerate().all(shows)
    };
    hass.sees("a thousand right states", right).await;
    println!("{COUNT} devices shown after {:?}", began.elapsed());
    let began = Instant::now();
    hass.restart();
    hass.sees("a thousand right states after a restart", right).await;
    println!("and after its restart within {:?}", began.elapsed());
    let mut complaints = hass.complaints();
    // Its single thread reads a thousand messages before it reads the acknowledgement of a
    // subscription.
    complaints.retain(|line| !line.contains("No ACK from MQTT server"));
    assert_eq!(complaints, Vec::<String>::new());
}
