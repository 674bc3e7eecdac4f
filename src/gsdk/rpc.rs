//! The unary calls: service, method, message types and deadline of each.

use std::fmt;
use std::time::Duration;

use tonic::Status;
use tonic::codegen::http::uri::PathAndQuery;

use crate::proto::{connect as wire, connect_master as master, device, gateway, login};

struct CallKind {
    deadline: Duration,
    is_change: bool,
}

impl CallKind {
    const fn read(deadline_s: u64) -> Self {
        Self { deadline: Duration::from_secs(deadline_s), is_change: false }
    }

    const fn change(deadline_s: u64) -> Self {
        Self { deadline: Duration::from_secs(deadline_s), is_change: true }
    }
}

/// A gateway answers it from memory.
const LIST: CallKind = CallKind::read(10);
/// A gateway asks a device, and waits for it 10 s at most.
const READ: CallKind = CallKind::read(20);
/// The same for a change.
const COMMAND: CallKind = CallKind::change(20);
/// A change for which a gateway waits longer, up to 20 s.
const LONG: CallKind = CallKind::change(30);
/// The deadline is in addition to the duration of the search.
const SEARCH: CallKind = CallKind::read(10);

/// The name of a call, on the wire and in metrics.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    pub name: &'static str,
    /// Whether the call changes something.
    pub is_change: bool,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A unary call, described by its request message.
pub(crate) trait Rpc: prost::Message + 'static {
    type Response: prost::Message + Default + 'static;
    const SERVICE: Service;
    const METHOD: Method;
    const DEADLINE: Duration;
}

/// A call for one gateway, which a master passes on to it.
pub(crate) trait GatewayRpc: Rpc {
    type ToMaster: Rpc<Response = Self::Response>;
    /// The same request to a master.
    fn to_master(self, gateway_id: &str) -> Self::ToMaster;
}

/// The calls of one service: request, response, method and kind of each.
macro_rules! rpcs {
    ($service:ident: $($request:path => $response:path: $method:literal, $kind:ident;)*) => {$(
        impl Rpc for $request {
            type Response = $response;
            const SERVICE: Service = Service::$service;
            const METHOD: Method = Method { name: $method, is_change: $kind.is_change };
            const DEADLINE: Duration = $kind.deadline;
        }
    )*};
}

/// The calls that a device gateway and a master have alike. A master's request has the fields of
/// the device gateway's, after the gateway's ID where it takes one. The response is one, as both
/// are equal on the wire.
macro_rules! gateway_rpcs {
    ($($request:ident $(($id:ident))? { $($field:ident),* }
        => $response:ident: $method:literal, $kind:ident;)*) => {$(
        rpcs! { Connect: wire::$request => wire::$response: $method, $kind; }
        rpcs! { ConnectMaster: master::$request => wire::$response: $method, $kind; }

        impl GatewayRpc for wire::$request {
            type ToMaster = master::$request;
            #[allow(unused_variables, reason = "some requests name no gateway")]
            fn to_master(self, gateway_id: &str) -> master::$request {
                master::$request {
                    $($id: gateway_id.to_owned(),)?
                    $($field: self.$field),*
                }
            }
        }
    )*};
}

gateway_rpcs! {
    GetDeviceListRequest (gateway_id) {} => GetDeviceListResponse: "GetDeviceList", LIST;
    ConnectRequest (gateway_id) { connect_info } => ConnectResponse: "Connect", COMMAND;
    AddAsyncConnectionRequest (gateway_id) { connect_infos }
        => AddAsyncConnectionResponse: "AddAsyncConnection", COMMAND;
    DeleteAsyncConnectionRequest (gateway_id) { device_i_ds }
        => DeleteAsyncConnectionResponse: "DeleteAsyncConnection", COMMAND;
    DisconnectRequest { device_i_ds } => DisconnectResponse: "Disconnect", COMMAND;
    DisconnectAllRequest (gateway_id) {} => DisconnectAllResponse: "DisconnectAll", COMMAND;
    SearchDeviceRequest (gateway_id) { timeout } => SearchDeviceResponse: "SearchDevice", SEARCH;
    GetPendingListRequest (gateway_id) {} => GetPendingListResponse: "GetPendingList", LIST;
    GetAcceptFilterRequest (gateway_id) {} => GetAcceptFilterResponse: "GetAcceptFilter", LIST;
    SetAcceptFilterRequest (gateway_id) { filter }
        => SetAcceptFilterResponse: "SetAcceptFilter", COMMAND;
    GetSlaveDeviceRequest (gateway_id) {} => GetSlaveDeviceResponse: "GetSlaveDevice", READ;
    SetSlaveDeviceRequest (gateway_id) { slave_device_infos }
        => SetSlaveDeviceResponse: "SetSlaveDevice", COMMAND;
    SetConnectionModeMultiRequest { device_i_ds, connection_mode }
        => SetConnectionModeMultiResponse: "SetConnectionModeMulti", LONG;
    EnableSslMultiRequest { device_i_ds } => EnableSslMultiResponse: "EnableSSLMulti", LONG;
    DisableSslMultiRequest { device_i_ds } => DisableSslMultiResponse: "DisableSSLMulti", LONG;
}

rpcs! { ConnectMaster:
    master::GetAsyncConnectionDbRequest
        => master::GetAsyncConnectionDbResponse: "GetAsyncConnectionDB", LIST;
    master::AddAsyncConnectionDbRequest
        => master::AddAsyncConnectionDbResponse: "AddAsyncConnectionDB", COMMAND;
    master::DeleteAsyncConnectionDbRequest
        => master::DeleteAsyncConnectionDbResponse: "DeleteAsyncConnectionDB", COMMAND;
    master::GetAcceptFilterDbRequest
        => master::GetAcceptFilterDbResponse: "GetAcceptFilterDB", LIST;
    master::SetAcceptFilterDbRequest
        => master::SetAcceptFilterDbResponse: "SetAcceptFilterDB", COMMAND;
    master::GetSlaveDeviceDbRequest
        => master::GetSlaveDeviceDbResponse: "GetSlaveDeviceDB", LIST;
    master::AddSlaveDeviceDbRequest
        => master::AddSlaveDeviceDbResponse: "AddSlaveDeviceDB", COMMAND;
    master::DeleteSlaveDeviceDbRequest
        => master::DeleteSlaveDeviceDbResponse: "DeleteSlaveDeviceDB", COMMAND;
}

rpcs! { Gateway:
    gateway::GetListRequest => gateway::GetListResponse: "GetList", LIST;
    gateway::GetRequest => gateway::GetResponse: "Get", LIST;
}

rpcs! { Device:
    device::GetInfoRequest => device::GetInfoResponse: "GetInfo", READ;
}

/// A master finds the gateway by the device's ID.
impl GatewayRpc for device::GetInfoRequest {
    type ToMaster = Self;
    fn to_master(self, _: &str) -> Self {
        self
    }
}

rpcs! { Login:
    login::LoginRequest => login::LoginResponse: "Login", LIST;
}

/// The streaming call of the services `Connect`, `ConnectMaster` and `Gateway`; it has no deadline.
pub(crate) const SUBSCRIBE_STATUS: Method = Method { name: "SubscribeStatus", is_change: false };

/// A service of a device gateway or of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Connect,
    ConnectMaster,
    Device,
    Gateway,
    Login,
}

impl Service {
    /// Its name without the first part of the package, which depends on the API version.
    const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect.Connect",
            Self::Device => "device.Device",
            Self::ConnectMaster => "connect_master.ConnectMaster",
            Self::Gateway => "gateway.Gateway",
            Self::Login => "login.Login",
        }
    }
}

/// The package names under which a gateway serves its services. The messages are the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiVersion {
    /// G-SDK 1.5 (2023-02) and later.
    V1_5,
    /// G-SDK 1.4 and earlier.
    Legacy,
}

impl ApiVersion {
    pub const fn package(self) -> &'static str {
        match self {
            Self::V1_5 => "gsdk.connect",
            Self::Legacy => "connect",
        }
    }

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::V1_5 => Self::Legacy,
            Self::Legacy => Self::V1_5,
        }
    }

    /// The package in which a master serves the calls for its gateways.
    pub(crate) const fn master_package(self) -> &'static str {
        match self {
            Self::V1_5 => "gsdk.connect_master",
            Self::Legacy => "connect_master",
        }
    }

    /// The HTTP/2 path of a method.
    pub(crate) fn path(self, service: Service, method: &str) -> Result<PathAndQuery, Status> {
        let prefix = match self {
            Self::V1_5 => "gsdk.",
            Self::Legacy => "",
        };
        let path = format!("/{prefix}{}/{method}", service.name());
        PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_path_names_the_package_of_the_api_version() {
        let path = |version: ApiVersion, service| version.path(service, "GetDeviceList").unwrap();
        let (new, old) = (ApiVersion::V1_5, ApiVersion::Legacy);
        assert_eq!(path(new, Service::Connect), "/gsdk.connect.Connect/GetDeviceList");
        assert_eq!(path(old, Service::Connect), "/connect.Connect/GetDeviceList");
        assert_eq!(path(old, Service::Device), "/device.Device/GetDeviceList");
        let master = "/gsdk.connect_master.ConnectMaster/GetDeviceList";
        assert_eq!(path(new, Service::ConnectMaster), master);
    }

    #[test]
    fn a_request_to_a_master_names_the_gateway_where_it_takes_one() {
        let request = wire::SearchDeviceRequest { timeout: 7 };
        assert_eq!(request.to_master("a").encode_to_vec(), [10, 1, b'a', 16, 7]);
        let request = wire::DisconnectRequest { device_i_ds: vec![7] };
        assert_eq!(request.clone().to_master("a").encode_to_vec(), request.encode_to_vec());
    }
}
