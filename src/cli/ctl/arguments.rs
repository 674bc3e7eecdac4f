//! The subcommands of `ctl`. Their arguments are the fields of the request that each makes, which
//! checks the values.

use clap::{ArgAction, Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use crate::ids::CommandName;

/// A subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// The managed devices and how they are connected
    Devices,
    /// Search the gateway's subnet for devices
    Search {
        /// How long the gateway listens for answers, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
        wait: f64,
    },
    /// Devices that dialled the gateway and were not let in
    Pending,
    /// Live: every change of a device's status, until Ctrl-C
    Watch,
    /// Connect a device for as long as its connection holds
    Connect(Connect),
    /// Disconnect devices; registered ones come back
    Disconnect(Devices),
    /// Disconnect every device of the gateway
    DisconnectAll,
    /// Devices that the gateway dials, and keeps dialling
    #[command(subcommand)]
    Async(Async),
    /// Which devices that dial the gateway are let in
    #[command(subcommand)]
    AcceptFilter(AcceptFilter),
    /// Who dials whom
    #[command(subcommand)]
    Mode(Mode),
    /// Encryption between gateway and device
    #[command(subcommand)]
    Ssl(Ssl),
    /// Devices behind devices
    #[command(subcommand)]
    Slaves(Slaves),
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct Connect {
    /// Its IPv4 address
    ip: String,
    #[command(flatten)]
    #[serde(flatten)]
    target: Target,
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct Target {
    /// Its port [default: 51211]
    #[arg(long)]
    port: Option<u64>,
    /// With SSL, as is switched on at the device
    #[arg(long)]
    ssl: bool,
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct Devices {
    /// The devices' IDs
    #[arg(value_name = "DEVICE", required = true, value_parser = device)]
    device_ids: Vec<u64>,
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct Change {
    #[command(flatten)]
    #[serde(flatten)]
    devices: Devices,
    /// The bare call, without what belongs to it (filter, registration, connection)
    #[arg(long = "no-apply", action = ArgAction::SetFalse)]
    apply: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Async {
    /// Register devices
    Add {
        /// ID and address, as in 544114231=192.168.0.104
        #[arg(value_name = "DEVICE=IP", required = true, value_parser = address)]
        devices: Vec<(u64, String)>,
        #[command(flatten)]
        target: Target,
    },
    /// Take registrations back, and disconnect
    Remove(Devices),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AcceptFilter {
    /// Show it
    Get,
    /// Replace the whole filter
    Set {
        /// The devices to be let in
        #[arg(value_name = "DEVICE", value_parser = device)]
        device_ids: Vec<u64>,
        /// Let every device in
        #[arg(long)]
        allow_all: bool,
        /// Accept no device
        #[arg(long, conflicts_with_all = ["device_ids", "allow_all"])]
        none: bool,
    },
    /// Let these devices in too
    Add(Devices),
    /// Let these devices in no more
    Remove(Devices),
    /// Let every device in, or (`off`) only those named
    AllowAll {
        /// on or off
        #[arg(value_parser = ["on", "off"], default_value = "on")]
        enabled: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Set it, with all that belongs to it
    Set(ModeSet),
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct ModeSet {
    /// Who dials whom
    #[arg(value_parser = ["server_to_device", "device_to_server"], ignore_case = true)]
    mode: String,
    #[command(flatten)]
    #[serde(flatten)]
    change: Change,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ssl {
    /// Switch it on, and connect again
    Enable(Change),
    /// Switch it off, and connect again
    Disable(Change),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Slaves {
    /// Show them
    Get,
    /// Set those behind one device: all of them, or none
    Set(SlavesSet),
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct SlavesSet {
    /// The device they hang on
    #[arg(value_name = "DEVICE", value_parser = device)]
    device_id: u64,
    /// Those on RS-485, with commas between
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', value_parser = device)]
    rs485: Vec<u64>,
    /// Those on Wiegand, with commas between
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', value_parser = device)]
    wiegand: Vec<u64>,
}

/// The request checks whether the number is a device's ID.
fn device(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write the device's number, as in 544114231".to_owned())
}

fn address(text: &str) -> Result<(u64, String), String> {
    let parsed = text.split_once('=').and_then(|(id, ip)| Some((id.parse().ok()?, ip.to_owned())));
    parsed.ok_or_else(|| format!("{text:?} is not as in 544114231=192.168.0.104"))
}

/// Seconds for a request. JSON has no infinity; as text it is refused by the request's check.
pub(crate) fn seconds(number: f64) -> Value {
    if number.is_finite() { json!(number) } else { json!(number.to_string()) }
}

impl CtlCommand {
    /// The command and the fields of its request; `None` for `watch`.
    pub(crate) fn request(self) -> Option<(CommandName, Value)> {
        Some(match self {
            Self::Watch => return None,
            Self::Devices => (CommandName::Devices, json!({})),
            Self::Search { wait } => (CommandName::Search, json!({ "wait_s": seconds(wait) })),
            Self::Pending => (CommandName::Pending, json!({})),
            Self::Connect(connect) => (CommandName::Connect, json!(connect)),
            Self::Disconnect(devices) => (CommandName::Disconnect, json!(devices)),
            Self::DisconnectAll => (CommandName::DisconnectAll, json!({})),
            Self::Async(Async::Add { devices, target: Target { port, ssl } }) => {
                let devices: Vec<Value> = devices
                    .into_iter()
                    .map(|(id, ip)| json!({ "device_id": id, "ip": ip, "port": port, "ssl": ssl }))
                    .collect();
                (CommandName::AsyncAdd, json!({ "devices": devices }))
            }
            Self::Async(Async::Remove(devices)) => (CommandName::AsyncRemove, json!(devices)),
            Self::AcceptFilter(command) => command.request(),
            Self::Mode(Mode::Set(mode)) => (CommandName::ModeSet, json!(mode)),
            Self::Ssl(Ssl::Enable(change)) => (CommandName::SslEnable, json!(change)),
            Self::Ssl(Ssl::Disable(change)) => (CommandName::SslDisable, json!(change)),
            Self::Slaves(Slaves::Get) => (CommandName::SlavesGet, json!({})),
            Self::Slaves(Slaves::Set(slaves)) => {
                (CommandName::SlavesSet, json!({ "slaves": [slaves] }))
            }
        })
    }
}

impl AcceptFilter {
    fn request(self) -> (CommandName, Value) {
        match self {
            Self::Get => (CommandName::FilterGet, json!({})),
            Self::Set { device_ids, allow_all, none } => {
                // Options that were not given are not sent: the request's check asks for them.
                let device_ids = (none || !device_ids.is_empty()).then_some(device_ids);
                let allow_all = allow_all.then_some(true);
                (
                    CommandName::FilterSet,
                    json!({ "device_ids": device_ids, "allow_all": allow_all }),
                )
            }
            Self::Add(devices) => (CommandName::FilterAdd, json!(devices)),
            Self::Remove(devices) => (CommandName::FilterRemove, json!(devices)),
            Self::AllowAll { enabled } => {
                (CommandName::FilterAllowAll, json!({ "enabled": enabled == "on" }))
            }
        }
    }
}
