//! Tests of a strict gateway over TLS: behaviour that a lenient one does not have.

use std::pin::Pin;

use tonic::codegen::{Body as _, http};
use tower::Service;

use super::*;

async fn strict(count: usize) -> Simulator {
    let settings =
        SimulatorSettings { strictness: Strictness::REAL, ..SimulatorSettings::fast(count) };
    Simulator::start(settings).await.unwrap()
}

#[tokio::test]
async fn lists_have_no_order() {
    let simulator = strict(20).await;
    let mut client = client(&simulator).await;
    let control = simulator.control();
    eventually("all devices connected", || all_connected(&control)).await;
    let mut orders = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let list = client.get_device_list(GetDeviceListRequest {}).await.unwrap().into_inner();
        orders.insert(list.device_infos.iter().map(|one| one.device_id).collect::<Vec<_>>());
    }
    assert!(orders.len() > 1);
}

#[tokio::test]
async fn a_client_that_pings_a_quiet_stream_is_disconnected() {
    let simulator = strict(1).await;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(simulator.ca_pem()));
    let endpoint = Endpoint::from_shared(format!("https://{}", simulator.address())).unwrap();
    let endpoint = endpoint.tls_config(tls).unwrap();
    let endpoint = endpoint.http2_keep_alive_interval(Duration::from_millis(20));
    let mut client = ConnectClient::new(endpoint.connect().await.unwrap());
    let subscribed = client.subscribe_status(SubscribeStatusRequest { queue_size: 9 }).await;
    let ended = match subscribed {
        Err(error) => Err(error),
        Ok(response) => {
            let mut changes = response.into_inner();
            loop {
                match changes.message().await {
                    Ok(Some(_)) => {}
                    end => break end.map(drop),
                }
            }
        }
    };
    assert!(ended.is_err(), "the stream ends with its connection");
    let control = simulator.control();
    eventually("the subscription is gone", || control.subscriptions().is_empty()).await;
}

/// The lengths of the DATA frames that a status stream gets of a storm of a hundred changes.
async fn frames(simulator: &Simulator) -> Vec<usize> {
    let mut channel = channel(simulator).await;
    // queueSize 4096
    let message = vec![0, 0, 0, 0, 3, 8, 0x80, 0x20];
    let request = http::Request::post("/gsdk.connect.Connect/SubscribeStatus")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(axum::body::Body::from(message)))
        .unwrap();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let answer = tokio::spawn(channel.call(request));
    let control = simulator.control();
    eventually("the subscription is there", || control.subscriptions().len() == 1).await;
    control.storm(Storm::of(100)).await.unwrap();
    let mut body = answer.await.unwrap().unwrap().into_body();
    let mut lengths = Vec::new();
    let mut bytes = Vec::new();
    // A message is 5 bytes longer than its head.
    let is_whole = |mut bytes: &[u8]| {
        let mut messages = 0;
        while let [_, _, _, _, length, ..] = bytes {
            bytes = &bytes[usize::from(*length) + 5..];
            messages += 1;
        }
        messages == 100
    };
    while !is_whole(&bytes) {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let data = frame.unwrap().unwrap().into_data().unwrap();
        lengths.push(data.len());
        bytes.extend_from_slice(&data);
    }
    lengths
}

#[tokio::test]
async fn each_change_is_in_a_separate_frame_of_a_strict_gateway() {
    for (strictness, single) in [(Strictness::REAL, true), (Strictness::LENIENT, false)] {
        let simulator =
            Simulator::start(SimulatorSettings { strictness, ..SimulatorSettings::fast(10) })
                .await
                .unwrap();
        let control = simulator.control();
        eventually("all devices connected", || all_connected(&control)).await;
        let lengths = frames(&simulator).await;
        assert_eq!(lengths.len() == 100, single, "{lengths:?}");
    }
}

#[tokio::test]
async fn a_search_finds_only_devices_that_answer_in_time() {
    let timing = GatewayTiming { search_min_ms: 10, search_max_ms: 60, ..GatewayTiming::fast() };
    let settings = SimulatorSettings { timing, managed: false, ..SimulatorSettings::fast(40) };
    let simulator = Simulator::start(settings.clone()).await.unwrap();
    let again = Simulator::start(settings).await.unwrap();
    let found = async |simulator: &Simulator, timeout| {
        let mut client = client(simulator).await;
        let found = client.search_device(SearchDeviceRequest { timeout }).await.unwrap();
        let found = found.into_inner().device_infos.into_iter();
        found.map(|info| info.device_id).collect::<Vec<_>>()
    };
    assert!(found(&simulator, 5).await.is_empty());
    let some = found(&simulator, 30).await;
    assert!((1..40).contains(&some.len()), "{}", some.len());
    assert_eq!(found(&again, 30).await, some, "the same seed, the same devices");
    assert_eq!(found(&simulator, 60).await.len(), 40);
}

#[tokio::test]
async fn a_cancelled_subscription_is_removed_at_once() {
    let simulator = Simulator::start(SimulatorSettings::fast(1)).await.unwrap();
    let control = simulator.control();
    eventually("all devices connected", || all_connected(&control)).await;
    let mut client = client(&simulator).await;
    let request = SubscribeStatusRequest { queue_size: 9 };
    let stream = client.subscribe_status(request).await.unwrap();
    assert_eq!(control.subscriptions().len(), 1);
    drop(stream);
    eventually("it is gone, although nothing changes", || control.subscriptions().is_empty()).await;
}

#[tokio::test]
async fn requests_and_metadata_have_limits() {
    let strictness = Strictness { max_recv_size: 100, ..Strictness::LENIENT };
    let simulator =
        Simulator::start(SimulatorSettings { strictness, ..SimulatorSettings::fast(1) })
            .await
            .unwrap();
    let mut client = client(&simulator).await;
    let request = DisconnectRequest { device_i_ds: vec![u32::MAX; 100] };
    let error = client.disconnect(request).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    for (length, expected) in [(20_000, Code::Ok), (1 << 21, Code::ResourceExhausted)] {
        let mut request = tonic::Request::new(GetDeviceListRequest {});
        request.metadata_mut().insert("x", "y".repeat(length).parse().unwrap());
        let answer = client.get_device_list(request).await;
        let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code, expected, "{length} bytes");
    }
}
