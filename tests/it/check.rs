//! `gsdk2mqtt check --connect` with real brokers and simulated gateways.

mod forms;
mod remedies;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use gsdk2mqtt::simulator::{CertificateKind, Fault, Packages, Simulator, SimulatorSettings};
use tempfile::TempDir;
use tonic::Code;

use crate::harness::bridge::{PROGRAM, Setup};
use crate::harness::certificates::{Ca, Certified};
use crate::harness::mosquitto::{Mosquitto, free_port};
use crate::harness::watcher::{Watcher, retained};
use crate::harness::{bounded, patiently, simulator};

/// A configuration for the check.
struct Site {
    dir: TempDir,
    text: String,
}

/// The result of a check.
struct Checked {
    code: i32,
    out: String,
    err: String,
}

impl Site {
    /// For this URL and further lines of `[mqtt]`.
    fn new(url: &str, extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state").display().to_string();
        let text = format!(
            "state_dir = {state:?}\n[mqtt]\nurl = \"{url}\"\n{extra}\n[http]\n\
             listen = \"127.0.0.1:0\"\n"
        );
        Self { dir, text }
    }

    fn plain(port: u16) -> Self {
        Self::new(&format!("mqtt://127.0.0.1:{port}"), "")
    }

    fn gateway(mut self, simulator: &Simulator, extra: &str) -> Self {
        let ca_file = self.dir.path().join("ca.crt");
        std::fs::write(&ca_file, simulator.ca_pem()).unwrap();
        let (address, ca_file) = (simulator.address(), ca_file.display().to_string());
        writeln!(
            self.text,
            "[gateways.lobby]\naddress = \"{address}\"\nca_file = {ca_file:?}\n{extra}"
        )
        .unwrap();
        self
    }

    async fn check(&self) -> Checked {
        let file = self.dir.path().join("config.toml");
        std::fs::write(&file, &self.text).unwrap();
        check(file).await
    }
}

async fn check(file: PathBuf) -> Checked {
    let run = tokio::task::spawn_blocking(move || {
        let mut command = bounded(PROGRAM);
        command.args(["check", "--connect", "--config"]).arg(file).env_remove("RUST_LOG");
        command.output().unwrap()
    });
    let Output { status, stdout, stderr } = run.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Checked { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

impl Checked {
    /// The only line with this begin and content.
    fn line(&self, level: &str, like: &str) -> &str {
        let found = self
            .out
            .lines()
            .find(|line| line.starts_with(&format!("{level} ")) && line.contains(like));
        found.unwrap_or_else(|| panic!("no {level} with {like:?} in\n{}\n{}", self.out, self.err))
    }

    fn is_fine(&self) {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        assert!(!self.out.lines().any(|line| line.starts_with("fail ")), "{}", self.out);
    }

    fn fails(&self, words: &[&str], place: &str) {
        let line = self.line("fail", words[0]);
        for words in words {
            assert!(line.contains(words), "{words:?} in {line}");
        }
        assert!(line.ends_with(&format!(": {place}]")), "{place} at the end of {line}");
        assert_eq!(self.code, 1, "{}", self.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_bridge_is_a_note_and_does_not_notice() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(3).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    let online = || (retained(broker.port).get("gsdk/bridge/state")? == "online").then_some(());
    crate::harness::eventually("all is published", online).await;
    let before = retained(broker.port);
    let watcher = Watcher::start(broker.port).await;
    watcher.clear();
    let checked = check(bridge.config_file()).await;
    checked.is_fine();
    checked.line("note", &format!("process {}", bridge.pid()));
    checked.line("note", "in use, as by the running bridge");
    checked.line("ok", "accepts the connection (MQTT 5)");
    checked.line("ok", "keeps retained messages");
    checked.line("ok", "its list holds 3 devices");
    let certificate = checked.line("ok", "its certificate names");
    assert!(certificate.contains("127.0.0.1") && certificate.contains("valid from"));
    assert_eq!(bridge.metric("gsdk_mqtt_connections_total").await, Some(1.0));
    assert_eq!(
        bridge.metric("gsdk_gateway_stream_starts_total{gateway=\"lobby\"}").await,
        Some(1.0)
    );
    let topics = |all: std::collections::BTreeMap<String, String>| -> Vec<String> {
        all.into_keys().collect()
    };
    assert_eq!(topics(retained(broker.port)), topics(before));
    let tried: Vec<String> = watcher.all().into_iter().map(|seen| seen.topic).collect();
    assert!(tried.contains(&"gsdk/bridge/response/check".to_owned()), "{tried:?}");
    let disturbs = |topic: &String| topic.contains("/event/") || topic.ends_with("/state");
    assert!(!tried.iter().any(disturbs), "{tried:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_certificate_is_reported_with_its_remedy_and_place() {
    let broker = Mosquitto::start("").await;
    let with = |certificate| {
        Simulator::start(SimulatorSettings { certificate, ..SimulatorSettings::fast(1) })
    };
    let other = with(CertificateKind::OtherCa).await.unwrap();
    let checked = Site::plain(broker.port).gateway(&other, "").check().await;
    checked.fails(&["was not signed by the CA", "copy ca.crt"], "gateways.lobby.ca_file");
    assert!(checked.out.contains("config.toml:9: gateways.lobby.ca_file"), "{}", checked.out);

    let right = with(CertificateKind::Both).await.unwrap();
    let named = "server_name = \"other.lan\"";
    let checked = Site::plain(broker.port).gateway(&right, named).check().await;
    checked.fails(&["names", "other.lan", "set gateways"], "gateways.lobby.server_name");

    let expired = with(CertificateKind::Expired).await.unwrap();
    let checked = Site::plain(broker.port).gateway(&expired, "").check().await;
    checked.fails(&["expired on", "make a new server certificate"], "gateways.lobby.address");

    right.control().stop_listening();
    let checked = Site::plain(broker.port).gateway(&right, "").check().await;
    checked.fails(&["refused the connection", "start the gateway"], "gateways.lobby.address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_api_version_and_forbidden_calls_are_reported() {
    let broker = Mosquitto::start("").await;
    for (packages, words) in [(Packages::Gsdk, "from V1.5 on"), (Packages::Bare, "before V1.5")] {
        let gateway =
            Simulator::start(SimulatorSettings { packages, ..SimulatorSettings::fast(1) })
                .await
                .unwrap();
        let site = Site::plain(broker.port).gateway(&gateway, "");
        let checked = site.check().await;
        checked.is_fine();
        assert!(checked.line("ok", "answers at").contains(words), "{}", checked.out);

        let code = Code::PermissionDenied;
        gateway.control().apply_fault(&Fault::fail("GetAcceptFilter", code, "not you"));
        let checked = site.check().await;
        checked.is_fine();
        let line = checked.line("warn", "what needs GetAcceptFilter will not work");
        assert!(line.contains("not you"), "{line}");

        gateway.control().apply_fault(&Fault::fail("GetDeviceList", code, "not you"));
        let remedy = "in the gateway's configuration";
        site.check().await.fails(&["not you", remedy], "gateways.lobby.address");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_is_a_warning() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(1).await;
    let control = gateway.control();
    let id = control.devices()[0].id;
    for (skew, words) in [(120, "ahead of"), (-120, "behind")] {
        control.apply_fault(&Fault::ClockSkew { seconds: skew });
        let site = Site::plain(broker.port).gateway(&gateway, "");
        let reports = async {
            loop {
                control.apply_fault(&Fault::Repeat { devices: id.into() });
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let checked = patiently("the check ends", async {
            tokio::select! { checked = site.check() => checked, () = reports => unreachable!() }
        });
        let checked = checked.await;
        checked.is_fine();
        let line = checked.line("warn", words);
        assert!(line.contains("NTP") && line.contains(" s "), "{line}");
        let seconds: i64 =
            line.split("is ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!((117..=123).contains(&seconds), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forbidden_topics_are_reported() {
    let gateway = simulator(1).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("acl"), "user gsdk2mqtt\ntopic readwrite gsdk/bridge/#\n")
        .unwrap();
    let broker = Mosquitto::start_in(dir, "acl_file {dir}/acl\nallow_anonymous true").await;
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let site = Site::new(&url, "username = \"gsdk2mqtt\"").gateway(&gateway, "");
    let checked = site.check().await;
    checked.fails(&["gsdk/lobby/response/check", "not_authorized", "access list"], "mqtt.username");

    // The access list is the only cause; whether messages are retained is unknown.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("acl"), "topic read nothing\n").unwrap();
    let broker = Mosquitto::start_in(dir, "acl_file {dir}/acl\nallow_anonymous true").await;
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let site = Site::new(&url, "username = \"gsdk2mqtt\"").gateway(&gateway, "");
    let checked = site.check().await;
    checked.fails(&["retained message", "not_authorized", "access list"], "mqtt.username");
    assert!(!checked.out.contains("retain_available"), "{}", checked.out);

    let closed = Mosquitto::start("allow_anonymous false").await;
    let url = format!("mqtt://127.0.0.1:{}", closed.port);
    let checked = Site::new(&url, "username = \"x\"\npassword = \"hunter2\"")
        .gateway(&gateway, "")
        .check()
        .await;
    checked.fails(&["refused the user name or password", "mqtt.password_file"], "mqtt.password");
    assert!(!checked.out.contains("hunter2") && !checked.err.contains("hunter2"));
    let checked = Site::plain(closed.port).gateway(&gateway, "").check().await;
    let line = checked.line("fail", "requires a user name; set mqtt.username");
    assert!(line.ends_with("[mqtt.username, default]"), "{line}");

    let strict = Mosquitto::start("retain_available false\nmax_packet_size 20000").await;
    let checked = Site::plain(strict.port).gateway(&gateway, "").check().await;
    checked.fails(&["keeps no retained messages", "retain_available"], "mqtt.url");
    checked.line("warn", "packets of 20000 bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_mqtt_3_1_1_does_not_announce_are_tested_or_unknown() {
    let gateway = simulator(1).await;
    let v311 = "protocol = \"3.1.1\"";
    let broker = Mosquitto::start("").await;
    let site = |port| {
        let url = format!("mqtt://127.0.0.1:{port}");
        Site::new(&url, v311).gateway(&gateway, "[home_assistant]\nenabled = true\n")
    };
    let watcher = Watcher::start(broker.port).await;
    let checked = site(broker.port).check().await;
    checked.is_fine();
    checked.line("ok", "keeps retained messages (one was read back by wildcard)");
    checked.line("note", "MQTT 3.1.1 has no packet limit to announce");
    assert!(!checked.out.contains("268435460"), "{}", checked.out);
    assert_eq!(retained(broker.port).len(), 0, "nothing is left behind");
    let configs = watcher.all().into_iter().filter(|seen| seen.topic.ends_with("/config")).count();
    assert_eq!(configs, 0, "Home Assistant reads those");

    let strict = Mosquitto::start("retain_available false").await;
    let checked = site(strict.port).check().await;
    checked.fails(&["did not accept a retained message", "retain_available"], "mqtt.url");

    let bridge = Setup::new(strict.port, v311).gateway("lobby", &gateway, "").start();
    patiently("run says what it may be", async {
        while !bridge.get("/readyz").await.1.contains("mosquitto: retain_available true") {}
    })
    .await;
}

/// Aim: messages of others on the topic of the test change no result. Method: one every
/// millisecond, as many more than checks at the same time send.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_others_are_not_taken_for_the_retained_one() {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let topic = "gsdk/bridge/response/check";
    // Not bounded: `timeout` would be killed in its place.
    let mut client = Command::new("mosquitto_pub");
    client.args(["-l", "-p", &broker.port.to_string(), "-t", topic]).stdin(Stdio::piped());
    let mut client = client.spawn().expect("mosquitto_pub must be installed");
    let mut lines = client.stdin.take().unwrap();
    let sender = std::thread::spawn(move || {
        while lines.write_all(b"{}\n").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    let checked = Site::plain(broker.port).gateway(&gateway, "").check().await;
    client.kill().unwrap();
    client.wait().unwrap();
    sender.join().unwrap();
    checked.is_fine();
    checked.line("ok", "keeps retained messages (one was read back by wildcard)");
    assert!(!retained(broker.port).contains_key(topic), "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_or_not_trusted_is_reported() {
    let gateway = simulator(1).await;
    let checked = Site::plain(free_port()).gateway(&gateway, "").check().await;
    checked.fails(&["nothing listens", "start the broker"], "mqtt.url");
    checked.line("ok", "its list holds 1 device");

    let ca = Ca::new();
    let dir = TempDir::new().unwrap();
    std::fs::copy(ca.file(), dir.path().join("ca.crt")).unwrap();
    ca.write(dir.path(), "server", Certified::expired(&["127.0.0.1"]));
    let files = "cafile {dir}/ca.crt\ncertfile {dir}/server.crt\nkeyfile {dir}/server.key\n";
    let broker = Mosquitto::start_in(dir, files).await;
    let url = format!("mqtts://127.0.0.1:{}", broker.port);
    let trusted = format!("ca_file = {:?}", ca.file().display().to_string());
    let checked = Site::new(&url, &trusted).gateway(&gateway, "").check().await;
    checked.fails(&["expired"], "mqtt.url");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_cannot_be_had_fails_and_nothing_is_made() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(1).await;
    let site = Site::plain(broker.port).gateway(&gateway, "");
    let checked = site.check().await;
    checked.is_fine();
    checked.line("ok", "will be created at the first start");
    assert!(!site.dir.path().join("state").exists());

    let mut below_a_file = Site::plain(broker.port).gateway(&gateway, "");
    let wrong = below_a_file.dir.path().join("ca.crt").join("state").display().to_string();
    let first = below_a_file.text.lines().next().unwrap().to_owned();
    below_a_file.text = below_a_file.text.replacen(&first, &format!("state_dir = {wrong:?}"), 1);
    let checked = below_a_file.check().await;
    checked.fails(&["cannot be written", "chown"], "state_dir");
    let file = below_a_file.dir.path().join("ca.crt").display().to_string();
    below_a_file.text = below_a_file.text.replacen(&wrong, &file, 1);
    below_a_file.check().await.fails(&["is no directory", "name another"], "state_dir");
}

/// A link to itself, since root may open everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_state_directory_that_cannot_be_opened_is_named() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(1).await;
    let site = Site::plain(broker.port).gateway(&gateway, "");
    let state_dir = site.dir.path().join("state");
    std::fs::create_dir_all(state_dir.join("log")).unwrap();
    site.check().await.is_fine();
    for name in ["history.db", "log/head", "log/segment-0000000007"] {
        let path = state_dir.join(name);
        std::os::unix::fs::symlink(&path, &path).unwrap();
        site.check().await.fails(&["cannot be used", name, "chown -R"], "state_dir");
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_this_machine_does_not_have_is_named_as_such_by_check_and_run() {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let mut site = Site::plain(broker.port).gateway(&gateway, "");
    site.text = site.text.replace("127.0.0.1:0", "192.0.2.1:9925");
    let words = "no interface of this machine has this address";
    site.check().await.fails(&[words], "http.listen");
    let mut run = bounded(PROGRAM);
    run.args(["run", "--config"]).arg(site.dir.path().join("config.toml"));
    let ran = tokio::task::spawn_blocking(move || run.output().unwrap()).await.unwrap();
    let err = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(1), "{err}");
    assert!(err.contains(words) && err.contains("http.listen"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_2_and_tries_nothing() {
    let mut site = Site::plain(free_port());
    site.text += "[gateways.lobby]\naddress = \"gw\"\n";
    let checked = site.check().await;
    assert_eq!(checked.code, 2, "{}", checked.out);
    assert!(checked.err.contains("gateways.lobby.ca_file") && checked.out.is_empty());
}
