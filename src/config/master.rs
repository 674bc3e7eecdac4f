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
pub struct MasterConfig {
    /// Address of the master gateway; the default port is 4010. The connection always uses TLS.
    #[serde(deserialize_with = "addresses::master_address")]
    #[schemars(with = "String", title = "host:port")]
    pub address: HostPort,
    /// Authority that signed the master's certificate: the `ca.crt` of the master gateway.
    #[serde(deserialize_with = "values::path")]
    #[schemars(title = "path")]
    pub ca_file: PathBuf,
    /// Certificate of the tenant, PEM, for the TLS handshake and the login.
    #[serde(deserialize_with = "values::path")]
    #[schemars(title = "path")]
    pub cert_file: PathBuf,
    /// Private key of `cert_file`, PEM.
    #[serde(deserialize_with = "values::path")]
    #[schemars(title = "path")]
    pub key_file: PathBuf,
    /// Name in the certificate, if it differs from the host.
    #[serde(deserialize_with = "addresses::server_name")]
    #[schemars(extend("x-default" = "the host of `address`"))]
    pub server_name: String,
    /// Number of changes, of all device gateways together, that the master gateway queues for the
    /// bridge before it discards some.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 65_536))]
    pub queue_size: i32,
    /// Whether the bridge adds all device gateways of the tenant, including those without a table
    /// `gateways.NAME`.
    #[schemars(extend("x-default" = "true if no `gateways.NAME` names this master"))]
    pub discover: bool,
}
