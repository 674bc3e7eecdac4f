//! Brokers whose answers the MQTT library does not accept.

use std::time::Duration;

use gsdk2mqtt::config::MqttVersion;
use gsdk2mqtt::mqtt::session::spawn;
use gsdk2mqtt::mqtt::{Refusal, RetainHandling, Session, SessionEvent, SessionSettings};

use super::faults::{disconnected, unreachable};
use super::{connected, publish, settings, subscribed, wait_for};
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::scripted_broker::{Reply, ScriptedBroker};
use crate::harness::subscriber::Subscriber;
use crate::harness::{eventually, patiently, simulator};

/// What the broker said to the publish with this token.
async fn answer(session: &mut Session, token: u64) -> Result<(), Refusal> {
    wait_for(session, "an answer to the publish", |event| match event {
        SessionEvent::Acked(acks) => {
            acks.into_iter().find(|ack| ack.token == token).map(|ack| ack.result)
        }
        SessionEvent::Disconnected { reason, .. } => panic!("disconnected: {reason}"),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_puback_with_any_reason_code_answers_its_publish_and_keeps_the_connection() {
    let broker = ScriptedBroker::start("").await;
    let mut session = spawn(settings(broker.port, MqttVersion::V5));
    let mut connection = connected(&mut session).await.connection;
    broker.on_publish(|published| {
        published
            .topic
            .strip_prefix("t/")
            .map_or(Reply::Forward, |code| Reply::Code(u8::from_str_radix(code, 16).unwrap()))
    });
    for code in 0..=255 {
        let token = u64::from(code);
        connection.publish(token, publish(&format!("t/{code:02x}"), "x")).unwrap();
        let expected = if code < 0x80 { Ok(()) } else { Err(Refusal::Code(code)) };
        assert_eq!(answer(&mut session, token).await, expected, "0x{code:02X}");
    }
    assert_eq!((broker.connections(), broker.published().len()), (1, 256));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suback_with_any_reason_code_answers_its_subscription_and_keeps_the_connection() {
    let broker = ScriptedBroker::start("").await;
    for (protocol, connections) in [(MqttVersion::V5, 1), (MqttVersion::V311, 2)] {
        let mut session = spawn(settings(broker.port, protocol));
        let mut connection = connected(&mut session).await.connection;
        for code in [0x00, 0x01, 0x11, 0x80, 0x81, 0x82, 0x87, 0x95, 0xFF] {
            broker.on_subscribe(move |_| Reply::Code(code));
            connection
                .subscribe(vec![(format!("t/{code}"), RetainHandling::SendAtSubscribe)])
                .unwrap();
            let refused = wait_for(&mut session, "an answer", |event| match event {
                SessionEvent::Subscribed { refused, .. } => Some(refused),
                SessionEvent::Disconnected { reason, .. } => panic!("disconnected: {reason}"),
                _ => None,
            })
            .await;
            let refusals: Vec<Refusal> = refused.into_iter().map(|(_, refusal)| refusal).collect();
            let expected = if code < 0x80 { vec![] } else { vec![Refusal::Code(code)] };
            assert_eq!(refusals, expected, "0x{code:02X}");
        }
        assert_eq!(broker.connections(), connections);
        assert_eq!(broker.filters().len(), 9 * connections);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_acknowledged_and_ignored() {
    let broker = Mosquitto::start("").await;
    let mut settings = settings(broker.port, MqttVersion::V311);
    settings.limits.incoming_max_v311 = 10_000;
    let mut session = spawn(settings);
    let mut connection = connected(&mut session).await.connection;
    connection.subscribe(vec![("t/#".to_owned(), RetainHandling::DoNotSend)]).unwrap();
    assert!(subscribed(&mut session).await.is_empty());
    // More than mosquitto has in flight without an acknowledgement.
    for token in 0..30 {
        connection.publish(token, publish("t/large", &"x".repeat(100_000))).unwrap();
    }
    connection.publish(30, publish("t/small", "x")).unwrap();
    let next = wait_for(&mut session, "a message", |event| match event {
        SessionEvent::Message(message) => Some(message.topic),
        SessionEvent::Disconnected { reason, .. } => panic!("disconnected: {reason}"),
        _ => None,
    });
    assert_eq!(next.await, "t/small");
}

/// Pings and other acknowledgements go on, so that the connection looks alive.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_message_without_acknowledgement_is_detected() {
    let broker = ScriptedBroker::start("").await;
    broker.on_publish(|published| match published.topic.as_str() {
        "t/lost" => Reply::Withhold,
        _ => Reply::Forward,
    });
    for protocol in [MqttVersion::V5, MqttVersion::V311] {
        let keep_alive = Duration::from_secs(1);
        let mut session = spawn(SessionSettings { keep_alive, ..settings(broker.port, protocol) });
        let mut connection = connected(&mut session).await.connection;
        connection.publish(0, publish("t/lost", "x")).unwrap();
        let reason = patiently("the end of the connection", async {
            for token in 1.. {
                // Where the connection has ended, its end is the next event.
                _ = connection.publish(token, publish("t/a", "x"));
                loop {
                    match session.next().await {
                        Some(SessionEvent::Acked(acks)) => {
                            assert!(acks.iter().all(|ack| ack.token == token), "{acks:?}");
                            break;
                        }
                        Some(SessionEvent::Disconnected { reason, .. }) => return reason,
                        _ => {}
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            unreachable!("tokens do not end")
        })
        .await;
        assert!(reason.contains("has not acknowledged a message for 1 s"), "{reason}");
    }
}

/// Without its subscriptions the bridge is never ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_without_answer_is_detected() {
    let broker = ScriptedBroker::start("").await;
    broker.on_subscribe(|filter| match filter {
        "t/lost" => Reply::Withhold,
        _ => Reply::Forward,
    });
    for protocol in [MqttVersion::V5, MqttVersion::V311] {
        let keep_alive = Duration::from_secs(1);
        let mut session = spawn(SessionSettings { keep_alive, ..settings(broker.port, protocol) });
        let mut connection = connected(&mut session).await.connection;
        for filter in ["t/lost", "t/a"] {
            let filter = (filter.to_owned(), RetainHandling::SendAtSubscribe);
            connection.subscribe(vec![filter]).unwrap();
        }
        connection.publish(0, publish("t/a", "x")).unwrap();
        assert_eq!(answer(&mut session, 0).await, Ok(()));
        let (reason, ..) = disconnected(&mut session).await;
        assert!(reason.contains("has not answered a subscription for 1 s"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_server_keep_alive_does_not_end_an_idle_connection() {
    const SERVER_KEEP_ALIVE: u8 = 0x13;
    for seconds in [300_u16, 0] {
        let broker = ScriptedBroker::start("").await;
        let [high, low] = seconds.to_be_bytes();
        broker.script(|script| script.connack_properties = vec![SERVER_KEEP_ALIVE, high, low]);
        let keep_alive = Duration::from_secs(1);
        let mut session =
            spawn(SessionSettings { keep_alive, ..settings(broker.port, MqttVersion::V5) });
        let _connection = connected(&mut session).await.connection;
        eventually("three pings", || (broker.pings() >= 3).then_some(())).await;
        assert_eq!(broker.connections(), 1, "server keep alive {seconds}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connack_with_unrequested_properties_is_accepted() {
    let broker = ScriptedBroker::start("").await;
    // Assigned Client Identifier "a" and Response Information "r/".
    let properties = b"\x12\x00\x01a\x1a\x00\x02r/";
    broker.script(|script| script.connack_properties = properties.to_vec());
    let mut session = spawn(settings(broker.port, MqttVersion::V5));
    let mut connection = connected(&mut session).await.connection;
    connection.publish(1, publish("t/a", "x")).unwrap();
    assert_eq!(answer(&mut session, 1).await, Ok(()));
}

/// mosquitto drops the last will on a DISCONNECT with any reason but 0x04.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_given_up_leaves_the_last_will_to_the_broker() {
    let broker = ScriptedBroker::start("").await;
    let mut will = Subscriber::start(broker.mosquitto.port, "t/bridge/state");
    let subscribed = will.subscriptions.wait_for(|times| *times == 1);
    patiently("subscribed", subscribed).await.unwrap();
    for protocol in [MqttVersion::V5, MqttVersion::V311] {
        let mut session = spawn(settings(broker.port, protocol));
        let _connection = connected(&mut session).await.connection;
        // Packet type 0 does not exist.
        broker.inject(&[0x00, 0x00]);
        disconnected(&mut session).await;
        let (_, payload) = patiently("the last will", will.seen.recv()).await.unwrap();
        assert_eq!(payload, b"offline");
        assert_eq!(broker.disconnects(), Vec::<u8>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_reports_the_code_and_the_brokers_reason() {
    let broker = ScriptedBroker::start("").await;
    let cases = [
        (0x97, "refused the connection (quota_exceeded (0x97): \"no more\")"),
        (0xFF, "refused the connection (unlisted (0xFF): \"no more\")"),
        (0x87, "refused the user name or password: \"no more\"; check mqtt.username"),
        (0x85, "refused the client ID \"gsdk2mqtt_test\": \"no more\"; set another"),
        (0x01, "does not support MQTT 5; set mqtt.protocol = \"3.1.1\""),
        (0x9A, "keeps no retained messages"),
    ];
    for (code, expected) in cases {
        broker.script(|script| {
            script.connack = Some(code);
            // A control character in it is not shown.
            script.connack_properties = b"\x1f\x00\x08no\x1b more".to_vec();
        });
        let mut settings = settings(broker.port, MqttVersion::V5);
        settings.mqtt.username = Some("gsdk2mqtt".to_owned());
        let mut session = spawn(settings);
        let reason = unreachable(&mut session).await;
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_of_3_1_1_reports_the_remedy() {
    let broker = ScriptedBroker::start("").await;
    let cases = [
        (1, "does not support MQTT 3.1.1; set mqtt.protocol = \"5\""),
        (2, "mosquitto: max_keepalive"),
        (3, "refused the connection (server_unavailable (0x03))"),
        (5, "requires a user name; set mqtt.username"),
        (9, "refused the connection (0x09)"),
    ];
    for (code, expected) in cases {
        broker.script(|script| script.connack = Some(code));
        let mut session = spawn(settings(broker.port, MqttVersion::V311));
        let reason = unreachable(&mut session).await;
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_of_the_broker_names_its_code_whatever_it_is() {
    let broker = ScriptedBroker::start("").await;
    let cases = [
        (0x8E, true, "another client took over the session"),
        (0x96, false, "ended the connection (message_rate_too_high (0x96))"),
        (0xEE, false, "ended the connection (unlisted (0xEE))"),
    ];
    for (code, taken_over, expected) in cases {
        let mut session = spawn(settings(broker.port, MqttVersion::V5));
        let _connection = connected(&mut session).await.connection;
        broker.disconnect(code);
        let (reason, was_taken_over, _) = disconnected(&mut session).await;
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(was_taken_over, taken_over);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_limit_that_no_state_fits_into_is_named() {
    let broker = ScriptedBroker::start("").await;
    broker.script(|script| script.connack_properties = vec![0x27, 0, 0, 0, 100]);
    let mut session = spawn(settings(broker.port, MqttVersion::V5));
    let reason = unreachable(&mut session).await;
    assert!(reason.contains("takes packets of at most 100 bytes"), "{reason}");
}

/// RabbitMQ closes on a message that its access list does not allow, NanoMQ on one beyond a quota.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_closes_on_a_message_is_not_called_a_second_client() {
    let broker = ScriptedBroker::start("").await;
    broker.on_publish(|_| Reply::Close);
    for protocol in [MqttVersion::V5, MqttVersion::V311] {
        let mut session = spawn(settings(broker.port, protocol));
        let mut last = String::new();
        for _ in 0..3 {
            let mut connection = connected(&mut session).await.connection;
            connection.publish(1, publish("t/a", "x")).unwrap();
            let (reason, _, retry_in) = disconnected(&mut session).await;
            assert!(retry_in < Duration::from_secs(1), "{retry_in:?}: {reason}");
            last = reason;
        }
        let expected = "3 times before it had acknowledged what was sent";
        assert!(last.contains(expected), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_closes_idle_connections_may_have_a_second_client() {
    let broker = ScriptedBroker::start("").await;
    let mut session = spawn(settings(broker.port, MqttVersion::V5));
    let mut last = String::new();
    for _ in 0..3 {
        let _connection = connected(&mut session).await.connection;
        broker.close();
        last = disconnected(&mut session).await.0;
    }
    assert!(last.contains("another program uses the same client ID"), "{last}");
}

/// What of the log says that the broker ended a connection, after it did so with these codes.
async fn logged_disconnects(codes: &[u8]) -> Vec<String> {
    let broker = ScriptedBroker::start("").await;
    let simulator = simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    for (before, code) in codes.iter().enumerate() {
        let times = before + 1;
        broker.connected_times(times).await;
        let logged = || bridge.log().matches(" connected to the broker").count();
        eventually("the bridge is connected", || (logged() == times).then_some(())).await;
        broker.disconnect(*code);
    }
    broker.connected_times(codes.len() + 1).await;
    let log = bridge.log();
    let is_disconnect = |line: &&str| line.contains("disconnected from the broker");
    log.lines().filter(is_disconnect).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_that_repeats_is_logged_once() {
    let lines = logged_disconnects(&[0x89; 3]).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("server_busy (0x89)"), "{}", lines[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnects_that_alternate_between_two_reasons_are_logged_once_each() {
    let lines = logged_disconnects(&[0x89, 0x97, 0x89, 0x97]).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("quota_exceeded (0x97)"), "{}", lines[1]);
}
