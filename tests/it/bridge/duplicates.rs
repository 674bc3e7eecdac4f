//! Two bridges with the same name: they are reported, and the established one continues.

use std::time::Duration;

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::scripted_broker::{Reply, ScriptedBroker};
use crate::harness::watcher::{Seen, Watcher, publish, retained};
use crate::harness::{eventually, patiently};
use gsdk2mqtt::simulator::Fault;

/// After this a session has settled, and its process is established.
const SETTLED: Duration = Duration::from_secs(61);

/// Waits until `/readyz` contains these words.
async fn readyz_contains(bridge: &Bridge, words: &str) {
    patiently(words, async {
        while !bridge.get("/readyz").await.1.contains(words) {
            tokio::time::sleep(crate::harness::LOOK_EVERY).await;
        }
    })
    .await;
}

/// Waits until the bridge is, or is not, connected to the broker.
async fn is_connected(bridge: &Bridge, connected: bool) {
    let wanted = Some(f64::from(u8::from(connected)));
    patiently("connected or not", async {
        while bridge.metric("gsdk_mqtt_connected").await != wanted {
            tokio::time::sleep(crate::harness::LOOK_EVERY).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bridge_with_a_name_in_use_disconnects_silently() {
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
    readyz_contains(&second, "another bridge").await;
    readyz_contains(&second, "the broker is not connected").await;
    readyz_contains(&first, "\"reason\":\"another_instance\"").await;
    assert_eq!(first.get("/readyz").await.0, 200, "it does its work");
    for bridge in [&first, &second] {
        let series = "gsdk_degraded{reason=\"another_instance\"}";
        assert_eq!(bridge.metric(series).await, Some(1.0));
    }
    assert_eq!(first.metric("gsdk_mqtt_connected").await, Some(1.0));
    assert_eq!(second.metric("gsdk_mqtt_connected").await, Some(0.0));
    assert_eq!(retained(broker.port)["gsdk/bridge/state"], "online", "offline was not published");
    assert!(watcher.place("gsdk/bridge/state", "offline").is_none());
}

/// Clocks are not compared: any `info` of another instance counts.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_within_two_seconds_is_enough_and_a_retained_info_is_not() {
    let broker = Mosquitto::start("").await;
    let of = |id: &str| format!("{{\"instance_id\":\"{id}\",\"started_at\":\"2099-01-01\"}}");
    publish(broker.port, &["-r", "-t", "gsdk/bridge/info", "-m", &of("gone")]);
    publish(broker.port, &["-r", "-t", "gsdk/bridge/state", "-m", "online"]);
    let watcher = Watcher::start(broker.port).await;
    watcher.clear();
    let simulator = crate::harness::simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    let own = |seen: &crate::harness::watcher::Seen| seen.topic == "gsdk/bridge/info";
    watcher.see("its info", own).await;
    let published = std::time::Instant::now();
    bridge.is_ready().await;
    assert!(published.elapsed() > Duration::from_millis(1_500), "it waited for an answer");
    watcher.see_text("gsdk/bridge/state", "online").await;
    let place = |state| watcher.place("gsdk/bridge/state", state);
    assert!(place("offline").is_some() && place("offline") < place("online"), "an old online");
    assert!(!bridge.get("/readyz").await.1.contains("another"));
    // A bridge that is online answers.
    watcher.clear();
    publish(broker.port, &["-r", "-t", "gsdk/bridge/info", "-m", &of("other")]);
    watcher.see("its answer", |seen| own(seen) && !seen.payload.contains("other")).await;
    assert_eq!(bridge.metric("gsdk_mqtt_connected").await, Some(1.0));
    watcher.clear();
    drop(bridge);
    watcher.see_text("gsdk/bridge/state", "offline").await;
    publish(broker.port, &["-r", "-t", "gsdk/bridge/state", "-m", "online"]);

    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.clear();
    watcher.see("its info", |seen| own(seen) && !seen.payload.contains("other")).await;
    publish(broker.port, &["-r", "-t", "gsdk/bridge/info", "-m", &of("other")]);
    is_connected(&bridge, false).await;
    readyz_contains(&bridge, "another bridge (instance other)").await;
    assert!(!watcher.all().iter().any(|seen| seen.topic.starts_with("gsdk/lobby")));
    assert!(watcher.place("gsdk/bridge/state", "offline").is_none(), "the other one is online");
}

/// As with a broker that asks another service whether a client may subscribe.
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_publishes_nothing_before_its_subscription_is_acknowledged() {
    let broker = ScriptedBroker::start("").await;
    broker.on_subscribe(|filter| match filter {
        "gsdk/bridge/state" => Reply::Delay(Duration::from_secs(4)),
        _ => Reply::Forward,
    });
    let simulator = crate::harness::simulator(3).await;
    let start = |client: &str| {
        let setup = Setup::new(broker.port, &format!("client_id = \"{client}\""));
        setup.gateway("lobby", &simulator, "").start()
    };
    let first = start("one");
    first.is_ready().await;
    let second = start("two");
    readyz_contains(&second, "another bridge").await;
    is_connected(&second, false).await;
    is_connected(&first, true).await;
    let published = broker.published();
    let of_second: Vec<_> = published.iter().filter(|it| it.connection == 2).collect();
    let is_info = of_second.iter().all(|it| it.topic == "gsdk/bridge/info");
    assert!(is_info && !of_second.is_empty(), "{published:?}");
}

/// Its store is empty, so it reads all retained states.
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_publishes_nothing_while_it_still_receives_retained_messages() {
    let broker = Mosquitto::start("").await;
    let slow = Proxy::before(broker.port).await;
    slow.set_mode(Mode { delay: Duration::from_millis(150), ..Mode::default() });
    let simulator = crate::harness::simulator(40).await;
    let start = |port: u16, client: &str| {
        let setup = Setup::new(port, &format!("client_id = \"{client}\""));
        setup.top("device_details = false").gateway("lobby", &simulator, "").start()
    };
    let first = start(broker.port, "one");
    first.is_ready().await;
    let watcher = Watcher::start(broker.port).await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    watcher.clear();
    let second = start(slow.port, "two");
    readyz_contains(&second, "another bridge").await;
    is_connected(&second, false).await;
    let all = watcher.all();
    assert!(all.iter().all(|seen| !seen.topic.ends_with("/state")), "{all:?}");
    is_connected(&first, true).await;
}

/// Also where its publisher is no bridge, or publishes it again before the answer to the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_info_does_not_stay_retained() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    for foreign in ["{\"instance_id\":\"other\"}", "not JSON", ""] {
        watcher.clear();
        let publish = || publish(broker.port, &["-r", "-t", "gsdk/bridge/info", "-m", foreign]);
        publish();
        let is_own = |payload: &str| payload.contains("lobby");
        let answer = |seen: &Seen| seen.topic == "gsdk/bridge/info" && is_own(&seen.payload);
        watcher.see("its answer", answer).await;
        publish();
        eventually("its info is retained", || {
            retained(broker.port).get("gsdk/bridge/info").filter(|info| is_own(info)).map(drop)
        })
        .await;
    }
    let log = bridge.log();
    assert_eq!(log.matches("another client published this bridge's info").count(), 1, "{log}");
}

/// One that gets no answer would also go online.
#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_newcomers_at_once_is_answered() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(1).await;
    let one = Setup::new(broker.port, "client_id = \"one\"").gateway("lobby", &simulator, "");
    let one = one.start();
    one.is_ready().await;
    let newcomers = ["two", "three", "four"].map(|id| {
        let setup = Setup::new(broker.port, &format!("client_id = \"{id}\""));
        setup.gateway("lobby", &simulator, "").start()
    });
    for newcomer in &newcomers {
        readyz_contains(newcomer, "another bridge").await;
        is_connected(newcomer, false).await;
    }
    is_connected(&one, true).await;
    assert_eq!(retained(broker.port)["gsdk/bridge/state"], "online");
}

/// Its store is empty; an earlier build treated the other's topics as its own stale ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_bridge_of_other_gateways_publishes_and_clears_nothing() {
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
    readyz_contains(&second, "another bridge").await;
    is_connected(&second, false).await;
    readyz_contains(&first, "another bridge").await;
    let device = lobby.control().managed()[0].device_id;
    lobby.control().apply_fault(&Fault::power(device, false));
    watcher.see("the first continues", |seen| seen.is_event_of(device)).await;
    let after = retained(broker.port);
    assert!(before.keys().eq(after.keys()), "{before:?} {after:?}");
    let all = watcher.all();
    assert!(all.iter().all(|seen| !seen.topic.contains("annex")), "{all:?}");
    assert!(all.iter().all(|seen| !seen.payload.is_empty()), "{all:?}");
    assert!(watcher.place("gsdk/bridge/state", "offline").is_none());
    assert!(watcher.place("gsdk/lobby/state", "offline").is_none());
}

/// The broker ends the session of one whenever the other connects, without a reason.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_bridges_with_one_client_id_the_established_one_continues() {
    let broker = Mosquitto::start("").await;
    let (lobby, annex) = (crate::harness::simulator(3).await, crate::harness::simulator(3).await);
    let first = Setup::new(broker.port, "").gateway("lobby", &lobby, "").start();
    first.is_ready().await;
    tokio::time::sleep(SETTLED).await;
    let watcher = Watcher::start(broker.port).await;
    watcher.clear();
    let second = Setup::new(broker.port, "").gateway("annex", &annex, "").start();
    readyz_contains(&second, "another bridge").await;
    is_connected(&second, false).await;
    is_connected(&first, true).await;
    first.is_ready().await;
    let connections = first.metric("gsdk_mqtt_connections_total").await;
    let device = lobby.control().managed()[0].device_id;
    lobby.control().apply_fault(&Fault::power(device, false));
    watcher.see("the first continues", |seen| seen.is_event_of(device)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(first.metric("gsdk_mqtt_connections_total").await, connections);
    assert_eq!(second.metric("gsdk_mqtt_connected").await, Some(0.0));
    let all = watcher.all();
    assert!(all.iter().all(|seen| !seen.payload.is_empty()), "nothing is cleared: {all:?}");
    assert!(all.iter().all(|seen| !seen.topic.contains("annex")), "{all:?}");
    assert!(retained(broker.port)["gsdk/bridge/info"].contains("lobby"));
}

/// Neither had a session of a minute: one of them gives way, not both.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_new_bridges_with_one_client_id_one_continues() {
    let broker = Mosquitto::start("").await;
    let (lobby, annex) = (crate::harness::simulator(1).await, crate::harness::simulator(1).await);
    let first = Setup::new(broker.port, "").gateway("lobby", &lobby, "").start();
    first.is_ready().await;
    let second = Setup::new(broker.port, "").gateway("annex", &annex, "").start();
    let gives_way = |bridge: &Bridge| bridge.log().contains("retrying later");
    patiently("one gives way", async {
        while !gives_way(&first) && !gives_way(&second) {
            tokio::time::sleep(crate::harness::LOOK_EVERY).await;
        }
    })
    .await;
    let (stays, waits) = if gives_way(&first) { (second, first) } else { (first, second) };
    stays.is_ready().await;
    is_connected(&waits, false).await;
    assert!(!gives_way(&stays), "{}", stays.log());
}

/// The broker reports "session taken over". Whether the process waits depends on whether it ever
/// had a session of 60 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_taken_over_gives_way_only_until_it_is_established() {
    let broker = ScriptedBroker::start("").await;
    let lobby = crate::harness::simulator(1).await;
    let newcomer = Setup::new(broker.port, "").gateway("lobby", &lobby, "").start();
    newcomer.is_ready().await;
    broker.disconnect(0x8E);
    is_connected(&newcomer, false).await;
    readyz_contains(&newcomer, "\"reason\":\"another_instance\"").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(broker.connections(), 1, "it waits for a minute");
    drop(newcomer);

    let established = Setup::new(broker.port, "").gateway("lobby", &lobby, "").start();
    established.is_ready().await;
    tokio::time::sleep(SETTLED).await;
    for connections in [3, 4] {
        broker.disconnect(0x8E);
        broker.connected_times(connections).await;
        established.is_ready().await;
    }
    let series = "gsdk_degraded{reason=\"another_instance\"}";
    assert_eq!(established.metric(series).await, Some(1.0));
}
