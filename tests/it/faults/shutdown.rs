//! A stop ends within 5 s, publishes `offline` if the broker accepts it, and loses nothing, also
//! while other programs hang. And a start with another configuration.

use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::{Fault, Storm};

use super::{check_all, measured, reads, ready, within};
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::watcher::{Watcher, retained};

const PATIENCE: Duration = Duration::from_secs(90);
/// The promise, with time for a busy machine to handle the signal and end the process.
const STOPPED_WITHIN: Duration = Duration::from_secs(5 + 2);

/// Stops it, and checks the promise.
async fn stops(bridge: &mut Bridge, what: &str) -> String {
    let started = Instant::now();
    let (status, log) = bridge.terminate().await;
    measured(&format!("{what}: from SIGTERM to the end"), started.elapsed());
    assert!(started.elapsed() < STOPPED_WITHIN, "{:?}: {log}", started.elapsed());
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("not kept: lost"), "{log}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_with_a_frozen_broker_and_a_frozen_gateway_ends_in_time_and_loses_nothing() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(20).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    broker.freeze();
    simulator.control().storm(Storm::of(5_000)).await.unwrap();
    within(PATIENCE, "frozen broker: until the outbox has filled", async || {
        (bridge.metric("gsdk_outbox_events").await > Some(1_000.0)).then_some(())
    })
    .await;
    simulator.control().apply_fault(&Fault::Freeze { on: true });
    let log = stops(&mut bridge, "frozen broker and gateway").await;
    assert!(log.contains("stored for the next start"), "{log}");
    broker.thaw();
    simulator.control().apply_fault(&Fault::Freeze { on: false });
    bridge.restart();
    ready(&bridge, PATIENCE, "started again, until ready").await;
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "started again, until all is reported")
        .await;
    assert!(check_all(&watcher) > 1_000);
    assert!(watcher.find(|seen| seen.topic.ends_with("/chain_reset")).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_with_many_events_and_a_slow_broker_publishes_offline_and_loses_nothing() {
    let broker = Mosquitto::start("max_inflight_messages 2\nmax_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let proxy = Proxy::before(broker.port).await;
    let simulator = crate::harness::simulator(20).await;
    let mut bridge = Setup::new(proxy.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    proxy.set_mode(Mode { delay: Duration::from_millis(20), ..Mode::default() });
    simulator.control().storm(Storm::of(5_000)).await.unwrap();
    within(PATIENCE, "slow broker: until the outbox has filled", async || {
        (bridge.metric("gsdk_outbox_events").await > Some(1_000.0)).then_some(())
    })
    .await;
    watcher.clear();
    let log = stops(&mut bridge, "slow broker, much to tell").await;
    assert!(log.contains("stored for the next start"), "{log}");
    let kept = retained(broker.port);
    assert_eq!((&*kept["gsdk/lobby/state"], &*kept["gsdk/bridge/state"]), ("offline", "offline"));
    let place = |topic| watcher.place(topic, "offline").unwrap();
    assert!(place("gsdk/lobby/state") < place("gsdk/bridge/state"));
    proxy.set_mode(Mode::default());
    bridge.restart();
    ready(&bridge, PATIENCE, "started again, until ready").await;
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "started again, until all is reported")
        .await;
    assert!(check_all(&watcher) > 1_000);
}

/// Aim: waiting events survive a start with a smaller outbox and another name; excess events are
/// dropped, counted and reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_another_configuration_continues_with_the_chain() {
    let mut broker = Mosquitto::start("max_queued_messages 0").await;
    let simulator = crate::harness::simulator(20).await;
    let mut bridge = Setup::new(broker.port, "")
        .gateway("lobby", &simulator, "")
        .lines("[outbox]\nmax_events = 100_000\n")
        .start();
    ready(&bridge, PATIENCE, "another configuration: the first start").await;
    let chain = |broker: &Mosquitto| -> String {
        let info: serde_json::Value =
            serde_json::from_str(&retained(broker.port)["gsdk/bridge/info"]).unwrap();
        info["chain"].as_str().unwrap().to_owned()
    };
    let before = chain(&broker);
    broker.kill();
    simulator.control().storm(Storm::of(5_000)).await.unwrap();
    within(PATIENCE, "another configuration: until the outbox has filled", async || {
        (bridge.metric("gsdk_outbox_events").await > Some(4_000.0)).then_some(())
    })
    .await;
    stops(&mut bridge, "no broker, much to tell").await;
    bridge.configure(|text| text.replace("100_000", "1_000"));
    bridge.restart();
    simulator.control().storm(Storm::of(41)).await.unwrap();
    within(PATIENCE, "another configuration: until it fits", async || {
        bridge.metric("gsdk_outbox_events").await.filter(|waiting| *waiting <= 1_001.0)
    })
    .await;
    let dropped = bridge.metric("gsdk_outbox_dropped_total").await.unwrap();
    assert!(dropped > 3_000.0, "{dropped}");
    let watcher = bridge.broker_is_back(&mut broker).await;
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "another configuration: until reported")
        .await;
    assert_eq!(chain(&broker), before, "the same chain");
    watcher.has_all(broker.port).await;
    let all = watcher.all();
    let events = all.iter().filter(|seen| seen.topic.contains("/event/"));
    let lost: u64 = events.filter_map(|seen| seen.json()["lost"].as_u64()).sum();
    let dropped = bridge.metric("gsdk_outbox_dropped_total").await;
    measured("dropped, and reported by `lost`", (dropped, lost));
    assert_eq!(dropped, Some(lost as f64), "every one is reported");
}
