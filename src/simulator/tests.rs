//! Tests of the simulated gateway over TLS: both package names, streams, faults.

mod devices;
mod master;
mod strict;

use std::num::NonZeroU32;
use std::time::Duration;

use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::*;
use crate::proto::connect::connect_client::ConnectClient;
use crate::proto::connect::*;

async fn channel(simulator: &Simulator) -> Channel {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(simulator.ca_pem()));
    let endpoint = Endpoint::from_shared(format!("https://{}", simulator.address())).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.unwrap()
}

async fn client(simulator: &Simulator) -> ConnectClient<Channel> {
    ConnectClient::new(channel(simulator).await)
}

/// Waits until `done` is true, at most ten seconds.
async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

fn all_connected(control: &Control) -> bool {
    let list = control.managed();
    list.len() == control.devices().len() && list.iter().all(|one| matches!(one.status, 1 | 2))
}

#[tokio::test]
async fn a_session_over_real_tls() {
    let simulator =
        Simulator::start(SimulatorSettings { managed: false, ..SimulatorSettings::fast(20) })
            .await
            .unwrap();
    let mut client = client(&simulator).await;
    let found = client.search_device(SearchDeviceRequest { timeout: 50 }).await.unwrap();
    let found = found.into_inner().device_infos;
    assert_eq!(found.len(), 20);
    let list = client.get_device_list(GetDeviceListRequest {}).await.unwrap().into_inner();
    assert!(list.device_infos.is_empty(), "nothing is managed until a client asks");
    let mut stream = client
        .subscribe_status(SubscribeStatusRequest { queue_size: 100 })
        .await
        .unwrap()
        .into_inner();
    let plain = found.iter().find(|one| !one.use_ssl && one.connection_mode == 0).unwrap();
    let info = ConnectInfo {
        ip_addr: String::from_utf8(plain.ip_addr.clone()).unwrap(),
        port: plain.port,
        use_ssl: false,
    };
    let request = ConnectRequest { connect_info: Some(info) };
    let id = client.connect(request).await.unwrap().into_inner().device_id;
    assert_eq!(id, plain.device_id);
    loop {
        let change = stream.next().await.unwrap().unwrap();
        if change.device_id == id {
            assert_eq!(change.status, Status::TcpConnected as i32);
            break;
        }
    }
    let request = SetConnectionModeMultiRequest { device_i_ds: vec![id, 1], connection_mode: 1 };
    let error = client.set_connection_mode_multi(request).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(!error.details().is_empty());
    simulator.stop().await;
    let last = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => break Some(status),
            None => break None,
        }
    };
    assert!(last.is_some(), "a stopped gateway does not end its streams in silence");
}

#[tokio::test]
async fn both_package_ages_or_one() {
    let simulator = Simulator::start(SimulatorSettings::fast(3)).await.unwrap();
    let control = simulator.control();
    let mut inner = tonic::client::Grpc::new(channel(&simulator).await);
    for (packages, path, expected) in [
        (Packages::Both, "/connect.Connect/GetDeviceList", Code::Ok),
        (Packages::Both, "/gsdk.connect.Connect/GetDeviceList", Code::Ok),
        (Packages::Bare, "/connect.Connect/GetDeviceList", Code::Ok),
        (Packages::Bare, "/gsdk.connect.Connect/GetDeviceList", Code::Unimplemented),
        (Packages::Gsdk, "/connect.Connect/GetDeviceList", Code::Unimplemented),
        (Packages::Gsdk, "/gsdk.connect.Connect/GetDeviceList", Code::Ok),
        (Packages::Both, "/gsdk.user.User/GetList", Code::Unimplemented),
    ] {
        control.apply_fault(&Fault::Packages { serve: packages });
        inner.ready().await.unwrap();
        let codec =
            tonic_prost::ProstCodec::<GetDeviceListRequest, GetDeviceListResponse>::default();
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        let answer = inner.unary(tonic::Request::new(GetDeviceListRequest {}), path.clone(), codec);
        let code = answer.await.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code, expected, "{packages:?} {path}");
    }
}

#[tokio::test]
async fn a_storm_is_counted_exactly_and_one_full_queue_disturbs_no_other() {
    let simulator = Simulator::start(SimulatorSettings::fast(20)).await.unwrap();
    let control = simulator.control();
    let mut client = client(&simulator).await;
    eventually("all devices connected", || all_connected(&control)).await;
    let subscribe = |size| SubscribeStatusRequest { queue_size: size };
    let mut wide = client.subscribe_status(subscribe(65_536)).await.unwrap().into_inner();
    // The narrow one is on its own connection, and never read.
    let mut other = super::tests::client(&simulator).await;
    let narrow = other.subscribe_status(subscribe(8)).await.unwrap().into_inner();
    let report = control.storm(Storm::of(20_000)).await.unwrap();
    assert_eq!(report.changes, 20_000);
    for _ in 0..20_000 {
        wide.next().await.unwrap().unwrap();
    }
    let reports = control.subscriptions();
    assert_eq!((reports[0].offered, reports[0].discarded, reports[0].taken), (20_000, 0, 20_000));
    assert_eq!(reports[1].offered, 20_000);
    assert_eq!(reports[1].offered, reports[1].discarded + reports[1].queued + reports[1].taken);
    assert!(reports[1].discarded > 0);
    drop(narrow);
    assert!(all_connected(&control), "an even storm leaves all as it was");
}

#[tokio::test]
async fn storms_have_patterns_and_rates() {
    let simulator = Simulator::start(SimulatorSettings::fast(40)).await.unwrap();
    let control = simulator.control();
    eventually("all devices connected", || all_connected(&control)).await;
    let mut client = client(&simulator).await;
    let request = SubscribeStatusRequest { queue_size: 10_000 };
    let mut stream = client.subscribe_status(request).await.unwrap().into_inner();
    let mut reported = async |pattern, per_second| {
        let storm = Storm { changes: 400, per_second, pattern, seed: 3 };
        let report = control.storm(storm).await.unwrap();
        assert_eq!(report.changes, 400);
        let mut seen = Vec::new();
        for _ in 0..400 {
            let change = stream.next().await.unwrap().unwrap();
            seen.push((change.device_id, change.status));
        }
        (seen, report.duration_s)
    };
    let (repeated, _) = reported(Pattern::Repeat, None).await;
    assert!(repeated.iter().all(|(_, status)| *status != 0));
    let (flapping, seconds) = reported(Pattern::Flapping, NonZeroU32::new(2_000)).await;
    let ids: std::collections::BTreeSet<u32> = flapping.iter().map(|one| one.0).collect();
    assert_eq!(ids.len(), 2, "one in twenty");
    assert!(seconds > 0.15, "400 changes at 2,000 a second take a while: {seconds}");
    let (random, _) = reported(Pattern::Random, None).await;
    assert!(random.iter().any(|(_, status)| *status == 0));
    let unmanaged =
        Simulator::start(SimulatorSettings { managed: false, ..SimulatorSettings::fast(1) })
            .await
            .unwrap();
    assert_eq!(unmanaged.control().storm(Storm::of(1)).await, Err(NothingManaged));
}

#[tokio::test]
async fn a_gateway_without_its_client_network_is_silent_and_refuses() {
    let simulator = Simulator::start(SimulatorSettings::fast(2)).await.unwrap();
    let control = simulator.control();
    let mut client = client(&simulator).await;
    control.apply_fault(&Fault::ClientNetwork { up: false });
    let list = client.get_device_list(GetDeviceListRequest {});
    assert!(tokio::time::timeout(Duration::from_millis(100), list).await.is_err());
    let mut refused = false;
    for _ in 0..400 {
        refused = tokio::net::TcpStream::connect(simulator.address()).await.is_err();
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(refused);
    control.apply_fault(&Fault::ClientNetwork { up: true });
    client.get_device_list(GetDeviceListRequest {}).await.unwrap();
}

#[tokio::test]
async fn faults_of_calls_and_lazy_headers() {
    let simulator = Simulator::start(SimulatorSettings::fast(3)).await.unwrap();
    let control = simulator.control();
    let mut client = client(&simulator).await;
    control.apply_fault(&Fault::Fail {
        method: "GetDeviceList".to_owned(),
        code: GrpcCode(Code::Internal),
        message: Some("injected".to_owned()),
        times: Some(1),
    });
    let error = client.get_device_list(GetDeviceListRequest {}).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Internal, "injected"));
    client.get_device_list(GetDeviceListRequest {}).await.unwrap();
    eventually("all devices connected", || all_connected(&control)).await;
    control.apply_fault(&Fault::LazyHeaders { on: true });
    let id = control.devices()[0].id;
    let subscribed = tokio::spawn(async move {
        client
            .subscribe_status(SubscribeStatusRequest { queue_size: 9 })
            .await
            .unwrap()
            .into_inner()
    });
    eventually("the subscription is there", || control.subscriptions().len() == 1).await;
    assert!(!subscribed.is_finished());
    control.apply_fault(&Fault::Tell { devices: id.into(), status: StatusCode(0x203) });
    let first = subscribed.await.unwrap().next().await.unwrap().unwrap();
    assert_eq!((first.device_id, first.status), (id, 0x203));
    assert_eq!(control.calls()["SubscribeStatus"], 1);
}

#[tokio::test]
async fn frozen_cut_and_restarted() {
    let simulator = Simulator::start(SimulatorSettings::fast(10)).await.unwrap();
    let control = simulator.control();
    let mut client = client(&simulator).await;
    let list = || GetDeviceListRequest {};
    control.apply_fault(&Fault::Freeze { on: true });
    let frozen = tokio::time::timeout(Duration::from_millis(100), client.get_device_list(list()));
    assert!(frozen.await.is_err(), "a frozen gateway answers nothing");
    control.apply_fault(&Fault::Freeze { on: false });
    client.get_device_list(list()).await.unwrap();
    let mut stream = client
        .subscribe_status(SubscribeStatusRequest { queue_size: 9 })
        .await
        .unwrap()
        .into_inner();
    control.apply_fault(&Fault::CutConnections);
    while let Some(Ok(_)) = stream.next().await {}
    let mut client = super::tests::client(&simulator).await;
    client.get_device_list(list()).await.unwrap();
    control.restart(Duration::from_millis(10)).await;
    let mut client = super::tests::client(&simulator).await;
    let after = client.get_device_list(list()).await.unwrap().into_inner();
    assert!(after.device_infos.is_empty(), "a restarted gateway has forgotten");
}

#[tokio::test]
async fn a_connect_whose_client_gives_up_is_given_up() {
    let timing = GatewayTiming { connect_ms: 300, ..GatewayTiming::fast() };
    let settings = SimulatorSettings { managed: false, timing, ..SimulatorSettings::fast(1) };
    let simulator = Simulator::start(settings).await.unwrap();
    let mut client = client(&simulator).await;
    let ip_addr = simulator.control().devices()[0].ip.to_string();
    let info = ConnectInfo { ip_addr, port: 51211, use_ssl: false };
    let mut request = tonic::Request::new(ConnectRequest { connect_info: Some(info) });
    request.set_timeout(Duration::from_millis(50));
    let error = client.connect(request).await.unwrap_err();
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error}");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(simulator.control().managed().is_empty());
}

/// A plain HTTP/1.1 exchange: status line and body.
async fn http(address: std::net::SocketAddr, head: &str, body: &str) -> (u16, serde_json::Value) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn the_control_api_has_faults_happen() {
    let control = Some("127.0.0.1:0".parse().unwrap());
    let simulator = Simulator::start(SimulatorSettings { control, ..SimulatorSettings::fast(20) })
        .await
        .unwrap();
    let api = simulator.control_address().unwrap();
    let control = simulator.control();
    eventually("all devices connected", || all_connected(&control)).await;
    let post = "POST /fault HTTP/1.1\r\nHost: localhost";
    let order = r#"{"do":"power_off","devices":{"random":4}}"#;
    let (code, outcome) = http(api, post, order).await;
    assert_eq!((code, &outcome["affected"]), (200, &4.into()));
    assert_eq!(control.devices().iter().filter(|device| !device.powered).count(), 4);
    let (code, outcome) = http(api, post, r#"{"do":"storm","changes":1000}"#).await;
    assert_eq!((code, &outcome["storm"]["changes"]), (200, &1000.into()));
    let (code, state) = http(api, "GET /state HTTP/1.1\r\nHost: localhost", "").await;
    assert_eq!((code, &state["devices"]), (200, &20.into()));
    let (code, devices) = http(api, "GET /devices HTTP/1.1\r\nHost: 127.0.0.1:1", "").await;
    assert_eq!((code, devices.as_array().unwrap().len()), (200, 20));
    let (code, error) = http(api, post, r#"{"do":"explode"}"#).await;
    assert_eq!(code, 400);
    assert!(error["error"].as_str().unwrap().contains("explode"));
    let foreign = "POST /fault HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example";
    assert_eq!(http(api, foreign, r#"{"do":"heal"}"#).await.0, 403);
    let rebound = "GET /state HTTP/1.1\r\nHost: evil.example";
    assert_eq!(http(api, rebound, "").await.0, 403);
}

#[tokio::test]
async fn the_control_api_is_for_loopback_only() {
    let control = Some("0.0.0.0:0".parse().unwrap());
    let error = Simulator::start(SimulatorSettings { control, ..SimulatorSettings::fast(1) })
        .await
        .unwrap_err();
    assert!(matches!(error, SimulatorError::ControlAddress(_)));
}

/// All reports of a scenario's gateways within this time, with the times of the clock.
async fn history(name: &str, seconds: u64) -> Vec<StatusChange> {
    let settings = Scenario::load(name).unwrap().settings(SimulatorSettings::default());
    let world = world(&settings);
    let mut stream = world.subscribe(1 << 20).unwrap();
    let driven = world.clone();
    let driver = tokio::spawn(async move {
        loop {
            driven.due_faults().await;
        }
    });
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    driver.abort();
    let mut changes = Vec::new();
    while let Ok(Some(Ok(change))) = tokio::time::timeout(Duration::ZERO, stream.next()).await {
        changes.push(change);
    }
    changes
}

#[tokio::test(start_paused = true)]
async fn a_scenario_is_the_same_each_time() {
    for name in ["office", "hospital", "flapping"] {
        let strip = |changes: Vec<StatusChange>| -> Vec<(u32, i32)> {
            changes.into_iter().map(|change| (change.device_id, change.status)).collect()
        };
        let first = strip(history(name, 600).await);
        let second = strip(history(name, 600).await);
        assert!(first.len() > 50, "{name}: {}", first.len());
        assert_eq!(first, second, "{name}");
    }
}

#[tokio::test]
async fn a_stopped_gateway_reports_why_its_streams_end() {
    let simulator = Simulator::start(SimulatorSettings::fast(2)).await.unwrap();
    let mut client = client(&simulator).await;
    let request = SubscribeStatusRequest { queue_size: 9 };
    let mut stream = client.subscribe_status(request).await.unwrap().into_inner();
    drop(client);
    let stopping = tokio::spawn(simulator.stop());
    let end = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => break status,
            None => panic!("a stream ended in silence"),
        }
    };
    assert_eq!((end.code(), end.message()), (Code::Unavailable, "the gateway ended the stream"));
    stopping.await.unwrap();
}

#[tokio::test]
async fn the_certificates_variants_are_met_by_a_real_client() {
    for (kind, taken) in [
        (CertificateKind::Both, true),
        (CertificateKind::IpOnly, true),
        (CertificateKind::DnsOnly, false),
        (CertificateKind::NoSan, false),
        (CertificateKind::Expired, false),
        (CertificateKind::OtherCa, false),
    ] {
        let settings = SimulatorSettings { certificate: kind, ..SimulatorSettings::fast(1) };
        let simulator = Simulator::start(settings).await.unwrap();
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(simulator.ca_pem()));
        let endpoint = Endpoint::from_shared(format!("https://{}", simulator.address())).unwrap();
        let connected = endpoint.clone().tls_config(tls.clone()).unwrap().connect().await;
        assert_eq!(connected.is_ok(), taken, "{kind:?}");
        if kind == CertificateKind::DnsOnly {
            let tls = tls.domain_name("gateway.local");
            endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        }
    }
}
