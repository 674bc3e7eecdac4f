//! `gsdk2mqtt history --follow`: new events while the bridge restarts, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use gsdk2mqtt::simulator::{Fault, Simulator, StatusCode};
use serde_json::Value;

use crate::harness::bridge::{Bridge, PROGRAM, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{bounded, eventually, simulator};

/// A running `gsdk2mqtt history`.
struct RunningHistory {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    errors: Arc<Mutex<Vec<String>>>,
}

/// Collects lines until the process ends.
fn collect(pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let into = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            into.lock().unwrap().push(line);
        }
    });
    lines
}

impl RunningHistory {
    /// SIGINT has its default action even if the tests were started with it ignored.
    fn start(words: &[&str]) -> Self {
        let mut child = Command::new("env")
            .args(["--default-signal=INT", PROGRAM, "history"])
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = collect(child.stdout.take().unwrap());
        let errors = collect(child.stderr.take().unwrap());
        Self { child, lines, errors }
    }

    fn of(bridge: &Bridge, words: &[&str]) -> Self {
        let config = bridge.config_file();
        Self::start(&[words, &["--config", config.to_str().unwrap()]].concat())
    }

    /// The IDs of the printed events.
    fn ids(&self) -> Vec<u64> {
        let id = |line: &String| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64();
        self.lines.lock().unwrap().iter().map(|line| id(line).unwrap()).collect()
    }

    fn says(&self, part: &str) -> Option<()> {
        self.errors.lock().unwrap().iter().any(|line| line.contains(part)).then_some(())
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    async fn ends(&mut self) -> ExitStatus {
        eventually("history ends", || self.child.try_wait().unwrap()).await
    }
}

impl Drop for RunningHistory {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Changes the status of each device this many times.
fn change(gateway: &Simulator, times: usize) {
    for _ in 0..times {
        for device in gateway.control().managed() {
            for status in [StatusCode(0), StatusCode(device.status)] {
                let devices = device.device_id.into();
                gateway.control().apply_fault(&Fault::Tell { devices, status });
            }
        }
    }
}

/// The IDs of all recorded events, over HTTP.
async fn recorded(bridge: &Bridge) -> Vec<u64> {
    let (status, body) = bridge.get("/api/v1/events?after_id=0&limit=10000").await;
    assert_eq!(status, 200, "{body}");
    let page: Value = serde_json::from_str(&body).unwrap();
    page["events"].as_array().unwrap().iter().map(|event| event["id"].as_u64().unwrap()).collect()
}

/// Waits until so many events are recorded, and printed as they were recorded.
async fn prints_all(bridge: &Bridge, history: &RunningHistory, at_least: usize) {
    eventually("the events are printed", || (history.ids().len() >= at_least).then_some(())).await;
    let recorded = recorded(bridge).await;
    eventually("no event is missing", || (history.ids().len() >= recorded.len()).then_some(()))
        .await;
    assert_eq!(history.ids()[..recorded.len()], recorded, "each once, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_events_are_complete_across_restarts_of_the_bridge() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(10).await;
    let setup = Setup::new(broker.port, "").gateway("lobby", &gateway, "audit_interval = \"1h\"");
    let mut bridge = setup.start();
    bridge.is_ready().await;
    change(&gateway, 5);
    let mut history = RunningHistory::of(&bridge, &["--last", "1h", "--follow", "--json"]);
    prints_all(&bridge, &history, 100).await;
    change(&gateway, 5);
    prints_all(&bridge, &history, 200).await;

    change(&gateway, 5);
    bridge.kill();
    eventually("it says that it waits", || history.says("no answer from http://")).await;
    change(&gateway, 5);
    bridge.restart();
    bridge.is_ready().await;
    eventually("it reads again", || history.says("it answers again")).await;
    change(&gateway, 5);
    prints_all(&bridge, &history, 301).await;
    assert_eq!(history.child.try_wait().unwrap(), None);
    history.signal("-INT");
    assert_eq!(history.ends().await.code(), Some(0));
    let waits = |line: &&String| line.contains("no answer from");
    assert_eq!(history.errors.lock().unwrap().iter().filter(waits).count(), 1, "reported once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_a_stopped_bridge_is_followed_and_a_closed_pipe_ends_it() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(2).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    bridge.end().await;
    let history = RunningHistory::of(&bridge, &["--follow", "--json"]);
    eventually("it reads the file", || history.says("state/history.db")).await;
    bridge.restart();
    bridge.is_ready().await;
    change(&gateway, 3);
    prints_all(&bridge, &history, 12).await;

    // As with `| head -n 1`, even if no further event is recorded.
    let mut child = bounded(PROGRAM)
        .args(["history", "--follow", "--config"])
        .arg(bridge.config_file())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("lobby"), "{line}");
    let status = eventually("it ends", || child.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_interrupts_a_history_that_is_not_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, is_asked) = std::sync::mpsc::channel();
    // A bridge that answers no query of events.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (mut reader, mut head) = (BufReader::new(stream), String::new());
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            if head.starts_with("GET /api/v1/events") {
                asked.send(reader).unwrap();
            } else {
                let body = "{\"time_zone\":\"UTC\"}";
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    let mut history = RunningHistory::start(&["--url", &url]);
    let _open = eventually("events are requested", || is_asked.try_recv().ok()).await;
    history.signal("-INT");
    assert_eq!(history.ends().await.signal(), Some(2));
}
