//! Messages that the broker refuses: how they are handled, and that others are not affected.

use gsdk2mqtt::simulator::Fault;
use serde_json::json;

use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::scripted_broker::{Reply, ScriptedBroker};
use crate::harness::watcher::{Watcher, check_chain, retained};
use crate::harness::{LOOK_EVERY, eventually, patiently};

const PERMITTED: &str = "topic readwrite #\n";

/// An access list that denies one device's topics. For mosquitto 2, that is PUBACK 0x87 in MQTT 5.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_forbidden_topics_does_not_prevent_online() {
    let simulator = crate::harness::simulator(3).await;
    let ids: Vec<u32> = simulator.control().managed().iter().map(|it| it.device_id).collect();
    let dir = tempfile::tempdir().unwrap();
    let acl = dir.path().join("acl");
    std::fs::write(&acl, format!("{PERMITTED}topic deny gsdk/lobby/{}/#\n", ids[0])).unwrap();
    let broker = Mosquitto::start_in(dir, "acl_file {dir}/acl\nallow_anonymous true").await;
    let watcher = Watcher::start(broker.port).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    watcher.see_text("gsdk/lobby/state", "online").await;
    let denied = format!("gsdk/lobby/{}/state", ids[0]);
    let log = bridge.log();
    let line = log.lines().find(|line| line.contains("WARN") && line.contains(&denied));
    assert!(line.is_some_and(|line| line.contains("not_authorized")), "{log}");
    // The others' events do not wait for the refused one.
    ids.iter()
        .for_each(|id| _ = simulator.control().apply_fault(&Fault::Drop { devices: (*id).into() }));
    for id in &ids[1..] {
        watcher.see("another device's event", |seen| seen.is_event_of(*id)).await;
    }
    assert_eq!(watcher.events_of(ids[0]), Vec::<serde_json::Value>::new());
    assert_eq!(bridge.metric("gsdk_outbox_dropped_total").await, Some(0.0));
    assert_eq!(bridge.metric("gsdk_mqtt_connections_total").await, Some(1.0));
    // After the permission, none of its messages is missing.
    std::fs::write(&acl, PERMITTED).unwrap();
    broker.reload();
    watcher.see("its state", |seen| seen.topic == denied && !seen.payload.is_empty()).await;
    let event = watcher.see("its event", |seen| seen.is_event_of(ids[0])).await.json();
    assert_eq!((&event["seq"], &event["lost"]), (&json!(1), &json!(null)));
    check_chain(&watcher.events_of(ids[0]));
    assert!(retained(broker.port).contains_key(&denied));
}

/// PUBACK codes, one for the first event of each device; every other one is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_refused_with_any_code_holds_up_no_other_and_is_lost_only_where_it_cannot_succeed()
{
    const ACCEPTED: u8 = 0x05;
    const FOR_GOOD: [u8; 3] = [0x90, 0x95, 0x99];
    const LATER: [u8; 10] = [0x80, 0x81, 0x82, 0x87, 0x8E, 0x93, 0x96, 0x9A, 0x9B, 0xFF];
    let codes: Vec<u8> = [ACCEPTED].into_iter().chain(FOR_GOOD).chain(LATER).collect();
    let broker = ScriptedBroker::start("").await;
    let watcher = Watcher::start(broker.mosquitto.port).await;
    let simulator = crate::harness::simulator(codes.len() + 1).await;
    let ids: Vec<u32> = simulator.control().managed().iter().map(|it| it.device_id).collect();
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let mut left: Vec<(String, u8)> =
        ids.iter().zip(&codes).map(|(id, code)| (format!("/{id}/event/"), *code)).collect();
    broker.on_publish(move |published| {
        match left.iter().position(|(topic, _)| published.topic.contains(topic.as_str())) {
            Some(at) => Reply::Code(left.swap_remove(at).1),
            None => Reply::Forward,
        }
    });
    ids.iter().for_each(|id| _ = simulator.control().apply_fault(&Fault::power(*id, false)));
    let other = *ids.last().unwrap();
    watcher.see("another device's event", |seen| seen.is_event_of(other)).await;
    for (id, code) in ids.iter().zip(&codes).filter(|(_, code)| LATER.contains(code)) {
        let event = watcher.see(&format!("{code:#x} again"), |seen| seen.is_event_of(*id)).await;
        assert_eq!((&event.json()["seq"], &event.json()["lost"]), (&json!(1), &json!(null)));
    }
    assert_eq!(bridge.metric("gsdk_outbox_dropped_total").await, Some(3.0));
    watcher.see("the loss is reported", |seen| seen.topic.ends_with("/events_lost")).await;
    ids.iter().for_each(|id| _ = simulator.control().apply_fault(&Fault::power(*id, true)));
    for (id, code) in ids.iter().zip(&codes).filter(|(_, code)| FOR_GOOD.contains(code)) {
        let next = watcher.see("the next event", |seen| seen.is_event_of(*id)).await.json();
        assert_eq!((&next["seq"], &next["lost"]), (&json!(2), &json!(1)), "{code:#x}");
    }
    assert_eq!(broker.connections(), 1);
}

/// With MQTT 5, mosquitto answers 0x95 to messages larger than `message_size_limit`.
#[tokio::test(flavor = "multi_thread")]
async fn discovery_that_is_too_large_for_the_broker_holds_up_no_state_and_no_event() {
    let broker = Mosquitto::start("message_size_limit 1024").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let setup = Setup::new(broker.port, "").lines("[home_assistant]\nenabled = true\n");
    let bridge = setup.gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    bridge.is_ready().await;
    let refused = "gsdk_mqtt_publish_failures_total{reason=\"packet_too_large\"}";
    patiently("discovery is refused", async {
        while bridge.metric(refused).await < Some(3.0) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let id = simulator.control().managed()[0].device_id;
    simulator.control().apply_fault(&Fault::Drop { devices: id.into() });
    watcher.see("events go on", |seen| seen.is_event_of(id)).await;
    assert_eq!(bridge.metric("gsdk_mqtt_connections_total").await, Some(1.0));
    assert_eq!(bridge.metric("gsdk_outbox_dropped_total").await, Some(0.0));
    assert!(bridge.log().contains("homeassistant/device/"), "the topic is named");
}

/// The old value of a refused state is no longer true.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_refused_does_not_keep_its_old_value() {
    for code in [0x95, 0x97] {
        let broker = ScriptedBroker::start("").await;
        let watcher = Watcher::start(broker.mosquitto.port).await;
        let simulator = crate::harness::simulator(2).await;
        let id = simulator.control().managed()[0].device_id;
        let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
        watcher.see_text("gsdk/bridge/state", "online").await;
        let state = format!("gsdk/lobby/{id}/state");
        let refused = state.clone();
        broker.on_publish(move |published| {
            let refuses = published.topic == refused && !published.payload.is_empty();
            if refuses { Reply::Code(code) } else { Reply::Forward }
        });
        watcher.clear();
        simulator.control().apply_fault(&Fault::power(id, false));
        watcher.see_text(&state, "").await;
        assert!(!retained(broker.mosquitto.port).contains_key(&state), "{code:#x}");
        assert_eq!(bridge.get("/readyz").await.0, 200, "{code:#x}");
    }
}

/// On each new connection everything is sent again, and the broker refuses the same messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_on_each_connection_is_logged_once_and_remains_degraded_in_between() {
    let broker = ScriptedBroker::start("").await;
    let simulator = crate::harness::simulator(20).await;
    broker.on_publish(|published| {
        let is_of_device = published.topic.ends_with("/state") && published.topic.contains("/54");
        if is_of_device { Reply::Code(0x97) } else { Reply::Forward }
    });
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    let degraded = "gsdk_degraded{reason=\"messages_refused\"}";
    for connection in 1..=3_u32 {
        broker.connected_times(connection as usize).await;
        bridge.is_ready().await;
        patiently("all states are refused", async {
            let failed = "gsdk_mqtt_publish_failures_total{reason=\"quota_exceeded\"}";
            while bridge.metric(failed).await < Some(20.0 * f64::from(connection)) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
        assert_eq!(bridge.metric(degraded).await, Some(1.0), "connection {connection}");
        broker.close();
    }
    let log = bridge.log();
    let times = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(times("message refused by the broker"), 20, "{log}");
    assert_eq!(times("no longer degraded"), 0, "{log}");
}

/// A DISCONNECT would make the broker drop the last will, and `online` would be retained.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_whose_offline_is_not_accepted_leaves_it_to_the_last_will() {
    let simulator = crate::harness::simulator(1).await;
    for reply in [Reply::Code(0x97), Reply::Withhold] {
        let broker = ScriptedBroker::start("").await;
        let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
        bridge.is_ready().await;
        broker.on_publish(move |publish| match publish.topic == "gsdk/bridge/state" {
            true => reply,
            false => Reply::Forward,
        });
        let (status, log) = bridge.stop().await;
        assert_eq!(status.code(), Some(0), "{log}");
        eventually("offline is retained", || {
            (retained(broker.mosquitto.port)["gsdk/bridge/state"] == "offline").then_some(())
        })
        .await;
        assert_eq!(broker.disconnects(), Vec::<u8>::new());
    }
}
