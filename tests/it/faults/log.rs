//! An unread log: stderr is a full pipe without a reader.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use tokio::net::unix::pipe;

use super::check_all;
use super::disk::happens;
use crate::harness::bridge::{PROGRAM, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::Watcher;
use crate::harness::{eventually, patiently};

/// A full pipe: its reader, and the number of bytes in it.
fn full(fifo: &Path) -> (pipe::Receiver, usize) {
    assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    let reader = pipe::OpenOptions::new().open_receiver(fifo).unwrap();
    (reader, fill(fifo))
}

/// Writes until the pipe is full; returns the number of bytes.
fn fill(fifo: &Path) -> usize {
    let sender = pipe::OpenOptions::new().open_sender(fifo).unwrap();
    let mut file = File::from(sender.into_nonblocking_fd().unwrap());
    let written = std::iter::from_fn(|| file.write(b"\n").ok()).sum();
    assert!(written > 0, "there was no room before");
    written
}

/// Aim: neither events nor `/readyz` nor a stop wait for the reader of the log, and buffered
/// lines are written when it reads again. Method: the pipe is full before the bridge starts.
#[tokio::test(flavor = "multi_thread")]
async fn an_unread_log_delays_nothing() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(10).await;
    let setup = Setup::new(broker.port, "").gateway("lobby", &simulator, "");
    let log = setup.log_file();
    let (reader, filled) = full(&log);
    let mut bridge = setup.start();
    bridge.is_ready().await;
    happens(&watcher, &simulator, None).await;

    let mut read = Vec::new();
    patiently("what was logged", async {
        while !String::from_utf8_lossy(&read[filled.min(read.len())..]).contains("started") {
            reader.readable().await.unwrap();
            _ = reader.try_read_buf(&mut read);
        }
    })
    .await;
    fill(&log);
    happens(&watcher, &simulator, None).await;
    assert!(bridge.end().await.success());
    check_all(&watcher);
}

/// Aim: a service that cannot start ends, so that its supervisor detects it, also with an unread
/// stderr. Method: a missing configuration, and a full pipe.
#[tokio::test]
async fn a_failed_start_ends_although_stderr_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("log");
    let _reader = full(&fifo);
    let mut run = Command::new(PROGRAM)
        .args(["run", "--config"])
        .arg(dir.path().join("none.toml"))
        .stderr(File::options().write(true).open(&fifo).unwrap())
        .spawn()
        .unwrap();
    let status = eventually("it ends", || run.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(2));
}
