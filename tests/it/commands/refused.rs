//! Each refusal, as a client receives it.

use serde_json::json;

use super::{ALL, Stack, refusal};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Watcher, publish};

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_request_is_answered_counted_and_not_run() {
    let stack = Stack::new(3, "").await;
    let answer = stack.ask("disconnect_all", r#"{"transaction":9}"#).await;
    let (code, message) = refusal(&answer);
    assert_eq!(code, "not_permitted");
    assert!(message.contains("commands.allow"), "{message}");
    assert_eq!(answer["transaction"], json!(9));
    assert_eq!((&answer["gateway"], answer.get("bridge")), (&json!("lobby"), None), "{answer}");
    assert_eq!(refusal(&stack.ask("reboot", "{}").await).0, "unknown_command");
    assert_eq!(refusal(&stack.ask("devices", "?").await).0, "invalid_request");
    let (code, message) = {
        let answer = stack.ask("devices", r#"{"device":7}"#).await;
        let (code, message) = refusal(&answer);
        (code.to_owned(), message.to_owned())
    };
    assert_eq!(code, "invalid_request");
    assert!(message.contains("`device`"), "{message}");

    let watcher = Watcher::start(stack.broker.port).await;
    let devices = "gsdk/lobby/request/devices";
    let response = "gsdk/lobby/response/devices";
    let kept = ["-V", "5", "-t", devices, "-r", "-m", r#"{"transaction":12345678901234567890123}"#];
    publish(stack.broker.port, &kept);
    let reported = watcher.see("retained is refused", |seen| seen.topic == response).await;
    assert!(refusal(&reported.json()).1.contains("retain"), "{reported:?}");
    assert!(reported.payload.contains("\"transaction\":12345678901234567890123,"), "{reported:?}");
    watcher.clear();
    let elsewhere = ["-D", "publish", "response-topic", "gsdk/lobby/state"];
    let request = ["-V", "5", "-t", devices, "-m", r#"{"transaction":"t"}"#];
    publish(stack.broker.port, &[&request[..], &elsewhere].concat());
    let reported =
        watcher.see("an answer elsewhere is refused", |seen| seen.topic == response).await;
    assert!(refusal(&reported.json()).1.contains("gsdk-reply/"), "{reported:?}");
    assert_eq!(reported.json()["transaction"], "t");

    let count = |command: &str, result: &str| {
        format!(
            "gsdk_commands_total{{command=\"{command}\",gateway=\"lobby\",result=\"{result}\"}}"
        )
    };
    let bridge = &stack.bridge;
    let metric = |series: String| async move { bridge.metric(&series).await };
    assert_eq!(metric(count("disconnect_all", "not_permitted")).await, Some(1.0));
    assert_eq!(metric(count("unknown", "unknown_command")).await, Some(1.0));
    assert_eq!(metric(count("devices", "invalid_request")).await, Some(4.0));
    assert_eq!(stack.simulator.control().calls().get("DisconnectAll"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_a_retained_request_is_not_answered() {
    let stack = Stack::new(1, "").await;
    let watcher = Watcher::start(stack.broker.port).await;
    let (request, response) = ("gsdk/lobby/request/devices", "gsdk/lobby/response/devices");
    let send = |options: &[&str]| {
        publish(stack.broker.port, &[&["-V", "5", "-t", request], options].concat());
    };
    send(&["-r", "-m", "{}"]);
    let reported = watcher.see("retained is refused", |seen| seen.topic == response).await;
    assert!(refusal(&reported.json()).1.contains("empty retained message"), "{reported:?}");
    watcher.clear();
    send(&["-r", "-n"]);
    send(&["-n"]);
    let reported = watcher.see("an empty request is answered", |seen| seen.topic == response).await;
    assert_eq!(reported.json()["result"], "ok", "what cleared the retained request was answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_is_one_byte_more_than_the_limit() {
    let stack = Stack::new(3, "").await;
    let request = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2));
    assert_eq!(stack.ask("devices", &request(65_536)).await["result"], "ok");
    let answer = stack.ask("devices", &request(65_537)).await;
    assert_eq!(refusal(&answer).0, "too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_rate_it_is_refused() {
    let stack = Stack::new(3, "[commands]\nrate = \"2/h\"\n").await;
    for _ in 0..2 {
        assert_eq!(stack.ask("devices", "{}").await["result"], "ok");
    }
    let answer = stack.ask("devices", r#"{"transaction":"t"}"#).await;
    assert_eq!((refusal(&answer).0, &answer["transaction"]), ("rate_limited", &json!("t")));
}

/// Aim: no request bypasses the rate limit, however wrong it is, and a flood for one gateway does
/// not affect another.
#[tokio::test(flavor = "multi_thread")]
async fn every_request_passes_the_rate_of_its_gateway() {
    let broker = Mosquitto::start("").await;
    let setup = crate::harness::bridge::Setup::new(broker.port, "");
    let mut setup = setup.lines("[commands]\nrate = \"2/h\"\n");
    let mut simulators = Vec::new();
    for name in ["lobby", "annex", "cellar", "store"] {
        let simulator = crate::harness::simulator(1).await;
        setup = setup.gateway(name, &simulator, "");
        simulators.push(simulator);
    }
    let (bridge, simulator) = (setup.start(), simulators.remove(0));
    bridge.is_ready().await;
    let stack = Stack { broker, simulator, bridge };
    stack.is_listening().await;
    let watcher = Watcher::start(stack.broker.port).await;
    let large = format!("{{{}}}", " ".repeat(70_000));
    let elsewhere = ["-n", "-D", "publish", "response-topic", "nope/x"];
    for (gateway, args, code) in [
        ("lobby", &elsewhere[..], "invalid_request"),
        ("annex", &["-m", "{}", "-r"], "invalid_request"),
        ("cellar", &["-m", &large], "too_large"),
    ] {
        let topic = format!("gsdk/{gateway}/request/devices");
        let request = [&["-V", "5", "-t", &topic][..], args].concat();
        (0..3).for_each(|_| publish(stack.broker.port, &request));
        let response = format!("gsdk/{gateway}/response/devices");
        let codes = crate::harness::eventually("each is answered", || {
            let answers = watcher.all().into_iter().filter(|seen| seen.topic == response);
            let codes: Vec<String> =
                answers.map(|seen| refusal(&seen.json()).0.to_owned()).collect();
            (codes.len() == 3).then_some(codes)
        })
        .await;
        assert_eq!(codes, [code, code, "rate_limited"], "{gateway}");
    }
    assert_eq!(stack.ask_of("store", "devices", "{}").await["result"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_broker_does_not_take_is_a_small_one() {
    let broker = Mosquitto::start("max_packet_size 2500").await;
    let simulator = crate::harness::simulator(20).await;
    let stack = Stack::with(broker, simulator, ALL, "").await;
    let answer = stack.ask("search", r#"{"wait_s":0.1,"transaction":"t"}"#).await;
    let (code, message) = refusal(&answer);
    assert_eq!((code, &answer["transaction"]), ("answer_too_large", &json!("t")));
    assert!(message.contains("ended with ok") && message.contains("max_packet_size"), "{message}");
    assert!(message.contains("gsdk2mqtt ctl") && !message.contains("fewer"), "{message}");
    let managed = stack.simulator.control().managed();
    let ids: Vec<u32> = managed.iter().map(|device| device.device_id).collect();
    let request = json!({"gateway": "lobby", "device_ids": ids}).to_string();
    let answer = stack.ask_of("bridge", "forget", &request).await;
    let (code, message) = refusal(&answer);
    assert!(code == "answer_too_large" && message.contains("name fewer devices"), "{message}");
    assert_eq!(answer["bridge"], "bridge", "{answer}");
    let series =
        "gsdk_commands_total{command=\"search\",gateway=\"lobby\",result=\"answer_too_large\"}";
    assert_eq!(stack.bridge.metric(series).await, Some(1.0));
    assert_eq!(stack.ask("pending", "{}").await["result"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_fit_beside_its_correlation_data_is_sent_without() {
    let broker = Mosquitto::start("max_packet_size 2500").await;
    let stack = Stack::with(broker, crate::harness::simulator(1).await, "", "").await;
    let watcher = Watcher::start(stack.broker.port).await;
    let (data, answered) = ("c".repeat(2_300), "gsdk/lobby/response/pending");
    let request = ["-V", "5", "-t", "gsdk/lobby/request/pending", "-m", r#"{"transaction":"t"}"#];
    let correlation = ["-D", "publish", "correlation-data", &data];
    for response_topic in [&["-D", "publish", "response-topic", "gsdk-reply/me"][..], &[]] {
        watcher.clear();
        publish(stack.broker.port, &[&request[..], &correlation, response_topic].concat());
        let answer = watcher.see("an answer", |seen| seen.topic == answered).await.json();
        assert_eq!((refusal(&answer).0, &answer["transaction"]), ("answer_too_large", &json!("t")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_answered_from_memory_while_the_gateway_is_offline() {
    let stack = Stack::new(3, ALL).await;
    let request = r#"{"transaction":"42"}"#;
    assert_eq!(stack.ask("disconnect_all", request).await["result"], "ok");
    stack.simulator.control().stop_listening();
    crate::harness::patiently("the loss is detected", async {
        while refusal(&stack.ask("disconnect_all", "{}").await).0 != "gateway_unavailable" {}
    })
    .await;
    let answer = stack.ask("disconnect_all", request).await;
    assert_eq!((&answer["result"], &answer["replayed"]), (&json!("ok"), &json!(true)), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_down_is_reported() {
    let stack = Stack::new(3, ALL).await;
    stack.simulator.control().stop_listening();
    let (code, message) = crate::harness::patiently("the loss is detected", async {
        loop {
            let answer = stack.ask("disconnect_all", "{}").await;
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
