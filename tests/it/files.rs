//! Files that the configuration names: missing, replaced, blocking, endless, with a BOM.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gsdk2mqtt::simulator::Simulator;
use tempfile::TempDir;

use crate::harness::bridge::{Bridge, PROGRAM, Setup};
use crate::harness::master::{Master, behind};
use crate::harness::mosquitto::{Mosquitto, free_port};
use crate::harness::watcher::Watcher;
use crate::harness::{LOOK_EVERY, bounded, patiently, simulator};

const FILE_MISSING: &str = "gsdk_degraded{reason=\"file_missing\"}";

/// A file whose read never returns: a named pipe without a writer.
fn named_pipe(dir: &Path) -> PathBuf {
    let path = dir.join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// Files that cannot be a CA file, with words of the message about each.
fn unusable_files(dir: &TempDir) -> Vec<(PathBuf, &'static str)> {
    let large = dir.path().join("large");
    std::fs::write(&large, vec![b'x'; 2 << 20]).unwrap();
    vec![
        (named_pipe(dir.path()), "is a named pipe"),
        ("/dev/zero".into(), "is a device"),
        (dir.path().to_owned(), "is a directory"),
        (large, "is larger than 1 MiB"),
    ]
}

/// Runs the program to its end, and fails if that takes too long.
fn run(args: &[&str]) -> Output {
    let out = bounded(PROGRAM).args(args).env_remove("RUST_LOG").output().unwrap();
    assert_ne!(out.status.code(), Some(124), "{args:?} hangs");
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_that_blocks_or_has_no_end_is_an_error_and_the_rest_works() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let right = simulator(1).await;
    let files = unusable_files(&dir);
    let mut setup = Setup::new(broker.port, "").gateway("right", &right, "");
    for (number, (file, _)) in files.iter().enumerate() {
        let address = ([127, 0, 0, 1], 9_000 + u16::try_from(number).unwrap()).into();
        setup = setup.gateway_at(&format!("wrong{number}"), address, file, "");
    }
    let _bridge = setup.start();
    watcher.see_text("gsdk/right/state", "online").await;
    for (number, (file, words)) in files.iter().enumerate() {
        let topic = format!("gsdk/wrong{number}/info");
        let info = watcher
            .see("the error", |seen| seen.topic == topic && !seen.json()["last_error"].is_null())
            .await;
        let message = info.json()["last_error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{words} in {message}");
        assert!(message.contains(&file.display().to_string()), "{message}");
        assert!(message.contains(&format!("gateways.wrong{number}.ca_file")), "{message}");
    }
}

#[test]
fn check_names_a_file_that_blocks_or_has_no_end_and_exits_with_1() {
    let dir = tempfile::tempdir().unwrap();
    for (file, words) in unusable_files(&dir) {
        let config = dir.path().join("config.toml");
        let text = format!("[gateways.lobby]\naddress = \"127.0.0.1\"\nca_file = {file:?}\n");
        std::fs::write(&config, text).unwrap();
        let out = run(&["check", "--config", config.to_str().unwrap()]);
        let reported = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{reported}");
        assert!(reported.contains("config.toml:3: gateways.lobby.ca_file: "), "{reported}");
        assert!(reported.contains(words), "{words} in {reported}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn system_roots_that_block_or_have_no_end_are_an_error_and_the_rest_works() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = simulator(1).await;
    for (file, words) in unusable_files(&dir).into_iter().take(2) {
        let setup = Setup::new(free_port(), "").gateway("lobby", &gateway, "");
        let bridge = setup
            .environment("SSL_CERT_FILE", file.to_str().unwrap())
            .environment("GSDK2MQTT_MQTT__URL", &format!("mqtts://127.0.0.1:{}", free_port()))
            .start();
        let reported = not_ready(&bridge, words).await;
        assert!(
            reported.contains("SSL_CERT_FILE") && reported.contains("mqtt.ca_file"),
            "{reported}"
        );
        assert!(bridge.memory() < 200 << 20, "{} bytes in use", bridge.memory());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_with_a_byte_order_mark_is_used() {
    let broker = Mosquitto::start("").await;
    let dir = tempfile::tempdir().unwrap();
    let gateway = simulator(1).await;
    let file = dir.path().join("ca.crt");
    std::fs::write(&file, format!("\u{feff}{}", gateway.ca_pem())).unwrap();
    let setup = Setup::new(broker.port, "");
    let bridge = setup.gateway_at("lobby", gateway.address(), &file, "").start();
    let watcher = Watcher::start(broker.port).await;
    watcher.see_text("gsdk/lobby/state", "online").await;
    bridge.is_ready().await;
}

/// A broker that requires a password, and the folder of its password file.
async fn broker_with_password(password: &str) -> (Mosquitto, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_owned();
    set_password(&folder, password);
    let extra = "allow_anonymous false\npassword_file {dir}/passwords";
    (Mosquitto::start_in(dir, extra).await, folder)
}

fn set_password(folder: &Path, password: &str) {
    let mut command = bounded("mosquitto_passwd");
    command.args(["-b", "-c"]).arg(folder.join("passwords")).args(["gsdk2mqtt", password]);
    assert!(command.output().unwrap().status.success());
}

/// A bridge whose password is in this file.
fn bridge_with(broker: &Mosquitto, file: &Path, gateway: &Simulator) -> Bridge {
    let keys = format!("username = \"gsdk2mqtt\"\npassword_file = {file:?}");
    Setup::new(broker.port, &keys).gateway("lobby", gateway, "").start()
}

/// The body of `/readyz` once it contains this.
async fn not_ready(bridge: &Bridge, words: &str) -> String {
    patiently(words, async {
        loop {
            let (status, body) = bridge.get("/readyz").await;
            if status == 503 && body.contains(words) {
                return body;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_file_is_used_at_the_next_connection() {
    let (mut broker, folder) = broker_with_password("old-secret").await;
    let (dir, gateway) = (tempfile::tempdir().unwrap(), simulator(1).await);
    let file = dir.path().join("password");
    // Three forms of one password: as it is, with a newline, with a byte order mark.
    std::fs::write(&file, "old-secret").unwrap();
    let bridge = bridge_with(&broker, &file, &gateway);
    bridge.is_ready().await;
    for (password, text) in
        [("second-secret", "second-secret\n"), ("third-secret", "\u{feff}third-secret\r\n")]
    {
        broker.kill();
        set_password(&folder, password);
        broker.restart().await;
        not_ready(&bridge, "refused the user name or password").await;
        std::fs::write(&file, text).unwrap();
        bridge.is_ready().await;
    }
    let (_, log) = bridge.stop().await;
    assert!(!log.contains("-secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_password_file_the_bridge_waits_and_does_not_connect() {
    // This broker would accept a client without a password.
    let broker = Mosquitto::start("allow_anonymous true").await;
    let (dir, gateway) = (tempfile::tempdir().unwrap(), simulator(1).await);
    let file = dir.path().join("password");
    let bridge = bridge_with(&broker, &file, &gateway);
    for _ in 0..3 {
        let reported = not_ready(&bridge, "mqtt.password_file").await;
        assert!(reported.contains(&file.display().to_string()), "{reported}");
        assert!(reported.contains("does not exist"), "{reported}");
    }
    let config = bridge.config_file();
    let out = run(&["check", "--config", config.to_str().unwrap()]);
    let reported = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{reported}");
    assert!(reported.contains("mqtt.password_file: the file"), "{reported}");
    let out = run(&["check", "--connect", "--config", config.to_str().unwrap()]);
    let reported = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1), "{reported}");
    let failed = reported.lines().find(|line| line.starts_with("fail  broker")).unwrap();
    assert!(
        failed.contains("does not exist") && failed.ends_with("mqtt.password_file]"),
        "{reported}"
    );
    assert!(!broker.log().contains("gsdk2mqtt_gsdk_bridge"), "{}", broker.log());
    assert_eq!(bridge.metric(FILE_MISSING).await, Some(1.0));
    std::fs::write(&file, "secret\n").unwrap();
    bridge.is_ready().await;
    assert_eq!(bridge.metric(FILE_MISSING).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_missing_ca_file_is_named_in_readyz_until_it_is_there() {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.crt");
    let setup = Setup::new(broker.port, "");
    let bridge = setup.gateway_at("lobby", gateway.address(), &file, "").start();
    bridge.is_ready().await;
    let (_, body) = bridge.get("/readyz").await;
    let reported: serde_json::Value = serde_json::from_str(&body).unwrap();
    let degraded = &reported["degraded"][0];
    assert_eq!(degraded["reason"], "file_missing", "{body}");
    let message = degraded["message"].as_str().unwrap();
    for words in ["gateways.lobby.ca_file", file.to_str().unwrap(), "does not exist"] {
        assert!(message.contains(words), "{words} in {message}");
    }
    assert_eq!(bridge.metric(FILE_MISSING).await, Some(1.0));
    std::fs::write(&file, gateway.ca_pem()).unwrap();
    patiently("the file is used", async {
        while bridge.metric(FILE_MISSING).await != Some(0.0) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masters_missing_file_is_named_once_in_readyz_whatever_its_gateways() {
    let (broker, master) = (Mosquitto::start("").await, Master::start(&["a", "b"], 1).await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.crt");
    let present = master.file("ca.crt").display().to_string();
    let table = master.table("campus", "").replace(&present, &file.display().to_string());
    let named = behind("named", "campus", "a", "") + &behind("other", "campus", "b", "");
    for gateways in ["", &named] {
        let bridge = Setup::new(broker.port, "").lines(&table).lines(gateways).start();
        patiently("the file is reported", async {
            while bridge.metric(FILE_MISSING).await != Some(1.0) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
        let (_, body) = bridge.get("/readyz").await;
        let reported: serde_json::Value = serde_json::from_str(&body).unwrap();
        let degraded = &reported["degraded"][0];
        assert_eq!(degraded["reason"], "file_missing", "{body}");
        let message = degraded["message"].as_str().unwrap();
        assert_eq!(message.matches("masters.campus.ca_file").count(), 1, "{message}");
        assert!(message.contains(file.to_str().unwrap()), "{message}");
    }
}

#[test]
fn check_names_a_password_file_that_holds_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = (dir.path().join("config.toml"), dir.path().join("password"));
    let text = format!(
        "[mqtt]\nusername = \"u\"\npassword_file = {file:?}\n[gateways.lobby]\n\
         address = \"127.0.0.1\"\nca_file = \"Cargo.toml\"\n"
    );
    std::fs::write(&config, text).unwrap();
    for (content, words) in [
        (&b""[..], "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b"\xff\xfes\0e\0c\0", "is not UTF-8"),
        (b"a\0b", "NUL"),
    ] {
        std::fs::write(&file, content).unwrap();
        let out = run(&["check", "--config", config.to_str().unwrap()]);
        let reported = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{reported}");
        assert!(reported.contains("config.toml:3: mqtt.password_file: "), "{reported}");
        assert!(reported.contains(words), "{words} in {reported}");
    }
}
