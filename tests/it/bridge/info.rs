//! The content of a gateway's info, and that it agrees with the gateway's state topic.

use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::{Fault, Simulator};
use serde_json::{Value, json};

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Seen, Watcher};

/// Well below the 10 s by which counts may be late.
const AT_ONCE: Duration = Duration::from_secs(3);

/// The delay of each answer.
const LATE: Duration = Duration::from_secs(3);

async fn info(watcher: &Watcher, state: &str) -> Value {
    let like = |seen: &Seen| seen.topic == "gsdk/lobby/info" && seen.json()["state"] == state;
    watcher.see(&format!("info says {state}"), like).await.json()
}

async fn gateway(latency: Duration) -> (Mosquitto, Watcher, Simulator, Bridge) {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(20).await;
    simulator.control().apply_fault(&Fault::latency(latency));
    let bridge =
        Setup::new(broker.port, "").gateway("lobby", &simulator, "unknown_after = \"2s\"").start();
    (broker, watcher, simulator, bridge)
}

/// The list is late, after the 2 s in which the bridge checks for another instance, so that an
/// info which says `syncing` is published first.
#[tokio::test(flavor = "multi_thread")]
async fn info_is_online_with_all_devices_as_soon_as_the_gateway_is_online() {
    let (_broker, watcher, _simulator, _bridge) = gateway(LATE).await;
    watcher.see_text("gsdk/lobby/state", "online").await;
    let online = Instant::now();
    let info = info(&watcher, "online").await;
    assert!(online.elapsed() < AT_ONCE, "after {:?}", online.elapsed());
    assert_eq!((&info["devices"], &info["connected"]), (&20.into(), &20.into()), "{info}");
    let all = watcher.all();
    let syncing =
        |seen: &Seen| seen.topic == "gsdk/lobby/info" && seen.json()["state"] == "syncing";
    assert!(all.iter().any(syncing), "nothing was shown: {all:?}");
    let place = |like: &dyn Fn(&Seen) -> bool| all.iter().position(like);
    let state = place(&|seen| seen.topic == "gsdk/lobby/state" && seen.payload == "online");
    let says = |seen: &Seen| seen.topic == "gsdk/lobby/info" && seen.json()["state"] == "online";
    assert!(state < place(&says), "the state topic is first");
}

#[tokio::test(flavor = "multi_thread")]
async fn info_is_lost_with_the_reason_as_soon_as_the_gateway_is_offline() {
    let (_broker, watcher, simulator, bridge) = gateway(Duration::ZERO).await;
    bridge.is_ready().await;
    info(&watcher, "online").await;
    watcher.clear();
    simulator.control().stop_listening();
    simulator.control().apply_fault(&Fault::CutConnections);
    let with_error =
        |seen: &Seen| seen.topic == "gsdk/lobby/info" && seen.json()["last_error"].is_object();
    let cut = Instant::now();
    watcher.see("info has the error", with_error).await;
    assert!(cut.elapsed() < AT_ONCE, "after {:?}", cut.elapsed());
    watcher.see_text("gsdk/lobby/state", "offline").await;
    let offline = Instant::now();
    let info = info(&watcher, "lost").await;
    assert_eq!((&info["devices"], &info["connected"]), (&20.into(), &json!(null)), "{info}");
    assert!(offline.elapsed() < AT_ONCE, "after {:?}", offline.elapsed());
}
