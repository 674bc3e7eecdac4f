//! TLS to a real mosquitto: valid settings, and a message for every mistake.

use std::path::PathBuf;

use gsdk2mqtt::config::MqttVersion;
use gsdk2mqtt::mqtt::session::spawn;
use gsdk2mqtt::mqtt::{SessionEvent, SessionSettings};
use tempfile::TempDir;

use super::{settings, wait_for};
use crate::harness::certificates::{Ca, Certified, version_1};
use crate::harness::mosquitto::Mosquitto;

/// A broker whose certificate is this one.
async fn broker(ca: &Ca, certificate: Certified, extra: &str) -> Mosquitto {
    let dir = TempDir::new().unwrap();
    std::fs::copy(ca.file(), dir.path().join("ca.crt")).unwrap();
    ca.write(dir.path(), "server", certificate);
    let files = "cafile {dir}/ca.crt\ncertfile {dir}/server.crt\nkeyfile {dir}/server.key\n";
    Mosquitto::start_in(dir, &format!("{files}{extra}")).await
}

fn trusting(port: u16, ca_file: PathBuf) -> SessionSettings {
    let mut settings = settings(port, MqttVersion::V5);
    settings.mqtt.broker.tls = true;
    settings.mqtt.ca_file = Some(ca_file);
    settings
}

/// Why there is no connection.
async fn refused(settings: SessionSettings) -> String {
    let mut session = spawn(settings);
    wait_for(&mut session, "a refusal", |event| match event {
        SessionEvent::Unreachable { reason, .. } | SessionEvent::Disconnected { reason, .. } => {
            Some(reason)
        }
        SessionEvent::Connected(_) => panic!("connected"),
        _ => None,
    })
    .await
}

async fn connects(settings: SessionSettings) {
    let mut session = spawn(settings);
    wait_for(&mut session, "a connection", |event| match event {
        SessionEvent::Connected(_) => Some(()),
        SessionEvent::Unreachable { reason, .. } => panic!("{reason}"),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_broker_with_a_private_ca_is_trusted_by_its_file() {
    let ca = Ca::new();
    let broker = broker(&ca, Certified::of(&["127.0.0.1"]), "").await;
    connects(trusting(broker.port, ca.file())).await;
    let mut v311 = trusting(broker.port, ca.file());
    v311.mqtt.protocol = MqttVersion::V311;
    connects(v311).await;
}

#[tokio::test]
async fn a_certificate_that_is_wrong_is_reported_with_its_remedy() {
    let (ca, other) = (Ca::new(), Ca::called("another CA"));
    let right = Certified::of(&["127.0.0.1"]);
    for (broker, trusted, words) in [
        (broker(&other, right, "").await, &ca, "mqtt.ca_file"),
        (broker(&ca, Certified::of(&["broker.lan"]), "").await, &ca, "broker.lan"),
        (broker(&ca, Certified::expired(&["127.0.0.1"]), "").await, &ca, "expired"),
    ] {
        let reason = refused(trusting(broker.port, trusted.file())).await;
        assert!(reason.contains(words), "{words} in {reason}");
    }
}

#[tokio::test]
async fn a_certificate_of_x509_version_1_is_reported_with_its_remedy() {
    let dir = TempDir::new().unwrap();
    let ca_file = dir.path().join("ca.crt");
    std::fs::write(&ca_file, version_1::CA).unwrap();
    std::fs::write(dir.path().join("server.crt"), version_1::CERTIFICATE).unwrap();
    std::fs::write(dir.path().join("server.key"), version_1::KEY).unwrap();
    let files = "certfile {dir}/server.crt\nkeyfile {dir}/server.key\n";
    let broker = Mosquitto::start_in(dir, files).await;
    let reason = refused(trusting(broker.port, ca_file)).await;
    for words in ["X.509 version 1", "subject alternative name 127.0.0.1"] {
        assert!(reason.contains(words), "{words} in {reason}");
    }
    assert!(!reason.contains("OtherError"), "{reason}");
}

#[tokio::test]
async fn tls_and_plain_mixed_up_are_reported() {
    let ca = Ca::new();
    let secure = broker(&ca, Certified::of(&["127.0.0.1"]), "").await;
    let reason = refused(settings(secure.port, MqttVersion::V5)).await;
    assert!(reason.contains("mqtts://"), "{reason}");
    let plain = Mosquitto::start("").await;
    let reason = refused(trusting(plain.port, ca.file())).await;
    assert!(reason.contains("mqtt://"), "{reason}");
}

#[tokio::test]
async fn a_broker_that_requires_our_certificate_receives_it_or_is_reported() {
    let ca = Ca::new();
    let extra = "require_certificate true";
    let broker = broker(&ca, Certified::of(&["127.0.0.1"]), extra).await;
    let reason = refused(trusting(broker.port, ca.file())).await;
    assert!(reason.contains("mqtt.cert_file"), "{reason}");
    ca.write(ca.folder(), "client", Certified::of(&["bridge"]));
    let mut settings = trusting(broker.port, ca.file());
    settings.mqtt.cert_file = Some(ca.folder().join("client.crt"));
    settings.mqtt.key_file = Some(ca.folder().join("client.key"));
    connects(settings).await;
}
