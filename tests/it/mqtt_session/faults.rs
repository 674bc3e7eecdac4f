//! Brokers that refuse, freeze, or are not at the URL.

use std::time::{Duration, Instant};

use gsdk2mqtt::config::MqttVersion;
use gsdk2mqtt::mqtt::session::spawn;
use gsdk2mqtt::mqtt::{Session, SessionEvent, SessionSettings};
use gsdk2mqtt::net::model::name_host;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{acked, connected, publish, settings, wait_for};
use crate::harness::BlackHole;
use crate::harness::mosquitto::{Mosquitto, free_port};
use crate::harness::proxy::{Mode, Proxy};

/// Why it is not connected, in the session's words.
pub(super) async fn unreachable(session: &mut Session) -> String {
    wait_for(session, "a failed attempt", |event| match event {
        SessionEvent::Unreachable { reason, .. } => Some(reason),
        SessionEvent::Connected(_) => panic!("connected, which must not be"),
        _ => None,
    })
    .await
}

pub(super) async fn disconnected(session: &mut Session) -> (String, bool, Duration) {
    wait_for(session, "the end of the connection", |event| match event {
        SessionEvent::Disconnected { reason, taken_over, retry_in, .. } => {
            Some((reason, taken_over, retry_in))
        }
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_noticed_and_served_again_when_it_thaws() {
    let broker = Mosquitto::start("").await;
    let keep_alive = Duration::from_secs(1);
    let mut session =
        spawn(SessionSettings { keep_alive, ..settings(broker.port, MqttVersion::V5) });
    let mut connection = connected(&mut session).await.connection;
    broker.freeze();
    connection.publish(1, publish("t/a", "x")).unwrap();
    let (reason, taken_over, _) = disconnected(&mut session).await;
    assert!(reason.contains("sent nothing for 1 s"), "{reason}");
    assert!(!taken_over);
    broker.thaw();
    let mut connection = connected(&mut session).await.connection;
    connection.publish(2, publish("t/a", "x")).unwrap();
    assert_eq!(acked(&mut session, 2).await, Ok(()));
}

/// It answers pings, so it is not silent; and no publish is ever acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_acknowledges_nothing_is_noticed_and_served_again_when_it_does() {
    let broker = Mosquitto::start("").await;
    let proxy = Proxy::before(broker.port).await;
    for protocol in [MqttVersion::V5, MqttVersion::V311] {
        let keep_alive = Duration::from_secs(1);
        let mut session = spawn(SessionSettings { keep_alive, ..settings(proxy.port, protocol) });
        let mut connection = connected(&mut session).await.connection;
        proxy.set_mode(Mode { withholds_acks: true, ..Mode::default() });
        connection.publish(5, publish("t/a", "x")).unwrap();
        let (reason, taken_over, _) = disconnected(&mut session).await;
        assert!(reason.contains("has acknowledged nothing for 1 s"), "{reason}");
        assert!(!taken_over);
        proxy.set_mode(Mode::default());
        let mut connection = connected(&mut session).await.connection;
        connection.publish(6, publish("t/a", "x")).unwrap();
        assert_eq!(acked(&mut session, 6).await, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_where_nothing_listens_is_tried_until_a_broker_does() {
    let port = free_port();
    let mut session = spawn(settings(port, MqttVersion::V5));
    let reason = unreachable(&mut session).await;
    assert_eq!(
        reason,
        format!(
            "nothing listens at mqtt://127.0.0.1:{port} (connection refused); start the broker, \
             or correct host and port in mqtt.url"
        )
    );
    assert!(unreachable(&mut session).await == reason, "the same words for the same fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_never_answers_is_given_up_at_its_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for protocol in [MqttVersion::V5, MqttVersion::V311] {
        let mut settings = settings(silent.local_addr().unwrap().port(), protocol);
        settings.limits.connack_deadline = Duration::from_secs(1);
        let reason = unreachable(&mut spawn(settings)).await;
        assert!(reason.contains("did not answer within 1 s while answering CONNECT"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_is_reported_with_its_keys_and_not_shown() {
    let broker = Mosquitto::start("allow_anonymous false").await;
    for protocol in [MqttVersion::V5, MqttVersion::V311] {
        let mut settings = settings(broker.port, protocol);
        settings.mqtt.username = Some("gsdk2mqtt".to_owned());
        settings.mqtt.password = Some(SecretString::from("hunter2"));
        let mut session = spawn(settings);
        let reason = unreachable(&mut session).await;
        assert_eq!(
            reason,
            format!(
                "broker mqtt://127.0.0.1:{} refused the user name or password; check \
                 mqtt.username and mqtt.password_file",
                broker.port
            )
        );
        let mut session = spawn(self::settings(broker.port, protocol));
        let reason = unreachable(&mut session).await;
        assert!(reason.contains("requires a user name; set mqtt.username"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_is_named() {
    let mut settings = settings(1883, MqttVersion::V5);
    settings.mqtt.broker.at.host = "broker.invalid".to_owned();
    let reason = unreachable(&mut spawn(settings)).await;
    assert!(reason.starts_with("cannot find the host \"broker.invalid\""), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_drops_packets_leaves_time_for_the_next_one_of_its_name() {
    let (broker, hole) = (Mosquitto::start("").await, BlackHole::open().await);
    name_host("two-brokers.test", vec![hole.address, ([127, 0, 0, 1], broker.port).into()]);
    let mut settings = settings(1883, MqttVersion::V5);
    settings.mqtt.broker.at.host = "two-brokers.test".to_owned();
    let deadline = Duration::from_secs(6);
    settings.limits.connect_deadline = deadline;
    let started = Instant::now();
    connected(&mut spawn(settings)).await;
    assert!(started.elapsed() < deadline, "the first address used up {:?}", started.elapsed());
}

/// A broker that accepts every connection and reports at once that the session was taken over.
async fn taking_over() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut connect = [0; 512];
            let _ = client.read(&mut connect).await;
            client.write_all(b"\x20\x03\x00\x00\x00\xe0\x02\x8e\x00").await.unwrap();
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_taken_over_is_reported_and_tried_again_at_once() {
    let mut session = spawn(settings(taking_over().await, MqttVersion::V5));
    let (reason, taken_over, retry_in) = disconnected(&mut session).await;
    assert!(taken_over, "{reason}");
    assert!(reason.contains("two programs use the client ID \"gsdk2mqtt_test\""), "{reason}");
    // Whether to give way is the bridge's decision.
    assert!(retry_in <= Duration::from_secs(1), "{retry_in:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_of_one_id_are_suspected_if_the_broker_gives_no_reason() {
    let broker = Mosquitto::start("").await;
    let mut first = spawn(settings(broker.port, MqttVersion::V5));
    let _first = connected(&mut first).await;
    let mut second = spawn(settings(broker.port, MqttVersion::V5));
    let reported = |mut session: Session| async move {
        loop {
            let (reason, _, _) = disconnected(&mut session).await;
            if reason.contains("same client ID") {
                return reason;
            }
        }
    };
    let _second = connected(&mut second).await;
    let reason = tokio::select! {
        reason = reported(first) => reason,
        reason = reported(second) => reason,
    };
    assert!(reason.contains("another program uses the same client ID"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_the_acl_forbids_is_a_refusal_and_no_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("acl"), "topic readwrite t/allowed\n").unwrap();
    let broker = Mosquitto::start_in(dir, "acl_file {dir}/acl").await;
    let mut session = spawn(settings(broker.port, MqttVersion::V5));
    let mut connection = connected(&mut session).await.connection;
    connection.publish(1, publish("t/allowed", "x")).unwrap();
    connection.publish(2, publish("t/other", "x")).unwrap();
    connection.publish(3, publish("t/allowed", "x")).unwrap();
    let mut answers = Vec::new();
    while answers.len() < 3 {
        let some = wait_for(&mut session, "answers", |event| match event {
            SessionEvent::Acked(acks) => Some(acks),
            _ => None,
        });
        answers.extend(some.await);
    }
    let answers: Vec<_> =
        answers.iter().map(|ack| (ack.token, ack.result.map_err(|why| why.as_str()))).collect();
    assert_eq!(answers, [(1, Ok(())), (2, Err("not_authorized")), (3, Ok(()))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_over_which_the_broker_would_close_are_not_sent() {
    let broker = Mosquitto::start("max_packet_size 1000").await;
    let mut session = spawn(settings(broker.port, MqttVersion::V5));
    let mut connection = connected(&mut session).await.connection;
    for (token, topic, size, result) in [
        (1, "t/a", 1000, Err("packet_too_large")),
        (2, "t/+", 1, Err("topic_invalid")),
        (3, "t/a", 900, Ok(())),
    ] {
        connection.publish(token, publish(topic, &"x".repeat(size))).unwrap();
        assert_eq!(acked(&mut session, token).await, result);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_retained_messages_is_reported_with_the_remedy() {
    let broker = Mosquitto::start("retain_available false").await;
    let reason = unreachable(&mut spawn(settings(broker.port, MqttVersion::V5))).await;
    assert!(reason.contains("it keeps no retained messages"), "{reason}");
    let mut settings = settings(broker.port, MqttVersion::V5);
    settings.will.retain = false;
    let mut session = spawn(settings);
    let mut connection = connected(&mut session).await.connection;
    let mut kept = publish("t/a", "x");
    kept.retain = true;
    connection.publish(1, kept).unwrap();
    assert_eq!(acked(&mut session, 1).await, Err("retain_not_supported"));
    connection.publish(2, publish("t/a", "x")).unwrap();
    assert_eq!(acked(&mut session, 2).await, Ok(()), "the tokens are in order");
}
