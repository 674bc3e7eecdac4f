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
