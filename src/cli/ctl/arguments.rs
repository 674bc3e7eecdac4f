//! The subcommands of `ctl`. Their arguments are the fields of the request that each makes, which
//! checks the values.

use clap::{ArgAction, Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use crate::ids::CommandName;

/// A subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// List the gateway's devices and their connections
    Devices,
    /// Search the gateway's subnet for devices
    Search {
        /// How long the gateway waits for answers, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
        wait: f64,
    },
    /// List devices that dialled the gateway and were refused
    Pending,
    /// Print every status of a device as it arrives, until Ctrl-C or --timeout
    Watch,
    /// Connect a device until its connection ends
    Connect(ConnectArgs),
    /// Disconnect devices; the gateway reconnects registered ones
    Disconnect(DeviceArgs),
    /// Disconnect every device of the gateway
    DisconnectAll,
    /// Registrations: devices that the gateway dials and reconnects
    #[command(subcommand)]
    Async(Async),
    /// The accept filter: which devices may dial the gateway
    #[command(subcommand)]
    AcceptFilter(AcceptFilterCommand),
    /// Whether the gateway dials a device or the device dials the gateway
    #[command(subcommand)]
    Mode(ModeCommand),
    /// Encryption between gateway and device
    #[command(subcommand)]
    Ssl(Ssl),
    /// Slave devices, which are connected through other devices
    #[command(subcommand)]
    Slaves(SlavesCommand),
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct ConnectArgs {
    /// Its IPv4 address
    ip: String,
    #[command(flatten)]
    #[serde(flatten)]
    target: TargetArgs,
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct TargetArgs {
    /// Its port [default: 51211]
    #[arg(long)]
    port: Option<u64>,
    /// Use SSL, if it is enabled at the device
    #[arg(long)]
    ssl: bool,
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct DeviceArgs {
    /// The devices' IDs
    #[arg(value_name = "DEVICE", required = true, value_parser = device)]
    device_ids: Vec<u64>,
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    #[serde(flatten)]
    devices: DeviceArgs,
    /// Only the call itself, without the related changes (filter, registration, connection)
    #[arg(long = "no-apply", action = ArgAction::SetFalse)]
    apply: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Async {
    /// Register devices
    Add {
        /// ID and address, such as 544114231=192.168.0.104
        #[arg(value_name = "DEVICE=IP", required = true, value_parser = address)]
        devices: Vec<(u64, String)>,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Remove registrations, and disconnect the devices
    Remove(DeviceArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AcceptFilterCommand {
    /// Show the filter
    Get,
    /// Replace the whole filter
    Set {
        /// The devices to accept
        #[arg(value_name = "DEVICE", value_parser = device)]
        device_ids: Vec<u64>,
        /// Accept every device
        #[arg(long)]
        allow_all: bool,
        /// Accept no device
        #[arg(long, conflicts_with_all = ["device_ids", "allow_all"])]
        none: bool,
    },
    /// Add devices to the filter
    Add(DeviceArgs),
    /// Remove devices from the filter
    Remove(DeviceArgs),
    /// Accept every device, or (`off`) only those in the filter
    AllowAll {
        /// on or off
        #[arg(value_parser = ["on", "off"], default_value = "on", ignore_case = true)]
        enabled: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModeCommand {
    /// Set the mode, with all related changes
    Set(ModeSet),
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct ModeSet {
    /// Whether the gateway dials a device or the device dials the gateway
    #[arg(value_parser = ["server_to_device", "device_to_server"], ignore_case = true)]
    mode: String,
    #[command(flatten)]
    #[serde(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ssl {
    /// Enable SSL, and reconnect
    Enable(ChangeArgs),
    /// Disable SSL, and reconnect
    Disable(ChangeArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SlavesCommand {
    /// List slave devices
    Get,
    /// Set all slave devices of one device; without any, remove them
    Set(SlavesSet),
}

#[derive(Debug, Args, Serialize)]
pub(crate) struct SlavesSet {
    /// The device through which they are connected
    #[arg(value_name = "DEVICE", value_parser = device)]
    device_id: u64,
    /// IDs on RS-485, separated by commas
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', value_parser = device)]
    rs485: Vec<u64>,
    /// IDs on Wiegand, separated by commas
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
            Self::Async(Async::Add { devices, target: TargetArgs { port, ssl } }) => {
                let devices: Vec<Value> = devices
                    .into_iter()
                    .map(|(id, ip)| json!({ "device_id": id, "ip": ip, "port": port, "ssl": ssl }))
                    .collect();
                (CommandName::AsyncAdd, json!({ "devices": devices }))
            }
            Self::Async(Async::Remove(devices)) => (CommandName::AsyncRemove, json!(devices)),
            Self::AcceptFilter(command) => command.request(),
            Self::Mode(ModeCommand::Set(mode)) => (CommandName::ModeSet, json!(mode)),
            Self::Ssl(Ssl::Enable(change)) => (CommandName::SslEnable, json!(change)),
            Self::Ssl(Ssl::Disable(change)) => (CommandName::SslDisable, json!(change)),
            Self::Slaves(SlavesCommand::Get) => (CommandName::SlavesGet, json!({})),
            Self::Slaves(SlavesCommand::Set(slaves)) => {
                (CommandName::SlavesSet, json!({ "slaves": [slaves] }))
            }
        })
    }
}

impl AcceptFilterCommand {
    fn request(self) -> (CommandName, Value) {
        match self {
            Self::Get => (CommandName::FilterGet, json!({})),
            Self::Set { device_ids, allow_all, none } => {
                // Missing options are not sent: the request's check reports them.
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
                let enabled = enabled.eq_ignore_ascii_case("on");
                (CommandName::FilterAllowAll, json!({ "enabled": enabled }))
            }
        }
    }
}
