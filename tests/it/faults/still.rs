//! Frozen components: a frozen broker, one that acknowledges nothing, a stopped bridge. Each is
//! detected within its documented time, and nothing is lost.

use std::time::{Duration, Instant};

use super::{check_all, reads, ready, within};
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::watcher::{Watcher, retained};
use gsdk2mqtt::simulator::{Fault, Simulator};
use serde_json::Value;

/// One and a half keep-alives of 30 s.
const NOTICED_WITHIN: Duration = Duration::from_secs(45);
/// For the following attempts, at most 30 s apart, and for busy machines.
const GRACE: Duration = Duration::from_secs(45);

/// Drops a connected device; returns its ID.
fn drop_one(simulator: &Simulator) -> u32 {
    let control = simulator.control();
    let connected = control.managed().into_iter().find(|one| matches!(one.status, 1 | 2));
    let device = connected.expect("one is connected").device_id;
    assert_eq!(control.apply_fault(&Fault::Drop { devices: device.into() }), 1);
    device
}

/// Everything arrives, in an unbroken chain, and finally the bridge is `online`.
async fn recovers(broker: &Mosquitto, watcher: &Watcher, bridge: &Bridge, what: &str) {
    // The existing connection may have to time out first.
    let bound = NOTICED_WITHIN + GRACE;
    ready(bridge, bound, &format!("{what}: until ready again")).await;
    reads(bridge, "gsdk_outbox_events", 0.0, bound, &format!("{what}: until all is reported"))
        .await;
    within(bound, &format!("{what}: until online is kept"), async || {
        (retained(broker.port).get("gsdk/bridge/state")? == "online").then_some(())
    })
    .await;
    assert!(check_all(watcher) > 0);
}

async fn a_broker_that_is_frozen() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(20).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    broker.freeze();
    drop_one(&simulator);
    let bound = NOTICED_WITHIN + GRACE;
    reads(&bridge, "gsdk_mqtt_connected", 0.0, bound, "frozen broker: until detected").await;
    assert_eq!(bridge.get("/healthz").await.0, 200, "the loop turns");
    let device = drop_one(&simulator);
    assert!(bridge.metric("gsdk_outbox_events").await > Some(0.0));
    broker.thaw();
    recovers(&broker, &watcher, &bridge, "frozen broker").await;
    watcher.see("an event of the time of silence", |seen| seen.is_event_of(device)).await;
}

async fn a_broker_that_acknowledges_nothing() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let proxy = Proxy::before(broker.port).await;
    let simulator = crate::harness::simulator(20).await;
    let bridge = Setup::new(proxy.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    proxy.set_mode(Mode { withholds_acks: true, ..Mode::default() });
    let device = drop_one(&simulator);
    watcher.see("the first event, unacknowledged", |seen| seen.is_event_of(device)).await;
    let bound = NOTICED_WITHIN + GRACE;
    let what = "no acknowledgement: until detected";
    within(bound, what, async || {
        bridge.log().contains("has acknowledged nothing for 45 s").then_some(())
    })
    .await;
    proxy.set_mode(Mode::default());
    recovers(&broker, &watcher, &bridge, "no acknowledgement").await;
    let events = watcher.events_of(device);
    let again = events.windows(2).any(|pair| pair[0]["event_id"] == pair[1]["event_id"]);
    assert!(again, "sent again under its own event_id: {events:?}");
}

/// A stopped process simulates a sleeping machine; `clock` tests its clocks.
async fn a_bridge_that_sleeps_a_minute() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(20).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    let managed = simulator.control().managed();
    let quiet = managed.iter().rfind(|one| matches!(one.status, 1 | 2)).unwrap().device_id;
    let series =
        format!("gsdk_device_observed_seconds_total{{gateway=\"lobby\",device_id=\"{quiet}\"}}");
    let (before, since) = (bridge.metric(&series).await.unwrap(), Instant::now());
    bridge.signal("-STOP");
    let stopped = Instant::now();
    let device = drop_one(&simulator);
    // The broker closes the connection after one and a half keep-alives, and publishes the last
    // will.
    within(NOTICED_WITHIN + GRACE, "sleeping bridge: until its last will", async || {
        watcher.place("gsdk/bridge/state", "offline").map(drop)
    })
    .await;
    let slept = stopped.elapsed().as_secs_f64();
    bridge.signal("-CONT");
    recovers(&broker, &watcher, &bridge, "sleeping bridge").await;
    watcher.see("what happened meanwhile", |seen| seen.is_event_of(device)).await;
    watcher.see("a loss", |seen| seen.topic == "gsdk/lobby/event/unreachable").await;
    watcher.see("a return", |seen| seen.topic == "gsdk/lobby/event/reachable").await;
    assert_eq!(bridge.log().matches("the bridge did not run").count(), 1, "{}", bridge.log());
    let observed = bridge.metric(&series).await.unwrap() - before;
    let awake = since.elapsed().as_secs_f64() - slept;
    assert!(observed <= awake, "{observed} s observed, {awake} s awake, {slept} s asleep");
    within(GRACE, "sleeping bridge: until its history shows the time", async || {
        let (_, answer) = bridge.get("/api/v1/availability?of=gateways&from=1h").await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let gateway = &answer["availability"][0];
        assert_eq!(gateway["outages"], 0, "the gateway was there: {gateway}");
        // The beat before the stop was less than 5 s old.
        let unobserved = gateway["unobserved_s"].as_f64().unwrap();
        (unobserved >= slept - 1.0 && unobserved < slept + 8.0).then_some(())
    })
    .await;
}

/// Aim: silence is detected, and recovered from without loss. Method: three trials in
/// parallel, because each waits for most of a minute.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_processes_are_detected_and_nothing_is_lost() {
    tokio::join!(
        Box::pin(a_broker_that_is_frozen()),
        Box::pin(a_broker_that_acknowledges_nothing()),
        Box::pin(a_bridge_that_sleeps_a_minute()),
    );
}
