//! Changes at the gateway reach the broker: events, states, their order, their chain.

use std::time::Duration;

use serde_json::json;

use gsdk2mqtt::proto::connect::AcceptFilter;
use gsdk2mqtt::simulator::{Fault, Simulator, SimulatorSettings, Storm};

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Seen, Watcher, check_chain, retained};
use crate::harness::{eventually, patiently};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_disconnects_and_connects_again() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    let device = simulator.control().managed()[0].clone();
    let topic = format!("gsdk/lobby/{}/state", device.device_id);
    let first = watcher.find(|seen| seen.topic == topic).unwrap().json();
    assert_eq!((&first["connected"], &first["seq"]), (&json!(true), &json!(0)));

    assert_eq!(simulator.control().apply_fault(&Fault::power(device.device_id, false)), 1);
    let id = device.device_id;
    let at = |event: &str| format!("gsdk/lobby/{id}/event/{event}");
    watcher.see("disconnected", |seen| seen.topic == at("disconnected")).await;
    watcher.see("a failed try", |seen| seen.topic == at("connect_failed")).await;
    simulator.control().apply_fault(&Fault::power(id, true));
    watcher.see("connected", |seen| seen.topic == at("connected")).await;

    let events = watcher.events_of(id);
    let types: Vec<_> = events.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["disconnected", "connecting", "connect_failed", "connected"]);
    check_chain(&events);
    assert_eq!(events[0]["seq"], 1);
    assert_eq!(events[0]["previous"], first["status"]);
    assert!(events[3]["duration_s"].is_number(), "{}", events[3]);
    assert!(watcher.all().iter().all(|seen| !seen.topic.contains("/event/") || !seen.retained));

    let last =
        |seen: &crate::harness::watcher::Seen| seen.topic == topic && seen.json()["seq"] == 4;
    watcher.see("the state of the last event", last).await;
    let kept = retained(broker.port);
    let state: serde_json::Value = serde_json::from_str(&kept[&topic]).unwrap();
    assert_eq!((&state["connected"], &state["since_exact"]), (&json!(true), &json!(true)));
    assert_eq!(kept["gsdk/lobby/state"], "online");
    drop(bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn states_come_before_online_and_online_before_reachable() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(30).await;
    let _bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/bridge/state", "online").await;
    watcher.see("reachable", |seen| seen.topic == "gsdk/lobby/event/reachable").await;
    let all = watcher.all();
    let last_state = all.iter().rposition(|seen| seen.topic.matches('/').count() == 3).unwrap();
    let place = |topic, payload| watcher.place(topic, payload).unwrap();
    let online = place("gsdk/lobby/state", "online");
    assert!(all.iter().filter(|seen| seen.topic.ends_with("/state")).count() >= 32);
    assert!(online < place("gsdk/bridge/state", "online"));
    let reachable = all.iter().position(|seen| seen.topic.ends_with("reachable")).unwrap();
    let first_states = all[..online].iter().filter(|seen| seen.topic.matches('/').count() == 3);
    assert_eq!(first_states.count(), 30, "every device before its gateway; last {last_state}");
    assert!(online < reachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_20_000_changes_is_accounted_for_to_the_last() {
    let broker = Mosquitto::start("max_queued_messages 0\nmax_inflight_messages 100").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(200).await;
    let gateway = "queue_size = 65536";
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, gateway).start();
    watcher.see_text("gsdk/bridge/state", "online").await;

    let report = simulator.control().storm(Storm::of(20_000)).await.unwrap();
    assert_eq!(report.changes, 20_000);
    // After the storm some devices reconnect, which is reported in addition to its 20,000.
    let reported = || {
        let subscriptions = simulator.control().subscriptions();
        assert_eq!(subscriptions.iter().map(|it| it.discarded).sum::<u64>(), 0);
        subscriptions.iter().map(|it| it.offered).sum::<u64>() as f64
    };
    let (events, repeated) = patiently("every change is accounted for", async {
        loop {
            let events = sum(&bridge, "gsdk_status_changes_total").await;
            let repeated = sum(&bridge, "gsdk_repeated_status_total").await;
            if events + repeated >= reported() {
                return (events, repeated);
            }
        }
    })
    .await;
    assert_eq!(events + repeated, reported());
    assert!(events + repeated >= 20_000.0);
    let is_event =
        |seen: &Seen| seen.topic.contains("/event/") && seen.topic.matches('/').count() == 4;
    let arrived = || watcher.all().iter().filter(|seen| is_event(seen)).count() as f64;
    eventually("every event arrives", || (arrived() >= events).then_some(())).await;
    assert_eq!(arrived(), events, "none twice");
    for device in simulator.control().devices() {
        check_chain(&watcher.events_of(device.id));
    }
}

/// The sum of a family's samples.
async fn sum(bridge: &Bridge, family: &str) -> f64 {
    let (_, text) = bridge.get("/metrics").await;
    let samples = text.lines().filter(|line| line.starts_with(&format!("{family}{{")));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Aim: readers that the gateway refuses and that keep dialing it must not flood events, history
/// and the gateway, and are connected at once when another client lets the gateway accept them.
#[tokio::test(flavor = "multi_thread")]
async fn refused_readers_that_keep_dialing_are_reported_once_a_minute() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let settings = SimulatorSettings { managed: false, ..SimulatorSettings::fast(20) };
    let simulator = Simulator::start(settings).await.unwrap();
    let control = simulator.control();
    let no_audit = "audit_interval = \"1h\"";
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, no_audit).start();
    bridge.is_ready().await;
    let events = || {
        let mut all = watcher.all();
        all.retain(|seen| seen.topic == "gsdk/lobby/event/stranger");
        all.iter().map(|seen| seen.json()["device_id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let lists = || {
        control
            .calls()
            .iter()
            .filter(|(name, _)| name.ends_with("GetDeviceList"))
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    let refused = control.pending().len();
    assert!(refused >= 3, "{refused}");
    eventually("each is reported", || (events().len() >= refused).then_some(())).await;
    // A status may have come after the last list was requested.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let read = lists();
    let series = "gsdk_stranger_status_total{gateway=\"lobby\"}";
    let counted = bridge.metric(series).await.unwrap();
    // Each dials ten times a second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((events().len(), lists()), (refused, read), "{:?}", events());
    let mut ids = events();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), refused, "each once: {ids:?}");
    assert!(bridge.metric(series).await.unwrap() >= counted + 10.0);

    let reader = u32::try_from(ids[0]).unwrap();
    assert!(control.set_filter(AcceptFilter { allow_all: true, ..AcceptFilter::default() }));
    let topic = format!("gsdk/lobby/{reader}/state");
    let connected = |seen: &Seen| seen.topic == topic && seen.json()["connected"] == true;
    watcher.see("the reader is connected", connected).await;
}
