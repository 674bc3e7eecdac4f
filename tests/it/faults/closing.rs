//! Brokers of MQTT 3.1.1 that close the connection over one message, because they cannot refuse it.

use std::time::Duration;

use gsdk2mqtt::simulator::Fault;
use serde_json::json;

use super::within;
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::scripted_broker::{Reply, ScriptedBroker};
use crate::harness::watcher::{Seen, Watcher, check_chain, retained};

/// Five connections, with the waits between them.
const BOUND: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn an_event_over_which_the_broker_closes_is_found_and_reported_and_no_other_is_lost() {
    let broker = ScriptedBroker::start("").await;
    let watcher = Watcher::start(broker.mosquitto.port).await;
    let simulator = crate::harness::simulator(10).await;
    let ids: Vec<u32> = simulator.control().managed().iter().map(|it| it.device_id).collect();
    let setup = Setup::new(broker.port, "protocol = \"3.1.1\"");
    let bridge = setup.gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let bad = format!("gsdk/lobby/{}/event/disconnected", ids[0]);
    broker.on_publish(
        move |published| {
            if published.topic == bad { Reply::Close } else { Reply::Forward }
        },
    );
    ids.iter().for_each(|id| _ = simulator.control().apply_fault(&Fault::power(*id, false)));
    let what = "broker closes over an event: until it is set aside";
    within(BOUND, what, async || {
        (bridge.metric("gsdk_outbox_dropped_total").await == Some(1.0)).then_some(())
    })
    .await;
    let reported = |seen: &Seen| seen.topic == "gsdk/bridge/event/events_lost";
    let what = "broker closes over an event: from then until all others are delivered";
    within(BOUND, what, async || {
        let delivered = ids[1..].iter().all(|id| watcher.find(|it| it.is_event_of(*id)).is_some());
        (delivered && watcher.find(reported).is_some()).then_some(())
    })
    .await;
    ids.iter().for_each(|id| check_chain(&watcher.events_of(*id)));
    simulator.control().apply_fault(&Fault::power(ids[0], true));
    let next = watcher.see("its next event", |seen| seen.is_event_of(ids[0])).await.json();
    assert_eq!((&next["seq"], &next["lost"]), (&json!(2), &json!(1)));
    assert_eq!(bridge.metric("gsdk_outbox_dropped_total").await, Some(1.0));
    // Others are accepted; the next one on the forbidden topic is a suspect at once.
    let connected = format!("gsdk/lobby/{}/event/connected", ids[0]);
    watcher.see("that it is connected again", |seen| seen.topic == connected).await;
    let connections = bridge.metric("gsdk_mqtt_connections_total").await.unwrap();
    simulator.control().apply_fault(&Fault::power(ids[0], false));
    within(BOUND, "broker closes over the topic again: until it is set aside", async || {
        (bridge.metric("gsdk_outbox_dropped_total").await == Some(2.0)).then_some(())
    })
    .await;
    bridge.is_ready().await;
    let more = bridge.metric("gsdk_mqtt_connections_total").await.unwrap() - connections;
    assert!(more <= 1.0, "{more} connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_over_which_mosquitto_closes_is_emptied_and_the_bridge_is_online() {
    let broker = Mosquitto::start("max_packet_size 900").await;
    let simulator = crate::harness::simulator(5).await;
    let id = simulator.control().managed()[0].device_id;
    let name = "🚪".repeat(200);
    let device = format!("[gateways.lobby.devices.{id}]\nname = {name:?}\n");
    let setup = Setup::new(broker.port, "protocol = \"3.1.1\"").lines(&device);
    let bridge = setup.gateway("lobby", &simulator, "").start();
    within(BOUND, "mosquitto closes over a state: until online", async || {
        let kept = retained(broker.port);
        (kept.get("gsdk/bridge/state").map(String::as_str) == Some("online")).then_some(())
    })
    .await;
    let connections = bridge.metric("gsdk_mqtt_connections_total").await;
    let kept = retained(broker.port);
    assert!(!kept.contains_key(&format!("gsdk/lobby/{id}/state")));
    let states = kept.keys().filter(|topic| topic.matches('/').count() == 3).count();
    assert_eq!(states, 4, "every other device's: {kept:?}");
    let log = bridge.log();
    assert!(log.contains(&format!("gsdk/lobby/{id}/state")), "{log}");
    assert_eq!(bridge.metric("gsdk_mqtt_connections_total").await, connections);
}
