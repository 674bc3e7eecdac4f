//! The watchdog and `/healthz` depend on the event loop only.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::Fault;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::Manager;
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{LOOK_EVERY, eventually, patiently, simulator};

/// Three pings in this time.
const WATCHDOG_USEC: &str = "300000";
/// Longer than the age at which the bridge's loop counts as hanging.
const STUCK: Duration = Duration::from_secs(10);

/// A `write` to a file below a folder `state` that waits as long as there is a file `DISK_HANGS`.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
static void wait_for_disk(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    while (strstr(path, "/state/") && access(getenv("DISK_HANGS"), F_OK) == 0) usleep(20000);
}
ssize_t write(int file, const void *bytes, size_t count) {
    static ssize_t (*next)(int, const void *, size_t);
    if (!next) next = dlsym(RTLD_NEXT, "write");
    wait_for_disk(file);
    return next(file, bytes, count);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
    static ssize_t (*next)(int, const struct iovec *, int);
    if (!next) next = dlsym(RTLD_NEXT, "writev");
    wait_for_disk(file);
    return next(file, parts, count);
}
"#;

fn library(dir: &Path) -> String {
    let (source, library) = (dir.join("hang.c"), dir.join("hang.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl");
    assert!(compiler.status().unwrap().success());
    library.display().to_string()
}

/// One request on a separate connection; returns the received bytes.
async fn asked(bridge: &Bridge, request: &str) -> String {
    use tokio::io::AsyncWriteExt;
    let mut answer = Vec::new();
    let mut stream = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
    // A connection that is refused may be closed at any time.
    if stream.write_all(request.as_bytes()).await.is_ok() {
        _ = stream.read_to_end(&mut answer).await;
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Aim: open connections block neither systemd's watchdog nor a liveness probe.
/// Method: more connections than the server accepts, opened again when they are closed, for several
/// times the watchdog's period; some send nothing, the newest send half a request.
#[tokio::test(flavor = "multi_thread")]
async fn open_connections_stop_neither_the_watchdog_nor_healthz() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::bind(&dir.path().join("notify"));
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let bridge = Setup::new(broker.port, "")
        .environment("NOTIFY_SOCKET", dir.path().join("notify").to_str().unwrap())
        .environment("WATCHDOG_USEC", WATCHDOG_USEC)
        .gateway("lobby", &gateway, "")
        .start();
    manager.sees("READY=1").await;
    bridge.is_ready().await;
    let mut held = Vec::new();
    for _ in 0..96 {
        held.push(TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap());
    }
    let busy = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    patiently("other requests are refused", async {
        loop {
            let answer = asked(&bridge, busy).await.to_lowercase();
            if answer.starts_with("http/1.1 503") {
                assert!(answer.contains("retry-after: "), "{answer}");
                break;
            }
            held.push(TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap());
        }
    })
    .await;
    while manager.notified(Duration::ZERO).await.is_some() {}
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        for _ in 0..20 {
            held.push(TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap());
        }
        for method in ["GET", "HEAD"] {
            let request = format!("{method} /healthz HTTP/1.1\r\nHost: 10.0.0.1:9925\r\n\r\n");
            let answer = asked(&bridge, &request).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
            assert_eq!(answer.ends_with("ok\n"), method == "GET", "{answer}");
        }
        let ping = manager.notified(Duration::from_secs(2)).await;
        assert_eq!(ping.as_deref(), Some("WATCHDOG=1"), "{}", bridge.log());
    }
    drop(held);
    assert!(bridge.stop().await.0.success());
}

/// Aim: a loop that hangs is reported by `/healthz` and ends the watchdog's pings, and one that
/// runs again counts as running at once. Method: the loop's own write to the store waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_hangs_gets_no_watchdog_ping_and_healthz_reports_it() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::bind(&dir.path().join("notify"));
    let hangs = dir.path().join("hangs");
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let bridge = Setup::new(broker.port, "")
        .environment("NOTIFY_SOCKET", dir.path().join("notify").to_str().unwrap())
        .environment("WATCHDOG_USEC", WATCHDOG_USEC)
        .environment("LD_PRELOAD", &library(dir.path()))
        .environment("DISK_HANGS", hangs.to_str().unwrap())
        .gateway("lobby", &gateway, "")
        .start();
    bridge.is_ready().await;
    assert_eq!(bridge.get("/healthz").await, (200, "ok\n".to_owned()));
    std::fs::write(&hangs, "").unwrap();
    let (control, began) = (gateway.control(), Instant::now());
    control.apply_fault(&Fault::power(control.devices()[0].id, false));
    let (_, why) = patiently("/healthz fails", async {
        loop {
            let (status, body) = bridge.get("/healthz").await;
            if status == 503 {
                break (status, body);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    assert!(began.elapsed() > STUCK - Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(why.contains("loop"), "{why}");
    while manager.notified(Duration::ZERO).await.is_some() {}
    assert_eq!(manager.notified(Duration::from_secs(1)).await, None);
    std::fs::remove_file(&hangs).unwrap();
    manager.sees("WATCHDOG=1").await;
    assert_eq!(bridge.get("/healthz").await.0, 200);
    eventually("the log reports it", || bridge.log().contains("ERROR").then_some(())).await;
}
