//! Formats of values, and the messages of `check` about wrong ones.

use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Output;
use std::time::{Duration, Instant};

use crate::harness::bounded;
use crate::harness::bridge::PROGRAM;

/// Devices of the large configurations.
const MANY: u32 = 20_000;
/// How long a check of a large configuration may take in a build for tests on a busy machine. One
/// that searches the file for each mistake takes many minutes.
const WITHIN: Duration = Duration::from_secs(60);

fn gateway(name: &str, last_byte: u8) -> String {
    let address = format!("192.0.2.{last_byte}:4000");
    format!("[gateways.{name}]\naddress = \"{address}\"\nca_file = \"Cargo.toml\"\n")
}

/// The outcome of `check` on a file of this text.
fn check(text: &str, environment: &[(&str, &str)], args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = bounded(PROGRAM);
    command.arg("check").arg("--config").arg(file).args(args);
    command.envs(environment.iter().copied()).output().unwrap()
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

#[test]
fn truth_is_taken_from_the_environment_as_people_write_it() {
    let name = "GSDK2MQTT_HOME_ASSISTANT__ENABLED";
    for (text, truth) in [
        ("True", true),
        ("TRUE", true),
        ("1", true),
        ("yes", true),
        ("on", true),
        ("False", false),
        ("0", false),
        ("No", false),
        ("off", false),
    ] {
        let checked = check(&gateway("lobby", 1), &[(name, text)], &[]);
        assert!(checked.status.success(), "{text}: {checked:?}");
        let shown = format!("home_assistant.enabled = {truth} ");
        let out = lines(&checked.stdout);
        assert!(out.iter().any(|line| line.starts_with(&shown)), "{text}: {out:?}");
    }
    let checked = check(&gateway("lobby", 1), &[(name, "maybe")], &[]);
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
}

#[test]
fn a_port_alone_is_an_address_to_listen_on() {
    let checked = check(&gateway("lobby", 1), &[], &["--set", "http.listen=:9925"]);
    assert!(checked.status.success(), "{checked:?}");
    let checked = check(&gateway("lobby", 1), &[], &["--set", "http.listen=:99999"]);
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
}

#[test]
fn every_unknown_key_of_set_gets_a_hint() {
    for (set, hint) in [
        ("mqt.url=x", "did you mean mqtt?"),
        ("mqtt.url.host=x", "mqtt.url is a value"),
        ("nothing.like.it=x", "the keys here are state_dir"),
        ("=x", "the keys here are state_dir"),
    ] {
        let checked = check(&gateway("lobby", 1), &[], &["--set", set]);
        assert_eq!(checked.status.code(), Some(2), "{checked:?}");
        let err = lines(&checked.stderr);
        assert!(err.iter().any(|line| line.contains(hint)), "{set}: {err:?}");
    }
}

#[test]
fn a_check_whose_result_cannot_be_written_fails_with_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, gateway("lobby", 1)).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = bounded(PROGRAM);
    let checked = command.arg("check").arg("--config").arg(file).stdout(full).output().unwrap();
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let err = lines(&checked.stderr);
    assert!(err.iter().any(|line| line.contains("cannot write the result")), "{err:?}");
}

#[test]
fn a_wrong_configuration_exits_with_2_and_reports_every_mistake() {
    let checked = check("[mqtt]\nurll = \"x\"\nprotocol = \"4\"\n", &[], &[]);
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    assert!(checked.stdout.is_empty(), "{checked:?}");
    let err = lines(&checked.stderr);
    assert_eq!(err.len(), 4, "{err:?}");
    let words = "config.toml:2: mqtt.urll: unknown key; did you mean mqtt.url?";
    assert!(err.iter().any(|line| line.contains(words)), "{err:?}");
    assert_eq!(err[3], "3 mistakes found");
}

#[test]
fn a_missing_file_exits_with_1_and_unusual_settings_are_warnings() {
    let missing = gateway("lobby", 1).replace("Cargo.toml", "/nope/ca.crt");
    let broker = "[mqtt]\nurl = \"mqtts://b\"\nca_file = \"/nope/b.crt\"\n";
    let variable = ("GSDK2MQTT_PORT", "1");
    let checked = check(&format!("{broker}{missing}"), &[variable], &[]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let (out, err) = (lines(&checked.stdout), lines(&checked.stderr));
    assert!(out.iter().any(|line| line.starts_with("gateways.lobby.ca_file")), "{out:?}");
    assert!(err[0].starts_with("warning: environment GSDK2MQTT_PORT"), "{err:?}");
    for words in [
        "config.toml:6: gateways.lobby.ca_file: the file /nope/ca.crt does not exist; put",
        "config.toml:3: mqtt.ca_file: the file /nope/b.crt",
    ] {
        assert!(err.iter().any(|line| line.contains(words)), "{words} in {err:?}");
    }
}

#[test]
fn a_missing_file_is_named_where_it_was_looked_for() {
    let folder = std::env::current_dir().unwrap().display().to_string();
    for (name, words) in [
        ("nope/ca.crt", format!("the file {folder}/nope/ca.crt does not exist; put it there")),
        ("~/ca.crt", "~ stands for no home directory here; write the whole path".to_owned()),
    ] {
        let text = gateway("lobby", 1).replace("Cargo.toml", name);
        let checked = check(&text, &[], &[]);
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
        let err = lines(&checked.stderr);
        assert!(err.iter().any(|line| line.contains(&words)), "{words} in {err:?}");
    }
}

/// Aim: the remedy for a file without the right to read it is to give this right. Method: as root
/// without the capability to read every file.
#[test]
fn a_file_that_may_not_be_read_has_another_remedy_than_a_missing_one() {
    let dir = tempfile::tempdir().unwrap();
    let [config, forbidden] = ["config.toml", "ca.crt"].map(|name| dir.path().join(name));
    std::fs::write(&forbidden, "x").unwrap();
    std::fs::set_permissions(&forbidden, Permissions::from_mode(0o000)).unwrap();
    let http = format!("[http]\ntoken_file = {forbidden:?}\nlisten = \"127.0.0.1:0\"\n");
    let text = gateway("lobby", 1).replace("Cargo.toml", &forbidden.display().to_string());
    std::fs::write(&config, format!("{text}{http}")).unwrap();
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    for (args, key) in [(&[][..], "gateways.lobby.ca_file"), (&["--connect"], "http.token_file")] {
        let mut command = bounded(if is_root { "setpriv" } else { PROGRAM });
        if is_root {
            command.args(["--bounding-set", "-dac_override,-dac_read_search", PROGRAM]);
        }
        let checked = command.arg("check").arg("--config").arg(&config).args(args).output();
        let checked = checked.unwrap();
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
        let all = [lines(&checked.stdout), lines(&checked.stderr)].concat();
        let words = "may not be read by the user of this service; give it the right (chgrp";
        assert!(all.iter().any(|line| line.contains(words) && line.contains(key)), "{all:?}");
    }
}

/// Checks a wrong text; returns the number of reported mistakes.
fn mistakes(what: &str, text: &str) -> Vec<String> {
    let started = Instant::now();
    let checked = check(text, &[], &[]);
    let took = started.elapsed();
    assert_eq!(checked.status.code(), Some(2), "{what}: {checked:?}");
    assert!(took < WITHIN, "{what}: {took:?}");
    lines(&checked.stderr)
}

#[test]
fn a_large_configuration_with_duplicates_is_checked_in_good_time() {
    let (mut keys, mut tables) = (String::new(), String::new());
    for id in 1..=MANY {
        writeln!(keys, "{id} = {{ name = \"D{id}\" }}").unwrap();
        writeln!(tables, "[gateways.a.devices.{id}]\nname = \"D{id}\"").unwrap();
    }
    let (one, other) = (gateway("a", 1), gateway("b", 2));

    // Of a file that is not valid TOML the first mistake is reported.
    let devices = "[gateways.a.devices]\n";
    let first_duplicate = |what: &str, text: &str, line: u32, key: &str| {
        let err = mistakes(what, text);
        assert_eq!(err.len(), 2, "one mistake, and their count");
        assert!(err[0].contains(&format!("config.toml:{line}: ")), "{what}: {}", err[0]);
        assert!(err[0].ends_with(&format!("duplicate key {key}")), "{what}: {}", err[0]);
    };
    let text = format!("{one}{devices}{keys}{other}{devices}{keys}");
    first_duplicate("one table", &text, 3 + 1 + MANY + 3 + 1, "devices");
    first_duplicate("each key", &format!("{one}{devices}{keys}{keys}"), 3 + 1 + MANY + 1, "1");
    first_duplicate("each table", &format!("{one}{tables}{tables}"), 3 + 2 * MANY + 1, "1");
}

#[test]
fn a_large_configuration_is_checked_in_good_time() {
    let mut text = String::new();
    for id in 1..=MANY {
        writeln!(text, "[gateways.g{id}]\naddress = \"gw{id}.lan\"\nca_file = \"Cargo.toml\"")
            .unwrap();
        writeln!(text, "devices.{id} = {{ connect = \"accept\" }}").unwrap();
    }
    let started = Instant::now();
    let checked = check(&text, &[], &[]);
    let took = started.elapsed();
    assert!(checked.status.success(), "{:?}", lines(&checked.stderr));
    assert!(took < WITHIN, "{took:?}");
}
