//! `gsdk2mqtt demo` as a new user meets it: outside clients of its broker and its metrics.
//!
//! May not help it: ports are given only so that the test knows them.

use std::process::{Command, Stdio};

use crate::harness::bridge::{PROGRAM, get};
use crate::harness::eventually;
use crate::harness::mosquitto::free_port;
use crate::harness::watcher::{Watcher, retained};

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
    assert_eq!(kept.keys().filter(|topic| topic.matches('/').count() == 3).count(), 8);
    let old = Command::new("mosquitto_sub")
        .args(["-V", "311", "-t", "gsdk/bridge/state", "-C", "1", "-p", &mqtt.to_string()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(old.stdout).unwrap().trim(), "online");
    let (_, metrics) = get(http, "/metrics").await;
    assert!(metrics.contains("gsdk_gateway_devices{gateway=\"demo\",connected=\"true\"}"));

    let status = eventually("it ends by itself", || demo.try_wait().unwrap()).await;
    assert!(status.success());
    let mut printed = String::new();
    std::io::Read::read_to_string(&mut demo.stdout.take().unwrap(), &mut printed).unwrap();
    for words in ["mosquitto_sub -h 127.0.0.1", "/metrics", "Front door", "disconnected"] {
        assert!(printed.contains(words), "{words} in {printed}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    watcher.see_text("gsdk/bridge/state", "offline").await;
}
