//! Two bridges with different names share a broker: each answers only for its own gateways.

use std::time::Duration;

use serde_json::json;

use crate::commands::rr;
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::simulator;
use crate::harness::watcher::{Watcher, publish};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_only_by_the_bridge_that_has_the_gateway() {
    let broker = Mosquitto::start("").await;
    let (lobby, annex) = (simulator(1).await, simulator(2).await);
    let first = Setup::new(broker.port, "").gateway("lobby", &lobby, "").start();
    let second = Setup::new(broker.port, "").top("bridge_name = \"bridge_b\"");
    let second = second.gateway("annex", &annex, "").start();
    first.is_ready().await;
    second.is_ready().await;
    let watcher = Watcher::start(broker.port).await;
    for number in 0..5 {
        for (gateway, devices) in [("lobby", 1), ("annex", 2)] {
            let reply = format!("gsdk-reply/{gateway}/{number}");
            let topic = format!("gsdk/{gateway}/request/devices");
            let args = ["-t", topic.as_str(), "-m", "{}", "-e", reply.as_str()];
            let answer = rr(broker.port, &args, "20").await.expect("an answer");
            assert_eq!(answer["result"], "ok", "{answer}");
            assert_eq!(answer["data"]["devices"].as_array().map(Vec::len), Some(devices));
        }
    }
    // No bridge has this gateway, so there is no response. A later response shows that none is
    // late.
    for topic in ["gsdk/cellar/request/devices", "gsdk/bridge_c/request/republish"] {
        publish(broker.port, &["-t", topic, "-m", "{}"]);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for owner in ["bridge", "bridge_b"] {
        let topic = format!("gsdk/{owner}/request/republish");
        let answer = rr(broker.port, &["-t", &topic, "-m", "{}"], "20").await.expect("an answer");
        assert_eq!(answer["result"], json!("ok"), "{answer}");
    }
    let all = watcher.all();
    let answers = |part: &str| all.iter().filter(|seen| seen.topic.contains(part)).count();
    assert_eq!((answers("gsdk-reply/lobby/"), answers("gsdk-reply/annex/")), (5, 5));
    assert_eq!(answers("/response/"), 0, "{all:?}");
}

/// With MQTT 3.1.1 a live retained request cannot be distinguished from another, and an empty
/// message may be one that clears it.
#[tokio::test(flavor = "multi_thread")]
async fn with_mqtt_3_1_1_clearing_a_retained_request_does_not_run_it_again() {
    let broker = Mosquitto::start("").await;
    let lobby = simulator(1).await;
    let bridge = Setup::new(broker.port, "protocol = \"3.1.1\"").gateway("lobby", &lobby, "");
    let bridge = bridge.start();
    bridge.is_ready().await;
    let watcher = Watcher::start(broker.port).await;
    let (topic, response) = ("gsdk/lobby/request/pending", "gsdk/lobby/response/pending");
    publish(broker.port, &["-r", "-t", topic, "-m", "{}"]);
    watcher.see("the answer", |seen| seen.topic == response).await;
    publish(broker.port, &["-r", "-t", topic, "-n"]);
    publish(broker.port, &["-t", topic, "-m", "{\"transaction\":2}"]);
    let second = |seen: &crate::harness::watcher::Seen| {
        seen.topic == response && seen.json()["transaction"] == 2
    };
    watcher.see("the answer to the last request", second).await;
    let answers = watcher.all().into_iter().filter(|seen| seen.topic == response).count();
    assert_eq!(answers, 2, "{:?}", watcher.all());
}
