//! The commands that change nothing.

use serde_json::json;

use gsdk2mqtt::proto::connect::AcceptFilter;
use gsdk2mqtt::simulator::{Fault, Simulator, SimulatorSettings, StatusCode};

use super::Stack;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Watcher, retained};

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_read_now_in_the_form_of_their_states() {
    let stack = Stack::new(10, "").await;
    let answer = stack.ask("devices", r#"{"transaction":"42"}"#).await;
    assert_eq!((&answer["result"], &answer["transaction"]), (&json!("ok"), &json!("42")));
    assert_eq!((&answer["command"], &answer["gateway"]), (&json!("devices"), &json!("lobby")));
    assert!(answer["duration_s"].is_number() && answer.get("replayed").is_none(), "{answer}");
    let devices = answer["data"]["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 10);
    let kept = retained(stack.broker.port);
    for device in devices {
        let topic = format!("gsdk/lobby/{}/state", device["device_id"]);
        assert_eq!(*device, serde_json::from_str::<serde_json::Value>(&kept[&topic]).unwrap());
    }
    // The list has changes that the stream has not reported yet.
    let id = devices[0]["device_id"].as_u64().unwrap();
    assert_eq!(
        stack.simulator.control().apply_fault(&Fault::Silent {
            devices: u32::try_from(id).unwrap().into(),
            status: StatusCode(0)
        }),
        1
    );
    let answer = stack.ask("devices", "{}").await;
    let device = &answer["data"]["devices"][0];
    assert_eq!((&device["connected"], &device["status"]), (&json!(false), &json!("disconnected")));
    let series = "gsdk_commands_total{command=\"devices\",gateway=\"lobby\",result=\"ok\"}";
    assert_eq!(stack.bridge.metric(series).await, Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn search_pending_filter_and_slaves_are_as_the_gateway_has_them() {
    let broker = Mosquitto::start("").await;
    let settings = SimulatorSettings { managed: false, ..SimulatorSettings::fast(10) };
    let simulator = Simulator::start(settings).await.unwrap();
    let stack = Stack::with(broker, simulator, "", "").await;
    let control = stack.simulator.control();

    let answer = stack.ask("search", r#"{"wait_s":0.2}"#).await;
    let devices = answer["data"]["devices"].as_array().unwrap();
    let building = control.devices();
    assert_eq!(devices.len(), building.len());
    for (found, device) in devices.iter().zip(&building) {
        assert_eq!(found["device_id"], json!(device.id));
        assert_eq!(found["ip"], json!(device.ip));
        assert_eq!((&found["ssl"], &found["dhcp"]), (&json!(device.ssl), &json!(device.dhcp)));
    }
    assert!(answer["duration_s"].as_f64().unwrap() >= 0.2, "{answer}");

    crate::harness::eventually("a device was refused", || {
        (control.pending().len() == 2).then_some(())
    })
    .await;
    let answer = stack.ask("pending", "").await;
    let pending = answer["data"]["devices"].as_array().unwrap();
    let ids: Vec<_> = pending.iter().map(|device| &device["device_id"]).collect();
    assert_eq!(ids, [&json!(building[3].id), &json!(building[8].id)]);
    assert!(pending[0]["last_try"].as_str().unwrap().ends_with(".000Z"), "{answer}");

    let answer = stack.ask("accept_filter/get", "{}").await;
    let empty = json!({"allow_all": false, "device_ids": [], "ips": [], "subnets": []});
    assert_eq!(answer["data"], empty);
    assert_eq!(control.filter(), AcceptFilter::default());
    let answer = stack.ask("slaves/get", "{}").await;
    assert_eq!(answer["data"], json!({"slaves": []}));
}

/// Longer than the deadline of any other command.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_may_take_the_requested_time() {
    let stack = Stack::new(3, "").await;
    let args = ["-t", "gsdk/lobby/request/search", "-m", r#"{"wait_s":21}"#];
    let answer = stack.rr(&args, "40").await.expect("it is answered");
    assert_eq!(answer["result"], "ok", "{answer}");
    assert_eq!(answer["data"]["devices"].as_array().unwrap().len(), 3);
    assert!(answer["duration_s"].as_f64().unwrap() >= 21.0, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_response_topic_the_answer_is_reported_to_all() {
    let stack = Stack::new(3, "").await;
    let watcher = Watcher::start(stack.broker.port).await;
    let request = ["-V", "5", "-t", "gsdk/lobby/request/devices", "-n"];
    crate::harness::watcher::publish(stack.broker.port, &request);
    let answer = watcher.see("an answer", |seen| seen.topic == "gsdk/lobby/response/devices").await;
    assert_eq!(answer.json()["data"]["devices"].as_array().unwrap().len(), 3);
    assert!(!answer.retained);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_mqtt_3_1_1_requests_are_answered_too() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let setup = crate::harness::bridge::Setup::new(broker.port, "protocol = \"3.1.1\"");
    let _bridge = setup.gateway("lobby", &simulator, "").start();
    let watcher = Watcher::start(broker.port).await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    crate::harness::eventually("it is answered", || {
        let request = ["-t", "gsdk/lobby/request/pending", "-m", "{}"];
        crate::harness::watcher::publish(broker.port, &request);
        watcher.find(|seen| seen.topic == "gsdk/lobby/response/pending").map(drop)
    })
    .await;
}
