//! Tests of a master gateway over TLS.

use super::*;

async fn master_channel(simulator: &Simulator, identity: Option<&Identity>) -> Channel {
    let ca = Certificate::from_pem(simulator.ca_pem());
    let mut tls = ClientTlsConfig::new().ca_certificate(ca);
    if let Some(Identity { certificate_pem, key_pem }) = identity {
        tls = tls.identity(tonic::transport::Identity::from_pem(certificate_pem, key_pem));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", simulator.address())).unwrap();
    endpoint.tls_config(tls).unwrap().connect_lazy()
}

fn fleet(gateways: usize, devices: usize) -> SimulatorSettings {
    let devices = |number| mixed_devices(number, number * devices, devices);
    let master = Some(MasterSettings::numbered(gateways, devices));
    SimulatorSettings { master, managed: false, ..SimulatorSettings::fast(0) }
}

fn with_token<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

#[tokio::test]
async fn a_master_requires_certificate_and_token() {
    use crate::proto::login::login_client::LoginClient;
    use crate::proto::login::*;
    use crate::proto::{gateway, gateway::gateway_client::GatewayClient};
    let simulator = Simulator::start(fleet(2, 3)).await.unwrap();
    let tenant = simulator.tenant().unwrap();
    let stranger = master_channel(&simulator, None).await;
    assert!(LoginClient::new(stranger).login(LoginRequest::default()).await.is_err());
    let channel = master_channel(&simulator, Some(tenant)).await;
    let mut login = LoginClient::new(channel.clone());
    let mut gateways = GatewayClient::new(channel);
    let get = || gateway::GetListRequest {};
    let code = |status: tonic::Status| status.code();
    assert_eq!(code(gateways.get_list(get()).await.unwrap_err()), Code::Unauthenticated);
    let garbage = with_token(get(), "garbage");
    assert_eq!(code(gateways.get_list(garbage).await.unwrap_err()), Code::Unauthenticated);
    let other = simulator.ca_pem().to_owned();
    let error = login.login(LoginRequest { tenant_cert: other }).await.unwrap_err();
    assert_eq!(code(error), Code::PermissionDenied);
    let error = login.login(LoginRequest { tenant_cert: "x".to_owned() }).await.unwrap_err();
    assert_eq!(code(error), Code::InvalidArgument);
    let request = LoginRequest { tenant_cert: tenant.certificate_pem.clone() };
    let token = login.login(request).await.unwrap().into_inner().jwt_token;
    let list = gateways.get_list(with_token(get(), &token)).await.unwrap().into_inner();
    assert_eq!(list.gateway_i_ds, ["gateway1", "gateway2"]);
    login.logout(with_token(LogoutRequest {}, &token)).await.unwrap();
    let error = gateways.get_list(with_token(get(), &token)).await.unwrap_err();
    assert_eq!(code(error), Code::Unauthenticated);
}

#[tokio::test]
async fn data_stored_by_a_master_survives_a_device_gateways_restart() {
    use crate::proto::connect_master::connect_master_client::ConnectMasterClient;
    use crate::proto::device::{GetInfoRequest, device_client::DeviceClient};
    use crate::proto::login::{LoginRequest, login_client::LoginClient};
    use crate::proto::{connect_master, gateway, gateway::gateway_client::GatewayClient};
    let simulator = Simulator::start(fleet(2, 10)).await.unwrap();
    let control = simulator.control();
    let tenant = simulator.tenant().unwrap();
    let channel = master_channel(&simulator, Some(tenant)).await;
    let request = LoginRequest { tenant_cert: tenant.certificate_pem.clone() };
    let login = LoginClient::new(channel.clone()).login(request).await.unwrap();
    let token = login.into_inner().jwt_token;
    let mut client = ConnectMasterClient::new(channel.clone());
    let devices = channel.clone();
    let mut gateways = GatewayClient::new(channel);
    let request = gateway::SubscribeStatusRequest { queue_size: 10 };
    let stream = gateways.subscribe_status(with_token(request, &token)).await.unwrap();
    let mut stream = stream.into_inner();
    let request = connect_master::SubscribeStatusRequest { queue_size: 1_000 };
    let changes = client.subscribe_status(with_token(request, &token)).await.unwrap();
    let mut changes = changes.into_inner();
    let plain: Vec<SiteDevice> = control.devices()[10..]
        .iter()
        .filter(|device| !device.ssl && device.mode == DialMode::ServerToDevice)
        .take(2)
        .cloned()
        .collect();
    let info = |device: &SiteDevice| AsyncConnectInfo {
        device_id: device.id,
        ip_addr: device.ip.to_string(),
        port: 51211,
        use_ssl: false,
    };
    let gateway_id = || "gateway2".to_owned();
    let stored = connect_master::AddAsyncConnectionDbRequest {
        gateway_id: gateway_id(),
        connect_infos: vec![info(&plain[0])],
    };
    client.add_async_connection_db(with_token(stored, &token)).await.unwrap();
    let fleeting = connect_master::AddAsyncConnectionRequest {
        gateway_id: gateway_id(),
        connect_infos: vec![info(&plain[1])],
    };
    client.add_async_connection(with_token(fleeting, &token)).await.unwrap();
    eventually("both connected", || {
        control.managed().iter().filter(|one| one.status == 1).count() == 2
    })
    .await;
    let mut devices = DeviceClient::new(devices);
    let request = || GetInfoRequest { device_id: plain[0].id };
    let error = devices.get_info(request()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    let info = devices.get_info(with_token(request(), &token)).await.unwrap().into_inner();
    assert!(info.info.is_some(), "a master needs no gateway's ID for it");
    let link = |up, forgets| Fault::GatewayLink { gateway: "gateway2".to_owned(), up, forgets };
    assert_eq!(control.apply_fault(&link(false, true)), 1);
    let lost = stream.next().await.unwrap().unwrap();
    assert_eq!((lost.gateway_id.as_str(), lost.status), ("gateway2", 0));
    let list = || connect_master::GetDeviceListRequest { gateway_id: gateway_id() };
    let error = client.get_device_list(with_token(list(), &token)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(control.apply_fault(&link(true, false)), 1);
    assert_eq!(stream.next().await.unwrap().unwrap().status, 1);
    let list = client.get_device_list(with_token(list(), &token)).await.unwrap().into_inner();
    let ids: Vec<u32> = list.device_infos.iter().map(|one| one.device_id).collect();
    assert_eq!(ids, [plain[0].id], "the stored one is back, the plain one is forgotten");
    assert!(changes.next().await.unwrap().is_ok());
    let unknown = connect_master::GetDeviceListRequest { gateway_id: "attic".to_owned() };
    let error = client.get_device_list(with_token(unknown, &token)).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}
