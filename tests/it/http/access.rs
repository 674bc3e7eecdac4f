//! Access to the web server: tokens, networks, the second listener, and HTTPS.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::harness::bridge::{Bridge, PROGRAM, Setup};
use crate::harness::certificates::{Ca, Certified};
use crate::harness::mosquitto::{Mosquitto, free_port};
use crate::harness::{LOOK_EVERY, bounded, patiently, simulator};

/// Only this address needs no token in these tests.
const HOME: [u8; 4] = [127, 0, 0, 1];
/// A client on another machine: all of 127.0.0.0/8 is this machine.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];
const PATHS: [&str; 6] = ["/", "/events", "/metrics", "/page.js", "/nothing", "/api/v1/devices"];

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    header: &str,
) -> String {
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 16 << 10];
    let mut length = 0;
    // A stream of events has no end; its head is sufficient.
    while path != "/events" || !answer[..length].windows(4).any(|it| it == b"\r\n\r\n") {
        match stream.read(&mut answer[length..]).await {
            Ok(0) | Err(_) => break,
            Ok(count) => length += count,
        }
    }
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// The head and the beginning of the body of an answer to a client at this address.
async fn ask(from: impl Into<IpAddr>, port: u16, path: &str, header: &str) -> String {
    let from = from.into();
    patiently(path, async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        let stream = socket.connect(SocketAddr::from((HOME, port))).await.unwrap();
        exchange(stream, path, header).await
    })
    .await
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(answer)
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

async fn started(keys: &str) -> (Bridge, impl Sized) {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let bridge = Setup::new(broker.port, "").http(keys).gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    (bridge, (broker, gateway))
}

fn health(bridge: &Bridge) -> bool {
    let mut command = bounded(PROGRAM);
    command.arg("health").arg("--config").arg(bridge.config_file()).status().unwrap().success()
}

/// Aim: other machines can read nothing without a token of the file, which may change. Method:
/// every path, from two addresses, with valid and invalid tokens in every form.
#[tokio::test(flavor = "multi_thread")]
async fn clients_from_elsewhere_need_a_token_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, "# of Grafana\nfirst-token\nsecond-token\n").unwrap();
    let keys = format!("token_file = {file:?}\nanonymous_from = [\"127.0.0.1\"]");
    let (bridge, _held) = started(&keys).await;
    let port = bridge.http_port;
    let basic = |pair: &str| format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(pair));
    for path in PATHS {
        let open = status(&ask(HOME, port, path, "").await);
        assert_ne!(open, 401, "{path}");
        for right in [bearer("first-token"), bearer("second-token"), basic("me:first-token")] {
            let answer = ask(ELSEWHERE, port, path, &right).await;
            assert_eq!(status(&answer), open, "{path} {right}: {answer}");
        }
        for wrong in [
            String::new(),
            bearer("first-toke"),
            bearer("first-token\tsecond-token"),
            bearer(""),
            bearer("# of Grafana"),
            basic("first-token:"),
            "X-Forwarded-For: 127.0.0.1\r\n".to_owned(),
            "Forwarded: for=127.0.0.1\r\n".to_owned(),
        ] {
            let answer = ask(ELSEWHERE, port, path, &wrong).await;
            assert_eq!(status(&answer), 401, "{path} {wrong}: {answer}");
            assert!(answer.to_lowercase().contains("www-authenticate: basic"), "{answer}");
        }
        let in_url = format!("{path}?token=first-token");
        assert_eq!(status(&ask(ELSEWHERE, port, &in_url, "").await), 401, "{in_url}");
    }
    assert_eq!(status(&ask(ELSEWHERE, port, "/healthz", "").await), 200);
    let ready = ask(ELSEWHERE, port, "/readyz", "").await;
    assert!(status(&ready) == 200 && ready.ends_with("\r\n\r\n{\"ready\":true}"), "{ready}");
    let ready = ask(ELSEWHERE, port, "/readyz", &bearer("first-token")).await;
    assert!(ready.contains("\"degraded\""), "{ready}");

    std::fs::write(&file, "third-token\n").unwrap();
    patiently("the new token is valid", async {
        while status(&ask(ELSEWHERE, port, "/", &bearer("third-token")).await) != 200 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    assert_eq!(status(&ask(ELSEWHERE, port, "/", &bearer("first-token")).await), 401);
    std::fs::remove_file(&file).unwrap();
    patiently("the missing file is reported", async {
        while bridge.metric("gsdk_degraded{reason=\"file_missing\"}").await != Some(1.0) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    assert_eq!(status(&ask(ELSEWHERE, port, "/", &bearer("third-token")).await), 401);
    let (_, said) = bridge.get("/readyz").await;
    assert!(said.contains("http.token_file") && said.contains(file.to_str().unwrap()), "{said}");

    let first_line = "-----BEGIN PRIVATE KEY-----";
    std::fs::write(&file, format!("{first_line}\nMC4CAQAwBQYDK2VwBCIEIA==\n")).unwrap();
    patiently("a private key is reported", async {
        while !bridge.get("/readyz").await.1.contains("holds a certificate or a key, not tokens") {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    assert_eq!(status(&ask(ELSEWHERE, port, "/", &bearer(first_line)).await), 401);
    let (_, log) = bridge.stop().await;
    assert!(log.contains("web server has short tokens"), "{log}");
    assert_eq!(log.matches("web server tokens read").count(), 2, "with tokens: {log}");
    assert!(log.contains("invalid token") && !log.contains("-token\""), "{log}");
    for secret in ["first-token", "second-token", "third-token", "first-toke"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_file_the_refusal_names_the_key() {
    let (bridge, _held) = started("anonymous_from = []").await;
    for header in [String::new(), bearer("anything")] {
        let answer = ask(HOME, bridge.http_port, "/", &header).await;
        assert_eq!(status(&answer), 401, "{answer}");
        assert!(!answer.to_lowercase().contains("basic"), "no password would do: {answer}");
        assert!(answer.contains("http.token_file"), "{answer}");
        assert!(answer.contains("http.anonymous_from"), "{answer}");
    }
    assert!(health(&bridge));
}

/// Aim: Prometheus and probes need no login, and can read nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_listener_has_metrics_and_health_only() {
    let second = free_port();
    let keys = format!("metrics_listen = \"127.0.0.1:{second}\"\nanonymous_from = []");
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let bridge = Setup::new(broker.port, "").http(&keys).gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        let (status, body) = crate::harness::bridge::get(second, path).await;
        assert_eq!(status, 200, "{path}: {body}");
        let answer = ask(ELSEWHERE, second, path, "Host: evil.example\r\n").await;
        assert!(answer.starts_with("HTTP/1.0 200"), "{path}: {answer}");
    }
    let (_, ready) = crate::harness::bridge::get(second, "/readyz").await;
    assert!(ready.contains("\"reasons\""), "{ready}");
    for path in ["/", "/events", "/page.css", "/page.js", "/icon.svg", "/api/v1/devices", "/x"] {
        let (status, body) = crate::harness::bridge::get(second, path).await;
        assert_eq!(status, 404, "{path}");
        assert!(body.contains("the page and the API are at http.listen"), "{path}: {body}");
    }
    let mut report = bounded(PROGRAM);
    let report = report.args(["report", "--url", &format!("http://127.0.0.1:{second}")]).output();
    let said = String::from_utf8(report.unwrap().stderr).unwrap();
    assert!(said.contains("only /metrics, /healthz and /readyz are here"), "{said}");
    assert_eq!(status(&ask(HOME, bridge.http_port, "/metrics", "").await), 401);
    assert!(health(&bridge));
}

async fn https(bridge: &Bridge, ca_file: &Path, path: &str) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect((IpAddr::from(HOME), bridge.http_port)).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect("door.example".try_into().unwrap(), stream).await?;
    Ok(exchange(stream, path, "").await)
}

async fn answers_https(bridge: &Bridge, ca_file: &Path) {
    patiently("HTTPS is answered", async {
        loop {
            match https(bridge, ca_file, "/readyz").await {
                Ok(answer) if status(&answer) == 200 => break,
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    })
    .await;
}

/// Aim: a certificate that is missing at the start, and one that is renewed, need no restart.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_when_they_come_and_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let keys = format!("cert_file = {:?}\nkey_file = {:?}", file("web.crt"), file("web.key"));
    let second = free_port();
    let keys = format!("{keys}\nmetrics_listen = \"127.0.0.1:{second}\"");
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let setup = Setup::new(broker.port, "").http(&keys).gateway("lobby", &gateway, "");
    let bridge = setup.start();
    patiently("the missing file is named", async {
        loop {
            let (_, said) = crate::harness::bridge::get(second, "/readyz").await;
            if said.contains("http.cert_file") && said.contains("\"file_missing\"") {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let mut check = bounded(PROGRAM);
    let checked = check.arg("check").arg("--config").arg(bridge.config_file()).output().unwrap();
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert!(String::from_utf8_lossy(&checked.stderr).contains("http.key_file"), "{checked:?}");

    let (first, second_ca) = (Ca::called("first"), Ca::called("second"));
    let certificate = || Certified::of(&["door.example"]);
    first.write(dir.path(), "web", certificate());
    answers_https(&bridge, &first.file()).await;
    let mut plain = TcpStream::connect((IpAddr::from(HOME), bridge.http_port)).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "no answer without TLS");

    // The bridge may read between the two writes; then it keeps the old pair.
    second_ca.write(dir.path(), "web", certificate());
    answers_https(&bridge, &second_ca.file()).await;
    assert!(https(&bridge, &first.file(), "/readyz").await.is_err());
    std::fs::write(file("web.key"), "nonsense").unwrap();
    patiently("the damaged key is reported", async {
        while !crate::harness::bridge::get(second, "/readyz").await.1.contains("http.key_file") {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    answers_https(&bridge, &second_ca.file()).await;
    assert!(health(&bridge), "over the second listener");
    bridge.change("metrics_listen", "#");
    assert!(health(&bridge), "over HTTPS");
}
