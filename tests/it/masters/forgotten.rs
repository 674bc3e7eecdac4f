//! Gateways that their master does not list any more, and that are forgotten.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Campus, SOON_LOST};
use crate::harness::master::{Master, behind};
use crate::harness::watcher::{check_chain, retained};
use crate::harness::{LOOK_EVERY, eventually, patiently};
use gsdk2mqtt::simulator::Fault;

const HA: &str = "[home_assistant]\nenabled = true\n";

/// Takes the gateway `b` away at the master, and waits until the bridge has seen that.
async fn remove_b(campus: &Campus) {
    campus.watcher.clear();
    campus.master.list("b", false);
    campus
        .master
        .fault(&serde_json::from_value(serde_json::json!({ "do": "end_streams" })).unwrap());
    campus.see("gsdk/campus_b/info", "removed", |info| info["state"] == "removed").await;
}

/// The topics of the gateway `b` at the broker, with discovery.
fn topics_of_b(campus: &Campus) -> Vec<String> {
    let is_of_b = |topic: &String| topic.contains("campus_b");
    retained(campus.broker.port).into_keys().filter(is_of_b).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn forget_clears_a_gateway_that_the_master_does_not_list_until_it_is_listed_again() {
    let master = Master::start(&["a", "b"], 3).await;
    let mut campus = Campus::with(master, "", HA).await;
    campus.see_state("campus_a", "online").await;
    campus.see_state("campus_b", "online").await;
    campus.bridge.is_ready().await;
    let device = campus.master.devices[1][0];
    eventually("discovery", || (topics_of_b(&campus).len() == 2 + 3 + 4).then_some(())).await;
    let forget =
        async |campus: &Campus, payload: &str| campus.ask("bridge", "forget", payload).await;
    let refused = forget(&campus, r#"{"gateway":"campus_b"}"#).await;
    assert_eq!(refused["error"]["code"], "invalid_request", "the master lists it: {refused}");
    remove_b(&campus).await;
    let info = campus.see("gsdk/campus_b/info", "its info", |_| true).await;
    assert_eq!((&info["master"], &info["gateway_id"]), (&"campus".into(), &"b".into()));

    let forgotten = forget(&campus, r#"{"gateway":"campus_b"}"#).await;
    assert_eq!(forgotten["result"], "ok", "{forgotten}");
    assert_eq!(forgotten["data"]["device_ids"].as_array().unwrap().len(), 3, "{forgotten}");
    // At once, not after the minute that a session needs to settle.
    eventually("its topics are cleared", || topics_of_b(&campus).is_empty().then_some(())).await;
    let without = |info: &Value| info["gateways"] == serde_json::json!(["campus_a"]);
    campus.see("gsdk/bridge/info", "the other gateway", without).await;
    campus.see_master("one gateway", |info| info["gateways"] == 1).await;
    let (_, metrics) = campus.bridge.get("/metrics").await;
    assert!(!metrics.contains("campus_b"), "{metrics}");
    let (_, gateways) = campus.bridge.get("/api/v1/gateways").await;
    assert!(!gateways.contains("campus_b") && gateways.contains("campus_a"), "{gateways}");
    let (status, _) = campus.bridge.get("/api/v1/gateways/campus_b").await;
    assert_eq!(status, 404);
    let events = format!("/api/v1/events?gateway=campus_b&device_id={device}");
    let (status, _) = campus.bridge.get(&events).await;
    assert_eq!(status, 200, "history stays");

    // A kill brings nothing back.
    campus.bridge.kill();
    campus.watcher.clear();
    campus.bridge.restart();
    campus.see_state("campus_a", "online").await;
    campus.bridge.is_ready().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(topics_of_b(&campus), Vec::<String>::new());
    assert!(!campus.bridge.log().contains("gateway forgotten"), "it was forgotten long ago");

    campus.watcher.clear();
    campus.master.list("b", true);
    campus.master.link("b", false, false);
    campus.master.link("b", true, false);
    campus.see_state("campus_b", "online").await;
    campus.see(&format!("gsdk/campus_b/{device}/state"), "its device", |_| true).await;
    let answer = campus.ask("campus_b", "devices", "{}").await;
    assert_eq!(answer["data"]["devices"].as_array().unwrap().len(), 3, "{answer}");
    eventually("discovery", || (topics_of_b(&campus).len() == 2 + 3 + 4).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forget_makes_the_bridge_look_whether_the_master_still_lists_the_gateway() {
    let campus = Campus::with(Master::start(&["a", "b"], 1).await, "", "").await;
    campus.see_state("campus_b", "online").await;
    campus.bridge.is_ready().await;
    campus.master.list("b", false);
    let asked = Instant::now();
    let refused = campus.ask("bridge", "forget", r#"{"gateway":"campus_b"}"#).await;
    assert_eq!(refused["error"]["code"], "invalid_request", "{refused}");
    campus.see("gsdk/campus_b/info", "removed", |info| info["state"] == "removed").await;
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    // So it does where the gateway was not connected.
    campus.master.link("a", false, false);
    let is_absent = |info: &Value| info["last_error"]["code"] == "gateway_not_connected";
    campus.see("gsdk/campus_a/info", "not connected", is_absent).await;
    campus.master.list("a", false);
    let asked = Instant::now();
    campus.ask("bridge", "forget", r#"{"gateway":"campus_a"}"#).await;
    campus.see("gsdk/campus_a/info", "removed", |info| info["state"] == "removed").await;
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_a_gateway_that_was_forgotten_continue_their_chain() {
    let master = Master::start(&["a", "b"], 1).await;
    let mut campus = Campus::with(master, "", "").await;
    campus.see_state("campus_b", "online").await;
    campus.bridge.is_ready().await;
    let device = campus.master.devices[1][0];
    let power = |campus: &Campus, on| campus.master.fault(&Fault::power(device, on));
    let seen = async |campus: &Campus, event: &str| {
        campus.see_event(&format!("campus_b/{device}"), event).await
    };
    power(&campus, false);
    seen(&campus, "disconnected").await;
    power(&campus, true);
    seen(&campus, "connected").await;
    let mut events = campus.watcher.events_of(device);
    remove_b(&campus).await;
    assert_eq!(campus.ask("bridge", "forget", r#"{"gateway":"campus_b"}"#).await["result"], "ok");
    campus.bridge.terminate().await;
    campus.watcher.clear();
    campus.bridge.restart();
    campus.see_state("campus_a", "online").await;
    campus.master.list("b", true);
    campus.master.link("b", false, false);
    campus.master.link("b", true, false);
    campus.see_state("campus_b", "online").await;
    power(&campus, false);
    seen(&campus, "disconnected").await;
    events.extend(campus.watcher.events_of(device));
    check_chain(&events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_absent_for_forget_after_is_forgotten() {
    let master = Master::start(&["a", "b"], 2).await;
    let lines = behind("own", "campus", "a", SOON_LOST);
    let campus = Campus::with_top(master, "forget_after = \"1s\"", "discover = true", &lines).await;
    campus.see_state("own", "online").await;
    campus.see_state("campus_b", "online").await;
    campus.bridge.is_ready().await;
    campus.master.list("a", false);
    remove_b(&campus).await;
    campus.see("gsdk/own/info", "removed", |info| info["state"] == "removed").await;
    let up = "gsdk_gateway_up{gateway=\"campus_b\"}";
    assert_eq!(campus.bridge.metric(up).await, Some(0.0));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    // The status of a device that no gateway has makes the bridge look at the gateways again.
    campus.master.fault(&Fault::power(campus.master.devices[1][0], false));
    patiently("it is forgotten", async {
        while campus.bridge.metric(up).await.is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let own = "gsdk_gateway_up{gateway=\"own\"}";
    assert_eq!(campus.bridge.metric(own).await, Some(0.0), "it is in the configuration");
    campus.see_cleared("gsdk/campus_b/info").await;
    campus.see_cleared("gsdk/campus_b/state").await;
    eventually("all is cleared", || topics_of_b(&campus).is_empty().then_some(())).await;
    assert!(retained(campus.broker.port).contains_key("gsdk/own/info"));
}
