//! Recorded events, as a client reads them over MQTT.

use serde_json::{Value, json};

use gsdk2mqtt::simulator::Fault;

use super::{Stack, refusal};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::patiently;
use crate::harness::watcher::Watcher;

/// Repeats the request until the response has this number of events, all marked as delivered.
async fn events(stack: &Stack, owner: &str, request: &Value, count: usize) -> Vec<Value> {
    patiently(&format!("{count} events of {owner} for {request}"), async {
        loop {
            let answer = stack.ask_of(owner, "history", &request.to_string()).await;
            assert_eq!(answer["result"], "ok", "{answer}");
            let events = answer["data"]["events"].as_array().unwrap().clone();
            if events.len() >= count && events.iter().all(|event| event["delivered"] == true) {
                return events;
            }
        }
    })
    .await
}

/// The device loses its connection, and reconnects.
fn cut_off(device: u32) -> Fault {
    Fault::Drop { devices: device.into() }
}

fn ids(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["id"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_read_as_they_were_published_each_once() {
    let stack = Stack::new(3, "").await;
    let watcher = Watcher::start(stack.broker.port).await;
    let device = stack.simulator.control().managed()[0].device_id;
    for _ in 0..3 {
        stack.simulator.control().apply_fault(&cut_off(device));
        let before = watcher.events_of(device).len();
        patiently("it is back", async {
            let is_back = |events: &[Value]| {
                events.len() > before && events[events.len() - 1]["event_type"] == "connected"
            };
            while !is_back(&watcher.events_of(device)) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    let mut published = watcher.events_of(device);
    let types = ["connected", "disconnected"];
    published.retain(|event| types.contains(&event["event_type"].as_str().unwrap()));
    let request = json!({"device_id": device, "event_types": ["Connected", "DISCONNECTED"]});
    let mut read = events(&stack, "lobby", &request, published.len()).await;
    assert!(ids(&read).is_sorted_by(|a, b| a < b), "oldest first: {read:?}");
    for event in &mut read {
        let event = event.as_object_mut().unwrap();
        assert_eq!(event.remove("delivered"), Some(json!(true)));
        event.remove("id");
    }
    // What was recorded before the watcher began is there too.
    assert_eq!(read[read.len() - published.len()..], published);

    // Page by page the same, of the gateway and of all.
    let all = events(&stack, "bridge", &json!({"limit": 1_000}), published.len()).await;
    let (mut seen, mut after_id) = (Vec::new(), 0);
    loop {
        let request = json!({"after_id": after_id, "limit": 2}).to_string();
        let answer = stack.ask_of("bridge", "history", &request).await;
        assert_eq!(answer.get("gateway"), None, "{answer}");
        let data = &answer["data"];
        seen.extend(ids(data["events"].as_array().unwrap()));
        after_id = data["next"].as_u64().unwrap();
        if data["more"] == false {
            break;
        }
    }
    assert!(seen.starts_with(&ids(&all)), "{seen:?}");
    // An ID of a state directory that was lost while the clock was ahead.
    let lost = json!({"after_id": after_id + 1_000_000_000, "limit": 2}).to_string();
    let answer = stack.ask_of("bridge", "history", &lost).await;
    let data = &answer["data"];
    assert_eq!(ids(data["events"].as_array().unwrap()), seen[..2], "{answer}");
    assert_ne!(data["gap"]["oldest_at"], Value::Null, "{answer}");
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_recorded_without_a_broker_can_be_read() {
    let mut stack = Stack::new(3, "").await;
    let device = stack.simulator.control().managed()[0].device_id;
    stack.broker.kill();
    stack.simulator.control().apply_fault(&cut_off(device));
    let series = "gsdk_outbox_events";
    patiently("events wait", async {
        while stack.bridge.metric(series).await.is_none_or(|events| events < 1.0) {}
    })
    .await;
    stack.broker.restart().await;
    stack.is_listening().await;
    let request = json!({"device_id": device, "event_types": ["disconnected"]});
    let read = events(&stack, "lobby", &request, 1).await;
    assert_eq!(read[0]["device_id"], json!(device));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_early_rather_than_pass_the_packet_limit() {
    let broker = Mosquitto::start("max_packet_size 3000").await;
    let simulator = crate::harness::simulator(20).await;
    let stack = Stack::with(broker, simulator, "", "").await;
    for device in stack.simulator.control().managed() {
        stack.simulator.control().apply_fault(&cut_off(device.device_id));
    }
    let request = json!({"event_types": ["disconnected"], "limit": 1_000});
    let (mut seen, mut after_id, mut pages) = (Vec::new(), 0_u64, 0);
    patiently("all are read", async {
        while seen.len() < 20 {
            let mut request = request.clone();
            request["after_id"] = json!(after_id);
            let answer = stack.ask("history", &request.to_string()).await;
            assert_eq!(answer["result"], "ok", "{answer}");
            let data = &answer["data"];
            let events = data["events"].as_array().unwrap();
            seen.extend(events.iter().map(|event| event["device_id"].as_u64().unwrap()));
            pages += u32::from(!events.is_empty());
            after_id = data["next"].as_u64().unwrap();
        }
    })
    .await;
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 20);
    assert!(pages > 3, "{pages} pages of at most 3,000 bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused_with_the_remedy() {
    let stack = Stack::new(1, "").await;
    for (request, words) in [
        (r#"{"limit":1001}"#, "from 1 to 1000"),
        (r#"{"from":"yesterday"}"#, "an age (24h, 30d)"),
        (r#"{"from":"1h","to":"2h"}"#, "ends before it begins"),
        (r#"{"event_types":["foo"]}"#, "event_types[0]: \"foo\" is not an event type"),
        (r#"{"since":"1h"}"#, "since: unknown field `since`"),
        ("[]", "no JSON object"),
    ] {
        for owner in ["lobby", "bridge"] {
            let answer = stack.ask_of(owner, "history", request).await;
            let (code, message) = refusal(&answer);
            assert_eq!(code, "invalid_request", "{answer}");
            assert!(message.contains(words), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_only_where_the_configuration_names_it() {
    let stack = Stack::new(1, "[commands]\nallow = [\"republish\"]\n").await;
    for owner in ["lobby", "bridge"] {
        let answer = stack.ask_of(owner, "history", r#"{"transaction":7}"#).await;
        assert_eq!(refusal(&answer).0, "not_permitted");
        assert_eq!(answer["transaction"], 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_cannot_be_read_is_an_error() {
    let stack = Stack::new(1, "").await;
    let state_dir = stack.bridge.state_dir();
    for suffix in ["", "-wal", "-shm"] {
        _ = std::fs::remove_file(state_dir.join(format!("history.db{suffix}")));
    }
    // A folder in its place, so that the bridge cannot create a new one.
    _ = std::fs::create_dir(state_dir.join("history.db"));
    let answer = stack.ask("history", "{}").await;
    let (code, message) = refusal(&answer);
    assert_eq!(code, "unavailable", "{answer}");
    assert!(message.contains("history.db"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_while_the_gateway_is_offline() {
    let Stack { broker, simulator, bridge: _bridge } = Stack::new(1, "").await;
    drop(simulator);
    let watcher = Watcher::start(broker.port).await;
    watcher.see_text("gsdk/lobby/state", "offline").await;
    let request = ["-t", "gsdk/lobby/request/history", "-m", r#"{"event_types":["unreachable"]}"#];
    patiently("the event is read", async {
        loop {
            let answer = super::rr(broker.port, &request, "5").await.unwrap();
            assert_eq!(answer["result"], "ok", "{answer}");
            if answer["data"]["events"][0]["event_type"] == "unreachable" {
                return;
            }
        }
    })
    .await;
}
