//! Model, firmware and MAC address of devices: where they are shown, and how they are read.

use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::{Fault, Simulator};
use serde_json::Value;

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::eventually;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Seen, Watcher, publish, retained};

/// Waits for a state of this device.
async fn state(watcher: &Watcher, device: u32, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let topic = format!("gsdk/lobby/{device}/state");
    let found = |seen: &Seen| seen.topic == topic && fits(&seen.json());
    watcher.see(what, found).await.json()
}

fn asked(simulator: &Simulator) -> u64 {
    simulator.control().calls().get("GetInfo").copied().unwrap_or_default()
}

fn firmware(simulator: &Simulator, device: u32, version: &str) {
    let (devices, version) = (device.into(), version.to_owned());
    assert_eq!(simulator.control().apply_fault(&Fault::Firmware { devices, version }), 1);
}

async fn info(bridge: &Bridge, device: u32) -> String {
    let (_, text) = bridge.get("/metrics").await;
    let begin = format!("gsdk_device_info{{gateway=\"lobby\",device_id=\"{device}\"");
    text.lines().find(|line| line.starts_with(&begin)).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn device_details_are_shown_everywhere_and_stored() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(2).await;
    let devices = simulator.control().devices();
    let (one, other) = (devices[0].id, devices[1].id);
    let areas = format!("area = \"Cellar\"\ndevices = {{ {one} = {{ area = \"Lobby\" }} }}");
    let mut bridge = Setup::new(broker.port, "")
        .lines("[home_assistant]\nenabled = true\n")
        .gateway("lobby", &simulator, &areas)
        .start();
    let known = |state: &Value| !state["firmware"].is_null();
    let first = state(&watcher, one, "its firmware", known).await;
    assert_eq!((&first["model"], &first["area"]), (&"BioEntry W2".into(), &"Lobby".into()));
    assert!(first["mac"].as_str().unwrap().starts_with("00:17:fc:"), "{first}");
    let second = state(&watcher, other, "its firmware", known).await;
    assert_eq!((&second["model"], &second["area"]), (&"BioStation L2".into(), &"Cellar".into()));

    watcher.clear();
    firmware(&simulator, one, "9.8.7");
    state(&watcher, one, "the new firmware", |state| state["firmware"] == "9.8.7").await;
    let labels = "model=\"BioEntry W2\",firmware=\"9.8.7\"} 1";
    assert!(info(&bridge, one).await.ends_with(labels), "{}", info(&bridge, one).await);
    let (_, page) = bridge.get("/?q=9.8.7").await;
    assert!(page.contains(&format!("id=\"d-lobby-{one}\"")) && !page.contains("BioStation L2"));
    let topic = format!("homeassistant/device/gsdk_lobby_{one}/config");
    let discovered = eventually("discovery has the firmware", || {
        let discovery: Value = serde_json::from_str(retained(broker.port).get(&topic)?).unwrap();
        (discovery["device"]["sw_version"] == "9.8.7").then_some(discovery)
    })
    .await;
    assert_eq!(discovered["device"]["model"], "BioEntry W2");
    assert_eq!(discovered["device"]["suggested_area"], "Lobby");
    assert_eq!(discovered["components"]["firmware"]["enabled_by_default"], false);

    // The next process has it before any device answers.
    let control = simulator.control();
    control.apply_fault(&Fault::fail("GetInfo", tonic::Code::DeadlineExceeded, "busy"));
    bridge.kill();
    watcher.clear();
    bridge.restart();
    bridge.is_ready().await;
    let kept = state(&watcher, one, "a state", |_| true).await;
    assert_eq!((&kept["firmware"], &kept["mac"]), (&"9.8.7".into(), &first["mac"]));
    let topic = format!("gsdk/lobby/{one}/state");
    let before = retained(broker.port)[&topic].clone();
    watcher.clear();
    publish(broker.port, &["-t", "gsdk/bridge/request/republish", "-m", "{}"]);
    let again = watcher.see("it is published again", |seen| seen.topic == topic).await;
    assert_eq!(again.payload, before, "to the byte");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_devices_a_second_are_read_each_once_in_a_connection() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(15).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    eventually("the first is asked", || (asked(&simulator) > 0).then_some(())).await;
    let started = Instant::now();
    eventually("all are asked", || (asked(&simulator) == 15).then_some(())).await;
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(1_300), "15 devices in {took:?}");
    // Another link, on which no device connected again.
    simulator.control().apply_fault(&Fault::CutConnections);
    let starts = "gsdk_gateway_stream_starts_total{gateway=\"lobby\"}";
    crate::harness::patiently("another link", async {
        while bridge.metric(starts).await < Some(2.0) {
            tokio::time::sleep(crate::harness::LOOK_EVERY).await;
        }
    })
    .await;
    bridge.is_ready().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(asked(&simulator), 15);
    let one = simulator.control().devices()[0].id;
    simulator.control().apply_fault(&Fault::Drop { devices: one.into() });
    eventually("the reconnected one is read", || (asked(&simulator) == 16).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_answer_is_called_once_and_is_no_error() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(5).await;
    let control = simulator.control();
    let unknown = "unknown service gsdk.device.Device";
    control.apply_fault(&Fault::fail("GetInfo", tonic::Code::Unimplemented, unknown));
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    eventually("it is asked", || (asked(&simulator) > 0).then_some(())).await;
    let one = control.devices()[0].id;
    control.apply_fault(&Fault::Drop { devices: one.into() });
    let back = |seen: &Seen| seen.topic == format!("gsdk/lobby/{one}/event/connected");
    watcher.see("it is back", back).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(asked(&simulator), 1, "not again on this link");
    let of_one = state(&watcher, one, "its state", |state| state["connected"] == true).await;
    assert!(of_one["model"].is_null() && of_one["firmware"].is_null(), "{of_one}");
    assert!(info(&bridge, one).await.ends_with("model=\"\",firmware=\"\"} 1"));
    let (code, ready) = bridge.get("/readyz").await;
    assert!(code == 200 && ready.contains("\"degraded\":[]"), "{ready}");
    let (_, log) = bridge.stop().await;
    assert!(!log.contains("GetInfo"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn if_disabled_no_device_is_read_and_stored_details_are_not_shown() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(1).await;
    let one = simulator.control().devices()[0].id;
    let setup = Setup::new(broker.port, "").top("device_details = true");
    let mut bridge = setup.gateway("lobby", &simulator, "").start();
    state(&watcher, one, "its firmware", |state| !state["firmware"].is_null()).await;
    bridge.terminate().await;
    bridge.change("device_details = true", "device_details = false");
    watcher.clear();
    bridge.restart();
    bridge.is_ready().await;
    let off = state(&watcher, one, "its state", |state| state["connected"] == true).await;
    assert!(off["firmware"].is_null() && off["mac"].is_null(), "{off}");
    assert_eq!(asked(&simulator), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn home_assistant_can_be_limited_to_declared_devices() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let one = simulator.control().devices()[0].id;
    let name = format!("devices = {{ {one} = {{ name = \"Front door\" }} }}");
    let mut bridge = Setup::new(broker.port, "")
        .lines("[home_assistant]\nenabled = true\ninclude = \"all\"\n")
        .gateway("lobby", &simulator, &name)
        .start();
    let described = || -> Vec<String> {
        let topics = retained(broker.port).into_keys();
        topics.filter(|topic| topic.starts_with("homeassistant/")).collect()
    };
    eventually("all are described", || (described().len() == 5).then_some(())).await;
    bridge.terminate().await;
    bridge.change("include = \"all\"", "include = \"declared\"");
    bridge.restart();
    let removed = async {
        while described().len() != 3 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    // Not in the first 60 s of a session.
    tokio::time::timeout(Duration::from_secs(90), removed).await.expect("the others are removed");
    let topic = format!("homeassistant/device/gsdk_lobby_{one}/config");
    assert!(described().contains(&topic), "{:?}", described());
}
