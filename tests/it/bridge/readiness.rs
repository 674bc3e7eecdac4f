//! `/readyz`: 503 while the bridge cannot work, and 200 with `degraded` for other problems.

use gsdk2mqtt::simulator::Fault;
use serde_json::Value;

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::scripted_broker::{Published, Reply, ScriptedBroker};
use crate::harness::watcher::Watcher;
use crate::harness::{eventually, patiently, simulator};

const USER: &str = "username = \"gsdk2mqtt\"";

/// A broker whose access list has these rules for the bridge's user.
async fn broker_with(acl: &str) -> Mosquitto {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("acl"), format!("user gsdk2mqtt\n{acl}")).unwrap();
    Mosquitto::start_in(dir, "acl_file {dir}/acl\nallow_anonymous true").await
}

/// Status and body of `/readyz`.
async fn readyz(bridge: &Bridge) -> (u16, Value) {
    let (status, body) = bridge.get("/readyz").await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// Waits until `/readyz` answers with this status and contains these words.
async fn readyz_contains(bridge: &Bridge, status: u16, words: &str) -> Value {
    let what = format!("/readyz {status} with {words:?}");
    patiently(&what, async {
        loop {
            let (now, body) = readyz(bridge).await;
            if now == status && body.to_string().contains(words) {
                return body;
            }
            tokio::time::sleep(crate::harness::LOOK_EVERY).await;
        }
    })
    .await
}

/// Waits until the bridge is ready and degraded for this reason, in `/readyz` and in `/metrics`.
async fn is_ready_but(bridge: &Bridge, reason: &str) -> String {
    let body = readyz_contains(bridge, 200, &format!("\"reason\":\"{reason}\"")).await;
    assert_eq!((&body["ready"], &body["reasons"]), (&true.into(), &Value::Array(Vec::new())));
    let series = format!("gsdk_degraded{{reason=\"{reason}\"}}");
    assert_eq!(bridge.metric(&series).await, Some(1.0));
    let degraded = body["degraded"].as_array().unwrap();
    let found = degraded.iter().find(|it| it["reason"] == reason).unwrap();
    found["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_bridge_is_ready_and_not_degraded() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(2).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    let (_, body) = readyz(&bridge).await;
    assert_eq!(body, serde_json::json!({"ready": true, "reasons": [], "degraded": []}));
    for reason in [
        "messages_refused",
        "retained_not_kept",
        "discovery_refused",
        "store_in_memory",
        "another_instance",
        "file_missing",
    ] {
        let series = format!("gsdk_degraded{{reason=\"{reason}\"}}");
        assert_eq!(bridge.metric(&series).await, Some(0.0), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_right_at_the_broker_the_bridge_is_not_ready() {
    for protocol in ["3.1.1", "5"] {
        let broker = broker_with("topic read nothing\n").await;
        let gateway = simulator(2).await;
        let mqtt = format!("{USER}\nprotocol = \"{protocol}\"");
        let bridge = Setup::new(broker.port, &mqtt).gateway("lobby", &gateway, "").start();
        let up = "gsdk_gateway_up{gateway=\"lobby\"}";
        patiently("the list is read", async { while bridge.metric(up).await != Some(1.0) {} })
            .await;
        let body = readyz_contains(&bridge, 503, "gsdk/bridge/state").await;
        assert!(body["reasons"].to_string().contains("access list"), "{protocol}: {body}");
        // Nothing else becomes true a little later.
        tokio::time::sleep(std::time::Duration::from_secs(8)).await;
        assert_eq!(readyz(&bridge).await.0, 503, "{protocol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_the_broker_refuses_are_named_and_the_bridge_is_ready() {
    let rights = "topic readwrite gsdk/bridge/#\ntopic readwrite gsdk/lobby/state\n\
                  topic readwrite gsdk/lobby/info\ntopic readwrite gsdk/lobby/+/state\n";
    let broker = broker_with(rights).await;
    let gateway = simulator(2).await;
    let bridge = Setup::new(broker.port, USER).gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    gateway
        .control()
        .apply_fault(&Fault::Drop { devices: gateway.control().managed()[0].device_id.into() });
    let message = is_ready_but(&bridge, "messages_refused").await;
    for words in ["gsdk/lobby/", "/event/", "not_authorized"] {
        assert!(message.contains(words), "{words} in {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_that_the_broker_refuses_is_named_and_the_bridge_is_ready() {
    let broker = broker_with("topic readwrite gsdk/#\n").await;
    let gateway = simulator(2).await;
    let setup = Setup::new(broker.port, USER).gateway("lobby", &gateway, "");
    let bridge = setup.lines("[home_assistant]\nenabled = true\n").start();
    let message = is_ready_but(&bridge, "discovery_refused").await;
    assert!(message.contains("homeassistant/device/"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_subscription_to_requests_the_bridge_is_not_ready_unless_none_is_allowed() {
    let gateway = simulator(1).await;
    for reply in [Reply::Code(0x87), Reply::Code(0x97), Reply::Withhold] {
        let broker = ScriptedBroker::start("").await;
        broker.on_subscribe(move |filter| match filter.contains("/request/") {
            true => reply,
            false => Reply::Forward,
        });
        let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
        let words = match reply {
            Reply::Withhold => "has not acknowledged the subscription to requests",
            _ => "the broker refuses the subscription to requests",
        };
        patiently("only the subscription is missing", async {
            while readyz_contains(&bridge, 503, words).await["reasons"].as_array().map(Vec::len)
                != Some(1)
            {}
        })
        .await;
        drop(bridge);
        let setup = Setup::new(broker.port, "").lines("[commands]\nallow = []\n");
        setup.gateway("lobby", &gateway, "").start().is_ready().await;
    }
}

/// As when the broker's access list is corrected.
#[tokio::test(flavor = "multi_thread")]
async fn own_topics_that_the_broker_refused_are_subscribed_again_after_a_minute() {
    let broker = ScriptedBroker::start("").await;
    let subscribed = |topic| broker.filters().iter().filter(|filter| *filter == topic).count();
    broker.on_subscribe(|_| Reply::Code(0x87));
    let gateway = simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    for connection in [1, 2] {
        eventually("subscribed", || (subscribed("gsdk/bridge/info") == connection).then_some(()))
            .await;
        readyz_contains(&bridge, 503, "was not received from gsdk/bridge/state").await;
        if connection == 1 {
            broker.close();
        }
    }
    let log = bridge.log();
    let is_of_info = |line: &&str| line.contains("filter=\"gsdk/bridge/info\"");
    assert_eq!(log.lines().filter(is_of_info).count(), 1, "{log}");
    broker.on_subscribe(|_| Reply::Forward);
    tokio::time::sleep(std::time::Duration::from_secs(45)).await;
    bridge.is_ready().await;
    for topic in ["gsdk/bridge/state", "gsdk/bridge/info"] {
        assert_eq!(subscribed(topic), 3, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_keeps_no_retained_messages_is_named_and_states_are_published_all_the_same() {
    let broker = ScriptedBroker::start("").await;
    // Retain Available: 0.
    broker.script(|script| script.connack_properties = vec![0x25, 0]);
    let watcher = Watcher::start(broker.mosquitto.port).await;
    let gateway = simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    let message = is_ready_but(&bridge, "retained_not_kept").await;
    assert!(message.contains("retained"), "{message}");
    watcher.see_text("gsdk/bridge/state", "online").await;
    watcher.see_text("gsdk/lobby/state", "online").await;
    let device = gateway.control().managed()[0].device_id;
    let topic = format!("gsdk/lobby/{device}/state");
    watcher.see("the device's state", |seen| seen.topic == topic).await;
    assert!(broker.published().iter().all(|publish| !publish.retain));
}

/// Its CONNACK does not announce it, only the PUBACK of each retained message.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_retained_messages_gets_states_that_are_not_retained() {
    let broker = ScriptedBroker::start("").await;
    broker.on_publish(|published| match published.retain {
        true => Reply::Code(0x9A),
        false => Reply::Forward,
    });
    let watcher = Watcher::start(broker.mosquitto.port).await;
    let gateway = simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    is_ready_but(&bridge, "retained_not_kept").await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    watcher.see_text("gsdk/lobby/state", "online").await;
    let topic = format!("gsdk/lobby/{}/state", gateway.control().managed()[0].device_id);
    watcher.see("the device's state", |seen| seen.topic == topic).await;
    let empty = |published: &Published| published.payload.is_empty();
    assert!(!broker.published().iter().any(empty), "there is no old value to clear");
}

/// A field named `message` would replace the line's own message.
#[tokio::test(flavor = "multi_thread")]
async fn the_json_log_reports_degraded_with_the_problem_in_a_field() {
    let broker = ScriptedBroker::start("").await;
    broker.script(|script| script.connack_properties = vec![0x25, 0]);
    let gateway = simulator(1).await;
    let setup = Setup::new(broker.port, "").gateway("lobby", &gateway, "");
    let bridge = setup.arguments(&["--log", "json"]).start();
    is_ready_but(&bridge, "retained_not_kept").await;
    let log = bridge.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let degraded: Vec<Value> = lines.filter(|line| line["message"] == "degraded").collect();
    assert_eq!(degraded.len(), 1, "{log}");
    assert_eq!(degraded[0]["reason"], "retained_not_kept");
    assert!(degraded[0]["problem"].to_string().contains("retained"), "{log}");
}
