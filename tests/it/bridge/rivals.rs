//! Two bridges by mistake: said loudly, never fought.

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::patiently;
use crate::harness::watcher::{Watcher, retained};

/// Waits until `/readyz` gives a reason with these words.
async fn says(bridge: &Bridge, words: &str) {
    patiently(words, async {
        while !bridge.get("/readyz").await.1.contains(words) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_of_two_bridges_of_one_name_steps_back_without_a_word() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let start = |client: &str| {
        let client_id = format!("client_id = \"{client}\"");
        Setup::new(broker.port, &client_id).gateway("lobby", &simulator, "").start()
    };
    let first = start("one");
    watcher.see_text("gsdk/bridge/state", "online").await;
    first.is_ready().await;
    let second = start("two");
    says(&second, "another bridge").await;
    says(&second, "the broker is not connected").await;
    says(&first, "another bridge").await;
    assert_eq!(first.metric("gsdk_mqtt_connected").await, Some(1.0));
    assert_eq!(second.metric("gsdk_mqtt_connected").await, Some(0.0));
    assert_eq!(retained(broker.port)["gsdk/bridge/state"], "online", "nobody said offline");
    assert!(watcher.place("gsdk/bridge/state", "offline").is_none());
}

/// Waits until the bridge is, or is not, connected to the broker.
async fn is_connected(bridge: &Bridge, connected: bool) {
    let wanted = Some(f64::from(u8::from(connected)));
    patiently("connected or not", async {
        while bridge.metric("gsdk_mqtt_connected").await != wanted {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Its store is empty, so it would clear what it takes for its own leftovers.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_bridge_of_other_gateways_says_and_clears_nothing() {
    let broker = Mosquitto::start("").await;
    let (lobby, annex) = (crate::harness::simulator(3).await, crate::harness::simulator(3).await);
    let first = Setup::new(broker.port, "client_id = \"one\"").gateway("lobby", &lobby, "").start();
    first.is_ready().await;
    let watcher = Watcher::start(broker.port).await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    let before = retained(broker.port);
    watcher.clear();
    let setup = Setup::new(broker.port, "client_id = \"two\"");
    let second = setup.lines("[commands]\nallow = [\"*\"]\n").gateway("annex", &annex, "").start();
    says(&second, "another bridge").await;
    is_connected(&second, false).await;
    says(&first, "another bridge").await;
    let device = lobby.control().managed()[0].device_id;
    lobby.control().power(device, false);
    watcher.see("the first goes on", |seen| seen.is_event_of(device)).await;
    let after = retained(broker.port);
    assert!(before.keys().eq(after.keys()), "{before:?} {after:?}");
    let all = watcher.all();
    assert!(all.iter().all(|seen| !seen.topic.contains("annex")), "{all:?}");
    assert!(all.iter().all(|seen| !seen.payload.is_empty()), "{all:?}");
    assert!(watcher.place("gsdk/bridge/state", "offline").is_none());
    assert!(watcher.place("gsdk/lobby/state", "offline").is_none());
}

/// The broker ends the session of the one whenever the other connects.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_bridges_of_one_client_id_the_later_one_steps_back() {
    let broker = Mosquitto::start("").await;
    let (lobby, annex) = (crate::harness::simulator(3).await, crate::harness::simulator(3).await);
    let first = Setup::new(broker.port, "").gateway("lobby", &lobby, "").start();
    first.is_ready().await;
    let second = Setup::new(broker.port, "").gateway("annex", &annex, "").start();
    says(&second, "another bridge").await;
    is_connected(&second, false).await;
    is_connected(&first, true).await;
    says(&first, "another bridge").await;
    let connections = first.metric("gsdk_mqtt_connections_total").await;
    let watcher = Watcher::start(broker.port).await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    let device = lobby.control().managed()[0].device_id;
    lobby.control().power(device, false);
    watcher.see("the first goes on", |seen| seen.is_event_of(device)).await;
    assert_eq!(first.metric("gsdk_mqtt_connections_total").await, connections);
    assert_eq!(second.metric("gsdk_mqtt_connected").await, Some(0.0));
    assert!(retained(broker.port)["gsdk/bridge/info"].contains("lobby"));
}
