//! Which items the bridge keeps after commands on items that the gateway has lost.

use std::time::Duration;

use serde_json::{Value, json};

use gsdk2mqtt::simulator::Fault;

use super::remembered::{kept, new_stack};
use super::{Stack, refusal};
use crate::harness::{eventually, patiently};

/// Restarts the gateway, and waits until what is missing on its next link was added.
async fn restart(stack: &Stack) {
    let control = stack.simulator.control();
    let series = "gsdk_gateway_stream_starts_total{gateway=\"lobby\"}";
    let starts = stack.bridge.metric(series).await;
    control.restart(Duration::from_millis(100)).await;
    patiently("the link is back", async {
        while stack.bridge.metric(series).await == starts {}
    })
    .await;
    stack.bridge.is_ready().await;
    let lists = || control.calls().get("GetDeviceList").copied().unwrap_or_default();
    let before = lists();
    eventually("two audits", || (lists() > before + 1).then_some(())).await;
}

/// Aim: commands remove what the bridge keeps while the gateway does not have it. Method: the
/// gateway restarts and refuses the registration.
#[tokio::test(flavor = "multi_thread")]
async fn items_that_the_gateway_has_lost_are_removed() {
    let (stack, _watcher) = new_stack().await;
    let control = stack.simulator.control();
    let (id, ip) = (control.devices()[0].id, control.devices()[0].ip);
    let add = json!({"devices": [{"device_id": id, "ip": ip}]}).to_string();
    assert_eq!(stack.ask("async/add", &add).await["result"], "ok");
    let slaves = json!({"slaves": [{"device_id": id, "rs485": [7]}]}).to_string();
    assert_eq!(stack.ask("slaves/set", &slaves).await["result"], "ok");
    control.apply_fault(&Fault::RefuseRegistration { devices: id.into(), on: true });
    restart(&stack).await;
    assert!(control.managed().is_empty(), "{:?}", control.managed());
    kept(&stack, id, &json!("command")).await;

    let none = json!({"slaves": [{"device_id": id}]}).to_string();
    let answer = stack.ask("slaves/set", &none).await;
    assert_eq!(answer["result"], "ok", "{answer}");
    let answer = stack.ask("slaves/set", &slaves).await;
    assert_eq!(refusal(&answer).0, "not_found", "the gateway does not have the device");
    let ids = json!({"device_ids": [id, 7]}).to_string();
    let answer = stack.ask("async/remove", &ids).await;
    assert_eq!(answer["data"]["device_ids"], json!([id]), "{answer}");
    assert_eq!(answer["device_errors"][0]["device_id"], 7, "{answer}");
    kept(&stack, id, &Value::Null).await;
    let answer = stack.ask("async/remove", &ids).await;
    assert_eq!(refusal(&answer).0, "not_found", "it is not kept any more");
    let forget = json!({"gateway": "lobby", "device_id": id}).to_string();
    let answer = stack.ask_of("bridge", "forget", &forget).await;
    assert_eq!(answer["result"], "ok", "{answer}");

    control.apply_fault(&Fault::RefuseRegistration { devices: id.into(), on: false });
    restart(&stack).await;
    assert!(control.managed().is_empty() && control.slaves().is_empty(), "nothing is added");
}
