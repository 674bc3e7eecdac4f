//! `gsdk2mqtt simulate` as a process.

use std::process::{Command, Stdio};

use crate::harness::bridge::PROGRAM;
use crate::harness::mosquitto::free_port;
use crate::harness::{bounded, eventually};

/// Aim: its first output need not be read. Method: its stdout is a pipe that is closed
/// already, and a call succeeds nevertheless.
#[tokio::test]
async fn it_runs_with_and_without_a_reader_of_its_output() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let (reader, stdout) = std::io::pipe().unwrap();
    drop(reader);
    let mut simulate = Command::new(PROGRAM)
        .args(["simulate", "--devices", "2", "--listen", &address, "--certs"])
        .arg(dir.path())
        .stdout(stdout)
        .spawn()
        .unwrap();
    let mut ctl = bounded(PROGRAM);
    ctl.args(["ctl", "--address", &address, "--ca-file"]).arg(dir.path().join("ca.crt"));
    ctl.arg("search").stdout(Stdio::null()).stderr(Stdio::null());
    let answered = || {
        assert!(simulate.try_wait().unwrap().is_none(), "it has ended");
        ctl.status().unwrap().success().then_some(())
    };
    eventually("a search is answered", answered).await;
    assert!(simulate.try_wait().unwrap().is_none(), "it has ended");
    simulate.kill().unwrap();
    simulate.wait().unwrap();
}

#[test]
fn an_unknown_scenario_is_wrong_usage() {
    let mut simulate = bounded(PROGRAM);
    let output = simulate.args(["simulate", "--scenario", "nosuch"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("shipped are office"), "{stderr}");
}
