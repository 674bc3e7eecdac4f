//! Client certificates that a master does not accept: each one clear line that says what to change.

use std::path::{Path, PathBuf};

use gsdk2mqtt::simulator::{Authority, CertificateKind};

use super::Campus;
use crate::harness::bounded;
use crate::harness::bridge::{PROGRAM, Setup};
use crate::harness::master::{Master, behind};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::Watcher;

/// Writes a certificate and its key; their paths.
fn written(folder: &Path, identity: &gsdk2mqtt::simulator::Identity) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("other.crt"), folder.join("other.key"));
    std::fs::write(&certificate, &identity.certificate_pem).unwrap();
    std::fs::write(&key, &identity.key_pem).unwrap();
    (certificate, key)
}

/// What the master's info says with this certificate.
async fn last_error(master: &Master, certificate: &Path, key: &Path) -> (String, String) {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let setup =
        Setup::new(broker.port, "").lines(&master.table_with("campus", certificate, key, ""));
    let _bridge = setup.start();
    let topic = "gsdk/bridge/master/campus/info";
    let like = |seen: &crate::harness::watcher::Seen| {
        seen.topic == topic && seen.json()["last_error"].is_object()
    };
    let info = watcher.see("why", like).await.json();
    let text = |key: &str| info["last_error"][key].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_tenant_certificate_is_explained() {
    let master = Master::start(&["a"], 1).await;
    let authority = Authority::load_or_create(master.folder(), "x").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (tenant, tenant_key) = (master.file("tenant.crt"), master.file("tenant.key"));
    let nowhere = dir.path().join("nowhere.crt");
    let (code, message) = last_error(&master, &nowhere, &tenant_key).await;
    assert_eq!(code, "cert_file_unreadable", "{message}");
    assert!(message.contains("masters.campus.cert_file"), "{message}");
    let (code, message) = last_error(&master, &tenant, &master.file("ca.key")).await;
    assert_eq!(code, "key_file_invalid", "{message}");
    assert!(message.contains("masters.campus.key_file"), "{message}");

    let expired = authority.server(CertificateKind::Expired, &[]).unwrap();
    let (certificate, key) = written(dir.path(), &expired);
    let (code, message) = last_error(&master, &certificate, &key).await;
    assert_eq!(code, "client_certificate_refused", "{message}");
    assert!(message.contains("masters.campus.cert_file"), "{message}");

    let stranger = Authority::new("another").unwrap().tenant("tenant1").unwrap();
    let (certificate, key) = written(dir.path(), &stranger);
    let (code, message) = last_error(&master, &certificate, &key).await;
    assert_eq!(code, "client_certificate_refused", "{message}");

    let other = authority.tenant("tenant2").unwrap();
    let (certificate, key) = written(dir.path(), &other);
    let (code, message) = last_error(&master, &certificate, &key).await;
    assert_eq!(code, "login_refused", "{message}");
    assert!(message.contains("masters.campus.cert_file"), "{message}");
    assert!(!message.contains('\n'), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_expiry_of_a_masters_refused_certificate_is_reported_with_the_refusal() {
    let master = Master::idle(&["a"], 1, |settings| {
        let certificate = CertificateKind::Expired;
        gsdk2mqtt::simulator::SimulatorSettings { certificate, ..settings }
    })
    .await;
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let lines = master.table("campus", "") + &behind("north", "campus", "a", "");
    let bridge = Setup::new(broker.port, "").lines(&lines).start();
    let refused = |seen: &crate::harness::watcher::Seen| {
        seen.topic == "gsdk/bridge/master/campus/info"
            && seen.json()["last_error"]["code"] == "certificate_expired"
    };
    let info = watcher.see("the refusal", refused).await.json();
    let now = jiff::Timestamp::now();
    let expiry = info["certificate_expires_at"].as_str().unwrap_or_else(|| panic!("{info}"));
    assert!(expiry.parse::<jiff::Timestamp>().unwrap() < now, "{info}");
    let series = "gsdk_master_certificate_expiry_timestamp_seconds{master=\"campus\"}";
    assert!(bridge.metric(series).await.unwrap() < now.as_second() as f64);
    let reported = |seen: &crate::harness::watcher::Seen| {
        seen.topic == "gsdk/north/info" && seen.json()["last_error"].is_object()
    };
    let info = watcher.see("the gateway's last error", reported).await.json();
    assert!(info["certificate_expires_at"].is_null(), "the certificate is the master's: {info}");
}

fn check(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let state = dir.path().join("state").display().to_string();
    std::fs::write(&file, format!("state_dir = {state:?}\n{text}")).unwrap();
    let mut command = bounded(PROGRAM);
    let out = command.args(["check", "--connect", "--config"]).arg(&file).output().unwrap();
    String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_gateway_as_a_master_and_the_reverse_are_explained() {
    let (master, gateway) = (Master::start(&["a"], 1).await, crate::harness::simulator(1).await);
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.crt");
    std::fs::write(&ca, gateway.ca_pem()).unwrap();
    let as_master = format!(
        "[masters.campus]\naddress = \"{}\"\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n",
        gateway.address(),
        ca.display().to_string(),
        master.file("tenant.crt").display().to_string(),
        master.file("tenant.key").display().to_string(),
    );
    let reported = check(&as_master);
    assert!(
        reported.contains("is no master gateway") && reported.contains("masters.campus.address"),
        "{reported}"
    );
    let as_gateway = format!(
        "[gateways.campus]\naddress = \"{}\"\nca_file = {:?}\n",
        master.simulator.address(),
        master.file("ca.crt").display().to_string(),
    );
    let reported = check(&as_gateway);
    assert!(reported.contains("describe the master gateway under [masters.NAME]"), "{reported}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_connect_reports_each_gateway_of_a_master() {
    let master = Master::start(&["a", "b", "c"], 2).await;
    master.link("b", false, false);
    let gateways = [("g_a", "a"), ("g_b", "b"), ("g_nowhere", "nowhere"), ("g_c", "C")]
        .map(|(name, id)| behind(name, "campus", id, ""));
    let lines = format!("{}{}", master.table("campus", ""), gateways.concat());
    let reported = check(&lines);
    for part in [
        "ok    master campus: accepts the login",
        "it has 3 gateways of this tenant, 2 of them connected",
        "1 gateway without a table, not used: \"c\"",
        "gateway g_a: answers through master campus; its list holds 2 devices",
        "warn  gateway g_b: master campus has no connection",
        "fail  gateway g_nowhere: master campus lists no gateway \"nowhere\"",
        "lists no gateway \"C\" for this tenant (did you mean \"c\"?); correct gateways.g_c",
    ] {
        assert!(reported.contains(part), "{part} in\n{reported}");
    }
    let campus = Campus::with(master, "", "").await;
    campus.see_state("campus_a", "online").await;
    let info = campus.see("gsdk/campus_b/info", "why", |info| info["last_error"].is_object()).await;
    assert_eq!(info["last_error"]["code"], "gateway_not_connected");
}
