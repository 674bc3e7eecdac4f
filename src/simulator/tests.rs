//! Tests of the simulated gateway over its real wire: TLS, both package ages, streams, faults.

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

/// Waits until `done` says so, at most ten seconds.
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
    list.len() == control.building().len() && list.iter().all(|one| matches!(one.status, 1 | 2))
}

#[tokio::test]
async fn a_session_over_real_tls() {
    let simulator =
        Simulator::start(Settings { managed: false, ..Settings::fast(20) }).await.unwrap();
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
    let info = ConnectInfo { ip_addr: plain.ip_addr.clone(), port: plain.port, use_ssl: false };
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
    let simulator = Simulator::start(Settings::fast(3)).await.unwrap();
    let control = simulator.control();
    let mut inner = tonic::client::Grpc::new(channel(&simulator).await);
    for (packages, path, expected) in [
        (Packages::Both, "/connect.Connect/GetDeviceList", Code::Ok),
        (Packages::Both, "/gsdk.connect.Connect/GetDeviceList", Code::Ok),
        (Packages::Bare, "/connect.Connect/GetDeviceList", Code::Ok),
        (Packages::Bare, "/gsdk.connect.Connect/GetDeviceList", Code::Unimplemented),
        (Packages::Gsdk, "/connect.Connect/GetDeviceList", Code::Unimplemented),
        (Packages::Gsdk, "/gsdk.connect.Connect/GetDeviceList", Code::Ok),
        (Packages::Both, "/gsdk.event.Event/GetLog", Code::Unimplemented),
    ] {
        control.packages(packages);
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
    let simulator = Simulator::start(Settings::fast(20)).await.unwrap();
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
async fn faults_of_calls_and_lazy_headers() {
    let simulator = Simulator::start(Settings::fast(3)).await.unwrap();
    let control = simulator.control();
    let mut client = client(&simulator).await;
    let fault = CallFault { code: Code::Internal, message: "ordered".to_owned(), times: Some(1) };
    control.fail("GetDeviceList", fault);
    let error = client.get_device_list(GetDeviceListRequest {}).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Internal, "ordered"));
    client.get_device_list(GetDeviceListRequest {}).await.unwrap();
    eventually("all devices connected", || all_connected(&control)).await;
    control.lazy_headers(true);
    let id = control.building()[0].id;
    let subscribed = tokio::spawn(async move {
        client
            .subscribe_status(SubscribeStatusRequest { queue_size: 9 })
            .await
            .unwrap()
            .into_inner()
    });
    eventually("the subscription is there", || control.subscriptions().len() == 1).await;
    assert!(!subscribed.is_finished());
    control.tell(id, 0x203);
    let first = subscribed.await.unwrap().next().await.unwrap().unwrap();
    assert_eq!((first.device_id, first.status), (id, 0x203));
    assert_eq!(control.calls()["SubscribeStatus"], 1);
}

#[tokio::test]
async fn frozen_cut_and_restarted() {
    let simulator = Simulator::start(Settings::fast(10)).await.unwrap();
    let control = simulator.control();
    let mut client = client(&simulator).await;
    let list = || GetDeviceListRequest {};
    control.freeze(true);
    let frozen = tokio::time::timeout(Duration::from_millis(100), client.get_device_list(list()));
    assert!(frozen.await.is_err(), "a frozen gateway answers nothing");
    control.freeze(false);
    client.get_device_list(list()).await.unwrap();
    let mut stream = client
        .subscribe_status(SubscribeStatusRequest { queue_size: 9 })
        .await
        .unwrap()
        .into_inner();
    control.cut_connections();
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
    let timing = Timing { connect_ms: 300, ..Timing::fast() };
    let settings = Settings { managed: false, timing, ..Settings::fast(1) };
    let simulator = Simulator::start(settings).await.unwrap();
    let mut client = client(&simulator).await;
    let ip_addr = simulator.control().building()[0].ip.to_string();
    let info = ConnectInfo { ip_addr, port: 51211, use_ssl: false };
    let mut request = tonic::Request::new(ConnectRequest { connect_info: Some(info) });
    request.set_timeout(Duration::from_millis(50));
    let error = client.connect(request).await.unwrap_err();
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error}");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(simulator.control().managed().is_empty());
}
