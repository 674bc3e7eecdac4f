//! Commands of the bridge itself.

use serde_json::json;

use super::{ALL, Stack, refusal, rr};
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::eventually;
use crate::harness::scripted_broker::{Reply, ScriptedBroker};
use crate::harness::watcher::{Watcher, publish, retained};

const FORGET: &str = "gsdk/bridge/request/forget";

#[tokio::test(flavor = "multi_thread")]
async fn republish_gives_all_retained_topics_again() {
    let stack = Stack::new(3, "").await;
    let id = stack.simulator.control().managed()[0].device_id;
    let topic = format!("gsdk/lobby/{id}/state");
    let before = retained(stack.broker.port)[&topic].clone();
    publish(stack.broker.port, &["-r", "-n", "-t", &topic]);
    let request = r#"{"transaction":1,"timeout_s":3,"requested_by":"Ann"}"#;
    let answer = stack.ask_of("bridge", "republish", request).await;
    assert_eq!((&answer["result"], &answer["transaction"]), (&json!("ok"), &json!(1)));
    assert_eq!((&answer["bridge"], answer.get("gateway")), (&json!("bridge"), None), "{answer}");
    let watcher = Watcher::start(stack.broker.port).await;
    watcher.see_text(&topic, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_forgotten_after_their_removal() {
    let stack = Stack::new(3, ALL).await;
    let managed = stack.simulator.control().managed();
    let (gone, stays) = (managed[0].device_id, managed[1].device_id);
    let request = json!({"gateway": "lobby", "device_ids": [gone, stays]}).to_string();
    let answer = stack.ask_of("bridge", "forget", &request).await;
    let (code, message) = refusal(&answer);
    assert_eq!((code, &answer["data"]["device_ids"]), ("failed_precondition", &json!([])));
    assert!(message.starts_with("device ") && message.contains("remove it there"), "{message}");
    assert_eq!(answer["device_errors"].as_array().unwrap().len(), 2, "{answer}");
    stack.ask("async/remove", &json!({"device_id": gone}).to_string()).await;
    let answer = crate::harness::patiently("it has left the list", async {
        loop {
            let answer = stack.ask_of("bridge", "forget", &request).await;
            if answer["data"]["device_ids"] == json!([gone]) {
                return answer;
            }
        }
    })
    .await;
    assert_eq!((&answer["result"], &answer["bridge"]), (&json!("partial"), &json!("bridge")));
    assert_eq!(answer["device_errors"][0]["device_id"], stays);
    let topic = format!("gsdk/lobby/{gone}/state");
    assert!(!retained(stack.broker.port).contains_key(&topic));
    for (command, request, code) in [
        ("forget", r#"{"gateway":"annex","device_id":7}"#, "not_found"),
        ("forget", r#"{"device_id":7}"#, "invalid_request"),
        ("devices", "{}", "unknown_command"),
    ] {
        assert_eq!(refusal(&stack.ask_of("bridge", command, request).await).0, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bridge_commands_are_permitted_by_name_and_forget_is_logged() {
    let forget = r#"{"gateway":"lobby","device_ids":[8,7],"timeout_s":3,"requested_by":"Ann"}"#;
    let stack = Stack::new(3, "").await;
    let answer = stack.ask_of("bridge", "forget", forget).await;
    let (code, message) = refusal(&answer);
    assert_eq!(code, "not_permitted", "nothing that takes something away is there by default");
    assert_eq!((&answer["bridge"], answer.get("gateway")), (&json!("bridge"), None), "{answer}");
    assert!(message.contains("\"forget\""), "{message}");

    let broker = crate::harness::mosquitto::Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let setup = crate::harness::bridge::Setup::new(broker.port, "");
    let setup = setup.lines("[commands]\nallow = [\"forget\"]\n");
    let bridge = setup.gateway("lobby", &simulator, "").start();
    let stack = Stack { broker, simulator, bridge };
    stack.is_listening().await;
    let request = r#"{"transaction":3}"#;
    let answer = stack.ask_of("bridge", "republish", request).await;
    assert_eq!((refusal(&answer).0, &answer["transaction"]), ("not_permitted", &json!(3)));
    let answer = stack.ask_of("bridge", "forget", forget).await;
    assert_eq!(answer["data"]["device_ids"], json!([7, 8]), "{answer}");
    assert_eq!((&answer["bridge"], &answer["gateway"]), (&json!("bridge"), &json!("lobby")));
    let series = "gsdk_commands_total{command=\"forget\",gateway=\"bridge\",result=\"ok\"}";
    assert_eq!(stack.bridge.metric(series).await, Some(1.0));
    let (_, log) = stack.bridge.stop().await;
    let line = log.lines().find(|line| line.contains("change requested")).unwrap();
    for words in ["gateway=lobby", "command=forget", "devices=\"7 8\"", "Ann", "outcome=\"ok\""] {
        assert!(line.contains(words), "{words}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_left_the_list_is_forgotten_and_continues_its_chain_when_listed_again() {
    let broker = crate::harness::mosquitto::Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let setup = crate::harness::bridge::Setup::new(broker.port, "");
    let setup = setup.lines(ALL).top("forget_after = \"1s\"");
    let bridge = setup.gateway("lobby", &simulator, "audit_interval = \"1s\"").start();
    let stack = super::Stack { broker, simulator, bridge };
    stack.is_listening().await;
    // Nothing is cleared by itself in the first 60 s of a session.
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let device = stack.simulator.control().managed()[0].clone();
    let id = device.device_id;
    stack.ask("async/remove", &json!({"device_id": id}).to_string()).await;
    let (state, gone) = (format!("gsdk/lobby/{id}/state"), "disconnected");
    watcher.see(gone, |seen| seen.topic == format!("gsdk/lobby/{id}/event/{gone}")).await;
    watcher
        .see("its state is cleared", |seen| seen.topic == state && seen.payload.is_empty())
        .await;
    let before = watcher.events_of(id).len();
    let ip = String::from_utf8(device.ip_addr).unwrap();
    let add = json!({"devices": [{"device_id": id, "ip": ip}]});
    let answer = stack.ask("async/add", &add.to_string()).await;
    assert_eq!(answer["result"], "ok", "{answer}");
    crate::harness::eventually("it has events again", || {
        (watcher.events_of(id).len() > before).then_some(())
    })
    .await;
    crate::harness::watcher::check_chain(&watcher.events_of(id));
}

/// A bridge that is ready, at a broker that answers like this when the topics of the gateway
/// `annex` are read.
async fn scripted(reply: Reply) -> (ScriptedBroker, gsdk2mqtt::simulator::Simulator, Bridge) {
    let (broker, simulator) = (ScriptedBroker::start("").await, crate::harness::simulator(1).await);
    let setup = Setup::new(broker.port, "").lines(ALL);
    let bridge = setup.gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    broker.on_subscribe(
        move |filter| {
            if filter.contains("annex") { reply } else { Reply::Forward }
        },
    );
    (broker, simulator, bridge)
}

#[tokio::test(flavor = "multi_thread")]
async fn forget_says_that_nothing_could_be_read_where_the_broker_refuses_that() {
    let (broker, _simulator, _bridge) = scripted(Reply::Code(0x87)).await;
    let request = ["-t", FORGET, "-m", r#"{"gateway":"annex"}"#];
    let answer = rr(broker.mosquitto.port, &request, "20").await.unwrap();
    let (code, message) = refusal(&answer);
    assert_eq!(code, "failed_precondition", "{answer}");
    assert!(message.contains("access list"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forget_that_a_broken_connection_ends_has_its_event() {
    let (broker, _simulator, bridge) = scripted(Reply::Withhold).await;
    let watcher = Watcher::start(broker.mosquitto.port).await;
    let request = r#"{"gateway":"annex","transaction":7,"requested_by":"Ann"}"#;
    publish(broker.mosquitto.port, &["-t", FORGET, "-m", request]);
    let reads = |filter: &String| filter.contains("annex");
    eventually("its topics are read", || broker.filters().iter().any(reads).then_some(())).await;
    broker.close();
    let is_it = |seen: &crate::harness::watcher::Seen| seen.topic == "gsdk/bridge/event/command";
    let event = watcher.see("its event", is_it).await.json();
    assert_eq!((&event["command"], &event["gateway"]), (&json!("forget"), &json!("annex")));
    assert_eq!((&event["transaction"], &event["requested_by"]), (&json!(7), &json!("Ann")));
    assert_eq!((&event["result"], &event["code"]), (&json!("error"), &json!("unavailable")));
    let series =
        "gsdk_commands_total{command=\"forget\",gateway=\"bridge\",result=\"unavailable\"}";
    assert_eq!(bridge.metric(series).await, Some(1.0));
}
