//! Discovery as the broker keeps it and a client receives it.

use std::collections::BTreeMap;
use std::time::Duration;

use gsdk2mqtt::simulator::Fault;
use serde_json::Value;

use super::{ENABLED, id};
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Seen, Watcher, publish, retained};
use crate::harness::{eventually, simulator};

const PREFIX: &str = "homeassistant/device/";

/// The retained discovery, by ID.
fn kept(broker: &Mosquitto) -> BTreeMap<String, Value> {
    let id = |topic: String| Some(topic.strip_prefix(PREFIX)?.strip_suffix("/config")?.to_owned());
    let kept = retained(broker.port).into_iter();
    kept.filter_map(|(topic, text)| Some((id(topic)?, serde_json::from_str(&text).unwrap())))
        .collect()
}

fn is_discovery(seen: &Seen) -> bool {
    seen.topic.starts_with(PREFIX)
}

/// Waits until this number of devices has retained discovery.
async fn described(broker: &Mosquitto, count: usize) -> BTreeMap<String, Value> {
    eventually("discovery is complete", || Some(kept(broker)).filter(|kept| kept.len() == count))
        .await
}

/// The same, if something has to be cleared: not in the first 60 s of a session.
async fn cleared_to(broker: &Mosquitto, count: usize) -> BTreeMap<String, Value> {
    let looks = async {
        loop {
            let kept = kept(broker);
            if kept.len() == count {
                return kept;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), looks).await.expect("discovery is cleared")
}

async fn restart(bridge: &mut Bridge, from: &str, to: &str) {
    bridge.terminate().await;
    bridge.change(from, to);
    bridge.restart();
    bridge.is_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parents_come_before_children_and_after_the_full_state() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let lobby = simulator(3).await;
    let _bridge = Setup::new(broker.port, "").lines(ENABLED).gateway("lobby", &lobby, "").start();
    let kept = described(&broker, 5).await;
    let order: Vec<String> =
        watcher.all().into_iter().filter(is_discovery).map(|seen| seen.topic).collect();
    let ids = order.iter().map(|topic| &topic[PREFIX.len()..topic.len() - "/config".len()]);
    let ids: Vec<&str> = ids.collect();
    assert_eq!(&ids[..2], ["gsdk_bridge", "gsdk_lobby_gateway"]);
    assert_eq!(ids.len(), 5, "each once: {ids:?}");
    let online = watcher.place("gsdk/bridge/state", "online").unwrap();
    assert!(watcher.all().iter().position(is_discovery).unwrap() > online);
    for device in &ids[2..] {
        assert_eq!(kept[*device]["device"]["via_device"], "gsdk_lobby_gateway");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_discovery_is_not_sent_again_until_home_assistant_starts() {
    let broker = Mosquitto::start("").await;
    let lobby = simulator(3).await;
    let mut bridge =
        Setup::new(broker.port, "").lines(ENABLED).gateway("lobby", &lobby, "").start();
    let before = described(&broker, 5).await;
    bridge.terminate().await;
    // If another client removes one, only this one is published again. It is the last in order, so
    // that any other would precede it.
    let ids = lobby.control().managed().iter().map(|device| device.device_id).max();
    let lost = format!("gsdk_lobby_{}", ids.unwrap());
    let topic = format!("{PREFIX}{lost}/config");
    publish(broker.port, &["-r", "-n", "-t", &topic]);
    let watcher = Watcher::start(broker.port).await;
    watcher.clear();
    bridge.restart();
    watcher.see("the lost one", |seen| seen.topic == topic).await;
    let sent = watcher.all().into_iter().filter(is_discovery).count();
    assert_eq!(sent, 1, "the others are there: {:?}", watcher.all());
    assert_eq!(described(&broker, 5).await, before);

    watcher.clear();
    publish(broker.port, &["-t", "homeassistant/status", "-m", "online"]);
    let states = |seen: &Seen| seen.topic.starts_with("gsdk/lobby/") && seen.topic.ends_with("e");
    eventually("all discovery and all states again", || {
        let all = watcher.all();
        let discovered = all.iter().filter(|seen| is_discovery(seen)).count();
        (discovered == 5 && all.iter().filter(|seen| states(seen)).count() == 4).then_some(())
    })
    .await;
    let first_state = watcher.all().iter().position(states).unwrap();
    let last = watcher.all().iter().rposition(is_discovery).unwrap();
    assert!(last < first_state, "who has just read of a state's topic is given it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_client_clears_is_published_again_at_the_interval() {
    let broker = Mosquitto::start("").await;
    let lobby = simulator(3).await;
    let setup = Setup::new(broker.port, "republish_interval = \"10s\"").lines(ENABLED);
    let _bridge = setup.gateway("lobby", &lobby, "").start();
    let before = described(&broker, 5).await;
    publish(broker.port, &["-r", "-n", "-t", &format!("{PREFIX}gsdk_bridge/config")]);
    assert_eq!(described(&broker, 5).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn switched_off_it_is_cleared_also_where_the_store_is_new() {
    let broker = Mosquitto::start("").await;
    let (lobby, annex) = (simulator(3).await, simulator(1).await);
    let other = Setup::new(broker.port, "").lines(ENABLED).gateway("annex", &annex, "");
    let _other = other.top("bridge_name = \"bridge_2\"").start();
    let mut bridge =
        Setup::new(broker.port, "").lines(ENABLED).gateway("lobby", &lobby, "").start();
    described(&broker, 8).await;
    bridge.terminate().await;
    std::fs::remove_dir_all(bridge.state_dir()).unwrap();
    bridge.change("enabled = true", "enabled = false");
    bridge.restart();
    let left = cleared_to(&broker, 3).await;
    assert!(left.keys().all(|id| id.contains("annex") || id == "gsdk_bridge_2"), "{left:?}");
    let (_, log) = bridge.stop().await;
    assert!(log.contains("clearing stale Home Assistant discovery"), "{log}");
}

/// With MQTT 3.1.1, which marks retained messages differently.
#[tokio::test(flavor = "multi_thread")]
async fn removed_devices_are_cleared_and_controls_follow_the_configuration() {
    let broker = Mosquitto::start("").await;
    let (lobby, store) = (simulator(2).await, simulator(2).await);
    let mut bridge = Setup::new(broker.port, "protocol = \"3.1.1\"")
        .lines("[commands]\nallow = [\"disconnect\", \"async/remove\", \"forget\"]\n")
        .lines(&format!("{ENABLED}controls = true\n"))
        .gateway("lobby", &lobby, "")
        .gateway("store", &store, "")
        .start();
    let ids: Vec<u32> = lobby.control().managed().iter().map(|it| it.device_id).collect();
    let all = described(&broker, 7).await;
    let device = format!("gsdk_lobby_{}", ids[0]);
    let button = all[&device]["components"]["disconnect"].clone();
    assert_eq!(button["unique_id"], id(ids[0], "disconnect"));
    let gateway = &all["gsdk_lobby_gateway"]["components"];
    assert_eq!(gateway["disconnect_all"].as_object().unwrap().len(), 1, "it is not permitted");

    bridge.terminate().await;
    bridge.forget_gateway("store");
    bridge.restart();
    cleared_to(&broker, 4).await;
    restart(&mut bridge, "controls = true", "controls = false").await;
    eventually("the button is taken back", || {
        let stub = serde_json::json!({"platform": "button"});
        (kept(&broker)[&device]["components"]["disconnect"] == stub).then_some(())
    })
    .await;

    let request = serde_json::json!({"device_id": ids[0]}).to_string();
    publish(broker.port, &["-t", "gsdk/lobby/request/async/remove", "-m", &request]);
    lobby.control().apply_fault(&Fault::RemoveDevice { devices: ids[0].into() });
    let forget = serde_json::json!({"gateway": "lobby", "device_ids": [ids[0]]}).to_string();
    eventually("the forgotten device's discovery is cleared", || {
        publish(broker.port, &["-t", "gsdk/bridge/request/forget", "-m", &forget]);
        (!kept(&broker).contains_key(&device)).then_some(())
    })
    .await;
    assert_eq!(kept(&broker).len(), 3);
}
