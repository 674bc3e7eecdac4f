//! `gsdk2mqtt demo` from outside: its output, and clients of its servers.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::bridge::{PROGRAM, get};
use crate::harness::mosquitto::free_port;
use crate::harness::watcher::{Watcher, retained};
use crate::harness::{PATIENCE, bounded, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn its_events_are_seen_from_outside_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (mqtt, http) = (free_port(), free_port());
    let mut demo = Command::new(PROGRAM)
        .args(["demo", "--for", "12s"])
        .args(["--mqtt", &format!("127.0.0.1:{mqtt}"), "--http", &format!("127.0.0.1:{http}")])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let listens = || std::net::TcpStream::connect(("127.0.0.1", mqtt)).is_ok();
    eventually("the broker listens", || listens().then_some(())).await;
    let watcher = Watcher::start(mqtt).await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    let event = watcher
        .see("a door that drops", |seen| seen.topic.ends_with("/event/disconnected"))
        .await
        .json();
    assert!(event["name"].is_string() && event["source"] == "stream", "{event}");
    let kept = retained(mqtt);
    assert_eq!(kept["gsdk/demo/state"], "online");
    let device_states: Vec<_> = kept.keys().filter(|topic| is_device_state(topic)).collect();
    assert_eq!(device_states.len(), 8, "{device_states:?}");
    let old = bounded("mosquitto_sub")
        .args(["-V", "311", "-t", "gsdk/bridge/state", "-C", "1", "-p", &mqtt.to_string()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(old.stdout).unwrap().trim(), "online");
    let (_, metrics) = get(http, "/metrics").await;
    assert!(metrics.contains("gsdk_gateway_devices{gateway=\"demo\",connected=\"true\"}"));

    let status = eventually("it ends by itself", || demo.try_wait().unwrap()).await;
    assert!(status.success());
    let mut printed = String::new();
    demo.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    // Which doors connect before the bridge observes them is random, so the request is for the one
    // that was seen from outside.
    let name = event["name"].as_str().unwrap();
    let drop = printed.lines().find(|line| line.contains(name) && line.contains("disconnected"));
    assert!(drop.is_some(), "{name} in {printed}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    watcher.see_text("gsdk/bridge/state", "offline").await;
}

fn is_device_state(topic: &str) -> bool {
    topic.starts_with("gsdk/") && topic.ends_with("/state") && topic.matches('/').count() == 3
}

/// A demo on free ports, and what it has printed before the first event.
fn start_demo(folder: &Path) -> (Child, String) {
    let mut demo = Command::new(PROGRAM)
        .args(["demo", "--for", "5m"])
        .env("TMPDIR", folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap());
    let mut printed = String::new();
    while !printed.contains("Ctrl-C") {
        assert_ne!(lines.read_line(&mut printed).unwrap(), 0, "{printed}");
    }
    // Read on, as a full pipe would stop the demo.
    std::thread::spawn(move || _ = std::io::copy(&mut lines, &mut std::io::sink()));
    (demo, printed)
}

/// Runs a line as a shell does, in another folder, until it prints a line like this.
async fn prints(line: &str, expected: &str) {
    let mut shell = Command::new("sh")
        .args(["-c", line])
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(shell.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (mut all, expected_text) = (Vec::new(), expected.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        for line in lines {
            let found = line.contains(&expected_text);
            all.push(line);
            if found {
                return Ok(());
            }
        }
        Err(all)
    });
    let found = tokio::time::timeout(PATIENCE, reading).await;
    // Before anything can fail: the runtime of the test waits for `reading`.
    let group = format!("-{}", shell.id());
    _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    shell.wait().unwrap();
    assert_eq!(found.unwrap().unwrap(), Ok(()), "{expected} from {line}");
}

/// The status page is first, and each printed command works unchanged, from any folder.
#[tokio::test(flavor = "multi_thread")]
async fn its_output_is_in_order_and_printed_commands_work() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("it's a folder");
    std::fs::create_dir(&folder).unwrap();
    let (mut demo, printed) = start_demo(&folder);
    let expected = [
        ("status page", ""),
        ("metrics", ""),
        ("broker", ""),
        (" ctl --config ", "Front door"),
        (" watch", "disconnected"),
        (" check --config ", "gateway demo: streams status changes"),
        ("mosquitto_sub ", "gsdk/demo/state online"),
        ("mosquitto_rr ", "\"result\":\"ok\""),
        ("curl ", "gsdk_device_"),
    ];
    let mut rest = printed.as_str();
    for (text, _) in expected {
        let at = rest.find(text).unwrap_or_else(|| panic!("{text} in its place in {printed}"));
        rest = &rest[at + text.len()..];
    }
    let commands: Vec<_> = printed.lines().filter(|line| line.starts_with("  ")).collect();
    let outputs = expected.iter().filter(|(_, output)| !output.is_empty());
    assert_eq!(commands.len(), outputs.clone().count(), "{printed}");
    for (command, (_, output)) in commands.into_iter().zip(outputs) {
        prints(command, output).await;
    }
    let page = printed.lines().next().unwrap().rsplit("http://").next().unwrap().to_owned();
    // The page shows product names; the filter finds them and the names on the wire.
    for query in ["", "?q=BioStation+3", "?q=biostation_3"] {
        let url = format!("http://{page}{query}");
        let page = bounded("curl").args(["-fsS", &url]).output().unwrap();
        let page = String::from_utf8(page.stdout).unwrap();
        assert!(page.contains("Front door") && page.contains("BioStation 3"), "{query}: {page}");
    }
    Command::new("kill").arg(demo.id().to_string()).status().unwrap();
    let status = eventually("the demo stops", || demo.try_wait().unwrap()).await;
    assert!(status.success());
}

/// G-SDK type names in `state`, product names for Home Assistant.
#[tokio::test(flavor = "multi_thread")]
async fn its_doors_have_names_and_types_soon_after_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (mut demo, printed) = start_demo(folder.path());
    let port = printed.split("mqtt://127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap();
    let watcher = Watcher::start(port.parse().unwrap()).await;
    let doors = [
        ("Front door", "biostation_3", "BioStation 3"),
        ("Back door", "bioentry_w2", "BioEntry W2"),
        ("Garage", "xstation_2_qr", "X-Station 2 QR"),
        ("Lift", "biolite_n2", "BioLite N2"),
        ("Server room", "facestation_f2", "FaceStation F2"),
        ("Warehouse", "xpass_d2", "XPass D2"),
        ("Workshop", "biostation_2a", "BioStation 2a"),
        ("Roof", "xpass2", "XPass 2"),
    ];
    for (name, device_type, product) in doors {
        let state = |seen: &crate::harness::watcher::Seen| {
            is_device_state(&seen.topic)
                && (&seen.json()["name"], &seen.json()["type"])
                    == (&name.into(), &device_type.into())
        };
        watcher.see(&format!("{name}, a {device_type}"), state).await;
        let discovery = |seen: &crate::harness::watcher::Seen| {
            seen.topic.starts_with("homeassistant/device/")
                && (&seen.json()["device"]["name"], &seen.json()["device"]["model"])
                    == (&name.into(), &product.into())
        };
        watcher.see(&format!("discovery of {name}, a {product}"), discovery).await;
    }
    Command::new("kill").arg(demo.id().to_string()).status().unwrap();
    eventually("the demo stops", || demo.try_wait().unwrap()).await;
}
