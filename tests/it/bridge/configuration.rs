//! Mistakes in an installation: each is reported in one clear line, and everything else works.

use gsdk2mqtt::simulator::{
    CertificateKind, Fault, Packages, Simulator, SimulatorSettings, StatusCode,
};

use crate::harness::bounded;
use crate::harness::bridge::{PROGRAM, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::Watcher;

/// The last error of a gateway with this kind of certificate.
async fn told_of(kind: CertificateKind, extra: &str) -> serde_json::Value {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let settings = SimulatorSettings { certificate: kind, ..SimulatorSettings::fast(1) };
    let wrong = Simulator::start(settings).await.unwrap();
    let right = crate::harness::simulator(1).await;
    let _bridge = Setup::new(broker.port, "")
        .gateway("wrong", &wrong, extra)
        .gateway("right", &right, "")
        .start();
    watcher.see_text("gsdk/right/state", "online").await;
    let reported = |seen: &crate::harness::watcher::Seen| {
        seen.topic == "gsdk/wrong/info" && !seen.json()["last_error"].is_null()
    };
    watcher.see("the gateway's last error", reported).await.json()["last_error"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_certificate_is_reported_in_plain_words() {
    for (kind, extra, words) in [
        (CertificateKind::DnsOnly, "", "set gateways.wrong.server_name = \"gateway.local\""),
        (CertificateKind::NoSan, "", "-cs"),
        (CertificateKind::Expired, "", "expired"),
        (CertificateKind::OtherCa, "", "copy ca.crt"),
        (CertificateKind::Both, "server_name = \"other.local\"", "other.local"),
    ] {
        let error = told_of(kind, extra).await;
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("gateway wrong: ") && message.contains(words), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_expiry_of_a_refused_certificate_is_reported_with_the_refusal() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let folder = tempfile::tempdir().unwrap();
    let certificates_dir = Some(folder.path().to_owned());
    let settings = SimulatorSettings { certificates_dir, ..SimulatorSettings::fast(1) };
    let simulator = Simulator::start(settings.clone()).await.unwrap();
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/lobby/state", "online").await;
    let series = "gsdk_gateway_certificate_expiry_timestamp_seconds{gateway=\"lobby\"}";
    let now = jiff::Timestamp::now();
    assert!(bridge.metric(series).await.unwrap() > now.as_second() as f64);

    let listen = simulator.address();
    simulator.stop().await;
    let certificate = CertificateKind::Expired;
    let settings = SimulatorSettings { listen, certificate, ..settings };
    let _expired = Simulator::start(settings).await.unwrap();
    for is_restarted in [false, true] {
        if is_restarted {
            bridge.kill();
            watcher.clear();
            bridge.restart();
        }
        let refused = |seen: &crate::harness::watcher::Seen| {
            seen.topic == "gsdk/lobby/info"
                && seen.json()["last_error"]["code"] == "certificate_expired"
        };
        let info = watcher.see("the refusal", refused).await.json();
        let expiry = info["certificate_expires_at"].as_str().unwrap_or_else(|| panic!("{info}"));
        assert!(expiry.parse::<jiff::Timestamp>().unwrap() < now, "{info}");
        assert!(bridge.metric(series).await.unwrap() < now.as_second() as f64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_of_either_age_is_found_out() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let start =
        |packages| Simulator::start(SimulatorSettings { packages, ..SimulatorSettings::fast(1) });
    let (old, new) = (start(Packages::Bare).await.unwrap(), start(Packages::Gsdk).await.unwrap());
    let _bridge =
        Setup::new(broker.port, "").gateway("old", &old, "").gateway("new", &new, "").start();
    for (gateway, package) in [("old", "connect"), ("new", "gsdk.connect")] {
        let topic = format!("gsdk/{gateway}/info");
        let reported = |seen: &crate::harness::watcher::Seen| {
            let info = seen.topic == topic;
            info && seen.json()["package"] == package && seen.json()["accept_filter"].is_object()
        };
        let info = watcher.see(package, reported).await.json();
        assert!(info["certificate_expires_at"].is_string(), "{info}");
        let all = info["accept_filter"]["allow_all"].is_boolean();
        assert!(all && info["accept_filter"]["device_count"].is_number(), "{info}");
        watcher.see_text(&format!("gsdk/{gateway}/state"), "online").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_is_reported_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("passwords");
    let made = bounded("mosquitto_passwd")
        .args(["-b", "-c", file.to_str().unwrap(), "bridge", "right"])
        .status();
    assert!(made.unwrap().success());
    let extra = "allow_anonymous false\npassword_file {dir}/passwords";
    let broker = Mosquitto::start_in(dir, extra).await;
    let simulator = crate::harness::simulator(1).await;
    let user = "username = \"bridge\"\npassword = \"wrong-secret\"";
    let bridge = Setup::new(broker.port, user).gateway("lobby", &simulator, "").start();
    let body = crate::harness::patiently("the refusal is reported", async {
        loop {
            let (_, body) = bridge.get("/readyz").await;
            if body.contains("refused") {
                return body;
            }
        }
    })
    .await;
    assert!(body.contains("mqtt.username"), "{body}");
    let (status, log) = bridge.stop().await;
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("mqtt.password_file"), "{log}");
    assert!(!log.contains("wrong-secret") && !body.contains("wrong-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_status_number_is_kept_and_reported() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(1).await;
    let _bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    watcher.see_text("gsdk/lobby/state", "online").await;
    let device = simulator.control().managed()[0].device_id;
    simulator
        .control()
        .apply_fault(&Fault::Tell { devices: device.into(), status: StatusCode(0x203) });
    let topic = format!("gsdk/lobby/{device}/event/status_changed");
    let event = watcher.see("the unknown status", |seen| seen.topic == topic).await.json();
    assert_eq!(
        (&event["status"], event["status_code"].as_i64()),
        (&"unknown_0x203".into(), Some(0x203))
    );
    assert!(event["connected"].is_null());
}

#[test]
fn a_wrong_configuration_ends_with_2_and_every_mistake_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let text = "[mqtt]\nurl = \"mqtt://localhost\"\nbase_topic = \"a/#\"\nusernam = \"x\"\n\
                [gateways.Lobby]\naddress = \"192.168.0.2:4000\"\nca_file = \"ca.crt\"\n";
    std::fs::write(&path, text).unwrap();
    for command in ["run", "check"] {
        let out = bounded(PROGRAM).arg(command).arg("--config").arg(&path).output().unwrap();
        let reported = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{reported}");
        for words in ["config.toml:3", "mqtt.base_topic", "config.toml:4", "username", "Lobby"] {
            assert!(reported.contains(words), "{words} in {reported}");
        }
    }
}
