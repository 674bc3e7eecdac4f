//! The bridge is killed, stopped and started again: a subscriber with a persistent session receives
//! one unbroken chain.

use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::{Value, json};

use gsdk2mqtt::simulator::{Fault, GrpcCode, Simulator, Storm};

use super::clearing::cleared;
use crate::harness::bridge::{Bridge, Setup, another_client};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Watcher, check_chain, publish, retained};
use crate::harness::{eventually, patiently, seeded};

/// A broker without a limit of its queues for subscribers.
const BROKER: &str = "max_queued_messages 0\nmax_inflight_messages 100";
const KILLS: usize = 20;

/// Aim: a kill at any instant does not break the chain. Method: a storm during the whole test,
/// and kills after random times, so that they hit the start, the first list and the storm itself.
#[tokio::test(flavor = "multi_thread")]
async fn killed_20_times_under_load_the_chain_is_unbroken() {
    let broker = Mosquitto::start(BROKER).await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(40).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let control = simulator.control();
    let storm = Storm { per_second: NonZeroU32::new(1_000), ..Storm::of(20_000) };
    let storm = tokio::spawn(async move { control.storm(storm).await.unwrap() });
    let mut random = seeded();
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(random.u64(1..1_000))).await;
        bridge.kill();
        bridge.restart();
    }
    storm.await.unwrap();
    bridge.is_ready().await;
    ends_as_listed(&broker, &watcher, &simulator).await;
    let mut events = 0;
    for device in simulator.control().devices() {
        let of_device = watcher.events_of(device.id);
        check_chain(&of_device);
        events += of_device.len();
    }
    assert!(events > 1_000, "{events} events");
    assert!(watcher.find(|seen| seen.topic.ends_with("/event/chain_reset")).is_none());
    assert_eq!(bridge.metric("gsdk_store_ok").await, Some(1.0));
}

/// Before the first list of a process, events are published and states are not.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_first_list_no_seq_is_used_twice() {
    let broker = Mosquitto::start(BROKER).await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(1).await;
    let control = simulator.control();
    let id = control.devices()[0].id;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let subscriptions = || control.subscriptions().into_iter().map(|it| it.id).max();
    let first = subscriptions();
    bridge.kill();
    control.apply_fault(&Fault::fail("GetDeviceList", tonic::Code::Unavailable, "busy"));
    bridge.restart();
    eventually("it has subscribed", || (subscriptions() > first).then_some(())).await;
    assert_eq!(control.apply_fault(&Fault::Drop { devices: id.into() }), 1);
    watcher.see("an event", |seen| seen.is_event_of(id)).await;
    bridge.kill();
    let before = watcher.events_of(id).len();
    control.apply_fault(&Fault::Heal);
    bridge.restart();
    bridge.is_ready().await;
    assert_eq!(control.apply_fault(&Fault::Drop { devices: id.into() }), 1);
    eventually("another event", || (watcher.events_of(id).len() > before).then_some(())).await;
    ends_as_listed(&broker, &watcher, &simulator).await;
    check_chain(&watcher.events_of(id));
}

/// Aim: what the stream reported before the first list is recorded, also if the connection ends
/// before a list was read.
#[tokio::test(flavor = "multi_thread")]
async fn statuses_before_the_first_list_are_events_also_after_a_new_connection() {
    let broker = Mosquitto::start(BROKER).await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(1).await;
    let control = simulator.control();
    let id = control.devices()[0].id;
    control.apply_fault(&Fault::fail("GetDeviceList", tonic::Code::Internal, "busy"));
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    eventually("it has subscribed", || (!control.subscriptions().is_empty()).then_some(())).await;
    assert_eq!(control.apply_fault(&Fault::Drop { devices: id.into() }), 1);
    eventually("it has connected again", || (control.managed()[0].status > 0).then_some(())).await;
    control.apply_fault(&Fault::EndStreams { code: GrpcCode(tonic::Code::Unavailable) });
    control.apply_fault(&Fault::Heal);
    let event = watcher.see("its first event", |seen| seen.is_event_of(id)).await.json();
    assert_eq!((&event["seq"], &event["source"]), (&json!(1), &json!("stream")), "{event}");
    assert_eq!((&event["previous"], &event["status"]), (&Value::Null, &json!("disconnected")));
    ends_as_listed(&broker, &watcher, &simulator).await;
    check_chain(&watcher.events_of(id));
    assert_eq!(bridge.metric("gsdk_stranger_status_total{gateway=\"lobby\"}").await, Some(0.0));
}

/// Waits until the retained states equal the gateway's list, and the last event has their `seq`.
async fn ends_as_listed(broker: &Mosquitto, watcher: &Watcher, simulator: &Simulator) {
    eventually("the retained states are the list", || {
        let kept = retained(broker.port);
        let listed = simulator.control().managed();
        let agrees = |id: u32, status: i32| {
            let state: Value =
                serde_json::from_str(&kept[&format!("gsdk/lobby/{id}/state")]).unwrap();
            let last = watcher.events_of(id).pop();
            state["status_code"] == status && last.is_none_or(|last| last["seq"] == state["seq"])
        };
        listed.iter().all(|device| agrees(device.device_id, device.status)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_and_start_continues_the_chain_and_finds_what_happened_meanwhile() {
    let broker = Mosquitto::start(BROKER).await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let ids: Vec<u32> = simulator.control().devices().iter().map(|device| device.id).collect();
    let state = |id: u32| -> Value {
        serde_json::from_str(&retained(broker.port)[&format!("gsdk/lobby/{id}/state")]).unwrap()
    };
    assert_eq!(simulator.control().apply_fault(&Fault::power(ids[0], false)), 1);
    let failed = format!("gsdk/lobby/{}/event/connect_failed", ids[0]);
    watcher.see("a first event", |seen| seen.topic == failed).await;
    let before = state(ids[1]);
    let (status, log) = bridge.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");

    simulator.control().apply_fault(&Fault::power(ids[0], true));
    eventually("it is connected again", || {
        let managed = simulator.control().managed();
        let device = managed.into_iter().find(|device| device.device_id == ids[0])?;
        matches!(device.status, 1 | 2).then_some(())
    })
    .await;
    bridge.restart();
    let found = |seen: &crate::harness::watcher::Seen| {
        seen.is_event_of(ids[0]) && seen.json()["source"] == "resync"
    };
    let resync = watcher.see("what happened meanwhile", found).await.json();
    assert_eq!((&resync["event_type"], &resync["duration_s"]), (&json!("connected"), &json!(null)));
    let events = watcher.events_of(ids[0]);
    assert!(events.len() >= 4, "{events:?}");
    check_chain(&events);
    bridge.is_ready().await;
    let after = state(ids[1]);
    for key in ["since", "since_exact", "chain", "seq", "status"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    assert!(watcher.find(|seen| seen.topic.ends_with("/event/chain_reset")).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_configured_any_more_is_cleared() {
    let broker = Mosquitto::start(BROKER).await;
    let lobby = crate::harness::simulator(3).await;
    let store = crate::harness::simulator(3).await;
    let mut bridge = Setup::new(broker.port, "")
        .gateway("lobby", &lobby, "")
        .gateway("store", &store, "")
        .start();
    bridge.is_ready().await;
    let of_store = |kept: &std::collections::BTreeMap<String, String>| {
        kept.keys().filter(|topic| topic.starts_with("gsdk/store/")).count()
    };
    eventually("all is there", || (of_store(&retained(broker.port)) == 5).then_some(())).await;
    bridge.terminate().await;
    bridge.forget_gateway("store");
    bridge.restart();
    cleared(broker.port, "all is gone", |kept| of_store(kept) == 0).await;
    assert_eq!(retained(broker.port)["gsdk/lobby/state"], "online");
    bridge.terminate().await;
    bridge.restart();
    bridge.is_ready().await;
    let (_, log) = bridge.stop().await;
    assert!(!log.contains("gateway not configured"), "it has been cleared: {log}");
}

/// Aim: no state of a removed device remains retained, although the store is lost; but states that
/// may be of another bridge's gateway remain.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_store_only_devices_of_its_own_gateways_are_cleared() {
    let broker = Mosquitto::start("").await;
    let lobby = crate::harness::simulator(3).await;
    // More than a broker queues for a subscriber that acknowledges.
    let store = crate::harness::simulator(3_000).await;
    let mut bridge = Setup::new(broker.port, "")
        .gateway("lobby", &lobby, "")
        .gateway("store", &store, "")
        .start();
    bridge.is_ready().await;
    let kept = || retained(broker.port);
    eventually("all is there", || (kept().len() == 2 + 5 + 3_002).then_some(())).await;
    bridge.kill();
    std::fs::remove_dir_all(bridge.state_dir()).unwrap();
    bridge.forget_gateway("store");
    let gone = lobby.control().devices()[0].id;
    another_client(&lobby, &["async", "remove", &gone.to_string()]);
    let another = |topic: &str, bridge: &str| {
        let payload = json!({ "bridge": bridge, "gateway": "annex" }).to_string();
        publish(broker.port, &["-r", "-t", topic, "-m", &payload]);
    };
    another("gsdk/annex/info", "bridge_2");
    another("gsdk/annex/9/state", "bridge_2");
    bridge.restart();
    let topics = || kept().into_keys().collect::<Vec<_>>();
    cleared(broker.port, "what is gone is cleared", |kept| {
        let of = |start: &str| kept.keys().filter(|topic| topic.starts_with(start)).count();
        of("gsdk/store/") == 3_002 && of("gsdk/lobby/") == 4 && of("gsdk/annex/") == 2
    })
    .await;
    assert!(!kept().contains_key(&format!("gsdk/lobby/{gone}/state")), "{:?}", topics());
    assert_eq!(kept()["gsdk/bridge/state"], "online");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_directory_ends_with_1_and_names_the_first() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let (status, log) = bridge.second().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("process {}", bridge.pid())), "{log}");
    bridge.is_ready().await;
}

/// With a file in the place of the directory, root cannot write either.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_dir_that_cannot_be_created_is_exit_1() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let setup = Setup::new(broker.port, "").gateway("lobby", &simulator, "");
    let in_the_way = setup.state_dir();
    std::fs::write(&in_the_way, "").unwrap();
    let mut bridge = setup.start();
    let status = bridge.ends().await;
    let log = bridge.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let path = in_the_way.display().to_string();
    for part in ["state_dir cannot be used", &path, "set another state_dir"] {
        assert!(log.contains(part), "{part}: {log}");
    }

    std::fs::remove_file(&in_the_way).unwrap();
    std::fs::create_dir(&in_the_way).unwrap();
    for (name, is_file) in [("log", true), ("log/head", false)] {
        let path = in_the_way.join(name);
        if is_file {
            std::fs::write(&path, "").unwrap();
        } else {
            std::fs::create_dir_all(&path).unwrap();
        }
        bridge.restart();
        let status = bridge.ends().await;
        let log = bridge.log();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("move it away") && !log.contains("free space"), "{log}");
        if is_file {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::remove_dir(&path).unwrap();
        }
    }
    bridge.restart();
    bridge.is_ready().await;
}

async fn is_healed(bridge: &Bridge) {
    patiently("the store is healed", async {
        while bridge.metric("gsdk_store_ok").await != Some(1.0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Aim: a failed write in the middle of a storm ends the chain, and has no other effect. Method:
/// the name of the next segment is in use, so that the log cannot continue when the first is full.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_under_load_starts_a_new_chain_without_a_gap() {
    let broker = Mosquitto::start(BROKER).await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(40).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    std::fs::write(bridge.state_dir().join("log/segment-0000000002"), "").unwrap();
    simulator.control().storm(Storm::of(20_000)).await.unwrap();
    let reset =
        |seen: &crate::harness::watcher::Seen| seen.topic == "gsdk/bridge/event/chain_reset";
    let reset = watcher.see("chain_reset", reset).await.json();
    is_healed(&bridge).await;
    bridge.kill();
    bridge.restart();
    ends_as_listed(&broker, &watcher, &simulator).await;
    for device in simulator.control().devices() {
        let events = watcher.events_of(device.id);
        let turn = events.iter().position(|event| event["chain"] == reset["to"]).unwrap();
        let (old, new) = events.split_at(turn);
        check_chain(old);
        check_chain(new);
        assert_eq!(new[0]["seq"], 1);
        let last = old.last().unwrap();
        assert_eq!((&last["chain"], &last["status"]), (&reset["from"], &new[0]["previous"]));
    }
}
