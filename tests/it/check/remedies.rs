//! Each mistake in the broker and its TLS has its own message and remedy.

use std::path::Path;

use tempfile::TempDir;

use super::Site;
use crate::harness::bridge::Setup;
use crate::harness::certificates::{Ca, Certified};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{eventually, simulator};

/// A broker with TLS, its certificate this one.
async fn secure(ca: &Ca, certificate: Certified, extra: &str) -> Mosquitto {
    let dir = TempDir::new().unwrap();
    std::fs::copy(ca.file(), dir.path().join("ca.crt")).unwrap();
    ca.write(dir.path(), "server", certificate);
    let files = "cafile {dir}/ca.crt\ncertfile {dir}/server.crt\nkeyfile {dir}/server.key\n";
    Mosquitto::start_in(dir, &format!("{files}{extra}")).await
}

/// A configuration for it, with these lines of `[mqtt]`.
fn site(broker: &Mosquitto, ca_file: &Path, extra: &str) -> Site {
    let trusted = format!("ca_file = {:?}\n{extra}", ca_file.display().to_string());
    Site::new(&format!("mqtts://127.0.0.1:{}", broker.port), &trusted)
}

const HOME_ASSISTANT: &str = "[home_assistant]\nenabled = true\n";

#[tokio::test(flavor = "multi_thread")]
async fn discovery_that_the_broker_does_not_permit_is_reported_by_check_and_run() {
    let gateway = simulator(1).await;
    let dir = tempfile::tempdir().unwrap();
    let acl = "user gsdk2mqtt\ntopic readwrite gsdk/#\ntopic write gsdk-reply/#\n";
    std::fs::write(dir.path().join("acl"), acl).unwrap();
    let broker = Mosquitto::start_in(dir, "acl_file {dir}/acl\nallow_anonymous true").await;
    let user = "username = \"gsdk2mqtt\"";
    let mut site = Site::new(&format!("mqtt://127.0.0.1:{}", broker.port), user);
    site = site.gateway(&gateway, HOME_ASSISTANT);
    let words = ["homeassistant/device/gsdk_bridge_check/config", "not_authorized", "access list"];
    site.check().await.fails(&words, "mqtt.username");

    let bridge = Setup::new(broker.port, user).gateway("lobby", &gateway, HOME_ASSISTANT).start();
    let line = eventually("the refusal is logged", || {
        let log = bridge.log();
        log.lines().find(|line| line.contains("message refused by the broker")).map(str::to_owned)
    })
    .await;
    for words in ["homeassistant/device/gsdk_bridge/config", "access list", "discovery"] {
        assert!(line.contains(words), "{words} in {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_certificate_is_shown_and_its_mistakes_have_remedies() {
    let (ca, gateway) = (Ca::new(), simulator(1).await);
    let broker = secure(&ca, Certified::of(&["127.0.0.1", "broker.lan"]), "").await;
    let checked = site(&broker, &ca.file(), "").gateway(&gateway, "").check().await;
    checked.is_fine();
    let line = checked.line("ok", "broker: its certificate names");
    assert!(line.contains("127.0.0.1, broker.lan, is signed by \"G-SDK CA\""), "{line}");

    let broker = secure(&ca, Certified::ending_in(&["127.0.0.1"], 10), "").await;
    let checked = site(&broker, &ca.file(), "").gateway(&gateway, "").check().await;
    checked.is_fine();
    let line = checked.line("warn", "broker: its certificate names");
    assert!(line.contains(" days); give the broker a new certificate"), "{line}");

    let broker = secure(&ca, Certified::of(&[]), "").await;
    let checked = site(&broker, &ca.file(), "").gateway(&gateway, "").check().await;
    checked.fails(&["no subject alternative name", "alternative name 127.0.0.1"], "mqtt.url");

    let broker = secure(&ca, Certified::of(&["broker.lan"]), "").await;
    let checked = site(&broker, &ca.file(), "").gateway(&gateway, "").check().await;
    checked.fails(&["names \"broker.lan\", not 127.0.0.1; use one"], "mqtt.url");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_missing_or_do_not_fit_have_remedies() {
    let (ca, gateway) = (Ca::new(), simulator(1).await);
    let wanting = "require_certificate true";
    let broker = secure(&ca, Certified::of(&["127.0.0.1"]), wanting).await;
    let checked = site(&broker, &ca.file(), "").gateway(&gateway, "").check().await;
    assert_eq!(checked.code, 1, "{}", checked.out);
    assert!(checked.line("fail", "client certificate").contains("mqtt.cert_file"));

    let checked = site(&broker, Path::new("/nope.crt"), "").gateway(&gateway, "").check().await;
    checked.fails(
        &["does not exist; put the CA certificate of the broker there, or correct mqtt.ca_file"],
        "mqtt.ca_file",
    );

    for name in ["one", "other"] {
        ca.write(ca.folder(), name, Certified::of(&["bridge"]));
    }
    let identity = |cert: &str, key: &str| {
        let path = |name: &str| ca.folder().join(name).display().to_string();
        format!("cert_file = {:?}\nkey_file = {:?}", path(cert), path(key))
    };
    for (key, words) in [
        (
            "nope.key",
            "does not exist; put the private key in PEM form there, or correct mqtt.key_file",
        ),
        ("one.crt", "holds no private key in PEM form"),
        ("other.key", "not the key of the certificate in mqtt.cert_file"),
    ] {
        let site = site(&broker, &ca.file(), &identity("one.crt", key));
        let checked = site.gateway(&gateway, "").check().await;
        assert!(checked.line("fail", words).contains("mqtt.key_file"), "{}", checked.out);
    }
    let right = site(&broker, &ca.file(), &identity("one.crt", "one.key"));
    right.gateway(&gateway, "").check().await.is_fine();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_web_server_that_it_cannot_use_have_remedies() {
    let (ca, gateway) = (Ca::new(), simulator(1).await);
    let broker = Mosquitto::start("").await;
    for name in ["one", "other"] {
        ca.write(ca.folder(), name, Certified::of(&["bridge"]));
    }
    ca.write(ca.folder(), "old", Certified::expired(&["bridge"]));
    ca.write(ca.folder(), "soon", Certified::ending_in(&["bridge"], 10));
    for (name, text) in [
        ("empty", " \n"),
        ("tokens", "a-token-of-20-letters\n"),
        ("short", "fifteen-letters\na-token-of-20-letters\n"),
        ("none.crt", "nonsense\n"),
    ] {
        std::fs::write(ca.folder().join(name), text).unwrap();
    }
    let site = |tokens: &str, cert: &str, key: &str| {
        let mut site = Site::plain(broker.port);
        for (name, file) in [("token_file", tokens), ("cert_file", cert), ("key_file", key)] {
            let path = ca.folder().join(file).display().to_string();
            site.text += &format!("{name} = {path:?}\n");
        }
        site.gateway(&gateway, "")
    };
    for (tokens, cert, key, words, place) in [
        ("empty", "one.crt", "one.key", "has no token", "http.token_file"),
        ("nope", "one.crt", "one.key", "does not exist", "http.token_file"),
        ("one.key", "one.crt", "one.key", "holds a certificate or a key", "http.token_file"),
        ("one.crt", "one.crt", "one.key", "not tokens", "http.token_file"),
        ("tokens", "old.crt", "old.key", "expired on 2021-01-01", "http.cert_file"),
        ("tokens", "none.crt", "one.key", "none.crt", "http.cert_file"),
        ("tokens", "one.crt", "other.key", "is not the key of the certificate", "http.key_file"),
        ("tokens", "one.crt", "one.crt", "holds no private key", "http.key_file"),
    ] {
        site(tokens, cert, key).check().await.fails(&[words], place);
    }
    let checked = site("tokens", "one.crt", "one.key").check().await;
    checked.is_fine();
    checked.line("ok", "web server: its certificate names bridge");
    let checked = site("short", "soon.crt", "soon.key").check().await;
    checked.is_fine();
    assert!(checked.line("warn", "1 token shorter than 16").contains("http.token_file"));
    assert!(checked.line("warn", "web server: its certificate names").contains("http.cert_file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_qos_0_and_a_gateway_that_is_none_are_reported() {
    let (ca, gateway) = (Ca::new(), simulator(1).await);
    let broker = Mosquitto::start("max_qos 0").await;
    let checked = Site::plain(broker.port).gateway(&gateway, "").check().await;
    checked.fails(&["QoS 1 is needed", "max_qos 1"], "mqtt.url");
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let checked = Site::new(&url, "protocol = \"3.1.1\"").gateway(&gateway, "").check().await;
    let line = checked.line("fail", "closed the connection without an answer");
    assert!(line.contains("only QoS 0 (mosquitto: max_qos 1)"), "{line}");

    let (plain, tls) =
        (Mosquitto::start("").await, secure(&ca, Certified::of(&["127.0.0.1"]), "").await);
    let mut site = Site::plain(plain.port);
    let ca_file = ca.file().display().to_string();
    site.text +=
        &format!("[gateways.lobby]\naddress = \"127.0.0.1:{}\"\nca_file = {ca_file:?}\n", tls.port);
    let words = ["before any answer", "gateway's gRPC port (usually 4000)"];
    site.check().await.fails(&words, "gateways.lobby.address");
}
