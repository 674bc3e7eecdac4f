//! Which `Host` is answered: no web page may read the bridge through a name that it controls.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{patiently, simulator};

/// The answer to this request, its lines joined by `|`.
async fn answer(bridge: &Bridge, request: &str) -> String {
    let request = format!("{}||", request).replace('|', "\r\n");
    patiently("the web server answers", async {
        let mut stream = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    })
    .await
}

async fn status(bridge: &Bridge, request: &str) -> u16 {
    let answer = answer(bridge, request).await;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(&answer)
}

async fn started(hosts: &str) -> (Bridge, impl Sized) {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let bridge = Setup::new(broker.port, "").http(hosts).gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    (bridge, (broker, gateway))
}

/// Aim: a web page reads nothing by DNS rebinding. Method: every path and method, with names that a
/// web page can own, and with those that only the machine or its network can have.
#[tokio::test(flavor = "multi_thread")]
async fn only_addresses_local_names_and_configured_hosts_are_answered() {
    let (bridge, _held) = started("hosts = [\"doors.example.com\"]").await;
    let close = "Connection: close";
    for path in ["/", "/metrics", "/readyz", "/page.js", "/page.css", "/events", "/nothing"] {
        for method in ["GET", "HEAD", "POST"] {
            for host in ["evil.example", "evil.example:9925", "127.0.0.1.evil.example", "evil."] {
                let request = format!("{method} {path} HTTP/1.1|Host: {host}|{close}");
                assert_eq!(status(&bridge, &request).await, 421, "{request}");
            }
        }
    }
    for host in [
        "127.0.0.1",
        "127.0.0.1:9925",
        "[::1]",
        "[::1]:9925",
        "192.168.0.4:80",
        "localhost",
        "LocalHost:9925",
        "gsdk2mqtt:9925",
        "doors.local",
        "Doors.Local:1",
        "doors.example.com",
        "Doors.Example.Com:9925",
    ] {
        for path in ["/", "/metrics", "/readyz"] {
            let request = format!("GET {path} HTTP/1.1|Host: {host}|{close}");
            assert_eq!(status(&bridge, &request).await, 200, "{request}");
        }
    }
    let said = answer(&bridge, &format!("GET / HTTP/1.1|Host: bridge.corp.example|{close}")).await;
    assert!(said.contains("http.hosts") && said.contains("bridge.corp.example"), "{said}");
    let request = format!("GET /api/v1/devices HTTP/1.1|Host: evil.example|{close}");
    let said = answer(&bridge, &request).await;
    assert!(said.starts_with("HTTP/1.1 421") && said.contains("problem+json"), "{said}");
    assert!(said.contains("\"code\":\"unknown_host\"") && said.contains("http.hosts"), "{said}");
    for request in [
        // If there are several, each name is checked.
        "GET / HTTP/1.1|Host: localhost|Host: evil.example|Connection: close",
        "GET http://evil.example/ HTTP/1.1|Host: localhost|Connection: close",
        "GET / HTTP/1.1|Host: localhost@evil.example|Connection: close",
        "GET / HTTP/1.1|Host: a b|Connection: close",
        "GET / HTTP/1.0|Host: evil.example",
        // A proxy sets this header, but a page's script can set it, too.
        "GET / HTTP/1.1|Host: evil.example|X-Forwarded-Host: localhost|Connection: close",
    ] {
        assert_eq!(status(&bridge, request).await, 421, "{request}");
    }
    // Every browser sends a Host, so a client without one is no browser.
    assert_eq!(status(&bridge, "GET /metrics HTTP/1.0").await, 200);
    // A liveness probe reads no data, and must not restart a bridge because of its name.
    let probe = format!("GET /healthz HTTP/1.1|Host: lb.corp.example|{close}");
    assert_eq!(status(&bridge, &probe).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_answers_every_host() {
    let (bridge, _held) = started("hosts = [\"*\"]").await;
    let request = "GET / HTTP/1.1|Host: evil.example|Connection: close";
    assert_eq!(status(&bridge, request).await, 200);
}
