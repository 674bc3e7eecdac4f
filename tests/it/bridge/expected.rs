//! A door that should be connected and is not: in states, series, counts and on the status page.

use std::time::Duration;

use gsdk2mqtt::simulator::{DialMode, Fault, Simulator, SimulatorSettings};
use serde_json::{Value, json};

use crate::harness::bridge::{Bridge, Setup, another_client};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::patiently;
use crate::harness::watcher::{Seen, Watcher};

/// Waits for the state of a device that has these fields.
async fn state(watcher: &Watcher, device: u32, fields: Value) -> Value {
    let topic = format!("gsdk/lobby/{device}/state");
    let has = |seen: &Seen| {
        let fits = |state: Value| fields.as_object().unwrap().iter().all(|(k, v)| state[k] == *v);
        seen.topic == topic && fits(seen.json())
    };
    watcher.see(&fields.to_string(), has).await.json()
}

async fn device_metric(bridge: &Bridge, name: &str, device: u32) -> Option<f64> {
    bridge.metric(&format!("{name}{{gateway=\"lobby\",device_id=\"{device}\"}}")).await
}

async fn counted(bridge: &Bridge) -> [f64; 3] {
    let mut counts = [0.0; 3];
    for (count, value) in counts.iter_mut().zip(["true", "false", "unknown"]) {
        let series = format!("gsdk_gateway_devices{{gateway=\"lobby\",connected=\"{value}\"}}");
        *count = bridge.metric(&series).await.unwrap();
    }
    counts
}

/// A gateway with an empty list, with a device that dials it and one that it has to dial.
async fn two_doors() -> (Simulator, u32, (u32, String)) {
    let settings = SimulatorSettings { managed: false, ..SimulatorSettings::fast(20) };
    let simulator = Simulator::start(settings).await.unwrap();
    let doors = simulator.control().devices();
    let accepted = doors.iter().find(|door| door.mode == DialMode::DeviceToServer).unwrap();
    let dialled = |door: &&gsdk2mqtt::simulator::SiteDevice| {
        door.mode == DialMode::ServerToDevice && !door.ssl
    };
    let dialled = doors.iter().find(dialled).unwrap();
    (simulator, accepted.id, (dialled.id, dialled.ip.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_door_whose_accepted_connection_drops_is_expected_and_counts_as_down() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let (simulator, door, _) = two_doors().await;
    let lines = format!("devices = {{ {door} = {{ name = \"Gate\", connect = \"accept\" }} }}");
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, &lines).start();
    bridge.is_ready().await;
    state(&watcher, door, json!({"connected": true, "managed": true, "expected": true})).await;
    watcher.clear();
    assert_eq!(simulator.control().apply_fault(&Fault::power(door, false)), 1);
    let gone = json!({"connected": false, "managed": false});
    let state = state(&watcher, door, gone).await;
    assert_eq!(state["expected"], true, "{state}");
    assert_eq!(device_metric(&bridge, "gsdk_device_managed", door).await, Some(0.0));
    assert_eq!(device_metric(&bridge, "gsdk_device_expected", door).await, Some(1.0));
    assert_eq!(counted(&bridge).await, [0.0, 1.0, 0.0]);
    let (_, page) = bridge.get("/?show=down").await;
    assert!(page.contains("<b>1</b> not connected"), "{page}");
    assert!(page.contains("Gate") && page.contains("not in the gateway's list"), "{page}");
    let observed = "gsdk_device_observed_seconds_total";
    let before = device_metric(&bridge, observed, door).await;
    patiently("its observed time runs on", async {
        while device_metric(&bridge, observed, door).await <= before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_nothing_declares_is_no_longer_expected_once_it_left_the_list() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let (simulator, _, (door, ip)) = two_doors().await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    another_client(&simulator, &["connect", &ip]);
    state(&watcher, door, json!({"connected": true, "managed": true, "expected": true})).await;
    watcher.clear();
    assert_eq!(simulator.control().apply_fault(&Fault::power(door, false)), 1);
    state(&watcher, door, json!({"connected": false, "managed": false, "expected": false})).await;
    assert_eq!(device_metric(&bridge, "gsdk_device_expected", door).await, Some(0.0));
    assert_eq!(device_metric(&bridge, "gsdk_device_connected", door).await, Some(0.0));
    assert_eq!(counted(&bridge).await, [0.0, 0.0, 0.0]);
    let (_, page) = bridge.get("/?show=down").await;
    assert!(page.contains("<b>0</b> not connected"), "{page}");
    assert!(!page.contains(&format!("id=\"d-lobby-{door}\"")), "{page}");
    let (_, page) = bridge.get("/").await;
    assert!(page.contains("not expected"), "it can still be found: {page}");
    let observed = "gsdk_device_observed_seconds_total";
    let before = device_metric(&bridge, observed, door).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(device_metric(&bridge, observed, door).await, before, "its time does not count");
    assert_eq!(simulator.control().apply_fault(&Fault::power(door, true)), 1);
    another_client(&simulator, &["connect", &ip]);
    patiently("its observed time runs again", async {
        while device_metric(&bridge, observed, door).await <= before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(device_metric(&bridge, "gsdk_device_expected", door).await, Some(1.0));
    // From one event to the other it was absent, and never down.
    let received_at = async |kind| {
        let topic = format!("gsdk/lobby/{door}/event/{kind}");
        let event = watcher.see(kind, |seen| seen.topic == topic).await.json();
        event["received_at"].as_str().unwrap().to_owned()
    };
    let (from, to) = (received_at("disconnected").await, received_at("connected").await);
    let path = format!("/api/v1/availability?device_id={door}&from={from}&to={to}");
    patiently("who was absent all the time has no row", async {
        loop {
            let answer: Value = serde_json::from_str(&bridge.get(&path).await.1).unwrap();
            if answer["complete"] == true && answer["availability"] == json!([]) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_warns_once_of_connected_doors_that_are_no_longer_expected() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(4).await;
    let doors: Vec<u32> = simulator.control().managed().iter().map(|door| door.device_id).collect();
    let declared = format!("devices = {{ {} = {{ name = \"Gate\" }} }}", doors[0]);
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, &declared).start();
    bridge.is_ready().await;
    let warned = || {
        let log = bridge.log();
        let is_warning = |line: &&str| {
            line.contains("connected devices left the gateway's list; they are no longer expected")
        };
        log.lines().filter(is_warning).map(str::to_owned).collect::<Vec<_>>()
    };
    // A door whose removal the stream reports is no surprise.
    another_client(&simulator, &["async", "remove", &doors[1].to_string()]);
    state(&watcher, doors[1], json!({"connected": false, "expected": false})).await;
    assert_eq!(warned(), [""; 0]);

    simulator.control().restart(Duration::from_millis(100)).await;
    for door in &doors[2..] {
        state(&watcher, *door, json!({"connected": false, "expected": false})).await;
    }
    state(&watcher, doors[0], json!({"connected": false, "expected": true})).await;
    let lines = crate::harness::eventually("the warning", || {
        Some(warned()).filter(|lines| !lines.is_empty())
    })
    .await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["WARN", "gateway=\"lobby\"", "count=2", "[gateways.lobby.devices]", "connect"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
}

/// Aim: a gateway that is silent may be gone, so nothing counts beyond its last sign of life.
#[tokio::test(flavor = "multi_thread")]
async fn a_door_is_not_observed_while_its_gateway_is_silent() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let door = simulator.control().managed()[0].device_id;
    state(&watcher, door, json!({"managed": true})).await;
    assert_eq!(simulator.control().apply_fault(&Fault::Freeze { on: true }), 1);
    let observed = "gsdk_device_observed_seconds_total";
    let before = device_metric(&bridge, observed, door).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(device_metric(&bridge, observed, door).await, before);
}
