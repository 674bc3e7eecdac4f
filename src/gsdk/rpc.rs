//! The unary calls: service, method, message types and deadline of each.

use std::time::Duration;

use tonic::Status;
use tonic::codegen::http::uri::PathAndQuery;

use crate::proto::{connect as wire, device};

/// For calls that a gateway answers from memory.
const LIST: Duration = Duration::from_secs(10);
/// For calls in which a gateway waits for a device, 10 s at most (wire, section 3).
const COMMAND: Duration = Duration::from_secs(20);
/// For calls in which a gateway waits longer, up to 20 s (wire, section 3).
const LONG: Duration = Duration::from_secs(30);
/// For a search, beside the time that it is asked to take.
const SEARCH: Duration = Duration::from_secs(10);

/// A unary call, described by its request message.
pub(crate) trait Rpc: prost::Message + Clone + 'static {
    type Response: prost::Message + Default + 'static;
    const SERVICE: Service;
    /// On the wire and in metrics.
    const METHOD: &'static str;
    const DEADLINE: Duration;
}

macro_rules! rpcs {
    ($($request:ident => $response:ident: $method:literal, $deadline:ident;)*) => {$(
        impl Rpc for wire::$request {
            type Response = wire::$response;
            const SERVICE: Service = Service::Connect;
            const METHOD: &'static str = $method;
            const DEADLINE: Duration = $deadline;
        }
    )*};
}

rpcs! {
    GetDeviceListRequest => GetDeviceListResponse: "GetDeviceList", LIST;
    ConnectRequest => ConnectResponse: "Connect", COMMAND;
    AddAsyncConnectionRequest => AddAsyncConnectionResponse: "AddAsyncConnection", COMMAND;
    DeleteAsyncConnectionRequest => DeleteAsyncConnectionResponse: "DeleteAsyncConnection", COMMAND;
    DisconnectRequest => DisconnectResponse: "Disconnect", COMMAND;
    DisconnectAllRequest => DisconnectAllResponse: "DisconnectAll", COMMAND;
    SearchDeviceRequest => SearchDeviceResponse: "SearchDevice", SEARCH;
    GetPendingListRequest => GetPendingListResponse: "GetPendingList", LIST;
    GetAcceptFilterRequest => GetAcceptFilterResponse: "GetAcceptFilter", LIST;
    SetAcceptFilterRequest => SetAcceptFilterResponse: "SetAcceptFilter", COMMAND;
    GetSlaveDeviceRequest => GetSlaveDeviceResponse: "GetSlaveDevice", COMMAND;
    SetSlaveDeviceRequest => SetSlaveDeviceResponse: "SetSlaveDevice", COMMAND;
    SetConnectionModeRequest => SetConnectionModeResponse: "SetConnectionMode", LONG;
    SetConnectionModeMultiRequest => SetConnectionModeMultiResponse: "SetConnectionModeMulti", LONG;
    EnableSslRequest => EnableSslResponse: "EnableSSL", LONG;
    EnableSslMultiRequest => EnableSslMultiResponse: "EnableSSLMulti", LONG;
    DisableSslRequest => DisableSslResponse: "DisableSSL", LONG;
    DisableSslMultiRequest => DisableSslMultiResponse: "DisableSSLMulti", LONG;
}

impl Rpc for device::GetInfoRequest {
    type Response = device::GetInfoResponse;
    const SERVICE: Service = Service::Device;
    const METHOD: &'static str = "GetInfo";
    const DEADLINE: Duration = COMMAND;
}

/// The streaming call of service `Connect`; it has no deadline.
pub(crate) const SUBSCRIBE_STATUS: &str = "SubscribeStatus";

/// A service of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Connect,
    Device,
}

impl Service {
    /// Its name without the first part of the package, which depends on the API version.
    const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect.Connect",
            Self::Device => "device.Device",
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
    #[must_use]
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
    use super::*;

    #[test]
    fn a_path_names_the_package_of_the_api_version() {
        let path = |version: ApiVersion, service| version.path(service, "GetDeviceList").unwrap();
        let (new, old) = (ApiVersion::V1_5, ApiVersion::Legacy);
        assert_eq!(path(new, Service::Connect), "/gsdk.connect.Connect/GetDeviceList");
        assert_eq!(path(old, Service::Connect), "/connect.Connect/GetDeviceList");
        assert_eq!(path(old, Service::Device), "/device.Device/GetDeviceList");
    }
}
