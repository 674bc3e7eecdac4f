//! Each refusal once, as a client sees it.

use serde_json::json;

use super::{ALL, House, refusal};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Watcher, publish};

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_run_is_answered_counted_and_not_run() {
    let house = House::new(3, "").await;
    let answer = house.ask("disconnect_all", r#"{"transaction":9}"#).await;
    let (code, message) = refusal(&answer);
    assert_eq!(code, "not_permitted");
    assert!(message.contains("commands.allow"), "{message}");
    assert_eq!(answer["transaction"], json!(9));
    assert_eq!(refusal(&house.ask("reboot", "{}").await).0, "unknown_command");
    assert_eq!(refusal(&house.ask("devices", "?").await).0, "invalid_request");
    let (code, message) = {
        let answer = house.ask("devices", r#"{"device":7}"#).await;
        let (code, message) = refusal(&answer);
        (code.to_owned(), message.to_owned())
    };
    assert_eq!(code, "invalid_request");
    assert!(message.contains("\"device\""), "{message}");

    let watcher = Watcher::start(house.broker.port).await;
    let devices = "gsdk/lobby/request/devices";
    let response = "gsdk/lobby/response/devices";
    publish(house.broker.port, &["-V", "5", "-t", devices, "-r", "-m", "{}"]);
    let told = watcher.see("retained is refused", |seen| seen.topic == response).await;
    assert!(refusal(&told.json()).1.contains("retain"), "{told:?}");
    watcher.clear();
    let elsewhere = ["-D", "publish", "response-topic", "gsdk/lobby/state"];
    let args = [&["-V", "5", "-t", devices, "-m", "{}"][..], &elsewhere].concat();
    publish(house.broker.port, &args);
    let told = watcher.see("an answer elsewhere is refused", |seen| seen.topic == response).await;
    assert!(refusal(&told.json()).1.contains("gsdk-reply/"), "{told:?}");

    let count = |command: &str, result: &str| {
        format!(
            "gsdk_commands_total{{command=\"{command}\",gateway=\"lobby\",result=\"{result}\"}}"
        )
    };
    let bridge = &house.bridge;
    let metric = |series: String| async move { bridge.metric(&series).await };
    assert_eq!(metric(count("disconnect_all", "not_permitted")).await, Some(1.0));
    assert_eq!(metric(count("unknown", "unknown_command")).await, Some(1.0));
    assert_eq!(metric(count("devices", "invalid_request")).await, Some(4.0));
    assert_eq!(house.simulator.control().calls().get("DisconnectAll"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_is_one_byte_more_than_the_limit() {
    let house = House::new(3, "").await;
    let request = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2));
    assert_eq!(house.ask("devices", &request(65_536)).await["result"], "ok");
    let answer = house.ask("devices", &request(65_537)).await;
    assert_eq!(refusal(&answer).0, "too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_rate_it_is_refused() {
    let house = House::new(3, "[commands]\nrate = \"2/h\"\n").await;
    for _ in 0..2 {
        assert_eq!(house.ask("devices", "{}").await["result"], "ok");
    }
    let answer = house.ask("devices", r#"{"transaction":"t"}"#).await;
    assert_eq!((refusal(&answer).0, &answer["transaction"]), ("rate_limited", &json!("t")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_down_is_told_of() {
    let house = House::new(3, ALL).await;
    house.simulator.control().stop_listening();
    let (code, message) = crate::harness::patiently("the loss is noticed", async {
        loop {
            let answer = house.ask("disconnect_all", "{}").await;
            let (code, message) = refusal(&answer);
            if code == "gateway_unavailable" && message.contains('(') {
                return (code.to_owned(), message.to_owned());
            }
        }
    })
    .await;
    assert!(message.contains("try again later (gateway lobby: "), "{code} {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_subscribes_to_nothing() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let setup = crate::harness::bridge::Setup::new(broker.port, "");
    let setup = setup.lines("[commands]\nallow = []\n");
    let bridge = setup.gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let watcher = Watcher::start(broker.port).await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    let log = broker.log();
    assert!(log.contains("gsdk/bridge/state"), "{log}");
    assert!(!log.contains("/request/"), "{log}");
}
