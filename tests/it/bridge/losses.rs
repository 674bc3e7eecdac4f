//! Gateways, brokers and bridges that stop, restart, or publish a late last will.

use std::time::Duration;

use gsdk2mqtt::simulator::{Fault, GrpcCode};
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::subscriber::Subscriber;
use crate::harness::watcher::{Watcher, publish, retained};
use crate::harness::{eventually, patiently};

const UNKNOWN_AFTER: &str = "unknown_after = \"2s\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_gateway_makes_its_own_devices_unknown() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let lobby = crate::harness::simulator(3).await;
    let store = crate::harness::simulator(3).await;
    let bridge = Setup::new(broker.port, "")
        .gateway("lobby", &lobby, UNKNOWN_AFTER)
        .gateway("store", &store, UNKNOWN_AFTER)
        .start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    watcher.see("reachable", |seen| seen.topic == "gsdk/lobby/event/reachable").await;
    watcher.clear();

    lobby.control().stop_listening();
    watcher.see_text("gsdk/lobby/state", "offline").await;
    watcher.see("unreachable", |seen| seen.topic == "gsdk/lobby/event/unreachable").await;
    let device = lobby.control().devices()[0].id;
    let topic = format!("gsdk/lobby/{device}/state");
    let state = watcher.see("unknown", |seen| seen.topic == topic).await.json();
    assert_eq!((&state["connected"], &state["status"]), (&json!(null), &json!("unknown")));
    assert_eq!(state["last_known"]["connected"], true);
    assert!(watcher.all().iter().all(|seen| !seen.topic.contains("/event/disconnected")));
    assert_eq!(bridge.metric("gsdk_gateway_up{gateway=\"lobby\"}").await, Some(0.0));
    assert_eq!(bridge.metric("gsdk_gateway_up{gateway=\"store\"}").await, Some(1.0));
    let other = store.control().managed()[0].device_id;
    let series = format!("gsdk_device_connected{{gateway=\"store\",device_id=\"{other}\"}}");
    assert_eq!(bridge.metric(&series).await, Some(1.0));
    let gone = format!("gsdk_device_connected{{gateway=\"lobby\",device_id=\"{device}\"}}");
    assert_eq!(bridge.metric(&gone).await, None, "absent, not 0");

    lobby.control().start_listening();
    lobby.control().apply_fault(&Fault::Manage);
    watcher.see("back", |seen| seen.topic == "gsdk/lobby/event/reachable").await;
    let online = watcher.place("gsdk/lobby/state", "online").unwrap();
    let reachable = watcher.all().iter().position(|seen| seen.topic.ends_with("/reachable"));
    assert!(online < reachable.unwrap());
    assert!(watcher.all().iter().all(|seen| !seen.topic.starts_with("gsdk/store/event")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_cut_shows_in_a_counter_only() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see("reachable", |seen| seen.topic == "gsdk/lobby/event/reachable").await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    watcher.clear();
    simulator.control().apply_fault(&Fault::CutConnections);
    let series = "gsdk_gateway_stream_starts_total{gateway=\"lobby\"}";
    patiently("the link is made again", async {
        while bridge.metric(series).await != Some(2.0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let reported = |seen: &crate::harness::watcher::Seen| {
        seen.topic.contains("/event/") || seen.topic.ends_with("/state")
    };
    assert!(watcher.find(reported).is_none(), "{:?}", watcher.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_comes_and_goes_is_logged_once() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    let series = "gsdk_gateway_stream_starts_total{gateway=\"lobby\"}";
    let connected = async |times| {
        patiently("the link is made", async {
            while bridge.metric(series).await != Some(times) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    connected(1.0).await;
    for times in [2.0, 3.0, 4.0] {
        simulator.control().apply_fault(&Fault::EndStreams { code: GrpcCode(Code::Unavailable) });
        connected(times).await;
    }
    let log = bridge.log();
    let lines = |text| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("disconnected from the gateway"), 1, "{log}");
    assert_eq!(lines("connected to the gateway"), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_restarted_without_data_gets_everything_again() {
    let mut broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(25).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let watcher = Watcher::start(broker.port).await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    let before = retained(broker.port);
    drop(watcher);
    broker.kill();
    let device = simulator.control().managed()[0].device_id;
    simulator.control().apply_fault(&Fault::Drop { devices: device.into() });
    let watcher = bridge.broker_is_back(&mut broker).await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    let disconnected = format!("gsdk/lobby/{device}/event/disconnected");
    watcher.see("what happened meanwhile", |seen| seen.topic == disconnected).await;
    let after = retained(broker.port);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert_eq!(before.len(), 25 + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_publishes_offline_and_ends_with_0() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    watcher.clear();
    let (status, log) = bridge.stop().await;
    assert_eq!(status.code(), Some(0), "{log}");
    watcher.see_text("gsdk/bridge/state", "offline").await;
    let place = |topic| watcher.place(topic, "offline").unwrap();
    assert!(place("gsdk/lobby/state") < place("gsdk/bridge/state"));
    let info = &retained(broker.port)["gsdk/lobby/info"];
    let info: Value = serde_json::from_str(info).unwrap();
    assert_eq!((&info["state"], &info["devices"]), (&json!("connecting"), &json!(3)), "{info}");
    let unknown = ["connected", "clock_skew_s", "last_error"].map(|field| &info[field]);
    assert!(unknown.into_iter().all(Value::is_null), "{info}");
    let last = watcher.all().pop().unwrap();
    assert_eq!((&*last.topic, &*last.payload), ("gsdk/bridge/state", "offline"));
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "a healthy run: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_leaves_its_last_will_and_a_late_one_is_corrected() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    bridge.kill();
    watcher.see_text("gsdk/bridge/state", "offline").await;
    bridge.restart();
    watcher.clear();
    watcher.see_text("gsdk/bridge/state", "online").await;
    // A late last will of the broker is identical to the first message.
    for other in [&["-m", "offline"][..], &["-n"]] {
        watcher.clear();
        publish(broker.port, &[&["-r", "-t", "gsdk/bridge/state"], other].concat());
        watcher.see_text("gsdk/bridge/state", "online").await;
        eventually("online is what is kept", || {
            (retained(broker.port).get("gsdk/bridge/state")? == "online").then_some(())
        })
        .await;
    }
}

/// Aim: `online` that a broker retains over its crash, of which it publishes no last will, does not
/// hold while the states of that time are replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_crashed_retains_no_online_until_everything_is_published_again() {
    let saves = "persistence true\nautosave_on_changes true\nautosave_interval 1";
    let mut broker = Mosquitto::start(saves).await;
    let simulator = crate::harness::simulator(3).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let mut witness = Subscriber::start(broker.port, "gsdk/bridge/state");
    patiently("it is online", witness.seen.recv()).await.unwrap();
    // Changes after which the broker saves everything.
    ["1", "2", "3"].iter().for_each(|it| publish(broker.port, &["-r", "-t", "x", "-m", it]));
    broker.kill();
    while witness.seen.try_recv().is_ok() {}
    broker.restart().await;
    let mut states = Vec::new();
    patiently("offline, then online", async {
        while !states.ends_with(&[b"offline".to_vec(), b"online".to_vec()]) {
            states.push(witness.seen.recv().await.unwrap().1);
        }
    })
    .await;
    assert!(states.len() <= 3, "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bridge_and_gateway_and_broker_may_start_in_any_order() {
    let mut broker = Mosquitto::start("").await;
    broker.kill();
    let simulator = crate::harness::simulator(3).await;
    simulator.control().stop_listening();
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, UNKNOWN_AFTER).start();
    let reasons = patiently("it says why it is not ready", async {
        loop {
            let (status, body) = bridge.get("/readyz").await;
            assert_eq!(status, 503);
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            let reasons = body["reasons"].to_string();
            if reasons.contains("nothing listens at mqtt://") {
                return reasons;
            }
        }
    })
    .await;
    assert!(reasons.contains("broker"), "{reasons}");
    assert_eq!(bridge.get("/healthz").await.0, 200);
    let watcher = bridge.broker_is_back(&mut broker).await;
    watcher.see("unreachable", |seen| seen.topic == "gsdk/lobby/event/unreachable").await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    simulator.control().start_listening();
    watcher.see_text("gsdk/lobby/state", "online").await;
    bridge.is_ready().await;
}

/// A message that the broker never accepts is not counted as delivered, and leaves no wrong state.
#[tokio::test(flavor = "multi_thread")]
async fn messages_too_large_for_the_broker_are_reported() {
    let broker = Mosquitto::start("max_packet_size 900").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let ids: Vec<u32> = simulator.control().managed().iter().map(|it| it.device_id).collect();
    let device = |name: &str| {
        format!("[gateways.lobby.devices.{}]\nconnect = \"observe\"\nname = {name:?}\n", ids[0])
    };
    let mut bridge =
        Setup::new(broker.port, "").gateway("lobby", &simulator, "").lines(&device("door")).start();
    let large = format!("gsdk/lobby/{}/state", ids[0]);
    watcher.see("its state", |seen| seen.topic == large).await;
    bridge.terminate().await;
    bridge.change("door", &"🚪".repeat(200));
    bridge.restart();
    watcher
        .see("its state is cleared", |seen| seen.topic == large && seen.payload.is_empty())
        .await;
    bridge.is_ready().await;
    let degraded = bridge.get("/readyz").await.1;
    for words in ["messages_refused", &large, "packet_too_large", "maximum packet size"] {
        assert!(degraded.contains(words), "{words} in {degraded}");
    }
    for id in &ids[..2] {
        simulator.control().apply_fault(&Fault::power(*id, false));
    }
    let other = watcher.see("another's event", |seen| seen.is_event_of(ids[1])).await.json();
    assert_eq!(other["seq"], 1);
    let lost = |seen: &crate::harness::watcher::Seen| {
        seen.topic == "gsdk/bridge/event/events_lost" && seen.json()["count"] == 1
    };
    let reported = watcher.see("what is lost is reported", lost).await.json();
    assert!(reported["reason"].as_str().unwrap().contains("maximum packet size"), "{reported}");
    assert_eq!(bridge.metric("gsdk_outbox_dropped_total").await, Some(1.0));
    // Once its name is short again, its next event reports what is missing.
    bridge.terminate().await;
    bridge.change(&"🚪".repeat(200), "door");
    bridge.restart();
    simulator.control().apply_fault(&Fault::power(ids[0], true));
    let next = watcher.see("its next event", |seen| seen.is_event_of(ids[0])).await.json();
    assert_eq!((&next["seq"], &next["lost"]), (&json!(2), &json!(1)));
}
