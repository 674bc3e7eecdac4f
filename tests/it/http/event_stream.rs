//! The stream of events: live, resumed, bounded, and not affected by clients that do not read.

use gsdk2mqtt::simulator::{Fault, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{LOOK_EVERY, patiently, simulator};

const CHUNK: usize = 16 * 1024;

struct Stream {
    stream: TcpStream,
    read: String,
}

impl Stream {
    async fn open(bridge: &Bridge, query: &str, header: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
        let request =
            format!("GET /api/v1/events/stream{query} HTTP/1.1\r\nHost: x\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self { stream, read: String::new() };
        stream.sees("\r\n\r\n").await;
        stream
    }

    /// Reads on until this was sent.
    async fn sees(&mut self, text: &str) {
        patiently(text, async {
            while !self.read.contains(text) {
                let mut chunk = vec![0; CHUNK];
                let count = self.stream.read(&mut chunk).await.unwrap();
                assert!(count > 0, "the stream has ended without {text}: {}", self.read);
                self.read += &String::from_utf8_lossy(&chunk[..count]);
            }
        })
        .await;
    }

    fn status(&self) -> &str {
        self.read.split(' ').nth(1).unwrap()
    }

    /// The IDs of the events that were sent.
    fn ids(&self) -> Vec<u64> {
        let ids = self.read.lines().filter_map(|line| line.strip_prefix("id: "));
        ids.map(|id| id.parse().unwrap()).collect()
    }
}

async fn started() -> (Bridge, Simulator, Mosquitto) {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(2).await);
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    (bridge, gateway, broker)
}

async fn recorded(bridge: &Bridge) -> Vec<u64> {
    let (_, page) = bridge.get("/api/v1/events?limit=10000").await;
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    page["events"].as_array().unwrap().iter().map(|it| it["id"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sent_as_they_are_recorded_and_a_client_resumes_where_it_was() {
    let (bridge, gateway, _broker) = started().await;
    let id = gateway.control().devices()[0].id;
    patiently("the first event is recorded", async {
        while recorded(&bridge).await.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let mut live = Stream::open(&bridge, "", "").await;
    assert_eq!(live.status(), "200");
    assert!(live.read.to_lowercase().contains("content-type: text/event-stream"));
    let mut other = Stream::open(&bridge, "?event_type=refused", "").await;
    gateway.control().apply_fault(&Fault::Drop { devices: id.into() });
    live.sees("event: disconnected\n").await;
    live.sees("event: connected\n").await;
    live.sees(&format!("\"device_id\":{id}")).await;
    let sent = live.ids();
    let all = recorded(&bridge).await;
    assert_eq!(sent, all[all.len() - sent.len()..], "live: {}", live.read);

    let mut resumed = Stream::open(&bridge, "?after_id=0", "").await;
    resumed.sees(&format!("id: {}\n", all[all.len() - 1])).await;
    assert_eq!(resumed.ids(), all);
    let header = format!("Last-Event-ID: {}\r\n", all[0]);
    let mut resumed = Stream::open(&bridge, "?after_id=0", &header).await;
    resumed.sees(&format!("id: {}\n", all[all.len() - 1])).await;
    assert_eq!(resumed.ids(), all[1..]);
    // Of a state directory that was lost while the clock was ahead.
    let lost = all[all.len() - 1] + 1_000_000_000;
    for (query, header) in [
        (format!("?after_id={lost}"), String::new()),
        (String::new(), format!("Last-Event-ID: {lost}\r\n")),
    ] {
        let mut resumed = Stream::open(&bridge, &query, &header).await;
        resumed.sees(&format!("id: {}\n", all[all.len() - 1])).await;
        assert_eq!(resumed.ids(), all);
        let gap = resumed.read.find("event: gap\ndata: {\"oldest_at\":").unwrap();
        assert!(gap < resumed.read.find("id: ").unwrap(), "{}", resumed.read);
    }
    for (query, headers, status) in [
        ("", "Last-Event-ID: x\r\n", "400"),
        ("?event_type=foo", "", "400"),
        ("?gateway=annex", "", "404"),
    ] {
        assert_eq!(Stream::open(&bridge, query, headers).await.status(), status, "{query}");
    }
    assert!(other.ids().is_empty(), "{}", other.read);
    // A comment although there is no event.
    let before = other.read.len();
    patiently("a comment", async {
        while !other.read[before..].contains("\n:") && !other.read[before..].contains(":\n") {
            let mut chunk = vec![0; CHUNK];
            let count = other.stream.read(&mut chunk).await.unwrap();
            other.read += &String::from_utf8_lossy(&chunk[..count]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_streams_may_be_open_and_none_keeps_the_bridge() {
    let (bridge, gateway, _broker) = started().await;
    // These never read.
    let mut open = Vec::new();
    for _ in 0..32 {
        let stream = Stream::open(&bridge, "?after_id=0", "").await;
        assert_eq!(stream.status(), "200");
        open.push(stream);
    }
    let beyond = Stream::open(&bridge, "", "").await;
    assert_eq!(beyond.status(), "503");
    assert!(beyond.read.to_lowercase().contains("retry-after"), "{}", beyond.read);
    open.pop();
    let mut reader = patiently("there is room again", async {
        loop {
            let stream = Stream::open(&bridge, "", "").await;
            if stream.status() == "200" {
                return stream;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let id = gateway.control().devices()[0].id;
    gateway.control().apply_fault(&Fault::Drop { devices: id.into() });
    reader.sees("event: disconnected\n").await;
    let (status, log) = bridge.stop().await;
    assert!(status.success(), "{log}");
}
