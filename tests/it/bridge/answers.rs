//! Responses that the broker does not accept: their effects, and what the requester receives.

use std::time::Duration;

use gsdk2mqtt::simulator::Fault;
use serde_json::Value;

use crate::commands::rr;
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::watcher::{Watcher, publish};
use crate::harness::{eventually, patiently};

/// Enough for a response that is larger than [`LIMIT`].
const DEVICES: usize = 30;
/// A packet size for every state, info and event, but not for a response with all devices.
const LIMIT: &str = "4096";
const REQUEST: &str = "gsdk/lobby/request/devices";
const RESPONSE: &str = "gsdk/lobby/response/devices";

/// The bridge has made this many connections, is ready on the last one, and accepts requests.
async fn ready_on_connection(bridge: &Bridge, port: u16, number: u32) {
    patiently(&format!("connection {number}"), async {
        while bridge.metric("gsdk_mqtt_connections_total").await < Some(f64::from(number)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    bridge.is_ready().await;
    let watcher = Watcher::start(port).await;
    eventually("requests are answered", || {
        publish(port, &["-t", "gsdk/lobby/request/slaves/get", "-m", "{}"]);
        watcher.find(|seen| seen.topic == "gsdk/lobby/response/slaves/get")
    })
    .await;
    let connections = bridge.metric("gsdk_mqtt_connections_total").await;
    assert_eq!(connections, Some(f64::from(number)));
}

fn error_code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_which_a_3_1_1_broker_closes_is_not_sent_on_the_next_connection() {
    let broker = Mosquitto::start(&format!("max_packet_size {LIMIT}")).await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(DEVICES).await;
    let setup = Setup::new(broker.port, "protocol = \"3.1.1\"");
    let bridge = setup.gateway("lobby", &simulator, "").start();
    ready_on_connection(&bridge, broker.port, 1).await;
    publish(broker.port, &["-t", REQUEST, "-m", "{}"]);
    ready_on_connection(&bridge, broker.port, 2).await;
    let device = simulator.control().managed()[0].device_id;
    simulator.control().apply_fault(&Fault::Drop { devices: device.into() });
    watcher.see("events go on", |seen| seen.is_event_of(device)).await;
    assert_eq!(bridge.metric("gsdk_mqtt_connections_total").await, Some(2.0));
    assert!(watcher.find(|seen| seen.topic == RESPONSE).is_none());
    assert_eq!(bridge.get("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_an_mqtt_5_broker_refuses_as_too_large_is_replaced_by_a_short_one() {
    let broker = Mosquitto::start(&format!("message_size_limit {LIMIT}")).await;
    let simulator = crate::harness::simulator(DEVICES).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready_on_connection(&bridge, broker.port, 1).await;
    let reported = rr(broker.port, &["-t", REQUEST, "-m", "{}"], "20").await.unwrap();
    assert_eq!(error_code(&reported), "answer_too_large", "{reported}");
    assert_eq!(bridge.metric("gsdk_mqtt_connections_total").await, Some(1.0));
    assert_eq!(bridge.get("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_beyond_max_answer_is_not_tried_where_the_broker_announces_no_limit() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(DEVICES).await;
    let setup = Setup::new(broker.port, "max_answer = \"4KiB\"");
    let bridge = setup.gateway("lobby", &simulator, "").start();
    ready_on_connection(&bridge, broker.port, 1).await;
    publish(broker.port, &["-t", REQUEST, "-m", "{}"]);
    let reported = watcher.see("an answer", |seen| seen.topic == RESPONSE).await.json();
    assert_eq!(error_code(&reported), "answer_too_large", "{reported}");
    let message = reported["error"]["message"].as_str().unwrap();
    assert!(message.contains("mqtt.max_answer allows 4096"), "{message}");
}

/// 20 requests a second, whose responses the broker does not acknowledge.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_a_slow_broker_does_not_accept_do_not_use_more_memory() {
    const REQUESTS: u32 = 300;
    let broker = Mosquitto::start("").await;
    let proxy = Proxy::before(broker.port).await;
    let simulator = crate::harness::simulator(500).await;
    let setup = Setup::new(proxy.port, "max_answer = \"1MiB\"");
    let bridge = setup.gateway("lobby", &simulator, "").start();
    ready_on_connection(&bridge, broker.port, 1).await;
    let answered = "gsdk_commands_total{command=\"devices\",gateway=\"lobby\",result=\"ok\"}";
    // Asks until that many are answered: what comes too fast, after a pause, is refused.
    let ask_until = async |count: u32| {
        patiently(&format!("{count} answers are ready"), async {
            while bridge.metric(answered).await < Some(f64::from(count)) {
                let port = broker.port;
                let ask = move || publish(port, &["-t", REQUEST, "-m", "{}"]);
                let ask = tokio::task::spawn_blocking(ask);
                // A little less than the 20 requests a second that are accepted.
                tokio::join!(tokio::time::sleep(Duration::from_millis(60)), ask).1.unwrap();
            }
        })
        .await;
    };
    ask_until(1).await;
    proxy.set_mode(Mode { withholds_acks: true, ..Mode::default() });
    let before = bridge.memory();
    for count in (1..=REQUESTS).step_by(50) {
        ask_until(count).await;
    }
    ask_until(REQUESTS).await;
    let grown = bridge.memory().saturating_sub(before) >> 20;
    assert!(grown < 32, "{grown} MiB for {REQUESTS} answers");
    let dropped = "gsdk_mqtt_publish_failures_total{reason=\"answers_full\"}";
    assert!(bridge.metric(dropped).await > Some(0.0), "what does not fit is counted");
}
