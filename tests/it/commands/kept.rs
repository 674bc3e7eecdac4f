//! Which items the bridge keeps after commands on items that the gateway has lost, and after
//! commands without an answer in time.

use std::time::Duration;

use serde_json::{Value, json};

use gsdk2mqtt::simulator::Fault;

use super::remembered::{kept, new_stack};
use super::{Stack, refusal};
use crate::harness::{eventually, patiently};

/// Restarts the gateway, and waits until what is missing on its next link was added.
pub(super) async fn restart(stack: &Stack) {
    let control = stack.simulator.control();
    let series = "gsdk_gateway_stream_starts_total{gateway=\"lobby\"}";
    let starts = stack.bridge.metric(series).await;
    control.restart(Duration::from_millis(100)).await;
    patiently("the link is back", async { while stack.bridge.metric(series).await == starts {} })
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
    // The bridge has read a list with the device.
    kept(&stack, id, &json!("command")).await;
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
    assert_eq!(answer["device_errors"].as_array().map(Vec::len), Some(2), "each: {answer}");
    let forget = json!({"gateway": "lobby", "device_id": id}).to_string();
    let answer = stack.ask_of("bridge", "forget", &forget).await;
    assert_eq!(answer["result"], "ok", "{answer}");

    control.apply_fault(&Fault::RefuseRegistration { devices: id.into(), on: false });
    restart(&stack).await;
    assert!(control.managed().is_empty() && control.slaves().is_empty(), "nothing is added");
}

/// Aim: a change without an answer in time that the gateway has made is kept like another, and no
/// removal of ours is reported as another client's. Method: answers arrive after `timeout_s`.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_timed_out_is_kept_if_it_was_made() {
    let (stack, watcher) = new_stack().await;
    let control = stack.simulator.control();
    let (id, ip) = (control.devices()[0].id, control.devices()[0].ip);
    let filter = || control.filter().device_i_ds;
    let is_registered = || control.managed().iter().any(|row| row.device_id == id);
    // The first call of a change is answered in time, the second is not.
    let late = async |command: &str, mut request: Value, timeout_s: f64| {
        control.apply_fault(&Fault::LateAnswers { ms: 1500 });
        request["timeout_s"] = json!(timeout_s);
        let answer = stack.ask(command, &request.to_string()).await;
        assert_eq!(refusal(&answer).0, "timeout", "{answer}");
        control.apply_fault(&Fault::LateAnswers { ms: 0 });
        answer
    };
    let add = json!({"devices": [{"device_id": id, "ip": ip}]});
    late("async/add", add, 0.5).await;
    let slaves = json!({"slaves": [{"device_id": id, "rs485": [7]}]});
    late("slaves/set", slaves, 0.5).await;
    late("accept_filter/set", json!({"device_ids": [8, 9]}), 2.4).await;
    late("accept_filter/add", json!({"device_id": 10}), 2.4).await;
    restart(&stack).await;
    assert_eq!(filter(), [8, 9, 10]);
    assert!(is_registered());
    assert_eq!(control.slaves().len(), 1);
    kept(&stack, id, &json!("command")).await;

    watcher.clear();
    late("slaves/set", json!({"slaves": [{"device_id": id}]}), 0.5).await;
    late("async/remove", json!({"device_id": id}), 2.4).await;
    late("accept_filter/remove", json!({"device_id": 8}), 2.4).await;
    late("accept_filter/set", json!({"device_ids": [10]}), 2.4).await;
    kept(&stack, id, &Value::Null).await;
    restart(&stack).await;
    assert_eq!(filter(), [10]);
    assert!(!is_registered() && control.slaves().is_empty(), "nothing else is added");
    let withdrawn = watcher.find(|seen| seen.topic == "gsdk/lobby/event/withdrawn");
    assert!(withdrawn.is_none(), "{withdrawn:?}");
}
