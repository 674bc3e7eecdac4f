//! The table of a master gateway; see `model`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::addresses;
use super::values;
use crate::ids::HostPort;

/// One master gateway: the device gateways of a tenant on one connection.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Master {
    /// Where the master gateway is; port 4010 if left out; TLS always.
    #[serde(deserialize_with = "addresses::master_address")]
    #[schemars(with = "String", title = "host:port")]
    pub address: HostPort,
    /// The authority that signed its certificate: the `ca.crt` of the master gateway.
    #[serde(deserialize_with = "values::path")]
    #[schemars(title = "path")]
    pub ca_file: PathBuf,
    /// The tenant's certificate, PEM; it is shown in the TLS handshake and at the login.
    #[serde(deserialize_with = "values::path")]
    #[schemars(title = "path")]
    pub cert_file: PathBuf,
    /// The private key of `cert_file`, PEM.
    #[serde(deserialize_with = "values::path")]
    #[schemars(title = "path")]
    pub key_file: PathBuf,
    /// The name in its certificate, where that is another.
    #[serde(deserialize_with = "addresses::server_name")]
    #[schemars(extend("x-default" = "the host of `address`"))]
    pub server_name: String,
    /// Events the master gateway queues for the bridge before it discards them, of all its device
    /// gateways together.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 65_536))]
    pub queue_size: i32,
    /// Whether all device gateways of the tenant are taken, also those that no `gateways.NAME`
    /// names.
    #[schemars(extend("x-default" = "true if no `gateways.NAME` names this master"))]
    pub discover: bool,
}
