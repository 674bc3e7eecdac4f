//! The tables of master gateways, gateways and their devices; see `model`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::addresses;
use super::values::{self, DAY, HOUR};
use crate::ids::{DeviceId, GatewayName, HostPort};

/// The default of `unknown_after`. Masters have no such key.
pub const UNKNOWN_AFTER_DEFAULT: Duration = Duration::from_secs(10);

/// One master gateway: the device gateways of a tenant on one connection.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MasterConfig {
    /// Address of the master gateway; the default port is 4010. The connection always uses TLS.
    #[serde(deserialize_with = "addresses::master_address")]
    #[schemars(with = "String", title = "host:port")]
    pub address: HostPort,
    /// Authority that signed the master's certificate: the `ca.crt` of the master gateway.
    #[schemars(title = "path")]
    pub ca_file: PathBuf,
    /// Certificate of the tenant, PEM, for the TLS handshake and the login.
    #[schemars(title = "path")]
    pub cert_file: PathBuf,
    /// Private key of `cert_file`, PEM.
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

/// One gateway.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "GatewayTable")]
pub struct GatewayConfig {
    /// Where it is.
    pub reach: Reach,
    /// How often the gateway's list is compared with the known states.
    pub audit_interval: Duration,
    /// How long after its last sign of life its devices become unknown.
    pub unknown_after: Duration,
    /// The area that is suggested to Home Assistant.
    pub area: Option<String>,
    /// Which devices its accept filter accepts.
    pub accept_filter: AcceptFilterConfig,
    /// Its devices by ID.
    pub devices: BTreeMap<DeviceId, DeviceConfig>,
}

/// Where a gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At an address of its own.
    Direct {
        /// The gateway's address.
        address: HostPort,
        /// The authority that signed its certificate.
        ca_file: PathBuf,
        /// The name in its certificate.
        server_name: String,
        /// Events the gateway queues for the bridge.
        queue_size: i32,
    },
    /// Behind a master gateway.
    Master {
        /// The master's name.
        master: GatewayName,
        /// The ID of the gateway at the master.
        gateway_id: String,
    },
}

/// A gateway as written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewayTable {
    /// Address of the gateway; the default port is 4000. The connection always uses TLS.
    #[serde(default, deserialize_with = "addresses::gateway_address")]
    #[schemars(
        with = "Option<String>",
        title = "host:port",
        extend("x-default" = "required without `master`")
    )]
    address: Option<HostPort>,
    /// Authority that signed the gateway's certificate: the `ca.crt` that the gateway made when it
    /// was installed; or the gateway's certificate itself.
    #[schemars(title = "path", extend("x-default" = "required without `master`"))]
    ca_file: Option<PathBuf>,
    /// Name in the certificate, if it differs from the host.
    #[serde(default, deserialize_with = "addresses::server_name")]
    #[schemars(extend("x-default" = "the host of `address`"))]
    server_name: Option<String>,
    /// Master gateway (`masters.NAME`) through which the gateway is reached, instead of `address`
    /// and `ca_file`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    master: Option<GatewayName>,
    /// ID of the gateway at the master; needs `master`.
    gateway_id: Option<String>,
    /// Number of changes that the gateway queues for the bridge before it discards some.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 65_536))]
    queue_size: i32,
    /// How often the gateway's list is compared with the known states; 1 s to 1 d.
    #[serde(deserialize_with = "values::duration::<_, 1, DAY>")]
    #[schemars(with = "String", title = "duration", extend("default" = "60s"))]
    audit_interval: Duration,
    /// Time from the last sign of life of the gateway until its devices become unknown; 1 s to 1 h.
    #[serde(deserialize_with = "values::duration::<_, 1, HOUR>")]
    #[schemars(with = "String", title = "duration", extend("default" = "10s"))]
    unknown_after: Duration,
    /// Area, in states and as a suggestion to Home Assistant; at most 255 characters.
    #[serde(default, deserialize_with = "values::label")]
    area: Option<String>,
    /// Which devices its accept filter accepts; the IDs follow from devices with `accept`.
    accept_filter: AcceptFilterConfig,
    /// Its devices by ID.
    #[serde(default, deserialize_with = "by_id")]
    #[schemars(
        with = "BTreeMap<String, DeviceConfig>",
        extend("propertyNames" = { "pattern": "^[1-9][0-9]{0,9}$" })
    )]
    devices: BTreeMap<DeviceId, DeviceConfig>,
}

impl TryFrom<GatewayTable> for GatewayConfig {
    type Error = &'static str;

    /// The cross-checks refuse what fails here.
    fn try_from(table: GatewayTable) -> Result<Self, &'static str> {
        let GatewayTable { address, ca_file, server_name, master, gateway_id, .. } = table;
        let reach = match (address, ca_file, server_name, master.zip(gateway_id)) {
            (None, None, None, Some((master, gateway_id))) => Reach::Master { master, gateway_id },
            (Some(address), Some(ca_file), Some(server_name), None) => {
                Reach::Direct { address, ca_file, server_name, queue_size: table.queue_size }
            }
            _ => return Err("has neither an address nor a master"),
        };
        Ok(Self {
            reach,
            audit_interval: table.audit_interval,
            unknown_after: table.unknown_after,
            area: table.area,
            accept_filter: table.accept_filter,
            devices: table.devices,
        })
    }
}

impl GatewayConfig {
    /// A gateway without a table in the configuration: discovered, or given by its address.
    pub fn with_defaults(reach: Reach) -> Self {
        Self {
            reach,
            audit_interval: Duration::from_secs(60),
            unknown_after: UNKNOWN_AFTER_DEFAULT,
            area: None,
            accept_filter: AcceptFilterConfig::default(),
            devices: BTreeMap::new(),
        }
    }
}

/// Which devices a gateway's accept filter accepts.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptFilterConfig {
    /// Whether every device that dials the gateway is accepted; `false` does not change the
    /// gateway's setting.
    #[schemars(extend("default" = false))]
    pub allow_all: bool,
}

/// A device that the configuration declares.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// Display name; without it the type and the ID are used; at most 255 characters.
    #[serde(default, deserialize_with = "values::label")]
    pub name: Option<String>,
    /// Area, in states and as a suggestion to Home Assistant; at most 255 characters.
    #[serde(default, deserialize_with = "values::label")]
    pub area: Option<String>,
    /// Only observe the device; register it, so that the gateway dials it; or accept it when it
    /// dials the gateway.
    #[serde(deserialize_with = "values::word")]
    #[schemars(extend("default" = "observe"))]
    pub connect: ConnectMode,
    /// Address that the gateway dials; required with `"async"`.
    // The cross-checks refuse "async" without it.
    #[serde(default, deserialize_with = "addresses::device_ip")]
    #[schemars(title = "IPv4 address")]
    pub ip: Option<Ipv4Addr>,
    /// Port that the gateway dials; with `"async"` only.
    #[schemars(range(min = 1, max = 65_535), extend("x-default" = "51211"))]
    pub port: Option<NonZeroU16>,
    /// Whether the device uses TLS; with `"async"` only.
    #[schemars(extend("x-default" = "false"))]
    pub ssl: Option<bool>,
}

/// How a device is to be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectMode {
    // Not by the bridge: it is only observed.
    Observe,
    // The gateway dials it and keeps dialling.
    Async,
    // It dials the gateway, whose accept filter must let it in.
    Accept,
}

/// Devices by ID, which is a text in TOML.
fn by_id<'de, D: Deserializer<'de>>(
    source: D,
) -> Result<BTreeMap<DeviceId, DeviceConfig>, D::Error> {
    let devices = BTreeMap::<String, DeviceConfig>::deserialize(source)?.into_iter();
    let by_id = devices.map(|(id, device)| id.parse().map(|id| (id, device)));
    by_id.collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}
