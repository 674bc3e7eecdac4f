//! MQTT over WebSocket, and TLS that offers protocol names (ALPN), to a real mosquitto.

use std::sync::Arc;
use std::time::Duration;

use gsdk2mqtt::config::MqttVersion;
use gsdk2mqtt::mqtt::session::spawn;
use gsdk2mqtt::mqtt::{Publish, RetainHandling, SessionEvent, SessionSettings};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::version::TLS13;

use super::{acked, connected, message, publish, settings, subscribed, wait_for};
use crate::harness::bridge::Setup;
use crate::harness::certificates::{Ca, Certified};
use crate::harness::mosquitto::{Mosquitto, free_port};
use crate::harness::watcher::Watcher;
use crate::harness::{patiently, simulator};

/// A broker, and the port of its listener for WebSocket.
async fn broker(tls: Option<&Ca>) -> (Mosquitto, u16) {
    let (dir, port) = (TempDir::new().unwrap(), free_port());
    let mut lines = format!("listener {port} 127.0.0.1\nprotocol websockets\n");
    if let Some(ca) = tls {
        ca.write(dir.path(), "server", Certified::of(&["localhost", "127.0.0.1"]));
        lines += "certfile {dir}/server.crt\nkeyfile {dir}/server.key\n";
    }
    let broker = Mosquitto::start_in(dir, &lines).await;
    // It opens this listener after the first one.
    patiently("the listener for WebSocket is open", async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    (broker, port)
}

fn over(port: u16, path: &str, protocol: MqttVersion) -> SessionSettings {
    let mut settings = settings(port, protocol);
    settings.mqtt.broker.path = Some(path.to_owned());
    settings
}

fn secure(mut settings: SessionSettings, ca: &Ca) -> SessionSettings {
    settings.mqtt.broker.at.host = "localhost".to_owned();
    settings.mqtt.broker.tls = true;
    settings.mqtt.ca_file = Some(ca.file());
    settings
}

/// A message is sent to the broker and received again.
async fn is_used(settings: SessionSettings) {
    let mut session = spawn(settings);
    let mut connection = connected(&mut session).await.connection;
    connection.subscribe(vec![("t/a".to_owned(), RetainHandling::DoNotSendAsPublished)]).unwrap();
    assert!(subscribed(&mut session).await.is_empty());
    // More than a frame.
    let text = "x".repeat(300_000);
    connection.publish(1, publish("t/a", &text)).unwrap();
    let got = message(&mut session).await.payload;
    assert!(got == text.as_bytes(), "{} bytes received", got.len());
    connection.publish(2, Publish { retain: true, ..publish("t/b", "x") }).unwrap();
    assert_eq!(acked(&mut session, 2).await, Ok(()));
    connection.disconnect();
    while session.next().await.is_some() {}
}

async fn refused(settings: SessionSettings) -> String {
    let mut session = spawn(settings);
    wait_for(&mut session, "a refusal", |event| match event {
        SessionEvent::Unreachable { reason, .. } => Some(reason),
        SessionEvent::Connected(_) => panic!("connected"),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_used_over_websocket_plain_and_with_tls() {
    let (_broker, port) = broker(None).await;
    is_used(over(port, "/mqtt", MqttVersion::V5)).await;
    is_used(over(port, "/mqtt", MqttVersion::V311)).await;
    let ca = Ca::new();
    let (_broker, port) = broker(Some(&ca)).await;
    is_used(secure(over(port, "/", MqttVersion::V5), &ca)).await;
    is_used(secure(over(port, "/mqtt", MqttVersion::V311), &ca)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_over_websocket_reconnects_after_a_kill_and_has_its_last_will() {
    let (mut broker, port) = broker(None).await;
    let mut session = spawn(over(port, "/mqtt", MqttVersion::V5));
    let _first = connected(&mut session).await.connection;
    broker.kill();
    let is_lost = |event| matches!(event, SessionEvent::Disconnected { .. }).then_some(());
    wait_for(&mut session, "the loss", is_lost).await;
    broker.restart().await;
    let _second = connected(&mut session).await.connection;
    let watcher = Watcher::start(broker.port).await;
    drop(session);
    watcher.see_text("t/bridge/state", "offline").await;
}

/// The requirements of a TLS server.
struct Demands {
    alpn: &'static [u8],
    name: &'static str,
}

/// A TLS server in front of a broker, as of a cloud: it accepts only clients that offer its
/// protocol and name the host.
async fn front(ca: &Ca, broker: u16, demands: Demands) -> u16 {
    let mut tls = ca.for_names(&["localhost"]).tls_of(&TLS13);
    tls.alpn_protocols = vec![demands.alpn.to_vec()];
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(tls)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(mut near) = acceptor.accept(near).await else { continue };
            let (_, handshake) = near.get_ref();
            let is_met = handshake.alpn_protocol() == Some(demands.alpn)
                && handshake.server_name() == Some(demands.name);
            if is_met {
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(("127.0.0.1", broker)).await.unwrap();
                    // Its end is the end of the connection.
                    _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_insists_on_alpn_and_the_hosts_name_gets_both_or_is_reported() {
    let ca = Ca::new();
    let (broker, websocket) = broker(None).await;
    let demands = || Demands { alpn: b"mqtt", name: "localhost" };
    let port = front(&ca, broker.port, demands()).await;
    let offering = |names: &[&str], port| {
        let mut settings = secure(settings(port, MqttVersion::V5), &ca);
        settings.mqtt.alpn = names.iter().map(|&name| name.to_owned()).collect();
        settings
    };
    is_used(offering(&["x-amzn-mqtt-ca", "mqtt"], port)).await;
    let reason = refused(offering(&["h2", "mqtt3"], port)).await;
    assert!(reason.contains("ALPN") && reason.contains("mqtt.alpn"), "{reason}");
    let reason = refused(offering(&[], port)).await;
    assert!(reason.contains("mqtt.alpn"), "{reason}");

    let port = front(&ca, websocket, demands()).await;
    let over_websocket = |names| {
        let mut settings = offering(names, port);
        settings.mqtt.broker.path = Some("/mqtt".to_owned());
        settings
    };
    is_used(over_websocket(&["mqtt"])).await;
    let reason = refused(over_websocket(&["http/1.1"])).await;
    assert!(reason.contains("ALPN") && reason.contains("mqtt.alpn"), "{reason}");
}

/// A server that reads a request and answers it with these bytes.
async fn answering(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                _ = stream.read(&mut [0; 1_024]).await;
                _ = stream.write_all(answer.as_bytes()).await;
                // The client closes.
                _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_mqtt_over_websocket_is_reported_with_the_remedy() {
    let (plain, _) = broker(None).await;
    let ca = Ca::new();
    let (_secure, with_tls) = broker(Some(&ca)).await;
    let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade\r\n\r\n";
    for (port, words) in [
        (answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await, "plain HTTP (200 OK)"),
        (answering("HTTP/1.0 404 Not Found\r\n\r\n").await, "plain HTTP"),
        (answering(accepted).await, "plain HTTP"),
        (plain.port, "mqtt:// if it is a port without WebSocket"),
        (with_tls, "wss:// if it uses TLS"),
    ] {
        let settings = over(port, "/mqtt", MqttVersion::V5);
        let limits = gsdk2mqtt::mqtt::SessionLimits {
            connect_deadline: Duration::from_secs(2),
            ..settings.limits
        };
        let reason = refused(SessionSettings { limits, ..settings }).await;
        assert!(reason.contains(words), "{words} in {reason}");
        assert!(reason.contains("mqtt.url"), "{reason}");
        assert!(!reason.contains('\n'), "{reason}");
    }
    let reason = refused(secure(over(plain.port, "/mqtt", MqttVersion::V5), &ca)).await;
    assert!(reason.contains("write ws://"), "{reason}");
    for protocol in [MqttVersion::V5, MqttVersion::V311] {
        let reason = refused(settings(answering("HTTP/1.1 400 Bad\r\n\r\n").await, protocol)).await;
        assert!(reason.contains("answers HTTP, not MQTT; correct the port"), "{reason}");
        assert!(reason.contains("ws://"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_works_over_websocket() {
    let ca = Ca::new();
    let (broker, port) = broker(Some(&ca)).await;
    let (gateway, ca_file) = (simulator(2).await, ca.file().display().to_string());
    let url = format!("mqtt.url=wss://localhost:{port}/mqtt");
    let setup = Setup::new(broker.port, &format!("ca_file = {ca_file:?}"));
    let bridge = setup.gateway("lobby", &gateway, "").arguments(&["--set", &url]).start();
    bridge.is_ready().await;
    let watcher = Watcher::start(broker.port).await;
    watcher.see_text("gsdk/lobby/state", "online").await;
    let answer =
        crate::commands::rr(broker.port, &["-t", "gsdk/lobby/request/devices", "-m", "{}"], "20");
    assert_eq!(answer.await.unwrap()["result"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_ends_tls_without_close_notify_has_closed_the_connection() {
    let ca = Ca::new();
    let (mut broker, _) = broker(None).await;
    let acceptor = TlsAcceptor::from(Arc::new(ca.for_names(&["localhost"]).tls()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut session = spawn(secure(settings(port, MqttVersion::V311), &ca));
    let behind = broker.port;
    let front = tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
        let (near_in, near_out) = tokio::io::split(acceptor.accept(near).await.unwrap());
        let (far_in, far_out) = far.into_split();
        tokio::select! {
            _ = forward(near_in, far_out) => {}
            _ = forward(far_in, near_out) => {}
        }
    });
    let _connection = connected(&mut session).await.connection;
    broker.kill();
    front.await.unwrap();
    let (reason, closed_by_broker) =
        wait_for(&mut session, "the connection has ended", |event| match event {
            SessionEvent::Disconnected { reason, closed_by_broker, .. } => {
                Some((reason, closed_by_broker))
            }
            _ => None,
        })
        .await;
    assert!(closed_by_broker, "{reason}");
    assert!(reason.contains("closed the connection; see its log"), "{reason}");
}

/// Forwards what is read, and not that there is no more.
async fn forward(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    _ = copy(&mut from, &mut to).await;
}
