//! What is gone is cleared from the broker, whenever the broker can next be reached.
//!
//! May not look into the store: what the broker keeps is what counts.

use std::collections::BTreeMap;

use crate::harness::bridge::{Bridge, Setup, another_client};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::watcher::retained;
use crate::harness::{eventually, patiently};
use gsdk2mqtt::simulator::Simulator;

const AWAY: Mode = Mode { refuses: true, withholds_acks: false, delay: std::time::Duration::ZERO };

fn of(kept: &BTreeMap<String, String>, gateway: &str) -> usize {
    kept.keys().filter(|topic| topic.starts_with(&format!("gsdk/{gateway}/"))).count()
}

/// Both gateways' topics are at the broker, which the bridge reaches through this proxy.
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

/// Aim: the store forgets a gateway, and remembers to clear it. Method: the first start without it
/// finds no broker and is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_cleared_though_the_start_that_missed_it_found_no_broker() {
    let broker = Mosquitto::start("").await;
    let lobby = crate::harness::simulator(3).await;
    let annex = crate::harness::simulator(3).await;
    let (proxy, mut bridge) = published(&broker, &lobby, &annex).await;
    bridge.terminate().await;
    bridge.forget_gateway("annex");
    proxy.turn(AWAY);
    bridge.restart();
    let up = "gsdk_gateway_up{gateway=\"lobby\"}";
    patiently("it has written the start down", async {
        while bridge.metric(up).await != Some(1.0) {}
    })
    .await;
    assert!(bridge.log().contains("not configured any more"), "{}", bridge.log());
    bridge.kill();
    assert_eq!(of(&retained(broker.port), "annex"), 5, "nobody could clear it yet");
    proxy.turn(Mode::default());
    bridge.restart();
    eventually("all is gone", || (of(&retained(broker.port), "annex") == 0).then_some(())).await;
    bridge.is_ready().await;
    assert_eq!(of(&retained(broker.port), "lobby"), 5);
}

/// Aim: what came back before it was cleared is not cleared. Method: as above, but the gateway is
/// configured again when the broker is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_configured_again_is_not_cleared() {
    let broker = Mosquitto::start("").await;
    let lobby = crate::harness::simulator(3).await;
    let annex = crate::harness::simulator(3).await;
    let (proxy, mut bridge) = published(&broker, &lobby, &annex).await;
    bridge.terminate().await;
    let whole = std::fs::read_to_string(bridge.config_file()).unwrap();
    bridge.forget_gateway("annex");
    proxy.turn(AWAY);
    bridge.restart();
    bridge.get("/healthz").await;
    bridge.terminate().await;
    bridge.configure(|_| whole);
    proxy.turn(Mode::default());
    bridge.restart();
    bridge.is_ready().await;
    eventually("its info is told", || {
        let kept = retained(broker.port);
        let told = kept.get("gsdk/annex/info").is_some_and(|info| info.contains("\"online\""));
        (told && kept["gsdk/annex/state"] == "online" && of(&kept, "annex") == 5).then_some(())
    })
    .await;
}

/// Aim: a device that left long ago is cleared, though nobody was there to be told in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_cleared_though_it_was_forgotten_while_the_broker_was_away() {
    let broker = Mosquitto::start("").await;
    let lobby = crate::harness::simulator(3).await;
    let proxy = Proxy::before(broker.port).await;
    let mut bridge = Setup::new(proxy.port, "")
        .top("forget_after = \"1s\"")
        .gateway("lobby", &lobby, "audit_interval = \"10s\"")
        .start();
    bridge.is_ready().await;
    let gone = lobby.control().building()[0].id;
    let topic = format!("gsdk/lobby/{gone}/state");
    eventually("its state is told", || retained(broker.port).contains_key(&topic).then_some(()))
        .await;
    proxy.turn(AWAY);
    another_client(&lobby, &["async", "remove", &gone.to_string()]);
    let series = format!("gsdk_device_managed{{gateway=\"lobby\",device_id=\"{gone}\"}}");
    let forgotten = async || bridge.metric(&series).await.is_none();
    tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while !forgotten().await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it is forgotten");
    bridge.terminate().await;
    assert!(retained(broker.port).contains_key(&topic), "nobody could clear it yet");
    proxy.turn(Mode::default());
    bridge.restart();
    eventually("it is cleared", || (!retained(broker.port).contains_key(&topic)).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_devices_is_cleared_too() {
    let broker = Mosquitto::start("").await;
    let lobby = crate::harness::simulator(1).await;
    let annex = crate::harness::simulator(0).await;
    let (_proxy, mut bridge) = published(&broker, &lobby, &annex).await;
    bridge.terminate().await;
    bridge.forget_gateway("annex");
    bridge.restart();
    bridge.is_ready().await;
    eventually("all is gone", || (of(&retained(broker.port), "annex") == 0).then_some(())).await;
}

/// Aim: a bridge whose store was lost looks at the broker for what is no more, even if the process
/// that lost it never reached the broker.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_store_forgot_is_cleared_though_the_next_start_found_no_broker() {
    let broker = Mosquitto::start("").await;
    let lobby = crate::harness::simulator(3).await;
    let annex = crate::harness::simulator(3).await;
    let (proxy, mut bridge) = published(&broker, &lobby, &annex).await;
    bridge.kill();
    std::fs::remove_dir_all(bridge.state_dir()).unwrap();
    bridge.forget_gateway("annex");
    proxy.turn(AWAY);
    bridge.restart();
    bridge.get("/healthz").await;
    bridge.terminate().await;
    proxy.turn(Mode::default());
    bridge.restart();
    eventually("all is gone", || (of(&retained(broker.port), "annex") == 0).then_some(())).await;
    bridge.is_ready().await;
    assert_eq!(of(&retained(broker.port), "lobby"), 5);
}
