//! Tests of calls to devices over TLS.

use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use super::*;
use crate::proto::device::device_client::DeviceClient;
use crate::proto::device::*;
use crate::proto::event::event_client::EventClient;
use crate::proto::event::*;

/// A call by its path, whatever serves it.
async fn call<M, R>(channel: &Channel, path: &str, request: M) -> Result<R, tonic::Status>
where
    M: prost::Message + Default + 'static,
    R: prost::Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(path).unwrap();
    let codec = ProstCodec::<M, R>::default();
    grpc.unary(tonic::Request::new(request), path, codec).await.map(tonic::Response::into_inner)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn device_details_are_served_in_both_packages() {
    let simulator = Simulator::start(SimulatorSettings::fast(20)).await.unwrap();
    let control = simulator.control();
    eventually("all devices connected", || all_connected(&control)).await;
    let channel = channel(&simulator).await;
    for package in ["gsdk.", ""] {
        let mut firmware = std::collections::BTreeSet::new();
        for device in control.devices() {
            let path = format!("/{package}device.Device/GetInfo");
            let request = GetInfoRequest { device_id: device.id };
            let response: GetInfoResponse = call(&channel, &path, request).await.unwrap();
            let info = response.info.unwrap();
            assert!(text(&info.mac_addr).starts_with("00:17:fc:"), "{info:?}");
            firmware.insert((info.model_name, info.firmware_version));
            let path = format!("/{package}device.Device/GetCapabilityInfo");
            let request = GetCapabilityInfoRequest { device_id: device.id };
            let response: GetCapabilityInfoResponse = call(&channel, &path, request).await.unwrap();
            let capabilities = response.cap_info.unwrap();
            assert_eq!(capabilities.r#type, device.kind);
            let kind = Type::try_from(device.kind).unwrap();
            let face = matches!(kind, Type::Facestation2 | Type::Biostation3);
            assert_eq!(capabilities.face_supported, face, "{kind:?}");
            assert!(capabilities.card_supported, "{kind:?}");
        }
        assert!(firmware.len() > 10, "some of a type have an older firmware: {firmware:?}");
    }
}

#[tokio::test]
async fn only_a_managed_and_connected_device_answers() {
    let settings = SimulatorSettings { managed: false, ..SimulatorSettings::fast(1) };
    let simulator = Simulator::start(settings).await.unwrap();
    let control = simulator.control();
    let mut client = DeviceClient::new(channel(&simulator).await);
    let id = control.devices()[0].id;
    let get = || GetInfoRequest { device_id: id };
    assert_eq!(client.get_info(get()).await.unwrap_err().code(), Code::NotFound);
    control.apply_fault(&Fault::Manage);
    eventually("it is connected", || all_connected(&control)).await;
    client.get_info(get()).await.unwrap();
    let version = "9.9.9".to_owned();
    control.apply_fault(&Fault::Firmware { devices: id.into(), version });
    assert_eq!(client.get_info(get()).await.unwrap_err().code(), Code::FailedPrecondition);
    eventually("it is back", || all_connected(&control)).await;
    let info = client.get_info(get()).await.unwrap().into_inner().info.unwrap();
    assert_eq!(text(&info.firmware_version), "9.9.9");
}

#[tokio::test]
async fn monitored_devices_report_that_they_were_connected() {
    let simulator = Simulator::start(SimulatorSettings::fast(3)).await.unwrap();
    let control = simulator.control();
    eventually("all devices connected", || all_connected(&control)).await;
    let mut client = EventClient::new(channel(&simulator).await);
    let ids: Vec<u32> = control.devices().iter().map(|device| device.id).collect();
    let mut device_i_ds = ids[..2].to_vec();
    let request = EnableMonitoringMultiRequest { device_i_ds: device_i_ds.clone() };
    client.enable_monitoring_multi(request).await.unwrap();
    device_i_ds.push(4711);
    let request = EnableMonitoringMultiRequest { device_i_ds };
    let error = client.enable_monitoring_multi(request).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(!error.details().is_empty());
    let request = SubscribeRealtimeLogRequest {
        queue_size: 8,
        device_i_ds: vec![ids[1], ids[2]],
        event_codes: Vec::new(),
    };
    let mut logs = client.subscribe_realtime_log(request).await.unwrap().into_inner();
    control.apply_fault(&Fault::Drop { devices: DeviceSelector::default() });
    let log = logs.next().await.unwrap().unwrap();
    assert_eq!((log.device_id, log.event_code), (ids[1], 0x3B00), "neither 0 nor 2");
    let request = GetLogRequest { device_id: ids[2], start_event_id: 2, max_num_of_log: 1 };
    eventually("all devices connected", || all_connected(&control)).await;
    let events = client.get_log(request).await.unwrap().into_inner().events;
    assert_eq!((events.len(), events[0].id, events[0].event_code), (1, 2, 0x3C00));
    let request = DisableMonitoringRequest { device_id: ids[1] };
    client.disable_monitoring(request).await.unwrap();
}

#[tokio::test]
async fn unsupported_calls_are_unimplemented_with_a_gateways_message() {
    let simulator = Simulator::start(SimulatorSettings::fast(1)).await.unwrap();
    let channel = channel(&simulator).await;
    for (path, message) in [
        ("/gsdk.user.User/GetList", "unknown service gsdk.user.User"),
        ("/user.User/GetList", "unknown service user.User"),
        (
            "/gsdk.device.Device/GetCapability",
            "unknown method GetCapability for service gsdk.device.Device",
        ),
        ("/event.Event/GetUserLog", "unknown method GetUserLog for service event.Event"),
    ] {
        let error = call::<(), ()>(&channel, path, ()).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unimplemented, message));
    }
}
