//! The configuration as meant: types that cannot be wrong, so that no other room checks again.
//!
//! May not read or parse anything; `read` makes these. `Debug` shows no secret.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use secrecy::SecretString;

use super::values::{Broker, Rate};
use crate::ids::{DeviceId, GatewayName, HostPort};

/// Everything a bridge is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where chains, last states and waiting events are kept.
    pub state_dir: PathBuf,
    /// The bridge's level of the topics: `bridge` or `bridge_<x>`.
    pub bridge_name: String,
    /// How long an unmanaged, undeclared device is remembered; `None` for ever.
    pub forget_after: Option<Duration>,
    /// The time zone of local dates: in periods, reports and day buckets.
    pub time_zone: TimeZone,
    /// The broker and what is said there.
    pub mqtt: Mqtt,
    /// The web server of metrics and health.
    pub http: Http,
    /// What clients may ask for.
    pub commands: Commands,
    /// Discovery by Home Assistant.
    pub home_assistant: HomeAssistant,
    /// The events that wait for the broker.
    pub outbox: Outbox,
    /// The recorded events.
    pub history: History,
    /// What is measured.
    pub metrics: Metrics,
    /// The gateways; at least one.
    pub gateways: BTreeMap<GatewayName, Gateway>,
}

/// The broker and what is said there.
#[derive(Clone, Debug)]
pub struct Mqtt {
    /// Where the broker is.
    pub broker: Broker,
    /// Who we are to it.
    pub credentials: Option<Credentials>,
    /// Authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate.
    pub identity: Option<Identity>,
    /// What all our topics begin with; no `/` at its ends.
    pub base_topic: String,
    /// The version spoken.
    pub protocol: Protocol,
    /// Our name as a client.
    pub client_id: String,
    /// The largest answer, in bytes of its packet, where the broker announces no limit.
    pub max_answer_bytes: usize,
    /// How often all retained topics are published again; `None` never.
    pub republish_interval: Option<Duration>,
}

/// A user name and, with most brokers, a password.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Never empty.
    pub username: String,
    /// From `password` or `password_file`.
    pub password: Option<Password>,
}

/// Where a password comes from.
#[derive(Clone, Debug)]
pub enum Password {
    /// From the configuration itself.
    Value(SecretString),
    /// From this file, read at each connection.
    File(PathBuf),
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
}

/// Versions of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
}

/// The web server of metrics and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where it listens; port 0 is any free one.
    pub listen: SocketAddr,
    /// Names with a dot that it answers to, in lower case; `*` is any.
    pub hosts: BTreeSet<String>,
}

/// What clients may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands {
    /// What runs.
    pub allow: Allow,
    /// The largest request, in bytes.
    pub max_payload_bytes: usize,
    /// Requests a gateway takes.
    pub rate: Rate,
    /// What the response topic of a request must begin with; ends in `/`.
    pub response_prefix: String,
}

/// The commands that may run: exact names, `group/*`, or `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow(pub(super) BTreeSet<String>);

impl Allow {
    /// Whether a command may run.
    #[must_use]
    pub fn permits(&self, command: &str) -> bool {
        self.0.contains("*")
            || self.0.contains(command)
            || command.split_once('/').is_some_and(|(group, _)| {
                self.0.iter().any(|pattern| pattern.strip_suffix("/*") == Some(group))
            })
    }

    /// The names and patterns as configured.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether nothing runs, so that no request is subscribed to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The permitted commands that change something; worth a warning when there are any.
    pub fn changing(&self) -> impl Iterator<Item = &'static str> {
        let all = super::COMMANDS.iter().chain(&super::OWN_COMMANDS);
        let changing = all.filter(|(_, changes)| *changes);
        changing.map(|(name, _)| *name).filter(|name| self.permits(name))
    }
}

/// Discovery by Home Assistant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeAssistant {
    /// Whether discovery is published; otherwise it is cleared.
    pub enabled: bool,
    /// What discovery topics begin with.
    pub discovery_prefix: String,
    /// Where Home Assistant announces itself.
    pub status_topic: String,
    /// Whether permitted commands have buttons.
    pub controls: bool,
}

/// The events that wait for the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// How many may wait before the oldest is dropped.
    pub max_events: NonZeroU64,
    /// How many bytes they may take.
    pub max_bytes: u64,
    /// When they are forced to the disk.
    pub sync: Sync,
}

/// The recorded events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// How long events are kept.
    pub keep: Duration,
    /// The size of the database at which the oldest events are removed.
    pub max_bytes: u64,
}

/// When written events are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// At most 10 ms or 1,000 events later.
    Interval,
    /// Before they are published.
    Always,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The groups of device series that are served beside state and info.
    pub device: BTreeSet<DeviceSeries>,
}

/// A group of device series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceSeries {
    /// Connected and observed seconds.
    Seconds,
    /// Connects, disconnects, failures.
    Counts,
}

/// One gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Where it is.
    pub address: HostPort,
    /// The authority that signed its certificate.
    pub ca_file: PathBuf,
    /// The name its certificate must hold: the configured one, else the host of `address`.
    pub server_name: String,
    /// The events the gateway keeps for us before it discards; positive.
    pub queue_size: i32,
    /// How often its list is compared with what we believe.
    pub audit_interval: Duration,
    /// How long after the last sign of life its devices become unknown.
    pub unknown_after: Duration,
    /// Where it is, for people.
    pub area: Option<String>,
    /// What its accept filter is to let in.
    pub accept_filter: AcceptFilter,
    /// The devices we are told of.
    pub devices: BTreeMap<DeviceId, Device>,
}

/// What a gateway's accept filter is to let in; entries follow from devices with `accept`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptFilter {
    /// Whether every device may connect by itself. `false` never takes that away.
    pub allow_all: bool,
}

/// A device we are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name for people.
    pub name: Option<String>,
    /// Where it is, for people.
    pub area: Option<String>,
    /// How it is to be connected.
    pub connect: Connect,
}

/// How a device is to be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// Not by us: only watched.
    Observe,
    /// The gateway dials it and keeps dialling.
    Async {
        /// The device's address.
        ip: Ipv4Addr,
        /// Its port; never 0.
        port: u16,
        /// Whether it speaks TLS.
        ssl: bool,
    },
    /// It dials the gateway, whose accept filter must let it in.
    Accept,
}
