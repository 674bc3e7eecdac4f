//! Every mistake in certificates and addresses is reported in one clear line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gsdk2mqtt::gsdk::{GatewayClient, GatewayOptions};
use gsdk2mqtt::net::model::name_host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::peer::{Peer, State};
use super::{Observed, lobby, quick, recorder};
use crate::harness::BlackHole;
use crate::harness::certificates::{Ca, tls_with_version_1, version_1};

/// The code and the line with which a first call fails.
async fn complaint(options: &GatewayOptions) -> (&'static str, String) {
    let (observer, _) = recorder();
    let error = match GatewayClient::dial(options, observer).await {
        Err(error) => error,
        Ok(client) => client.device_list().await.expect_err("a mistake"),
    };
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    (error.code().as_str(), line)
}

async fn served(tls: ServerConfig) -> SocketAddr {
    Peer::start(tls, State::default()).await.address
}

async fn works(options: &GatewayOptions) {
    let (observer, _) = recorder();
    let client = GatewayClient::dial(options, observer).await.unwrap();
    assert_eq!(client.device_list().await.unwrap(), []);
    assert!(client.certificate().unwrap().not_after.millis() > 0);
}

#[tokio::test]
async fn tls_1_2_and_1_3_and_a_server_without_alpn_are_taken() {
    let ca = Ca::new();
    for version in [&TLS12, &TLS13] {
        let address = served(ca.for_names(&["127.0.0.1"]).tls_of(version)).await;
        works(&lobby(&address.to_string(), &ca.file())).await;
    }
    let mut tls = ca.for_names(&["127.0.0.1"]).tls();
    tls.alpn_protocols.clear();
    works(&lobby(&served(tls).await.to_string(), &ca.file())).await;
}

#[tokio::test]
async fn a_wrong_name_is_reported_with_the_name_to_set() {
    let ca = Ca::new();
    let address = served(ca.for_names(&["gateway.local", "10.0.0.5"]).tls()).await;
    let mut options = lobby(&address.to_string(), &ca.file());
    let (code, line) = complaint(&options).await;
    assert_eq!(code, "certificate_name_mismatch");
    assert_eq!(
        line,
        "gateway lobby: its certificate names \"gateway.local\" and \"10.0.0.5\", not 127.0.0.1; \
         set gateways.lobby.server_name = \"gateway.local\""
    );
    for name in ["gateway.local", "10.0.0.5"] {
        options.server_name = Some(name.to_owned());
        works(&options).await;
    }
    options.server_name = Some("not a name".to_owned());
    let (code, line) = complaint(&options).await;
    assert_eq!(code, "server_name_invalid");
    assert_eq!(
        line,
        "gateway lobby: \"not a name\" is neither a host name nor an IP address, so no certificate \
         can contain it; correct gateways.lobby.server_name"
    );
}

#[tokio::test]
async fn a_certificate_without_san_is_reported_with_its_remedy() {
    let ca = Ca::new();
    let address = served(ca.for_names(&[]).tls()).await;
    let (code, line) = complaint(&lobby(&address.to_string(), &ca.file())).await;
    assert_eq!(code, "certificate_without_san");
    assert_eq!(
        line,
        "gateway lobby: its certificate has no subject alternative name (only the subject \
         \"gateway\"), and TLS no longer accepts the subject for a name; make a new server \
         certificate with the subject alternative name 127.0.0.1 (gateway option -cs)"
    );
}

#[tokio::test]
async fn a_certificate_outside_its_time_is_reported_with_both_clocks() {
    let ca = Ca::new();
    let address = served(ca.valid_between(2020, 2022).tls()).await;
    let (code, line) = complaint(&lobby(&address.to_string(), &ca.file())).await;
    assert_eq!(code, "certificate_expired");
    let begin =
        "gateway lobby: its certificate expired on 2022-01-01 and this machine's clock says";
    assert!(line.starts_with(begin), "{line}");
    let end =
        "; make a new server certificate (gateway option -cs), or set the clock if it is wrong";
    assert!(line.ends_with(end), "{line}");

    let address = served(ca.valid_between(2090, 2095).tls()).await;
    let (code, line) = complaint(&lobby(&address.to_string(), &ca.file())).await;
    assert_eq!(code, "certificate_not_yet_valid");
    let begin = "gateway lobby: its certificate is valid only from 2090-01-01 00:00 UTC, and this";
    assert!(line.starts_with(begin), "{line}");
    let end = "; compare the clocks of the gateway's machine and of this one";
    assert!(line.ends_with(end), "{line}");
}

#[tokio::test]
async fn another_ca_is_reported_with_its_name() {
    let (ours, theirs) = (Ca::called("Our CA"), Ca::called("Their CA"));
    let address = served(theirs.for_names(&["127.0.0.1"]).tls()).await;
    let (code, line) = complaint(&lobby(&address.to_string(), &ours.file())).await;
    assert_eq!(code, "certificate_unknown_issuer");
    assert_eq!(
        line,
        format!(
            "gateway lobby: its certificate was not signed by the CA in {} (\"Our CA\") but by \
             \"Their CA\"; copy ca.crt from the folder of the certificates that the gateway uses \
             now",
            ours.file().display()
        )
    );
    // New certificates: the CA has the same name and another key.
    let again = Ca::called("Their CA");
    let (code, line) = complaint(&lobby(&address.to_string(), &again.file())).await;
    assert_eq!(code, "certificate_unknown_issuer");
    assert!(line.contains("(\"Their CA\") but by another one of the same name;"), "{line}");
}

#[tokio::test]
async fn a_ca_as_a_server_certificate_is_reported() {
    let ca = Ca::new();
    for trusted in [&ca, &Ca::called("Our CA")] {
        let address = served(ca.itself().tls()).await;
        let (code, line) = complaint(&lobby(&address.to_string(), &trusted.file())).await;
        assert_eq!(code, "certificate_is_ca");
        assert_eq!(
            line,
            "gateway lobby: it presents a CA's certificate (\"G-SDK CA\") as its own; make a \
             server certificate signed by that CA (gateway option -cs) and configure the gateway \
             to use that one"
        );
    }
}

#[tokio::test]
async fn a_certificate_of_x509_version_1_is_reported_with_its_remedy() {
    let ca_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca_file.path(), version_1::CA).unwrap();
    let address = served(tls_with_version_1()).await;
    let (code, line) = complaint(&lobby(&address.to_string(), ca_file.path())).await;
    assert_eq!(code, "certificate_v1", "{line}");
    for words in ["X.509 version 1", "subject alternative name 127.0.0.1", "-cs"] {
        assert!(line.contains(words), "{words} in {line}");
    }
}

#[tokio::test]
async fn a_useless_ca_file_is_reported_and_taken_up_once_mended() {
    let ca = Ca::new();
    let address = served(ca.for_names(&["127.0.0.1"]).tls()).await;
    let path = ca.folder().join("other.crt");
    let options = lobby(&address.to_string(), &path);
    let shown = path.display();
    let (code, line) = complaint(&options).await;
    assert_eq!(code, "ca_file_unreadable");
    assert_eq!(
        line,
        format!(
            "gateway lobby: the CA file {shown} does not exist; copy ca.crt from the folder of the \
             gateway's certificates there, or correct gateways.lobby.ca_file"
        )
    );
    for (content, problem) in [
        ("", "is empty"),
        ("hello", "holds no certificate (no line \"-----BEGIN CERTIFICATE-----\")"),
    ] {
        std::fs::write(&path, content).unwrap();
        let (code, line) = complaint(&options).await;
        assert_eq!(code, "ca_file_invalid");
        assert_eq!(
            line,
            format!(
                "gateway lobby: the CA file {shown} {problem}; copy ca.crt from the folder of the \
                 gateway's certificates there again, or correct gateways.lobby.ca_file"
            )
        );
    }
    let (_, line) = complaint(&lobby(&address.to_string(), ca.folder())).await;
    assert!(line.contains("is a directory, not a file; correct gateways.lobby.ca_file"), "{line}");
    std::fs::copy(ca.file(), &path).unwrap();
    works(&options).await;
}

#[tokio::test]
async fn an_address_where_no_gateway_answers_is_reported() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut options = lobby(&address, &ca.file());
    options.timing.dial = Duration::from_millis(200);
    let (code, line) = complaint(&options).await;
    assert_eq!(code, "tls_timeout");
    assert!(line.contains("accepts connections but did not answer the TLS handshake within 0.2 s"));
    drop(listener);
    options.timing = quick();
    let (code, line) = complaint(&options).await;
    assert_eq!(code, "connection_refused");
    assert_eq!(
        line,
        format!(
            "gateway lobby: {address} refused the connection; start the gateway, correct \
             gateways.lobby.address, or let the gateway listen on that address (by default it \
             listens on localhost only: rpc_server in its configuration)"
        )
    );
    let (code, line) = complaint(&lobby("no-such-host.invalid:4000", &ca.file())).await;
    assert_eq!(code, "host_not_found");
    assert!(line.contains("cannot find the host \"no-such-host.invalid\""), "{line}");
    assert!(line.ends_with("correct gateways.lobby.address, or check the name server"), "{line}");
}

#[tokio::test]
async fn an_address_that_drops_packets_leaves_time_for_the_next_one_of_its_name() {
    let (ca, hole) = (Ca::new(), BlackHole::open().await);
    let right = served(ca.for_names(&["two-addresses.test"]).tls()).await;
    name_host("two-addresses.test", vec![hole.address, right]);
    let mut options = lobby("two-addresses.test:4000", &ca.file());
    options.timing.dial = Duration::from_secs(2);
    works(&options).await;
    name_host("no-address-answers.test", vec![hole.address, hole.address]);
    options.address.host = "no-address-answers.test".to_owned();
    let (code, line) = complaint(&options).await;
    assert_eq!(code, "connect_timeout");
    assert!(line.contains("no-address-answers.test:4000 did not answer within 2 s"), "{line}");
}

/// A peer that answers the first bytes with these, and closes.
async fn crude(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 2048]).await;
            let _ = socket.write_all(answer).await;
            let _ = socket.shutdown().await;
        }
    });
    address
}

#[tokio::test]
async fn a_peer_without_tls_is_reported() {
    let ca = Ca::new();
    // Frames of HTTP/2 without TLS: the settings of a gRPC server; and an answer of an HTTP/1
    // server.
    let settings: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0x40, 0];
    for answer in [settings, b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let address = crude(answer).await;
        let (code, line) = complaint(&lobby(&address, &ca.file())).await;
        assert_eq!(code, "not_tls", "{line}");
        assert_eq!(
            line,
            format!(
                "gateway lobby: {address} does not use TLS, as a gateway always does; correct \
                 the port in gateways.lobby.address (usually 4000), or remove a proxy that \
                 terminates TLS"
            )
        );
    }
    let (code, line) = complaint(&lobby(&crude(b"").await, &ca.file())).await;
    assert_eq!(code, "tls_closed");
    assert!(line.contains("closed the connection during the TLS handshake"), "{line}");
}

/// A web server that negotiates HTTP/1.1, or uses it without negotiating.
#[tokio::test]
async fn a_peer_without_http2_is_reported() {
    let ca = Ca::new();
    let mut tls = ca.for_names(&["127.0.0.1"]).tls();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let address = served(tls).await;
    let (code, line) = complaint(&lobby(&address.to_string(), &ca.file())).await;
    assert_eq!(code, "not_http2");
    assert_eq!(
        line,
        format!(
            "gateway lobby: {address} supports TLS but not HTTP/2, so it is not a gateway's gRPC \
             port; correct the port in gateways.lobby.address (usually 4000)"
        )
    );
    let mut tls = ca.for_names(&["127.0.0.1"]).tls();
    tls.alpn_protocols.clear();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut socket = acceptor.accept(socket).await.unwrap();
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = socket.shutdown().await;
        }
    });
    let mut observed = Observed::start(lobby(&address, &ca.file()), 10);
    let error = observed.failed().await;
    assert_eq!(error.code.as_str(), "connection_lost");
    let end = "before any answer; check that it is the gateway's gRPC port (usually 4000)";
    assert!(error.to_string().ends_with(end), "{error}");
    observed.stop().await;
}

#[tokio::test]
async fn a_master_gateway_that_requires_a_certificate_is_reported() {
    let ca = Ca::new();
    for old in [true, false] {
        let tls = ca.for_names(&["127.0.0.1"]).mutual_tls(&ca, old);
        let address = served(tls).await;
        let (code, line) = complaint(&lobby(&address.to_string(), &ca.file())).await;
        assert_eq!(code, "client_certificate_required", "{line}");
        assert_eq!(
            line,
            format!(
                "gateway lobby: {address} requires a client certificate, as a master gateway does \
                 (port 4010); set gateways.lobby.address to a device gateway (port 4000), or \
                 describe the master gateway under [masters.NAME]"
            )
        );
    }
}

/// In front of a server: closes as soon as the client has answered the handshake, so that no alert
/// arrives.
async fn hanging_up_before(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(server).await.unwrap();
            let mut bytes = [0; 4096];
            let count = near.read(&mut bytes).await.unwrap();
            far.write_all(&bytes[..count]).await.unwrap();
            let (mut near_read, mut near_write) = near.split();
            tokio::select! {
                _ = tokio::io::copy(&mut far, &mut near_write) => {}
                _ = near_read.read(&mut bytes) => {}
            }
        }
    });
    address
}

#[tokio::test]
async fn a_master_gateway_that_hangs_up_without_an_alert_is_reported_all_the_same() {
    let ca = Ca::new();
    for old in [true, false] {
        let server = served(ca.for_names(&["127.0.0.1"]).mutual_tls(&ca, old)).await;
        let options = lobby(&hanging_up_before(server).await.to_string(), &ca.file());
        let (code, line) = complaint(&options).await;
        assert_eq!(code, "client_certificate_required", "{line}");
        let mut observed = Observed::start(options, 10);
        let error = observed.failed().await;
        assert_eq!(error.code.as_str(), "client_certificate_required", "{error}");
        observed.stop().await;
    }
}

#[tokio::test]
async fn a_gateway_with_neither_service_is_reported() {
    let ca = Ca::new();
    let state = State::default();
    *state.refuse.lock().unwrap() = Some(tonic::Code::Unimplemented);
    let peer = Peer::start(ca.for_names(&["127.0.0.1"]).tls(), state).await;
    let address = peer.address.to_string();
    let (code, line) = complaint(&lobby(&address, &ca.file())).await;
    assert_eq!(code, "not_a_device_gateway");
    assert_eq!(
        line,
        format!(
            "gateway lobby: {address} knows neither gsdk.connect.Connect nor connect.Connect, so \
             it is no device gateway of the G-SDK; set gateways.lobby.address to one (port 4000; \
             port 4010 is a master gateway)"
        )
    );
}
