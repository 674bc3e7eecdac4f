//! Topics of removed devices and gateways are cleared, as soon as the broker can be reached.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::commands::rr;
use crate::harness::bridge::{Bridge, Setup, another_client};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::watcher::{Watcher, publish, retained};
use crate::harness::{eventually, patiently, simulator};
use gsdk2mqtt::simulator::Simulator;

const AWAY: Mode = Mode { refuses: true, withholds_acks: false, delay: Duration::ZERO };

/// Nothing is cleared in the first 60 s of a session.
const CLEARED_WITHIN: Duration = Duration::from_secs(90);

/// Waits until the retained messages satisfy the condition.
pub(super) async fn cleared(
    port: u16,
    what: &str,
    is_cleared: impl Fn(&BTreeMap<String, String>) -> bool,
) {
    let looks = async {
        while !is_cleared(&retained(port)) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(CLEARED_WITHIN, looks).await.expect(what);
}

fn of(kept: &BTreeMap<String, String>, gateway: &str) -> usize {
    kept.keys().filter(|topic| topic.starts_with(&format!("gsdk/{gateway}/"))).count()
}

/// Both gateways' topics are retained at the broker, which the bridge reaches through this proxy.
async fn published(broker: &Mosquitto, lobby: &Simulator, annex: &Simulator) -> (Proxy, Bridge) {
    let proxy = Proxy::before(broker.port).await;
    let bridge =
        Setup::new(proxy.port, "").gateway("lobby", lobby, "").gateway("annex", annex, "").start();
    bridge.is_ready().await;
    let devices = annex.control().managed().len();
    eventually("all is there", || {
        (of(&retained(broker.port), "annex") == devices + 2).then_some(())
    })
    .await;
    (proxy, bridge)
}

/// Aim: topics of a removed gateway are cleared after a restart. Method: the first start without it
/// finds no broker and is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_cleared_though_the_start_that_missed_it_found_no_broker() {
    let broker = Mosquitto::start("").await;
    let lobby = simulator(3).await;
    let annex = simulator(3).await;
    let (proxy, mut bridge) = published(&broker, &lobby, &annex).await;
    bridge.terminate().await;
    bridge.forget_gateway("annex");
    proxy.set_mode(AWAY);
    bridge.restart();
    let up = "gsdk_gateway_up{gateway=\"lobby\"}";
    patiently("it has written the start down", async {
        while bridge.metric(up).await != Some(1.0) {}
    })
    .await;
    assert!(bridge.log().contains("gateway not configured"), "{}", bridge.log());
    bridge.kill();
    assert_eq!(of(&retained(broker.port), "annex"), 5, "it could not be cleared yet");
    proxy.set_mode(Mode::default());
    bridge.restart();
    cleared(broker.port, "all is gone", |kept| of(kept, "annex") == 0).await;
    bridge.is_ready().await;
    assert_eq!(of(&retained(broker.port), "lobby"), 5);
}

/// Aim: a gateway that is added again before it was cleared is not cleared. Method: as above, but
/// it is configured again when the broker is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_configured_again_is_not_cleared() {
    let broker = Mosquitto::start("").await;
    let lobby = simulator(3).await;
    let annex = simulator(3).await;
    let (proxy, mut bridge) = published(&broker, &lobby, &annex).await;
    bridge.terminate().await;
    let whole = std::fs::read_to_string(bridge.config_file()).unwrap();
    bridge.forget_gateway("annex");
    proxy.set_mode(AWAY);
    bridge.restart();
    bridge.get("/healthz").await;
    bridge.terminate().await;
    bridge.configure(|_| whole);
    proxy.set_mode(Mode::default());
    bridge.restart();
    bridge.is_ready().await;
    eventually("its info is reported", || {
        let kept = retained(broker.port);
        let reported = kept.get("gsdk/annex/info").is_some_and(|info| info.contains("\"online\""));
        (reported && kept["gsdk/annex/state"] == "online" && of(&kept, "annex") == 5).then_some(())
    })
    .await;
}

/// Aim: a device that left the list long ago is cleared, although the broker was not available
/// then.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_cleared_although_it_was_forgotten_while_the_broker_was_stopped() {
    let broker = Mosquitto::start("").await;
    let lobby = simulator(3).await;
    let proxy = Proxy::before(broker.port).await;
    let mut bridge = Setup::new(proxy.port, "")
        .top("forget_after = \"1s\"")
        .gateway("lobby", &lobby, "audit_interval = \"10s\"")
        .start();
    bridge.is_ready().await;
    let gone = lobby.control().devices()[0].id;
    let topic = format!("gsdk/lobby/{gone}/state");
    eventually("its state is reported", || {
        retained(broker.port).contains_key(&topic).then_some(())
    })
    .await;
    proxy.set_mode(AWAY);
    another_client(&lobby, &["async", "remove", &gone.to_string()]);
    let series = format!("gsdk_device_managed{{gateway=\"lobby\",device_id=\"{gone}\"}}");
    let forgotten = async || bridge.metric(&series).await.is_none();
    tokio::time::timeout(Duration::from_secs(60), async {
        while !forgotten().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it is forgotten");
    bridge.terminate().await;
    assert!(retained(broker.port).contains_key(&topic), "it could not be cleared yet");
    proxy.set_mode(Mode::default());
    bridge.restart();
    cleared(broker.port, "it is cleared", |kept| !kept.contains_key(&topic)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_devices_is_cleared_too_but_not_in_the_first_minute() {
    let broker = Mosquitto::start("").await;
    let lobby = simulator(1).await;
    let annex = simulator(0).await;
    let (_proxy, mut bridge) = published(&broker, &lobby, &annex).await;
    // It cannot publish `offline`.
    bridge.kill();
    bridge.forget_gateway("annex");
    let watcher = Watcher::start(broker.port).await;
    watcher.clear();
    bridge.restart();
    watcher.see_text("gsdk/bridge/state", "online").await;
    let offline = watcher.place("gsdk/annex/state", "offline").expect("it holds no longer");
    assert!(Some(offline) < watcher.place("gsdk/bridge/state", "online"));
    bridge.is_ready().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(of(&retained(broker.port), "annex"), 2, "two bridges may share a name by mistake");
    cleared(broker.port, "all is gone", |kept| of(kept, "annex") == 0).await;
}

/// Aim: a gateway that moved to another bridge keeps its topics, which are that bridge's by now.
/// Method: one bridge has taken over a gateway before the first one starts again without both,
/// another one does so afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_another_bridge_has_is_not_cleared() {
    let broker = Mosquitto::start("").await;
    let extra = "[home_assistant]\nenabled = true\n[commands]\nallow = [\"*\"]\n";
    let [lobby, annex, barn] = [simulator(1).await, simulator(3).await, simulator(3).await];
    let setup = |name: &str| {
        let top = format!("bridge_name = \"{name}\"");
        Setup::new(broker.port, "").top(&top).lines(extra)
    };
    // Topics and discovery of this gateway that name this bridge.
    let published = |gateway: &str, bridge: &str| {
        let starts = [format!("gsdk/{gateway}/"), format!("homeassistant/device/gsdk_{gateway}_")];
        let bridge = [format!("\"bridge\":\"{bridge}\""), format!("\"gsdk/{bridge}/state\"")];
        let kept = retained(broker.port).into_iter();
        let kept = kept.filter(|(topic, _)| starts.iter().any(|start| topic.starts_with(start)));
        kept.filter(|(_, payload)| bridge.iter().any(|name| payload.contains(name))).count()
    };
    // Three states, an info, and discovery of three devices and the gateway.
    let all_published = async |gateway: &str, bridge: &str| {
        let is_there = || (published(gateway, bridge) == 8).then_some(());
        eventually(&format!("{gateway} is published by {bridge}"), is_there).await;
    };
    let bridge = setup("bridge").gateway("lobby", &lobby, "").gateway("annex", &annex, "");
    let mut bridge = bridge.gateway("barn", &barn, "").start();
    for gateway in ["annex", "barn"] {
        all_published(gateway, "bridge").await;
    }
    bridge.terminate().await;
    bridge.forget_gateway("annex");
    let _annex = setup("bridge_b").gateway("annex", &annex, "").start();
    all_published("annex", "bridge_b").await;
    bridge.restart();
    bridge.is_ready().await;
    let _barn = setup("bridge_c").gateway("barn", &barn, "").start();
    all_published("barn", "bridge_c").await;
    tokio::time::sleep(Duration::from_secs(65)).await;
    assert_eq!((published("annex", "bridge_b"), published("barn", "bridge_c")), (8, 8));
    let answer = rr(
        broker.port,
        &["-t", "gsdk/bridge/request/forget", "-m", "{\"gateway\":\"annex\"}"],
        "20",
    )
    .await
    .expect("an answer");
    assert_eq!(answer["error"]["code"], "invalid_request", "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("bridge_b"), "{answer}");
    let (_, log) = bridge.terminate().await;
    let kept = "another bridge has the gateway; its topics are kept";
    assert_eq!(log.matches(kept).count(), 2, "{log}");
    bridge.restart();
    bridge.is_ready().await;
    assert!(!bridge.log().contains("gateway not configured"), "forgotten: {}", bridge.log());
    assert_eq!((published("annex", "bridge_b"), published("barn", "bridge_c")), (8, 8));
}

/// Aim: a bridge whose store was lost clears nothing of gateways that it does not have, and nothing
/// that another bridge may have published, until `forget` names it.
#[tokio::test(flavor = "multi_thread")]
async fn topics_of_a_lost_store_are_cleared_by_forget_only() {
    let broker = Mosquitto::start("").await;
    let lobby = simulator(3).await;
    let annex = simulator(3).await;
    let extra = "[home_assistant]\nenabled = true\n[commands]\nallow = [\"*\"]\n";
    let setup = Setup::new(broker.port, "").lines(extra);
    let setup = setup.gateway("lobby", &lobby, "").gateway("annex", &annex, "");
    let mut bridge = setup.start();
    bridge.is_ready().await;
    let discovery = |kept: &BTreeMap<String, String>, gateway: &str| {
        let start = format!("homeassistant/device/gsdk_{gateway}_");
        kept.keys().filter(|topic| topic.starts_with(&start)).count()
    };
    eventually("all is there", || {
        let kept = retained(broker.port);
        (of(&kept, "annex") == 5 && discovery(&kept, "annex") == 4).then_some(())
    })
    .await;
    bridge.kill();
    let stale = "gsdk/lobby/7/state";
    publish(broker.port, &["-r", "-t", stale, "-m", "{}"]);
    let own = ["gsdk/lobby/8/state", "gsdk/lobby/9/state"];
    own.iter().for_each(|topic| {
        publish(broker.port, &["-r", "-t", topic, "-m", "{\"bridge\":\"bridge\"}"]);
    });
    std::fs::remove_dir_all(bridge.state_dir()).unwrap();
    bridge.forget_gateway("annex");
    bridge.restart();
    bridge.is_ready().await;
    tokio::time::sleep(Duration::from_secs(65)).await;
    let kept = retained(broker.port);
    assert_eq!((of(&kept, "annex"), discovery(&kept, "annex")), (5, 4));
    assert!(kept.contains_key(stale));
    assert!(own.iter().all(|topic| !kept.contains_key(*topic)), "{kept:?}");
    let log = bridge.log();
    assert_eq!(log.matches("clearing stale devices").count(), 1, "one line for both: {log}");

    let topic = "gsdk/bridge/request/forget";
    let forget = async |payload: &str| {
        rr(broker.port, &["-t", topic, "-m", payload], "20").await.expect("an answer")
    };
    let answer = forget("{\"gateway\":\"annex\"}").await;
    assert_eq!((&answer["result"], &answer["data"]["topics"]), (&"ok".into(), &9.into()));
    assert_eq!(answer["data"]["device_ids"].as_array().map(Vec::len), Some(3), "{answer}");
    eventually("all is gone", || {
        let kept = retained(broker.port);
        (of(&kept, "annex") == 0 && discovery(&kept, "annex") == 0).then_some(())
    })
    .await;
    let answer = forget("{\"gateway\":\"lobby\",\"device_ids\":[7]}").await;
    assert_eq!(answer["result"], "ok", "{answer}");
    eventually("the stale device is gone", || {
        (!retained(broker.port).contains_key(stale)).then_some(())
    })
    .await;
    let kept = retained(broker.port);
    assert_eq!((of(&kept, "lobby"), discovery(&kept, "lobby")), (5, 4));
    for (payload, code) in [
        ("{\"gateway\":\"annex\"}", "not_found"),
        ("{\"gateway\":\"annex\",\"device_ids\":[7]}", "not_found"),
        ("{\"gateway\":\"lobby\"}", "invalid_request"),
        ("{\"gateway\":\"lobby\",\"device_ids\":[]}", "invalid_request"),
    ] {
        let answer = forget(payload).await;
        assert_eq!(answer["error"]["code"], code, "{payload}: {answer}");
    }
}
