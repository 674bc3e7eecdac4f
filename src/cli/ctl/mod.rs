//! `gsdk2mqtt ctl`: commands straight to a gateway, for people and for scripts.
//!
//! May not check or run a command itself: its words become a request, and `commands` does the rest,
//! exactly as for one that came over MQTT.

mod look;
mod progress;
mod table;
mod watch;
mod words;

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::time::Instant;

use crate::bridge::gateway_options;
use crate::cli::escape::escaped;
use crate::commands::{
    Calls, Command, Failure, Outcome, Request, Response, Verdict, code, device_rows, run as run_on,
};
use crate::config::{self, Config};
use crate::gsdk::{
    ErrorCode, GatewayClient, GatewayOptions, PORT_DEFAULT, QUEUE_SIZE_DEFAULT, Timing,
};
use crate::ids::{DeviceId, GatewayName, HostPort};
use crate::net::DialCode;
use crate::payload::GatewayEntry;
use words::{Asked, Words};

/// What a gateway is called that is given by its address.
const UNNAMED: &str = "gateway";

/// Commands straight to a gateway: those of MQTT, `/` as a space and `_` as `-`.
#[derive(Debug, clap::Args)]
pub(super) struct CtlArgs {
    #[command(flatten)]
    config: config::Args,
    /// Which gateway of the configuration; may be left out where there is only one
    #[arg(long, global = true, value_name = "NAME")]
    gateway: Option<GatewayName>,
    /// A gateway that need not be configured; with --ca-file
    #[arg(long, global = true, value_name = "HOST:PORT")]
    address: Option<String>,
    /// The `ca.crt` of the gateway at --address
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The name in the certificate of the gateway at --address, where it is another
    #[arg(long, global = true, value_name = "NAME")]
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
    /// Whether it was given by its address.
    unnamed: bool,
}

pub(super) async fn run(args: CtlArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let found = gateway(&args);
    let asked = args.words.ask();
    let gateway = match found {
        Ok(gateway) => gateway,
        Err(wrong) => {
            if args.json {
                let outcome = Outcome::failed(Failure::invalid(format!("{wrong:#}")));
                let (name, gateway) = (asked.name(), args.gateway.map(|name| name.to_string()));
                let took = begun.elapsed();
                document(&Response::new(name, gateway, None, outcome, took, |_| Value::Null))?;
            } else {
                super::say(&format!("{wrong:#}"));
            }
            return Ok(ExitCode::from(super::EXIT_WRONG));
        }
    };
    let (name, mut fields) = match asked {
        Asked::Watch => return watch::run(gateway, args.json).await,
        Asked::Command(name, fields) => (name, fields),
    };
    if let Some(timeout) = args.timeout {
        fields.insert("timeout_s".to_owned(), words::seconds(timeout));
    }
    let outcome = match Request::read(name, Value::Object(fields).to_string().as_bytes()) {
        Err(refused) => Outcome::failed(refused.failure),
        Ok(request) => match confirmed(&request.command, args.yes)? {
            Some(failure) => Outcome::failed(failure),
            None => tokio::select! {
                outcome = progress::during(&request.command, ask(&gateway, &request)) => outcome,
                () = super::stop_signal() => interrupted(&request.command),
            },
        },
    };
    let answer = Response::new(
        name.as_str(),
        Some(gateway.entry.name.to_string()),
        None,
        outcome,
        begun.elapsed(),
        |rows| device_rows(&gateway.entry, rows),
    );
    let code = match answer.result {
        Verdict::Ok => ExitCode::SUCCESS,
        Verdict::Error if answer.word() == code::INVALID_REQUEST => {
            ExitCode::from(super::EXIT_WRONG)
        }
        Verdict::Partial | Verdict::Error => ExitCode::FAILURE,
    };
    match show(&answer, &gateway.entry, args.json) {
        // What came of the command does not change because nobody reads it.
        Err(error) if super::is_closed_pipe(&error) => Ok(code),
        shown => shown.map(|()| code),
    }
}

/// Nobody waits for the answer any more; the gateway may go on with what it has been asked.
fn interrupted(command: &Command) -> Outcome {
    let message = if command.changes() {
        "interrupted while the gateway was at it; what was done is not known: see `devices`"
    } else {
        "interrupted"
    };
    Outcome::failed(Failure::new("cancelled", message))
}

async fn ask(gateway: &Gateway, request: &Request) -> Outcome {
    let until = request.timeout.map(|timeout| Instant::now() + timeout);
    let dial = GatewayClient::dial(&gateway.options, Arc::new(|_: &_| {}));
    let dialled = match until {
        None => dial.await,
        Some(until) => match tokio::time::timeout_at(until, dial).await {
            Ok(dialled) => dialled,
            Err(_) => {
                let message = "no link to the gateway within --timeout; nothing was done";
                return Outcome::failed(Failure::new(code::TIMEOUT, message));
            }
        },
    };
    match dialled {
        Ok(client) => {
            let mut outcome = run_on(&request.command, &Calls::new(client, until)).await;
            outcome.warn_not_remembered("this program does not stay to give it again");
            outcome
        }
        Err(error) => {
            let wrong = is_own_mistake(error.code());
            let Failure { code, message } = error.into();
            let code = if wrong { code::INVALID_REQUEST } else { code };
            Outcome::failed(Failure::new(code, gateway.in_its_words(&message)))
        }
    }
}

/// Whether no gateway was asked at all, as what is needed to ask one is wrong.
fn is_own_mistake(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Dial(
            DialCode::CaFileUnreadable | DialCode::CaFileInvalid | DialCode::ServerNameInvalid
        )
    )
}

impl Gateway {
    /// A gateway given by its address has options where a configured one has keys.
    fn in_its_words(&self, message: &str) -> String {
        if !self.unnamed {
            return message.to_owned();
        }
        [("address", "--address"), ("ca_file", "--ca-file"), ("server_name", "--server-name")]
            .iter()
            .fold(message.to_owned(), |message, (key, option)| {
                let key = format!("gateways.{UNNAMED}.{key}");
                message.replace(&format!("{key} ="), option).replace(&key, option)
            })
    }
}

/// The gateway that was meant.
fn gateway(args: &CtlArgs) -> anyhow::Result<Gateway> {
    match (&args.address, &args.ca_file, &args.gateway) {
        (Some(_), Some(_), Some(_)) => {
            bail!("--gateway and --address both say which; leave one out")
        }
        (Some(_), None, _) => bail!(
            "--address needs --ca-file, the ca.crt that the gateway made when it was installed"
        ),
        (None, ca_file, _) if ca_file.is_some() || args.server_name.is_some() => {
            bail!("--ca-file and --server-name belong to --address; give that too")
        }
        _ => {}
    }
    if let (Some(address), Some(ca_file)) = (&args.address, &args.ca_file) {
        let address = HostPort::parse(address, PORT_DEFAULT).with_context(|| {
            format!("{address:?} is not an address; write host:port, as in 192.168.0.2:4000")
        })?;
        let name: GatewayName = UNNAMED.parse()?;
        let entry = GatewayEntry {
            name: name.clone(),
            address: address.to_string(),
            area: None,
            devices: Arc::default(),
        };
        let options = GatewayOptions {
            name,
            address,
            ca_file: ca_file.clone(),
            server_name: args.server_name.clone(),
            queue_size: QUEUE_SIZE_DEFAULT,
            timing: Timing::default(),
        };
        return Ok(Gateway { options, entry, unnamed: true });
    }
    let config = match config::load(&args.config, std::env::vars_os()) {
        Ok(loaded) => loaded.config,
        Err(error) => bail!("{error}\n(or name a gateway with --address and --ca-file)"),
    };
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
        (id, crate::payload::DeviceEntry { name: device.name.clone(), area: None, kept })
    });
    let entry = GatewayEntry {
        name: name.clone(),
        address: gateway.address.to_string(),
        area: None,
        devices: Arc::new(devices.collect()),
    };
    Ok(Gateway { options: gateway_options(name, gateway), entry, unnamed: false })
}

/// What stands against a command that concerns every device: nobody has said that it is meant.
fn confirmed(command: &Command, yes: bool) -> anyhow::Result<Option<Failure>> {
    let question = match command {
        _ if yes => return Ok(None),
        Command::DisconnectAll => "This disconnects every device of the gateway.",
        Command::FilterAllowAll(true) => "This lets every device in that dials the gateway.",
        Command::FilterSet(filter) if filter.allow_all => {
            "This lets every device in that dials the gateway."
        }
        _ => return Ok(None),
    };
    let input = std::io::stdin();
    if !input.is_terminal() {
        let message = format!("{question} Add --yes if that is meant; nothing was done");
        return Ok(Some(Failure::new("cancelled", message)));
    }
    write!(std::io::stderr(), "{question} Go on? [y/N] ")?;
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    let meant = matches!(line.trim().to_lowercase().as_str(), "y" | "yes");
    Ok((!meant).then(|| Failure::new("cancelled", "nothing was done")))
}

/// An answer as one document.
fn document(answer: &Response) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(answer)?)?)
}

/// The answer: data to stdout, what went wrong to stderr, also where nobody reads the data.
fn show(answer: &Response, entry: &GatewayEntry, json: bool) -> anyhow::Result<()> {
    if json {
        return document(answer);
    }
    let name_of = |id: DeviceId| entry.devices.get(&id)?.name.clone();
    let mut shown = Ok(());
    // What failed as a whole has no data, but perhaps steps.
    if answer.result != Verdict::Error || answer.data.value().get("steps").is_some() {
        let by_number = |id: u64| name_of(DeviceId::new(u32::try_from(id).ok()?)?);
        let look = look::Look::of_stdout();
        let (text, left_out) = table::of(&answer.command, answer.data.value(), by_number, look);
        let mut out = std::io::stdout().lock();
        shown = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if !left_out.is_empty() {
            let left_out = left_out.join(", ");
            super::say(&format!("no room for {left_out}; widen the terminal, or see --json"));
        }
    }
    let device = |id: DeviceId| {
        let name = name_of(id).map(|name| format!(" ({})", escaped(&name)));
        format!("device {id}{}: ", name.unwrap_or_default())
    };
    for warning in &answer.warnings {
        let device = warning.device_id.map(device).unwrap_or_default();
        super::say(&format!("warning: {device}{}", escaped(&warning.message)));
    }
    for error in &answer.device_errors {
        let device = device(error.device_id);
        super::say(&format!("{device}{}: {}", error.code, escaped(&error.message)));
    }
    match &answer.error {
        Some(error) if answer.device_errors.is_empty() => {
            super::say(&escaped(&error.to_string()));
        }
        _ => {}
    }
    Ok(shown?)
}
