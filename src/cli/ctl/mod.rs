//! `gsdk2mqtt ctl`: commands straight to a gateway, for people and for scripts.
//!
//! May not check or run a command itself: its words become a request, and `commands` does the rest,
//! exactly as for one that came over MQTT.

mod table;
mod watch;
mod words;

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bridge::gateway_options;
use crate::commands::{
    Calls, Command, Request, Response, Verdict, code, device_rows, run as run_on,
};
use crate::config::{self, Config};
use crate::gateway::{GatewayClient, GatewayOptions, PORT_DEFAULT, QUEUE_SIZE_DEFAULT, Timing};
use crate::ids::{DeviceId, GatewayName, HostPort};
use crate::payload::GatewayEntry;
use words::{Asked, Words};

/// Commands straight to a gateway: those of MQTT, `/` as a space and `_` as `-`.
#[derive(Debug, clap::Args)]
pub(super) struct CtlArgs {
    #[command(flatten)]
    config: config::Args,
    /// Which gateway of the configuration; may be left out where there is only one
    #[arg(long, value_name = "NAME", conflicts_with = "address")]
    gateway: Option<GatewayName>,
    /// A gateway that need not be configured
    #[arg(long, value_name = "HOST:PORT", requires = "ca_file")]
    address: Option<String>,
    /// The `ca.crt` of the gateway at --address
    #[arg(long, value_name = "FILE", requires = "address")]
    ca_file: Option<PathBuf>,
    /// The name in the certificate of the gateway at --address, where it is another
    #[arg(long, value_name = "NAME", requires = "address")]
    server_name: Option<String>,
    /// JSON instead of tables: one document, or one line an event
    #[arg(long, global = true)]
    json: bool,
    /// Do not ask before what concerns every device
    #[arg(long, short, global = true)]
    yes: bool,
    /// The longest that the command may take, in seconds
    #[arg(long, global = true, value_name = "SECONDS")]
    timeout: Option<f64>,
    #[command(subcommand)]
    words: Words,
}

/// A gateway to talk to.
struct Gateway {
    options: GatewayOptions,
    /// How its devices are called.
    entry: GatewayEntry,
}

pub(super) async fn run(args: CtlArgs) -> anyhow::Result<ExitCode> {
    let gateway = match gateway(&args) {
        Ok(gateway) => gateway,
        Err(wrong) => {
            super::say(&format!("{wrong:#}"));
            return Ok(ExitCode::from(super::EXIT_WRONG));
        }
    };
    let (name, mut fields) = match args.words.ask() {
        Asked::Watch => return watch::run(gateway, args.json).await,
        Asked::Command(name, fields) => (name, fields),
    };
    if let Some(timeout) = args.timeout {
        fields.insert("timeout_s".to_owned(), json!(timeout));
    }
    let request = match Request::read(name, Value::Object(fields).to_string().as_bytes()) {
        Ok(request) => request,
        Err(refused) => {
            super::say(&refused.failure.message);
            return Ok(ExitCode::from(super::EXIT_WRONG));
        }
    };
    if !args.yes && !confirmed(&request.command)? {
        super::say("nothing was done");
        return Ok(ExitCode::FAILURE);
    }
    let begun = Instant::now();
    let response = ask(&gateway, &request, args.json).await?;
    let answer = Response::new(
        name.as_str(),
        Some(gateway.entry.name.to_string()),
        None,
        response,
        begun.elapsed(),
        |rows| device_rows(&gateway.entry, rows),
    );
    show(&answer, &gateway.entry, args.json)?;
    Ok(match answer.result {
        Verdict::Ok => ExitCode::SUCCESS,
        Verdict::Error if answer.word() == code::INVALID_REQUEST => {
            ExitCode::from(super::EXIT_WRONG)
        }
        Verdict::Partial | Verdict::Error => ExitCode::FAILURE,
    })
}

async fn ask(
    gateway: &Gateway,
    request: &Request,
    json: bool,
) -> anyhow::Result<crate::commands::Outcome> {
    let client = GatewayClient::dial(&gateway.options, Arc::new(|_: &_| {})).await?;
    let until = request.timeout.map(|timeout| Instant::now() + timeout);
    if let Command::Search { wait } = &request.command
        && !json
        && std::io::stderr().is_terminal()
    {
        writeln!(std::io::stderr(), "searching for {} s ...", wait.as_secs_f32())?;
    }
    let mut outcome = run_on(&request.command, &Calls::new(client, until)).await;
    outcome.warn_not_remembered("this program does not stay to give it again");
    Ok(outcome)
}

/// The gateway that was meant.
fn gateway(args: &CtlArgs) -> anyhow::Result<Gateway> {
    if let (Some(address), Some(ca_file)) = (&args.address, &args.ca_file) {
        let address = HostPort::parse(address, PORT_DEFAULT).with_context(|| {
            format!("{address:?} is not an address; write host:port, as in 192.168.0.2:4000")
        })?;
        let name: GatewayName = "gateway".parse()?;
        let entry = GatewayEntry {
            name: name.clone(),
            address: address.to_string(),
            devices: std::collections::BTreeMap::new(),
        };
        let options = GatewayOptions {
            name,
            address,
            ca_file: ca_file.clone(),
            server_name: args.server_name.clone(),
            queue_size: QUEUE_SIZE_DEFAULT,
            timing: Timing::default(),
        };
        return Ok(Gateway { options, entry });
    }
    let config = config::load(&args.config, std::env::vars_os())?.config;
    configured(&config, args.gateway.as_ref())
}

fn configured(config: &Config, wanted: Option<&GatewayName>) -> anyhow::Result<Gateway> {
    let names: Vec<&str> = config.gateways.keys().map(GatewayName::as_str).collect();
    let names = names.join(", ");
    let name = match (wanted, config.gateways.keys().next()) {
        (Some(name), _) => name,
        (None, Some(only)) if config.gateways.len() == 1 => only,
        (None, _) => bail!("several gateways are configured; choose with --gateway one of {names}"),
    };
    let Some(gateway) = config.gateways.get(name) else {
        bail!("no gateway {name} is configured; there are {names}");
    };
    let devices = gateway.devices.iter().map(|(&id, device)| {
        let kept = device.connect != config::Connect::Observe;
        (id, crate::payload::DeviceEntry { name: device.name.clone(), kept })
    });
    let entry = GatewayEntry {
        name: name.clone(),
        address: gateway.address.to_string(),
        devices: devices.collect(),
    };
    Ok(Gateway { options: gateway_options(name, gateway), entry })
}

/// Whether a command that concerns every device is really meant.
fn confirmed(command: &Command) -> anyhow::Result<bool> {
    let question = match command {
        Command::DisconnectAll => "This disconnects every device of the gateway.",
        Command::FilterAllowAll(true) => "This lets every device in that dials the gateway.",
        Command::FilterSet(filter) if filter.allow_all => {
            "This lets every device in that dials the gateway."
        }
        _ => return Ok(true),
    };
    let input = std::io::stdin();
    if !input.is_terminal() {
        super::say(&format!("{question} Add --yes if that is meant"));
        return Ok(false);
    }
    write!(std::io::stderr(), "{question} Go on? [y/N] ")?;
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// The answer: data to stdout, what went wrong to stderr.
fn show(answer: &Response, entry: &GatewayEntry, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(answer)?)?;
        return Ok(());
    }
    // What failed as a whole has no data, but perhaps steps.
    if answer.result != Verdict::Error || answer.data.get("steps").is_some() {
        let name_of = |id: u64| {
            let id = DeviceId::new(u32::try_from(id).ok()?)?;
            entry.devices.get(&id)?.name.clone()
        };
        out.write_all(table::of(&answer.command, &answer.data, name_of).as_bytes())?;
        out.flush()?;
    }
    for warning in &answer.warnings {
        let device = warning.device_id.map(|id| format!("device {id}: ")).unwrap_or_default();
        super::say(&format!("warning: {device}{}", warning.message));
    }
    for error in &answer.device_errors {
        super::say(&format!("device {}: {}: {}", error.device_id, error.code, error.message));
    }
    match &answer.error {
        Some(error) if answer.device_errors.is_empty() => super::say(&error.to_string()),
        _ => {}
    }
    Ok(())
}
