//! The configuration's tables as types: serde reads them, schemars describes them.
//!
//! A field's doc comment is its meaning in `docs/configuration.md` and in the JSON Schema; its
//! `default` there is the default that loading fills in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::addresses::{self, BrokerAddress};
use super::commands::Allow;
use super::gateway::{GatewayConfig, GatewayTable, MasterConfig};
use super::values::{self, DAY, KIB, MIB, Rate, TIB};
use crate::ids::{GATEWAY_NAME_LEN_MAX, GatewayName};

/// The configuration, checked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "gsdk2mqtt configuration")]
pub struct Config {
    /// Directory of the chains, the last states and the waiting events; one process at a time.
    /// Under systemd the default is `$STATE_DIRECTORY`.
    #[schemars(title = "path", extend("default" = "/var/lib/gsdk2mqtt"))]
    pub state_dir: PathBuf,
    /// The bridge's topic level: `bridge`, or `bridge_<x>` if several bridges share a broker and a
    /// base topic.
    #[serde(deserialize_with = "values::bridge_name")]
    #[schemars(extend("default" = "bridge", "pattern" = "^bridge(_[a-z0-9]+)*$"))]
    pub bridge_name: String,
    /// A device that has been missing in its gateway's lists for this long is forgotten (state,
    /// discovery and metrics are cleared), unless it is in the configuration or kept by a command.
    /// Likewise a discovered gateway that its master has not listed for this long. Only time in
    /// which lists were read counts, by the monotonic clock; 1 s to 3,650 d.
    // A month: longer than a device is away for repair without leaving the list.
    #[serde(deserialize_with = "values::duration_or_never::<_, 1, { 3_650 * DAY }>")]
    #[schemars(with = "String", title = "duration or `\"never\"`", extend("default" = "30d"))]
    pub forget_after: Option<Duration>,
    /// Time zone of local dates in periods and reports: a name of the IANA database such as
    /// `"Europe/Berlin"`; the zone data is built in.
    #[serde(deserialize_with = "values::time_zone", default = "values::machine_time_zone")]
    #[schemars(with = "String", extend("x-default" = "the machine's if it has a name, else UTC"))]
    pub time_zone: TimeZone,
    /// Whether model, firmware and MAC address of each connected device are read, once in each of
    /// its connections, at most ten devices of a gateway a second.
    #[schemars(extend("default" = true))]
    pub device_details: bool,
    /// The MQTT broker.
    pub mqtt: Mqtt,
    /// The web server of status page, metrics and health.
    pub http: Http,
    /// What clients may request.
    pub commands: Commands,
    /// Discovery by Home Assistant.
    pub home_assistant: HomeAssistant,
    /// The events that wait for the broker.
    pub outbox: OutboxConfig,
    /// The recorded events.
    pub history: HistoryConfig,
    /// Which metrics are served.
    pub metrics: MetricsConfig,
    /// The master gateways by name, each with the device gateways behind it.
    #[schemars(
        with = "BTreeMap<String, MasterConfig>",
        extend("propertyNames" = {
            "pattern": "^(?!bridge(_|$))[a-z][a-z0-9]*(_[a-z0-9]+)*$",
            "maxLength": GATEWAY_NAME_LEN_MAX,
        })
    )]
    pub masters: BTreeMap<GatewayName, MasterConfig>,
    /// The gateways by name; at least one, unless there is a master.
    #[schemars(
        with = "BTreeMap<String, GatewayTable>",
        extend("propertyNames" = {
            "pattern": "^(?!bridge(_|$))[a-z][a-z0-9]*(_[a-z0-9]+)*$",
            "maxLength": GATEWAY_NAME_LEN_MAX,
        })
    )]
    pub gateways: BTreeMap<GatewayName, GatewayConfig>,
}

/// The MQTT broker.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// URL of the broker: `mqtt://host:port`, or `mqtts://host:port` for TLS; for WebSocket
    /// `ws://host:port/path` or `wss://host:port/path`. The default ports are 1883, 8883, 80 and
    /// 443, the default path is `/mqtt`; no user name.
    #[serde(rename = "url", deserialize_with = "addresses::broker")]
    #[schemars(with = "String", extend("default" = "mqtt://localhost:1883"))]
    pub broker: BrokerAddress,
    /// User name at the broker.
    pub username: Option<String>,
    /// Password at the broker; needs `mqtt.username`. Not with `--set`: other users of the machine
    /// could read it.
    #[schemars(with = "Option<String>", title = "secret", extend("writeOnly" = true))]
    pub password: Option<SecretString>,
    /// File with the password; needs `mqtt.username`.
    #[schemars(title = "path")]
    pub password_file: Option<PathBuf>,
    /// PEM file of the trusted authorities, instead of the system's.
    #[schemars(title = "path")]
    pub ca_file: Option<PathBuf>,
    /// The bridge's client certificate, PEM; needs `mqtt.key_file`.
    #[schemars(title = "path")]
    pub cert_file: Option<PathBuf>,
    /// Private key of the client certificate, PEM; needs `mqtt.cert_file`.
    #[schemars(title = "path")]
    pub key_file: Option<PathBuf>,
    /// Protocols that the TLS handshake offers (ALPN), for brokers that require one, such as `mqtt`
    /// for AWS IoT on port 443.
    #[serde(default, deserialize_with = "addresses::alpn")]
    pub alpn: Vec<String>,
    /// Prefix of all topics: one or more levels, no wildcards, at most 128 bytes. With Home
    /// Assistant, levels of letters (`a` to `z`, `A` to `Z`), digits, `_` and `-` only.
    #[serde(deserialize_with = "values::topic")]
    #[schemars(extend("default" = "gsdk"))]
    pub base_topic: String,
    /// MQTT version; 3.1.1 has no response topics, message expiry, retain handling or reasons.
    #[serde(deserialize_with = "values::word")]
    #[schemars(extend("default" = "5"))]
    pub protocol: MqttVersion,
    /// MQTT client ID (with `_` for `/` in the base topic); two clients with the same ID disconnect
    /// each other.
    #[schemars(extend("x-default" = "gsdk2mqtt_<base_topic>_<bridge_name>"))]
    pub client_id: String,
    /// Maximum size of a response to a request if the broker announces no packet limit (with MQTT
    /// 3.1.1 none does); a larger one is replaced by `answer_too_large`; 1 KiB to 256 MiB.
    #[serde(rename = "max_answer", deserialize_with = "values::size::<_, _, KIB, { 256 * MIB }>")]
    #[schemars(with = "String", title = "size", extend("default" = "256KiB"))]
    pub max_answer_bytes: usize,
    /// How often all retained topics are published again, Home Assistant discovery included; 10 s
    /// to 30 d.
    // Repairs what a broker lost unnoticed; with 100,000 devices 28 messages a second, and as many
    // of discovery.
    #[serde(deserialize_with = "values::duration_or_never::<_, 10, { 30 * DAY }>")]
    #[schemars(with = "String", title = "duration or `\"never\"`", extend("default" = "1h"))]
    pub republish_interval: Option<Duration>,
}

/// Versions of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum MqttVersion {
    /// MQTT 5.
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
}

impl MqttVersion {
    /// As the configuration names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V5 => "5",
            Self::V311 => "3.1.1",
        }
    }
}

/// The web server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address of the status page, `/api/v1`, `/metrics`, `/healthz` and `/readyz`; port 0 selects
    /// a free port, `:9925` listens on every IPv4 address. Clients on other machines need a token.
    #[serde(deserialize_with = "addresses::listen")]
    #[schemars(with = "String", title = "address", extend("default" = "127.0.0.1:9925"))]
    pub listen: SocketAddr,
    /// Host names that are accepted in addition to IP addresses, names without a dot and `*.local`;
    /// other names get 421 (see [security.md](security.md)). `"*"` accepts every name: only behind
    /// a proxy that checks the name.
    #[serde(deserialize_with = "addresses::hosts")]
    #[schemars(extend("default" = []))]
    pub hosts: BTreeSet<String>,
    /// Second address with `/metrics`, `/healthz` and `/readyz` only, for Prometheus and probes:
    /// without login and TLS, for every `Host`.
    #[serde(default, deserialize_with = "addresses::listen")]
    #[schemars(with = "Option<String>", title = "address")]
    pub metrics_listen: Option<SocketAddr>,
    /// Networks and addresses whose clients need no token. The peer address of the connection
    /// counts: behind a proxy, the address of the proxy. `[]`: every client needs a token.
    #[serde(deserialize_with = "addresses::networks")]
    #[schemars(with = "BTreeSet<String>", extend("default" = ["127.0.0.0/8", "::1"]))]
    pub anonymous_from: BTreeSet<IpNet>,
    /// File with the tokens for clients on other machines, one a line, for Bearer or as password of
    /// Basic authentication (see [security.md](security.md)); without it they get 401. It is read
    /// again when it changes.
    #[schemars(title = "path")]
    pub token_file: Option<PathBuf>,
    /// Certificate chain, PEM, with which `http.listen` serves HTTPS; needs `http.key_file`. It is
    /// read again when it changes.
    #[schemars(title = "path")]
    pub cert_file: Option<PathBuf>,
    /// Private key of the certificate, PEM; needs `http.cert_file`.
    #[schemars(title = "path")]
    pub key_file: Option<PathBuf>,
}

/// What clients may request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// Permitted commands of all clients: names, `group/*`, or `*`; `[]` permits none. The broker's
    /// access list controls which client may send which command.
    #[schemars(extend("default" = [
        "search", "devices", "pending", "accept_filter/get", "slaves/get", "history",
        "republish"
    ]))]
    pub allow: Allow,
    /// Maximum size of a request; larger ones are refused; 1 KiB to 1 MiB.
    #[serde(rename = "max_payload", deserialize_with = "values::size::<_, _, KIB, MIB>")]
    #[schemars(with = "String", title = "size", extend("default" = "64KiB"))]
    pub max_payload_bytes: usize,
    /// Maximum rate of requests for each gateway, per `/s`, `/m` or `/h`; further ones are refused.
    // More than a person sends, and a gateway answers a call in tens of milliseconds.
    #[serde(deserialize_with = "values::rate")]
    #[schemars(with = "String", title = "rate", extend("default" = "20/s"))]
    pub rate: Rate,
    /// Required prefix of a request's response topic: ends in `/`, no wildcards, at most 256 bytes,
    /// separate from the bridge's and Home Assistant's topics.
    #[serde(deserialize_with = "values::response_prefix")]
    #[schemars(extend("x-default" = "<base_topic>-reply/"))]
    pub response_prefix: String,
}

/// Discovery by Home Assistant.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HomeAssistant {
    /// Whether discovery is published; if it is disabled, it is cleared. See
    /// [home-assistant.md](home-assistant.md).
    #[schemars(extend("default" = false))]
    pub enabled: bool,
    /// Prefix of discovery topics, as in Home Assistant.
    #[serde(deserialize_with = "values::topic")]
    #[schemars(extend("default" = "homeassistant"))]
    pub discovery_prefix: String,
    /// Which readers appear: all, or those in the configuration.
    #[serde(deserialize_with = "values::word")]
    #[schemars(extend("default" = "all"))]
    pub include: Include,
    /// Topic of Home Assistant's birth message.
    #[serde(deserialize_with = "values::topic")]
    #[schemars(extend("default" = "homeassistant/status"))]
    pub status_topic: String,
    /// Whether Home Assistant gets buttons for permitted commands (`commands.allow`).
    #[schemars(extend("default" = false))]
    pub controls: bool,
}

/// Which readers Home Assistant shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Include {
    /// All that the gateways list.
    All,
    /// Those in the configuration.
    Declared,
}

/// The events that wait for the broker.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutboxConfig {
    /// Maximum number of waiting events; beyond it the oldest is dropped, counted and reported.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1_000_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000_000), extend("default" = 1_000_000))]
    pub max_events: NonZeroU64,
    /// Maximum size of the waiting events; the log on the disk takes up to twice as much. 1 MiB to
    /// 1 TiB.
    #[serde(deserialize_with = "values::size::<_, _, MIB, TIB>")]
    #[schemars(with = "String", title = "size", extend("default" = "512MiB"))]
    pub max_bytes: u64,
    /// When events and states are synced to the disk: within 1 s while events wait for the broker,
    /// otherwise within 30 s; or always before they are published.
    #[serde(deserialize_with = "values::word")]
    #[schemars(extend("default" = "interval"))]
    pub sync: Sync,
}

/// When the log is synced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// Within 1 s while events wait for the broker, otherwise within 30 s.
    Interval,
    /// Before they are published.
    Always,
}

/// The recorded events.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryConfig {
    /// How long recorded events are kept; 1 d to 36,500 d.
    // Thirteen months, so that a month can be compared with the same month a year before.
    #[serde(deserialize_with = "values::duration::<_, DAY, { 36_500 * DAY }>")]
    #[schemars(with = "String", title = "duration", extend("default" = "400d"))]
    pub keep: Duration,
    /// Maximum size of `history.db`; beyond it the oldest events are removed; 1 MiB to 1 TiB.
    #[serde(deserialize_with = "values::size::<_, _, MIB, TIB>")]
    #[schemars(with = "String", title = "size", extend("default" = "2GiB"))]
    pub max_bytes: u64,
    /// How long the recorded availability of devices is kept, from which reports are made; 1 d to
    /// 36,500 d, a year (`y`) has 365 days.
    #[serde(deserialize_with = "values::duration::<_, DAY, { 36_500 * DAY }>")]
    #[schemars(with = "String", title = "duration", extend("default" = "3y"))]
    pub keep_availability: Duration,
}

/// Which metrics are served.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Groups of device series that are served in addition to those that the alerts need; omit
    /// groups to make scrapes of many devices smaller.
    #[serde(deserialize_with = "values::words")]
    #[schemars(extend("default" = ["seconds", "counts"]))]
    pub device: BTreeSet<DeviceSeries>,
}

/// Groups of series of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceSeries {
    /// How long it was connected and observed.
    Seconds,
    /// How often it connected, and failed to connect.
    Counts,
    /// Always served; builds before version 2 could leave it out.
    State,
    /// Always served; builds before version 2 could leave it out.
    Info,
}
