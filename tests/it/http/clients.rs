//! Misbehaving clients of the web server, and a stop while others are connected.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::Watcher;
use crate::harness::{LOOK_EVERY, eventually, patiently, simulator};

/// The file handles of the process from now on; may be raised again.
fn limit_handles(bridge: &Bridge, count: u32) {
    let (pid, limit) = (bridge.pid().to_string(), format!("--nofile={count}:"));
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

/// A connection that has started a request.
async fn half_asked(bridge: &Bridge) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
    // A refused connection may be closed before it sends anything.
    _ = stream.write_all(b"GET /hea").await;
    stream
}

/// The received bytes until the other side closes or resets.
async fn to_the_end(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    // A reset is an end too.
    _ = stream.read_to_end(&mut all).await;
    String::from_utf8(all).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_requests_do_not_affect_gateways() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    let watcher = Watcher::start(broker.port).await;
    limit_handles(&bridge, 160);
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(half_asked(&bridge).await);
    }
    patiently("so many are open that another request is refused", async {
        let mut answer = String::new();
        while !answer.starts_with("HTTP/1.1 503") {
            let mut client = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
            _ = client.write_all(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            answer = to_the_end(client).await;
        }
    })
    .await;
    let before = gateway.control().connections_count();
    assert!(before > 0);
    gateway.control().apply_fault(&Fault::CutConnections);
    let links = "gsdk_gateway_stream_starts_total{gateway=\"lobby\"}";
    // Connections without a request are closed, and others are served.
    patiently("idle connections are closed", async {
        for stream in idle {
            _ = to_the_end(stream).await;
        }
    })
    .await;
    bridge.is_ready().await;
    assert_eq!(bridge.metric(links).await, Some(2.0));
    let lost = |topic: &str| topic.ends_with("/event/unreachable");
    assert!(watcher.find(|seen| lost(&seen.topic)).is_none(), "{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_without_file_handles_is_logged_once() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    limit_handles(&bridge, 60);
    let mut idle = Vec::new();
    for _ in 0..80 {
        idle.push(half_asked(&bridge).await);
    }
    let refused = || bridge.log().matches("cannot accept a connection").count();
    eventually("no connection is accepted", || (refused() > 0).then_some(())).await;
    // It tries again each second.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    drop(idle);
    bridge.is_ready().await;
    assert_eq!(refused(), 1, "{}", bridge.log());
}

/// A connection that has requested much and reads nothing.
async fn never_reading(bridge: &Bridge) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], bridge.http_port));
    let mut stream = socket.connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
    _ = stream.write_all(&request).await;
    stream
}

/// Aim: a slow reader gets the whole answer. Method: each scrape within its 10 s, at
/// 100 kB a second through a small window, for longer than a client may read nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_gets_all_of_it() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(450).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    let mut stream = never_reading(&bridge).await;
    let (mut read, started) = (0, Instant::now());
    let mut some = vec![0; 10_000];
    while started.elapsed() < Duration::from_secs(15) {
        stream.read_exact(&mut some).await.expect("it is served as long as it reads");
        read += some.len();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(read > 256 << 10, "more than the kernel holds: {read}");
}

/// Whether another client is served.
async fn is_served(bridge: &Bridge) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
    let request = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    _ = stream.write_all(request).await;
    to_the_end(stream).await.starts_with("HTTP/1.1 200")
}

/// Aim: clients that never read their answers cannot exclude others. Method: as
/// many as the server accepts at once, each with larger answers than the kernel buffers.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_are_disconnected() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(450).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    let mut held = Vec::new();
    patiently("others are refused", async {
        while held.len() < 96 || is_served(&bridge).await {
            held.push(never_reading(&bridge).await);
        }
    })
    .await;
    patiently("others have a turn", async {
        while !is_served(&bridge).await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    assert!(bridge.stop().await.0.success());
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_half_sent_and_an_idle_connection_are_closed_in_time() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    let half = half_asked(&bridge).await;
    let mut idle = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let silent = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
    let (_, answer, _) = patiently("all three are closed", async {
        tokio::join!(to_the_end(half), to_the_end(idle), to_the_end(silent))
    })
    .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
}

/// Aim: a stop never truncates an answer. Many clients scrape continuously while the bridge is
/// stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_while_shutting_down_is_whole_or_refused() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(450).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    let mut scrapes = JoinSet::new();
    let (tell, scraped) = tokio::sync::watch::channel(0);
    // As many as are served at once.
    for _ in 0..2 {
        let (port, tell) = (bridge.http_port, tell.clone());
        scrapes.spawn(async move {
            let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            while let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
                // A connection that is no longer accepted is refused as well.
                if stream.write_all(request).await.is_err() {
                    return;
                }
                let answer = to_the_end(stream).await;
                if answer.is_empty() {
                    return;
                }
                let whole = answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n0\r\n\r\n");
                let stopping = answer.starts_with("HTTP/1.1 503") && answer.contains("is stopping");
                assert!(
                    whole || stopping,
                    "{} ... {}",
                    &answer[..99],
                    &answer[answer.len() - 99..]
                );
                tell.send_modify(|count| *count += 1);
            }
        });
    }
    eventually("they scrape", || (*scraped.borrow() > 16).then_some(())).await;
    let (status, log) = bridge.terminate().await;
    assert!(status.success(), "{log}");
    assert!(!log.contains("WARN"), "{log}");
    scrapes.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_file_handles_reports_it_and_recovers() {
    let broker = Mosquitto::start("").await;
    let gateway = simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    let watcher = Watcher::start(broker.port).await;
    limit_handles(&bridge, 3);
    gateway.control().apply_fault(&Fault::CutConnections);
    let info = watcher.see("why it is not dialled", |seen| {
        seen.topic == "gsdk/lobby/info" && seen.json()["last_error"]["code"] == "no_file_handles"
    });
    let message = info.await.json()["last_error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("LimitNOFILE"), "{message}");
    watcher.clear();
    limit_handles(&bridge, 1024);
    watcher
        .see("it is back", |seen| {
            seen.topic == "gsdk/lobby/info" && seen.json()["state"] == "online"
        })
        .await;
}
