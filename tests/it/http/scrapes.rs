//! `/metrics` under load: how many scrapes at once, for how long, and in how much memory.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{LOOK_EVERY, patiently, simulator};

/// What a scrape may take in all, with time for a loaded machine.
const SCRAPE_ENDS: Duration = Duration::from_secs(18);

async fn started(devices: usize) -> (Bridge, impl Sized) {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(devices).await);
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    (bridge, (broker, gateway))
}

/// A connection with a small window that has sent this request.
async fn asking(bridge: &Bridge, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], bridge.http_port));
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(request.replace('|', "\r\n").as_bytes()).await.unwrap();
    stream
}

/// Head and body of an answer that ends with its connection.
async fn answer(bridge: &Bridge, request: &str) -> (String, Vec<u8>) {
    patiently(request, async {
        let mut stream = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
        stream.write_all(request.replace('|', "\r\n").as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        (String::from_utf8_lossy(&all[..end]).to_lowercase(), all[end + 4..].to_vec())
    })
    .await
}

const SCRAPE: &str = "GET /metrics HTTP/1.0|Host: localhost||";
const SCRAPE_11: &str = "GET /metrics HTTP/1.1|Host: localhost|Connection: close||";

/// Aim: scrapes that are not read take neither the memory of a whole answer each nor the place of
/// the others for longer than 10 s. Method: many that read nothing, in both versions of HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn scrapes_that_are_not_read_are_two_at_most_and_small() {
    let (bridge, _held) = started(10_000).await;
    assert!(answer(&bridge, SCRAPE).await.1.len() > 6 << 20);
    let before = bridge.memory();
    let mut held = Vec::new();
    for at in 0..20 {
        held.push(asking(&bridge, if at % 2 == 0 { SCRAPE } else { SCRAPE_11 }).await);
    }
    let mut refused = Vec::new();
    let began = Instant::now();
    let mut most = 0;
    while began.elapsed() < Duration::from_secs(4) {
        most = most.max(bridge.memory());
        refused.push(answer(&bridge, SCRAPE).await.0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let grown = most.saturating_sub(before) >> 20;
    assert!(grown < 30, "{grown} MiB for 20 scrapes of 8 MB each");
    let (head, others) = refused.split_first().unwrap();
    assert!(head.contains(" 503 ") && head.contains("retry-after: "), "{head}");
    assert!(others.iter().all(|other| other.contains(" 503 ")), "{others:?}");
    assert_eq!(bridge.get("/healthz").await.0, 200);
    assert_eq!(bridge.get("/readyz").await.0, 200);
    while !answer(&bridge, SCRAPE_11).await.0.contains(" 200 ") {
        assert!(began.elapsed() < SCRAPE_ENDS, "those who do not read are still served");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Aim: a scrape that takes longer than 10 s is broken off, and cannot be taken for a whole one.
/// Method: it is read so slowly that it is never waited for; in HTTP/1.0 the end of an answer is
/// the end of its connection alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_scrape_ends_in_a_reset() {
    let (bridge, _held) = started(2_000).await;
    for request in [SCRAPE, SCRAPE_11] {
        let mut stream = asking(&bridge, request).await;
        let (began, mut some) = (Instant::now(), vec![0; 600]);
        let error = loop {
            match stream.read(&mut some).await {
                Ok(0) => panic!("{request} ended as if it were whole"),
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => break error,
            }
            assert!(began.elapsed() < SCRAPE_ENDS, "it is read beyond its 10 s");
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(began.elapsed() > Duration::from_secs(8), "{:?}", began.elapsed());
    }
}

/// Aim: an answer whose only end is the closed connection is closed each time.
#[tokio::test(flavor = "multi_thread")]
async fn every_scrape_in_http_1_0_ends_and_is_whole() {
    let (bridge, _held) = started(20).await;
    let last = "gsdk_device_info{gateway=\"lobby\"";
    for _ in 0..1_500 {
        let (head, body) = answer(&bridge, SCRAPE).await;
        let body = String::from_utf8(body).unwrap();
        assert!(head.starts_with("http/1.0 200"), "{head}");
        assert!(body.ends_with('\n') && body.lines().last().unwrap().contains(last), "{body}");
        assert_eq!(body.matches("\ngsdk_device_info{").count(), 20);
    }
}

fn unzipped(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut gzip =
        Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let gzip = gzip.as_mut().unwrap();
    let (mut into, bytes) = (gzip.stdin.take().unwrap(), bytes.to_vec());
    let writer = std::thread::spawn(move || into.write_all(&bytes).unwrap());
    let mut text = String::new();
    std::io::Read::read_to_string(gzip.stdout.as_mut().unwrap(), &mut text).unwrap();
    writer.join().unwrap();
    assert!(gzip.wait().unwrap().success());
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_only_for_clients_that_request_it() {
    let (bridge, _held) = started(450).await;
    let with = |path: &str, accept: &str| {
        format!("GET {path} HTTP/1.0|Host: localhost|Accept-Encoding: {accept}||")
    };
    for path in ["/metrics", "/", "/page.js"] {
        let (head, plain) = answer(&bridge, &with(path, "identity")).await;
        assert!(!head.contains("content-encoding"), "{head}");
        let (head, _) = answer(&bridge, &with(path, "gzip;q=0, br")).await;
        assert!(!head.contains("content-encoding"), "{head}");
        // As Prometheus asks, and as a browser does.
        for accept in ["gzip", "gzip, deflate, br, zstd"] {
            let (head, zipped) = answer(&bridge, &with(path, accept)).await;
            assert!(head.contains("content-encoding: gzip"), "{path}: {head}");
            assert!(head.contains("vary: accept-encoding"), "{path}: {head}");
            let text = unzipped(&zipped);
            assert!(zipped.len() < text.len() / 2, "{path}: {} of {}", zipped.len(), text.len());
            assert_eq!(text.lines().count(), String::from_utf8_lossy(&plain).lines().count());
        }
    }
    let (head, _) = answer(&bridge, &with("/healthz", "gzip")).await;
    assert!(head.starts_with("http/1.0 200"), "{head}");
    // A live page has to see each event at once.
    let mut events =
        asking(&bridge, "GET /events HTTP/1.1|Host: localhost|Accept-Encoding: gzip||").await;
    let mut seen = String::new();
    patiently("the first event", async {
        while !seen.contains("event: hello") {
            let mut some = [0; 999];
            let count = events.read(&mut some).await.unwrap();
            seen += std::str::from_utf8(&some[..count]).unwrap();
        }
    })
    .await;
    assert!(!seen.to_lowercase().contains("content-encoding"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_everywhere_as_get_without_its_body() {
    let (bridge, _held) = started(20).await;
    for path in ["/", "/page.css", "/page.js", "/icon.svg", "/metrics", "/healthz", "/readyz"] {
        for rest in ["HTTP/1.0|Host: localhost||", "HTTP/1.1|Host: localhost|Connection: close||"] {
            let (get, body) = answer(&bridge, &format!("GET {path} {rest}")).await;
            let (head, none) = answer(&bridge, &format!("HEAD {path} {rest}")).await;
            assert!(!body.is_empty() && none.is_empty(), "{path}: {none:?}");
            assert_eq!(get.lines().next(), head.lines().next());
            let kind = |head: &str| {
                head.lines().find(|line| line.starts_with("content-type")).map(str::to_owned)
            };
            assert_eq!(kind(&get), kind(&head), "{path}");
        }
    }
    // More than may watch at once: none of them is one who watches.
    for _ in 0..40 {
        let request = "HEAD /events HTTP/1.1|Host: localhost|Connection: close||";
        let (head, none) = answer(&bridge, request).await;
        assert!(head.starts_with("http/1.1 200") && none.is_empty(), "{head}");
    }
}
