//! The event of each change, as an auditing client receives it.

use serde_json::{Value, json};

use gsdk2mqtt::simulator::Fault;

use super::{ALL, Stack, refusal};
use crate::harness::watcher::{Seen, Watcher, publish};
use crate::harness::{bounded, patiently};

/// Waits for the event of a command with this transaction.
async fn event(watcher: &Watcher, owner: &str, transaction: &Value) -> Value {
    let topic = format!("gsdk/{owner}/event/command");
    let is_it = |seen: &Seen| seen.topic == topic && seen.json()["transaction"] == *transaction;
    let seen = watcher.see(&format!("the event of {transaction}"), is_it).await;
    assert!(!seen.retained, "{seen:?}");
    seen.json()
}

fn events(watcher: &Watcher) -> Vec<Value> {
    let all = watcher.all();
    all.iter().filter(|seen| seen.topic.ends_with("/event/command")).map(|it| it.json()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_one_event_with_requester_command_and_outcome() {
    let stack = Stack::new(3, ALL).await;
    let watcher = Watcher::start(stack.broker.port).await;
    let device = stack.simulator.control().managed()[0].device_id;
    let request = json!({"device_ids": [device], "transaction": 1, "requested_by": "Ann"});
    assert_eq!(stack.ask("accept_filter/add", &request.to_string()).await["result"], "ok");
    let reported = event(&watcher, "lobby", &json!(1)).await;
    let expected = json!({
        "event_type": "command", "event_id": reported["event_id"], "bridge": "bridge",
        "gateway": "lobby", "command": "accept_filter/add", "device_ids": [device],
        "requested_by": "Ann", "transaction": 1, "result": "ok",
        "timestamp": reported["timestamp"], "received_at": reported["received_at"],
    });
    assert_eq!(reported, expected);

    let request = json!({"device_ids": [device, 7], "transaction": "2"});
    assert_eq!(stack.ask("disconnect", &request.to_string()).await["result"], "partial");
    let reported = event(&watcher, "lobby", &json!("2")).await;
    assert_eq!(reported["result"], "partial", "{reported}");
    assert_eq!(reported["requested_by"], Value::Null);
    assert_eq!(reported["device_ids"], json!([7, device]));

    // A change of the bridge itself, and one that fails.
    let request = r#"{"gateway":"annex","device_ids":[7],"transaction":3,"requested_by":"Bob"}"#;
    assert_eq!(refusal(&stack.ask_of("bridge", "forget", request).await).0, "not_found");
    let reported = event(&watcher, "bridge", &json!(3)).await;
    assert_eq!((&reported["result"], &reported["code"]), (&json!("error"), &json!("not_found")));
    assert_eq!((&reported["gateway"], &reported["device_ids"]), (&json!("annex"), &json!([7])));

    // A repeat is answered from memory, and a command without change is no event.
    let request = json!({"device_ids": [device], "transaction": 1, "requested_by": "Ann"});
    let replayed = stack.ask("accept_filter/add", &request.to_string()).await;
    assert_eq!(replayed["replayed"], true, "{replayed}");
    stack.ask("devices", r#"{"transaction":4}"#).await;
    let request = r#"{"enabled":true,"transaction":12345678901234567890123}"#;
    stack.ask("accept_filter/allow_all", request).await;
    let is_last = |seen: &Seen| {
        seen.topic == "gsdk/lobby/event/command"
            && seen.payload.contains("\"transaction\":12345678901234567890123,")
    };
    watcher.see("the last event", is_last).await;
    assert_eq!(events(&watcher).len(), 4, "{:?}", events(&watcher));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_changes_are_reported_at_most_once_a_second() {
    let stack = Stack::new(1, "").await;
    let watcher = Watcher::start(stack.broker.port).await;
    let request = r#"{"device_ids":[7],"transaction":1,"requested_by":"Eve"}"#;
    assert_eq!(refusal(&stack.ask("disconnect", request).await).0, "not_permitted");
    let reported = event(&watcher, "lobby", &json!(1)).await;
    assert_eq!(
        (&reported["result"], &reported["code"]),
        (&json!("error"), &json!("not_permitted"))
    );
    assert_eq!((&reported["requested_by"], &reported["device_ids"]), (&json!("Eve"), &json!([7])));

    let began = std::time::Instant::now();
    let lines = vec![request; 200].join("\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    let input = std::fs::File::open(file.path()).unwrap();
    let sent = bounded("mosquitto_pub")
        .args(["-q", "1", "-p", &stack.broker.port.to_string(), "-l"])
        .args(["-t", "gsdk/lobby/request/disconnect"])
        .stdin(input)
        .status()
        .unwrap();
    assert!(sent.success());
    let request = r#"{"gateway":"lobby","device_ids":[7],"transaction":2,"requested_by":"Eve"}"#;
    // Another gateway has a separate limit.
    assert_eq!(refusal(&stack.ask_of("bridge", "forget", request).await).0, "not_permitted");
    let reported = event(&watcher, "bridge", &json!(2)).await;
    assert_eq!(reported["gateway"], "lobby", "{reported}");
    let seconds = began.elapsed().as_secs_f64();
    let refused = events(&watcher).len();
    assert!((refused as f64) <= 4.0 + seconds, "{refused} events in {seconds} s");
    assert_eq!(stack.simulator.control().calls().get("Disconnect"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_broker_and_a_kill_lose_no_event() {
    let mut stack = Stack::new(2, ALL).await;
    let device = stack.simulator.control().managed()[0].device_id;
    // The broker is stopped before the gateway has answered.
    stack.simulator.control().apply_fault(&Fault::LateAnswers { ms: 2_000 });
    let request = json!({
        "devices": [{"device_id": device, "ip": "192.168.0.104"}], "transaction": "away",
    });
    publish(stack.broker.port, &["-t", "gsdk/lobby/request/async/add", "-m", &request.to_string()]);
    patiently("the gateway is called", async {
        while !stack.simulator.control().calls().contains_key("AddAsyncConnection") {
            tokio::time::sleep(crate::harness::LOOK_EVERY).await;
        }
    })
    .await;
    stack.broker.kill();
    let series = "gsdk_outbox_events";
    patiently("the event waits", async {
        while stack.bridge.metric(series).await.is_none_or(|events| events < 1.0) {}
    })
    .await;
    stack.bridge.kill();
    stack.broker.restart().await;
    stack.simulator.control().apply_fault(&Fault::LateAnswers { ms: 0 });
    let watcher = Watcher::start(stack.broker.port).await;
    stack.bridge.restart();
    let reported = event(&watcher, "lobby", &json!("away")).await;
    assert_eq!(reported["command"], "async/add", "{reported}");
    stack.is_listening().await;
    let request = r#"{"event_types":["command"]}"#;
    let recorded = patiently("it is in the history", async {
        loop {
            let answer = stack.ask("history", request).await;
            let found = answer["data"]["events"].as_array().unwrap().clone();
            if found.iter().any(|event| event["delivered"] == true) {
                return found;
            }
        }
    })
    .await;
    let mut recorded = recorded[0].clone();
    let fields = recorded.as_object_mut().unwrap();
    fields.remove("id");
    fields.remove("delivered");
    assert_eq!(recorded, reported);
}
