//! Slow components: a throttled broker, gateways that accept and do not answer, and the limits of
//! memory.

use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::{Fault, Storm};

use super::{check_all, measured, reads, within};
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::watcher::{Seen, Watcher};

const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_broker_with_one_message_at_a_time_gets_all_in_order() {
    let broker = Mosquitto::start("max_inflight_messages 1\nmax_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let proxy = Proxy::before(broker.port).await;
    proxy.set_mode(Mode { delay: Duration::from_millis(5), ..Mode::default() });
    let simulator = crate::harness::simulator(20).await;
    let bridge = Setup::new(proxy.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    simulator.control().storm(Storm::of(400)).await.unwrap();
    let what = "throttled broker: until 400 changes are reported";
    within(PATIENCE, what, async || (check_all(&watcher) >= 400).then_some(())).await;
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "throttled broker: until idle").await;
    check_all(&watcher);
    assert_eq!(bridge.metric("gsdk_mqtt_connections_total").await, Some(1.0), "slow is not lost");
}

/// Three ways in which a gateway is reachable and does not answer; and a healthy one.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_answer_is_lost_in_time_and_the_others_are_not() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let healthy = crate::harness::simulator(5).await;
    let (silent, frozen, no_list) = (
        crate::harness::simulator(5).await,
        crate::harness::simulator(5).await,
        crate::harness::simulator(5).await,
    );
    // One accepts and never answers; one accepts the stream and never answers the call for the
    // list.
    let started = Instant::now();
    silent.control().apply_fault(&Fault::Freeze { on: true });
    no_list.control().apply_fault(&Fault::latency(Duration::from_secs(3_600)));
    let bridge = Setup::new(broker.port, "")
        .gateway("frozen", &frozen, "")
        .gateway("silent", &silent, "")
        .gateway("healthy", &healthy, "")
        .gateway("no_list", &no_list, "")
        .start();
    let lost = |gateway: &str| {
        let topic = format!("gsdk/{gateway}/event/unreachable");
        watcher.find(|seen| seen.topic == topic).map(drop)
    };
    watcher.see_text("gsdk/frozen/state", "online").await;
    // The stream remains open, but nothing arrives and nothing ends.
    frozen.control().apply_fault(&Fault::Freeze { on: true });
    let bound = Duration::from_secs(25) * 2;
    let device = healthy.control().managed()[0].device_id;
    let mut waiting = vec!["frozen", "silent", "no_list"];
    let mut reported = 0;
    let detected = within(bound, "silent stream: until its devices are unknown", async || {
        healthy.control().apply_fault(&Fault::Drop { devices: device.into() });
        reported = watcher.events_of(device).len();
        waiting.retain(|gateway| {
            let stays = lost(gateway).is_none();
            if !stays {
                measured(&format!("{gateway}: lost, after the start"), started.elapsed());
            }
            stays
        });
        waiting.is_empty().then_some(())
    });
    assert!(detected.await.1 > Duration::from_secs(9), "not before unknown_after");
    assert!(reported > 5, "the healthy one was reported meanwhile: {reported} events");
    let all = watcher.all();
    let unreachable = all.iter().filter(|seen| seen.topic == "gsdk/frozen/event/unreachable");
    assert_eq!(unreachable.count(), 1, "one moment of loss");
    let disconnected = |seen: &Seen| {
        seen.topic.starts_with("gsdk/frozen/") && seen.topic.ends_with("/event/disconnected")
    };
    assert!(
        !all.iter().any(disconnected),
        "not reported as disconnected when the gateway was lost"
    );
    assert_eq!(bridge.metric("gsdk_gateway_up{gateway=\"healthy\"}").await, Some(1.0));
    watcher.see_text("gsdk/bridge/state", "online").await;
    for (gateway, simulator) in [("silent", &silent), ("frozen", &frozen)] {
        watcher.clear();
        simulator.control().apply_fault(&Fault::Freeze { on: false });
        let topic = format!("gsdk/{gateway}/event/reachable");
        let back = async || watcher.find(|seen| seen.topic == topic).map(drop);
        within(PATIENCE, &format!("{gateway}: thawed, until reachable"), back).await;
    }
    watcher.clear();
    no_list.control().apply_fault(&Fault::latency(Duration::ZERO));
    let back = async || watcher.find(|seen| seen.topic == "gsdk/no_list/event/reachable").map(drop);
    within(PATIENCE, "no_list: answers, until reachable", back).await;
    check_all(&watcher);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_device_makes_two_events_for_any_number_of_tries() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    let device = simulator.control().managed()[0].device_id;
    simulator.control().apply_fault(&Fault::power(device, false));
    let series =
        format!("gsdk_device_connect_failures_total{{gateway=\"lobby\",device_id=\"{device}\"}}");
    within(PATIENCE, "absent device: until it was tried 20 times", async || {
        (bridge.metric(&series).await >= Some(20.0)).then_some(())
    })
    .await;
    let events = watcher.events_of(device);
    let types: Vec<_> = events.iter().map(|event| event["event_type"].clone()).collect();
    assert_eq!(types, ["disconnected", "connecting", "connect_failed"]);
}

/// Aim: memory is bounded, whatever waits. Method: no broker, a full outbox, and then
/// ten times as many events again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_uses_no_more_memory_for_further_events() {
    let mut broker = Mosquitto::start("max_queued_messages 0").await;
    broker.kill();
    let simulator = crate::harness::simulator(100).await;
    let lines = "[outbox]\nmax_events = 10_000\n[metrics]\ndevice = []\n";
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").lines(lines).start();
    let series = "gsdk_gateway_up{gateway=\"lobby\"}";
    reads(&bridge, series, 1.0, PATIENCE, "no broker: until the gateway is up").await;
    let control = simulator.control();
    let mut most = Vec::new();
    for round in 0..11 {
        control.storm(Storm::of(12_000)).await.unwrap();
        let reported = f64::from(12_000 * (round + 1));
        within(PATIENCE, &format!("no broker: round {round} processed"), async || {
            let (_, text) = bridge.get("/metrics").await;
            let of = |family: &str| -> f64 {
                let lines = text.lines().filter(|line| line.starts_with(family));
                lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
            };
            let taken = of("gsdk_status_changes_total{") + of("gsdk_repeated_status_total{");
            (taken >= reported).then_some(())
        })
        .await;
        most.push(bridge.memory());
    }
    let waiting = bridge.metric("gsdk_outbox_events").await.unwrap();
    assert!(waiting <= 10_001.0, "{waiting}");
    let mebibytes: Vec<u64> = most.iter().map(|bytes| bytes >> 20).collect();
    measured("no broker: memory after each 12,000 changes, MiB", &mebibytes);
    assert!(most[10] < most[0] + (32 << 20), "{mebibytes:?}");
    let watcher = bridge.broker_is_back(&mut broker).await;
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "broker back: until all is reported").await;
    watcher.has_all(broker.port).await;
    let lost = watcher.all().iter().filter(|seen| seen.payload.contains("\"lost\":")).count();
    assert!(lost > 0, "what was dropped is reported");
}
