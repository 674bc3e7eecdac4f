//! Model, firmware and MAC address of devices behind a master.

use super::Campus;
use crate::harness::{eventually, watcher::retained};
use gsdk2mqtt::simulator::Fault;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_behind_a_master_shows_what_it_is() {
    let campus = Campus::named(2).await;
    let device = campus.master.devices[1][0];
    let topic = format!("gsdk/south/{device}/state");
    let state = campus.see(&topic, "its firmware", |state| !state["firmware"].is_null()).await;
    assert!(state["mac"].as_str().unwrap().starts_with("00:17:fc:"), "{state}");
    assert!(state["model"].is_string(), "{state}");
    let (devices, version) = (device.into(), "9.8.7".to_owned());
    campus.master.fault(&Fault::Firmware { devices, version });
    campus.see(&topic, "the new firmware", |state| state["firmware"] == "9.8.7").await;
    let (_, metrics) = campus.bridge.get("/metrics").await;
    let begin = format!("gsdk_device_info{{gateway=\"south\",device_id=\"{device}\"");
    let series = metrics.lines().find(|line| line.starts_with(&begin)).unwrap();
    assert!(series.contains("firmware=\"9.8.7\""), "{series}");
    // Each was asked once, and one again that was connected again.
    eventually("all are asked", || (campus.master.calls("GetInfo") == 7).then_some(())).await;
    assert!(retained(campus.broker.port)[&topic].contains("9.8.7"));
}
