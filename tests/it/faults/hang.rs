//! A disk that hangs: every sync blocks until the test releases it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::disk::happens;
use super::{check_all, reads, ready, within};
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::Watcher;

const PATIENCE: Duration = Duration::from_secs(60);
/// Syncs that wait as long as there is a file, and then succeed.
const SOURCE: &str = r#"
#include <stdlib.h>
#include <unistd.h>
static int wait_for_disk(void) {
    while (access(getenv("DISK_HANGS"), F_OK) == 0) usleep(20000);
    return 0;
}
int fsync(int file) { return wait_for_disk(); }
int fdatasync(int file) { return wait_for_disk(); }
"#;

/// The library that makes syncs wait.
fn library(dir: &Path) -> String {
    let (source, library) = (dir.join("hang.c"), dir.join("hang.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).args([&library, &source]);
    assert!(compiler.status().unwrap().success());
    library.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_disk_is_reported_and_delays_no_event_and_no_stop() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(10).await;
    let dir = tempfile::tempdir().unwrap();
    let hangs = dir.path().join("hangs");
    let mut bridge = Setup::new(broker.port, "")
        .environment("LD_PRELOAD", &library(dir.path()))
        .environment("DISK_HANGS", hangs.to_str().unwrap())
        .gateway("lobby", &simulator, "")
        .start();
    ready(&bridge, PATIENCE, "hanging disk: the start, until ready").await;

    std::fs::write(&hangs, "").unwrap();
    happens(&watcher, &simulator, None).await;
    let what = "hanging disk: until it is reported";
    reads(&bridge, "gsdk_store_ok", 0.0, PATIENCE, what).await;
    let (status, body) = bridge.get("/readyz").await;
    // Events continue, so it is ready.
    assert!(status == 200 && body.contains("the disk has not answered for 10 s"), "{body}");
    assert!(body.contains("store_in_memory"), "{body}");
    happens(&watcher, &simulator, None).await;
    std::fs::remove_file(&hangs).unwrap();
    reads(&bridge, "gsdk_store_ok", 1.0, PATIENCE, "hanging disk: until it answers").await;

    std::fs::write(&hangs, "").unwrap();
    happens(&watcher, &simulator, None).await;
    reads(&bridge, "gsdk_store_ok", 0.0, PATIENCE, what).await;
    let ended = async || Some(bridge.terminate().await);
    let ((status, log), _) = within(PATIENCE, "hanging disk: until it has stopped", ended).await;
    assert!(status.success(), "{log}");
    bridge.restart();
    // A start syncs first, and waits.
    std::fs::remove_file(&hangs).unwrap();
    ready(&bridge, PATIENCE, "hanging disk: the next start, until ready").await;
    happens(&watcher, &simulator, None).await;
    check_all(&watcher);
}
