//! SIGHUP, as a service manager and as a terminal send it.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::Manager;
use crate::harness::bridge::{PROGRAM, Setup};
use crate::harness::mosquitto::{Mosquitto, free_port};
use crate::harness::watcher::Watcher;
use crate::harness::{eventually, simulator};

async fn ignores_hangup_with(name: &str, value: &str) {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let mut bridge =
        Setup::new(broker.port, "").environment(name, value).gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    for _ in 0..2 {
        bridge.signal("-HUP");
    }
    eventually("the log names the signal", || bridge.log().contains("SIGHUP").then_some(())).await;
    assert_eq!(bridge.get("/readyz").await.0, 200);
    let (status, log) = bridge.terminate().await;
    assert!(status.success(), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hangup_under_a_service_manager_is_logged_and_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let _manager = Manager::bind(&path);
    ignores_hangup_with("NOTIFY_SOCKET", path.to_str().unwrap()).await;
    ignores_hangup_with("INVOCATION_ID", "3bd6ea8cbd3d4d5f8d3bd6ea8cbd3d4d").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hangup_without_a_service_manager_is_a_clean_stop() {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let watcher = Watcher::start(broker.port).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    bridge.signal("-HUP");
    let status = bridge.ends().await;
    assert_eq!(status.code(), Some(0), "{}", bridge.log());
    watcher.see_text("gsdk/lobby/state", "offline").await;
    watcher.see_text("gsdk/bridge/state", "offline").await;
}

/// The demo, started by a shell with these words before it, with its temporary folder.
fn demo(starts: &str, http: u16) -> (std::process::Child, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let http = format!("127.0.0.1:{http}");
    let child = Command::new("sh")
        .args(["-c", &format!("{starts} \"$0\" demo --http {http}"), PROGRAM])
        .env("TMPDIR", folder.path())
        .env_remove("NOTIFY_SOCKET")
        .env_remove("INVOCATION_ID")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, folder)
}

fn signal(child: &std::process::Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_closes_ends_the_demo_and_leaves_no_folder() {
    let http = free_port();
    let (mut demo, folder) = demo("exec env --default-signal=HUP", http);
    crate::harness::bridge::get(http, "/healthz").await;
    assert_ne!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    signal(&demo, "-HUP");
    let status = eventually("the demo ends", || demo.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hangup_that_was_ignored_at_the_start_remains_ignored() {
    let http = free_port();
    let (mut demo, folder) = demo("trap '' HUP; exec", http);
    crate::harness::bridge::get(http, "/healthz").await;
    signal(&demo, "-HUP");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(demo.try_wait().unwrap().is_none());
    signal(&demo, "-TERM");
    let status = eventually("the demo ends", || demo.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
