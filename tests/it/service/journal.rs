//! The log in a terminal, a file and systemd's journal.

use std::fs::File;
use std::os::linux::fs::MetadataExt;

use gsdk2mqtt::simulator::Fault;
use tonic::Code;

use crate::harness::bridge::{Bridge, PROGRAM, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{bounded, eventually, simulator};

/// A forged line, colours, a backspace, C1 and a right-to-left override.
const HOSTILE: &str = "no\n2026-11-28T10:00:00.000000Z  INFO all is well\r\x1b[2J\x1b]0;x\x07\
                       \u{8}\u{9b}31m\u{202e}\u{2028}end";

/// A bridge whose gateway sends this text in each refusal.
async fn refused(environment: &[(&str, &str)], log: Option<&str>) -> (Bridge, impl Sized) {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    for call in ["SubscribeStatus", "GetDeviceList"] {
        gateway.control().apply_fault(&Fault::fail(call, Code::PermissionDenied, HOSTILE));
    }
    let mut setup = Setup::new(broker.port, "").gateway("lobby", &gateway, "");
    for (name, value) in environment {
        setup = setup.environment(name, value);
    }
    if let Some(format) = log {
        setup = setup.arguments(&["--log", format]);
    }
    let bridge = setup.start();
    eventually("the refusal is logged", || bridge.log().contains("all is well").then_some(()))
        .await;
    (bridge, (broker, gateway))
}

fn is_active(c: char) -> bool {
    c.is_control() && c != '\n' || "\u{202e}\u{2028}".contains(c)
}

/// Whether each line of the text log begins with a time.
fn every_line_is_an_entry(log: &str) -> bool {
    log.lines().all(|line| line.starts_with("20") && line.get(10..11) == Some("T"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_message_forges_no_line_and_no_terminal_escape_in_the_text_log() {
    let (bridge, _held) = refused(&[], None).await;
    let log = bridge.log();
    let said = log.lines().find(|line| line.contains("all is well")).unwrap();
    assert!(said.contains("WARN") || said.contains("ERROR"), "{said}");
    assert!(said.contains("\\n2026") && said.contains("\\u{1b}[2J"), "{said}");
    assert!(every_line_is_an_entry(&log), "{log}");
    assert!(!log.contains(is_active), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_message_forges_nothing_in_the_json_log() {
    let (bridge, _held) = refused(&[], Some("json")).await;
    let log = bridge.log();
    assert!(!log.contains(is_active), "{log:?}");
    for line in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(entry["timestamp"].is_string() && entry["level"].is_string(), "{line}");
    }
    assert!(log.contains("\\u001b[2J"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_message_forges_no_line_and_no_terminal_escape_of_check_and_ctl() {
    let (bridge, _held) = refused(&[], None).await;
    for words in [&["check", "--connect"][..], &["ctl", "devices"]] {
        let mut command = bounded(PROGRAM);
        command.args(words).arg("--config").arg(bridge.config_file()).env_remove("RUST_LOG");
        let run = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(run.status.code(), Some(1), "{run:?}");
        let shown = String::from_utf8([run.stdout, run.stderr].concat()).unwrap();
        assert!(!shown.contains(is_active), "{shown:?}");
        let said = shown.lines().find(|line| line.contains("all is well")).unwrap();
        assert!(said.starts_with("fail ") || said.starts_with("gsdk2mqtt: "), "{said}");
        assert!(said.contains("no\\n2026") && said.contains("\\u{202e}"), "{said}");
    }
}

/// The value of `JOURNAL_STREAM` for a process whose stderr is this file.
fn journal_stream(file: &std::path::Path) -> String {
    let metadata = File::create(file).unwrap().metadata().unwrap();
    format!("{}:{}", metadata.st_dev(), metadata.st_ino())
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_for_the_journal_have_a_priority_and_no_time() {
    for format in ["text", "json"] {
        let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
        let fault = Fault::fail("SubscribeStatus", Code::PermissionDenied, HOSTILE);
        gateway.control().apply_fault(&fault);
        let setup = Setup::new(broker.port, "").gateway("lobby", &gateway, "");
        let stream = journal_stream(&setup.log_file());
        let setup = setup.environment("JOURNAL_STREAM", &stream).arguments(&["--log", format]);
        let bridge = setup.start();
        let log = eventually("the refusal is logged", || {
            let log = bridge.log();
            (log.contains("all is well") && log.contains("started")).then_some(log)
        })
        .await;
        let with = |words: &str| log.lines().find(|line| line.contains(words)).unwrap();
        assert!(with("started").starts_with("<6>"), "{log}");
        assert!(with("all is well").starts_with("<4>"), "{log}");
        assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
        if format == "text" {
            assert!(with("started").starts_with("<6> INFO started"), "{log}");
        } else {
            for line in log.lines() {
                let entry: serde_json::Value = serde_json::from_str(&line[3..]).expect(line);
                assert!(entry["timestamp"].is_string(), "{line}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_journals_stream_changes_nothing() {
    let (bridge, _held) = refused(&[("JOURNAL_STREAM", "1:1")], None).await;
    assert!(every_line_is_an_entry(&bridge.log()), "{}", bridge.log());
}

/// A configuration that cannot be used is an error in the journal, each line of it.
#[test]
fn a_failed_start_has_the_priority_of_an_error_on_each_line() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    std::fs::write(dir.path().join("config.toml"), "colour = 1\n[mqtt]\nsound = 2\n").unwrap();
    let stream = journal_stream(&log);
    let status = bounded(PROGRAM)
        .args(["run", "--config"])
        .arg(dir.path().join("config.toml"))
        .env("JOURNAL_STREAM", stream)
        .stderr(File::options().write(true).open(&log).unwrap())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.lines().count() > 1, "{log}");
    assert!(log.lines().all(|line| line.starts_with("<3>")), "{log}");
}
