//! `gsdk2mqtt ctl` as users and scripts run it: the tutorial's session, exit codes, refusals.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use gsdk2mqtt::simulator::{Fault, GrpcCode, Simulator, SimulatorSettings};
use tonic::Code;

use crate::harness::bridge::PROGRAM;
use crate::harness::{bounded, eventually, patiently};

/// A gateway without managed devices, and the data to connect to it.
pub(super) struct Cli {
    pub(super) simulator: Simulator,
    pub(super) dir: TempDir,
}

impl Cli {
    pub(super) async fn new(devices: usize) -> Self {
        let settings = SimulatorSettings { managed: false, ..SimulatorSettings::fast(devices) };
        let simulator = Simulator::start(settings).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.crt");
        std::fs::write(&ca_file, simulator.ca_pem()).unwrap();
        let id = simulator.control().devices()[0].id;
        let text = format!(
            "[gateways.lobby]\naddress = \"{}\"\nca_file = {:?}\n\
             [gateways.lobby.devices]\n{id} = {{ name = \"Front door\" }}\n",
            simulator.address(),
            ca_file.display().to_string()
        );
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        Self { simulator, dir }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = bounded(PROGRAM);
        command.env("GSDK2MQTT_CONFIG", self.dir.path().join("config.toml")).arg("ctl");
        command.args(words.split_whitespace()).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Runs it to its end: exit code, stdout, stderr.
    pub(super) async fn run(&self, words: &str) -> (i32, String, String) {
        ended(self.command(words)).await
    }
}

async fn ended(mut command: Command) -> (i32, String, String) {
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let Output { status, stdout, stderr } = run.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorials_session() {
    let cli = Cli::new(10).await;
    let control = cli.simulator.control();
    let building = control.devices();

    let (code, out, err) = cli.run("search --wait 0.2").await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().count(), 11, "{out}");
    assert!(out.starts_with("ID ") && out.lines().skip(1).is_sorted(), "{out}");

    let (code, out, _) = cli.run(&format!("connect {}", building[0].ip)).await;
    assert_eq!((code, out), (0, format!("device_id: {} (Front door)\n", building[0].id)));
    let (_, out, _) = cli.run("devices").await;
    assert!(out.contains("Front door") && out.contains("tcp_connected"), "{out}");
    assert_eq!(cli.run(&format!("disconnect {}", building[0].id)).await.0, 0);

    let [plain, ssl, dialling] = [0, 1, 3].map(|at| building[at].clone());
    let (code, _, err) = cli.run(&format!("async add {}={}", plain.id, plain.ip)).await;
    assert_eq!(code, 0);
    assert!(err.contains("loses"), "{err}");
    assert_eq!(cli.run(&format!("async add {}={} --ssl", ssl.id, ssl.ip)).await.0, 0);
    let (_, out, _) = cli.run("pending").await;
    assert!(out.contains(&dialling.id.to_string()), "{out}");
    let (_, out, _) = cli.run(&format!("accept-filter add {}", dialling.id)).await;
    assert!(out.contains("allow_all: no"), "{out}");
    eventually("all three are connected", || {
        let managed = control.managed();
        let up = managed.iter().filter(|row| matches!(row.status, 1 | 2)).count();
        (up == 3).then_some(())
    })
    .await;
    let (code, out, err) = cli.run(&format!("mode set device_to_server {}", plain.id)).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("mode_set") && out.contains("connected"), "{out}");
    let (code, out, err) = cli.run(&format!("ssl disable {}", ssl.id)).await;
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, _) = cli.run("devices --json").await;
    assert_eq!(code, 0);
    let answer: Value = serde_json::from_str(&out).unwrap();
    let devices = answer["data"]["devices"].as_array().unwrap();
    assert!(devices.iter().all(|device| device["connected"] == true), "{answer}");
    assert_eq!(cli.run("disconnect-all --yes").await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_0_done_1_failed_2_wrong() {
    let cli = Cli::new(3).await;
    for (words, expected, reported) in [
        ("disconnect 7", 1, "not_found"),
        ("disconnect 0", 2, "device ID"),
        ("connect fd00::1", 2, "IPv4"),
        ("mode set sideways 7", 2, "server_to_device"),
        ("--gateway annex devices", 2, "there are lobby"),
        ("disconnect-all", 1, "--yes"),
        ("accept-filter allow-all", 1, "--yes"),
        ("accept-filter set --allow-all", 1, "--yes"),
        ("async add 7", 2, "544114231=192.168.0.104"),
        ("devices --gateway annex", 2, "there are lobby"),
        ("devices --address 127.0.0.1", 2, "--ca-file"),
        ("devices --address 127.0.0.1 --ca-file x --gateway lobby", 2, "omit one"),
        ("devices --address 127.0.0.1:1 --ca-file /none", 2, "or correct --ca-file"),
        ("devices --config /none", 2, "--address and --ca-file"),
        ("disconnect seven", 2, "as in 544114231"),
        ("devices --server-name x", 2, "belong to --address"),
        ("search --wait 0", 2, "--wait: invalid value: 0.0, expected a number of seconds from"),
        ("search --wait 5 --timeout 2", 2, "--timeout is not longer than --wait,"),
        ("search --wait inf", 2, "from 0.1 to 60"),
        ("search --wait nan", 2, "from 0.1 to 60"),
        ("devices --timeout 0", 2, "--timeout: invalid value: 0"),
        ("devices --timeout nan", 2, "--timeout: invalid value: \"NaN\""),
        ("devices --timeout inf", 2, "--timeout: invalid value: \"inf\""),
        ("accept-filter set", 2, "--none"),
        ("accept-filter set --none 7", 2, "cannot be used with"),
        ("reboot", 2, "reboot"),
    ] {
        let (code, out, err) = cli.run(words).await;
        assert_eq!((code, out.as_str()), (expected, ""), "{words}: {err}");
        assert!(err.contains(reported) && !err.contains("_s\""), "{words}: {err}");
    }
    // A script gets the same as a document.
    for (words, expected, word) in [
        ("disconnect 7 --json", 1, "not_found"),
        ("disconnect 0 --json", 2, "invalid_request"),
        ("disconnect-all --json", 1, "cancelled"),
        ("accept-filter set --json", 2, "invalid_request"),
        ("search --wait nan --json", 2, "invalid_request"),
        ("devices --gateway annex --json", 2, "invalid_request"),
        ("watch --gateway annex --json", 2, "invalid_request"),
        ("devices --config /none --json", 2, "invalid_request"),
        ("devices --address 127.0.0.1:1 --ca-file /none --json", 2, "invalid_request"),
    ] {
        let (code, out, err) = cli.run(words).await;
        assert_eq!((code, err.as_str()), (expected, ""), "{words}: {out}");
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(answer["error"]["code"], word, "{words}: {out}");
    }
    let calls = cli.simulator.control().calls();
    assert!(!calls.contains_key("DisconnectAll") && !calls.contains_key("SetAcceptFilter"));
    cli.simulator.control().stop_listening();
    let (code, _, err) = cli.run("devices").await;
    assert_eq!(code, 1);
    assert!(err.contains("gateway_unavailable: gateway lobby: "), "{err}");
    let (code, out, _) = cli.run("devices --json").await;
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["error"]["code"]), (1, &"gateway_unavailable".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_devices_are_checked_as_over_mqtt() {
    let cli = Cli::new(10).await;
    let [dialled, dialling] = [0, 3].map(|at| cli.simulator.control().devices()[at].clone());
    let file = cli.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let devices = format!(
        "connect = \"async\", ip = \"{}\", name = \"Front door\" }}\n{} = {{ connect = \"accept\"",
        dialled.ip, dialling.id
    );
    std::fs::write(&file, text.replace("name = \"Front door\"", &devices)).unwrap();
    let (dialled, dialling) = (dialled.id, dialling.id);
    for (words, declared) in [
        (format!("async add {dialled}=10.9.9.9"), dialled),
        (format!("async add {dialling}=10.9.9.9"), dialling),
        (format!("async remove {dialled}"), dialled),
        (format!("ssl enable {dialling}"), dialling),
    ] {
        let (code, _, err) = cli.run(&words).await;
        let line = format!("change gateways.lobby.devices.{declared}.connect");
        assert!(code == 2 && err.contains(&line), "{words}: {code} {err}");
    }
    let (code, _, err) = cli.run(&format!("accept-filter add {dialling}")).await;
    assert_eq!(code, 0, "{err}");
    let (code, out, _) = cli.run(&format!("accept-filter remove {dialling} --json")).await;
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["warnings"][0]["code"]), (0, &"kept_by_configuration".into()));
    assert_eq!(answer["warnings"][0]["device_id"], dialling, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let cli = Cli::new(3).await;
    let mut command = cli.command("search --wait 0.5");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let out = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!((out.status.code(), out.stderr), (Some(0), Vec::new()));

    // Even if no device changes.
    let mut child = cli.command("watch").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("linked"), "{line}");
    let status = eventually("it ends", || child.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
}

/// Runs a shell command, in which `$ctl` is the program.
async fn in_a_shell(cli: &Cli, words: &str) -> (i32, String, String) {
    let mut command = bounded("bash");
    command.env("GSDK2MQTT_CONFIG", cli.dir.path().join("config.toml")).env_remove("RUST_LOG");
    command.env("ctl", format!("{PROGRAM} ctl")).args(["-c", words]).stdin(Stdio::null());
    ended(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_does_not_depend_on_the_reader_of_the_output() {
    let cli = Cli::new(3).await;
    for (words, expected) in [
        ("$ctl disconnect 7 2>&1 | true; exit ${PIPESTATUS[0]}", 1),
        ("$ctl disconnect 7 2>/dev/full", 1),
        ("$ctl disconnect 7 2>&-", 1),
        ("$ctl disconnect 0 2>/dev/full", 2),
        ("$ctl disconnect 7 --json | true; exit ${PIPESTATUS[0]}", 1),
        ("$ctl disconnect 0 --json | true; exit ${PIPESTATUS[0]}", 2),
        ("$ctl devices | true; exit ${PIPESTATUS[0]}", 0),
        ("$ctl devices >/dev/full", 1),
        ("RUST_LOG=trace $ctl devices 2>/dev/full", 0),
    ] {
        let (code, _, err) = in_a_shell(&cli, words).await;
        assert_eq!(code, expected, "{words}: {err}");
        assert!(!err.contains("panicked"), "{words}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_given_by_its_address_is_named_by_its_options() {
    let certificate = gsdk2mqtt::simulator::CertificateKind::DnsOnly;
    let simulator =
        Simulator::start(SimulatorSettings { certificate, ..SimulatorSettings::fast(3) })
            .await
            .unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.crt"), simulator.ca_pem()).unwrap();
    let ctl = |words: &str| {
        let mut command = bounded(PROGRAM);
        command.current_dir(dir.path()).arg("ctl").args(words.split_whitespace());
        ended(command)
    };
    let address = simulator.address();
    let words = format!("devices --address {address} --ca-file ca.crt");
    let (code, _, err) = ctl(&words).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("set --server-name \"gateway.local\""), "{err}");
    let named = format!("{words} --server-name gateway.local");
    assert_eq!(ctl(&named).await.0, 0);
    let code = tonic::Code::Internal;
    simulator.control().apply_fault(&Fault::fail("GetDeviceList", code, "out of luck"));
    let (code, _, err) = ctl(&named).await;
    let words = format!("gateway {address} answered GetDeviceList with internal: out of luck");
    assert!(code == 1 && err.contains(&words), "{err}");
    // `watch` reports the same, and ends if only another option helps.
    let words = format!("watch --address {address} --ca-file none.crt");
    let (code, out, err) = patiently("it ends", ctl(&words)).await;
    assert_eq!(code, 2, "{out}{err}");
    assert!(out.contains("no link  ") && out.contains("or correct --ca-file"), "{out}");
    assert_eq!(out.matches(&format!("gateway {address}:")).count(), 1, "{out}");
    let (code, out, _) = patiently("it ends", ctl(&format!("{words} --json"))).await;
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &line["event"]), (2, &"no_link".into()), "{out}");
    assert!(line["message"].as_str().unwrap().contains("--ca-file"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_is_emptied_only_on_explicit_request() {
    let cli = Cli::new(3).await;
    let control = cli.simulator.control();
    assert_eq!(cli.run("accept-filter set 7 8").await.0, 0);
    assert_eq!(cli.run("accept-filter set").await.0, 2);
    assert_eq!(control.filter().device_i_ds, [7, 8]);
    assert_eq!(cli.run("accept-filter set --none").await.0, 0);
    assert!(control.filter().device_i_ds.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_need_not_be_configured() {
    let cli = Cli::new(3).await;
    let mut command = bounded(PROGRAM);
    let address = cli.simulator.address().to_string();
    command.args(["ctl", "--address", &address, "--ca-file"]).arg(cli.dir.path().join("ca.crt"));
    command.args(["accept-filter", "get", "--json"]);
    let (code, out, err) = ended(command).await;
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&answer["result"], &answer["data"]["allow_all"]), (&"ok".into(), &false.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_ends_after_its_timeout() {
    let cli = Cli::new(3).await;
    let (code, out, err) = patiently("it ends", cli.run("watch --timeout 2")).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("linked"), "{out}");
    let (code, _, err) = patiently("it ends", cli.run("watch --timeout nan")).await;
    assert!(code == 2 && err.contains("--timeout"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_reports_changes_live() {
    let cli = Cli::new(3).await;
    let control = cli.simulator.control();
    let failing = Fault::Fail {
        method: "GetDeviceList".to_owned(),
        code: GrpcCode(Code::Internal),
        message: None,
        times: Some(1),
    };
    control.apply_fault(&failing);
    let mut child = cli.command("watch --json").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel::<Value>();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(serde_json::from_str(&line).unwrap());
        }
    });
    let linked = seen.recv().await.unwrap();
    assert_eq!(linked["event"], "linked", "{linked}");
    let failed = seen.recv().await.unwrap();
    assert_eq!(failed["event"], "list_failed", "{failed}");
    control.apply_fault(&Fault::Manage);
    let id = control.devices()[0].id;
    patiently("its connection is reported, and the list is read after all", async {
        let (mut is_connected, mut is_listed) = (false, false);
        while !is_connected || !is_listed {
            let line = seen.recv().await.unwrap();
            is_listed |= line["source"] == "list";
            if line["device_id"] == id && line["status"] == "tcp_connected" {
                assert_eq!(
                    (&line["name"], &line["connected"]),
                    (&"Front door".into(), &true.into())
                );
                is_connected = true;
            }
        }
    })
    .await;
    // A device without a type gets its name with the next list.
    let mut later = gsdk2mqtt::simulator::mixed_devices(0, 3, 1).remove(0);
    later.ip = [192, 168, 0, 200].into();
    let kind = later.kind;
    let added = Fault::AddDevice { id: later.id, kind, ip: later.ip, ssl: false, mode: later.mode };
    assert_eq!(control.apply_fault(&added), 1);
    let connect = cli.command(&format!("connect {}", later.ip));
    assert_eq!(ended(connect).await.0, 0);
    patiently("its type is in its name", async {
        loop {
            control.apply_fault(&Fault::Drop { devices: later.id.into() });
            assert_eq!(ended(cli.command(&format!("connect {}", later.ip))).await.0, 0);
            let line = seen.recv().await.unwrap();
            if line["name"] == format!("BioEntry W2 {}", later.id) {
                return;
            }
        }
    })
    .await;
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let status = eventually("it ends", || child.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
}
