//! The status page for an HTTP client without script; `make test-page` tests it in a browser.

mod access;
mod api;
mod bars;
mod clients;
mod detail;
mod event_stream;
mod hosts;
mod scrapes;

use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{LOOK_EVERY, patiently, simulator};

/// The largest answer that is read of a stream without an end.
const CHUNK: usize = 16 * 1024;
/// The report of a change.
const CHANGED: &str = "event: changed\ndata: null\n\n";
/// Several times the longest time from a change to its report.
const QUIET: Duration = Duration::from_secs(4);

/// One request: head and body.
pub(crate) async fn ask(bridge: &Bridge, method: &str, path: &str) -> (String, String) {
    patiently("the web server answers", async {
        let mut stream = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
        let request = format!("{method} {path} HTTP/1.0\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    })
    .await
}

/// A stream of server-sent events.
struct Watching {
    stream: TcpStream,
    read: String,
}

impl Watching {
    async fn start(bridge: &Bridge) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        Self { stream, read: String::new() }
    }

    /// Reads on until this was sent, and forgets it.
    async fn sees(&mut self, text: &str) {
        patiently(text, async {
            loop {
                if let Some(at) = self.read.find(text) {
                    self.read.drain(..at + text.len());
                    return;
                }
                let mut chunk = vec![0; CHUNK];
                let count = self.stream.read(&mut chunk).await.unwrap();
                assert!(count > 0, "the stream has ended without {text}: {}", self.read);
                self.read += &String::from_utf8_lossy(&chunk[..count]);
            }
        })
        .await;
    }

    /// Loads the page as a browser does, after each report of a change, until it has these texts.
    async fn sees_on_page(&mut self, bridge: &Bridge, texts: &[&str]) {
        patiently(&format!("the page has {texts:?}"), async {
            loop {
                self.sees(CHANGED).await;
                let (_, page) = ask(bridge, "GET", "/").await;
                if texts.iter().all(|text| page.contains(text)) {
                    return;
                }
            }
        })
        .await;
    }

    /// Waits until nothing is reported for some seconds.
    async fn sees_nothing_new(&mut self) {
        patiently("nothing changes", async {
            while timeout(QUIET, self.sees(CHANGED)).await.is_ok() {}
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_lists_disconnected_doors_first_and_is_live() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(4).await;
    let control = gateway.control();
    let building = control.devices();
    let (first, last) = (building[0].id, building[3].id);
    let evil = "<script>alert(1)</script> \\\"'& 🚪";
    let names = format!("[gateways.lobby.devices]\n{last} = {{ name = \"{evil}\" }}\n");
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").lines(&names).start();
    bridge.is_ready().await;

    let (head, body) = ask(&bridge, "GET", "/").await;
    assert!(head.starts_with("http/1.0 200"), "{head}");
    for header in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'",
        "frame-ancestors 'self'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    assert!(!body.contains("<script>alert"), "{body}");
    assert!(body.contains("&lt;script&gt;alert(1)&lt;/script&gt; &quot;'&amp; 🚪"), "{body}");
    assert!(!body.contains("style=") && !body.contains("://"), "{body}");
    assert!(body.contains("4 of 4 connected"), "{body}");
    for file in ["/page.css", "/page.js", "/icon.svg"] {
        let (head, body) = ask(&bridge, "GET", file).await;
        assert!(head.starts_with("http/1.0 200") && !body.is_empty(), "{file}: {head}");
    }
    let (head, _) = ask(&bridge, "POST", "/").await;
    assert!(head.starts_with("http/1.0 405"), "{head}");

    let mut watching = Watching::start(&bridge).await;
    watching.sees("event: hello").await;
    watching.sees_nothing_new().await;
    control.apply_fault(&Fault::power(last, false));
    let row = format!("id=\"d-lobby-{last}\" class=\"down\"");
    watching.sees_on_page(&bridge, &[&row, "tcp_connected → disconnected"]).await;

    let (_, body) = ask(&bridge, "GET", "/").await;
    let at = |id: u32| body.find(&format!("id=\"d-lobby-{id}\"")).unwrap();
    assert!(at(last) < at(first), "{body}");
    let (_, down) = ask(&bridge, "GET", "/?show=down").await;
    assert!(down.contains(&format!("d-lobby-{last}")));
    assert!(!down.contains(&format!("d-lobby-{first}")), "{down}");
    let (_, found) = ask(&bridge, "GET", &format!("/?q=+{first}%20&show=")).await;
    assert!(found.contains(&format!("d-lobby-{first}")));
    assert!(!found.contains(&format!("d-lobby-{last}")), "{found}");
    let (_, none) = ask(&bridge, "GET", "/?q=%3Cb%3E").await;
    assert!(none.contains("No device fits") && none.contains("value=\"&lt;b&gt;\""), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_gateway_makes_its_devices_unknown_and_watchers_do_not_keep_the_bridge() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(3).await;
    let bridge =
        Setup::new(broker.port, "").gateway("lobby", &gateway, "unknown_after = \"1s\"").start();
    bridge.is_ready().await;
    let mut watching = Watching::start(&bridge).await;
    watching.sees_nothing_new().await;
    gateway.control().stop_listening();
    gateway.control().apply_fault(&Fault::CutConnections);
    let lost = ["class=\"unknown\"", "the state of its 3 devices is unknown", "unreachable"];
    watching.sees_on_page(&bridge, &lost).await;
    let (_, body) = ask(&bridge, "GET", "/?show=unknown").await;
    assert!(body.contains("was tcp_connected"), "{body}");
    let (status, log) = bridge.stop().await;
    assert!(status.success(), "{log}");
}

/// Method: a device drops its connection all the time.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_reported_once_a_second_at_most() {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(2).await);
    let ids: Vec<u32> = gateway.control().devices().iter().map(|device| device.id).collect();
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    let mut watching = Watching::start(&bridge).await;
    watching.sees("event: hello").await;
    let control = gateway.control();
    let changing = tokio::spawn(async move {
        for &id in ids.iter().cycle() {
            control.apply_fault(&Fault::Drop { devices: id.into() });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    watching.sees(CHANGED).await;
    let began = Instant::now();
    for _ in 0..4 {
        watching.sees(CHANGED).await;
    }
    assert!(began.elapsed() > Duration::from_millis(3_500), "{:?}", began.elapsed());
    changing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_come_in_pages() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(450).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    let mut rows = 0;
    for (page, count) in [(0, 200), (1, 200), (2, 50), (3, 0)] {
        let (_, body) = ask(&bridge, "GET", &format!("/?page={page}")).await;
        assert_eq!(body.matches("<tr id=").count(), count, "page {page}");
        rows += count;
    }
    assert_eq!(rows, 450);
    let (_, body) = ask(&bridge, "GET", "/?page=1").await;
    assert!(body.contains("201–400") && body.contains("page=2"), "{body}");
}
