//! `gsdk2mqtt ctl`: sends commands directly to a gateway. The arguments become a request that
//! `commands` checks and runs in the same way as requests over MQTT.

mod arguments;
mod progress;
mod table;
mod terminal;
mod watch;

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use tokio::sync::watch::Sender;
use tokio::time::Instant;
use tonic::Code;

use arguments::CtlCommand;
use terminal::Terminal;

use crate::bridge::{desired, gateway_entry, gateway_target};
use crate::cli::escape::escaped;

use crate::commands::{
    Calls, Command, EXAMPLE_FOLLOWS, Failure, FailureCode, Outcome, Progress, Request, Response,
    ResultKind, Warning, device_rows, read_details, run as run_on,
};
use crate::config::{self, Config};
use crate::desired::{DesiredItem, DesiredState, Reconciler};
use crate::gsdk::{ErrorCode, GatewayOptions, GatewayTarget, LinkTiming, QUEUE_SIZE_DEFAULT};
use crate::ids::{CommandName, DeviceId, GatewayName, HostPort};
use crate::net::{DialCode, Peer, TlsFiles};
use crate::payload::GatewayEntry;

/// The name in JSON of a gateway that is given by its address.
const UNNAMED: &str = "gateway";

/// Commands sent directly to a gateway: those of MQTT, with a space for `/` and `-` for `_`.
#[derive(Debug, clap::Args)]
pub(crate) struct CtlArgs {
    #[command(flatten)]
    config: config::ConfigArgs,
    /// A gateway of the configuration; not needed if there is only one
    #[arg(long, global = true, value_name = "NAME")]
    gateway: Option<GatewayName>,
    /// The address of a gateway without a configuration; needs --ca-file
    #[arg(long, global = true, value_name = "HOST:PORT")]
    address: Option<String>,
    /// The `ca.crt` of the gateway at --address
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The name in the certificate of the gateway at --address, if it differs from the host
    #[arg(long, global = true, value_name = "NAME")]
    server_name: Option<String>,
    /// Print JSON instead of tables: one document, or one line for each event
    #[arg(long, global = true)]
    json: bool,
    /// Do not ask for confirmation of commands that affect every device
    #[arg(long, short, global = true)]
    yes: bool,
    /// The maximum duration of the command, in seconds; a change may last up to 10 s more
    #[arg(long, global = true, value_name = "SECONDS")]
    timeout: Option<f64>,
    #[command(subcommand)]
    command: CtlCommand,
}

/// The gateway that the command is for.
struct ChosenGateway {
    target: GatewayTarget,
    /// The names of its devices.
    entry: GatewayEntry,
    /// The items that the configuration declares.
    declared: DesiredState,
    /// The gateway in messages.
    peer: Peer,
}

pub(crate) async fn run(args: CtlArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let gateway = gateway(&args);
    let request = args.command.request();
    let gateway = match gateway {
        Ok(gateway) => gateway,
        Err(error) if args.json => {
            let outcome = Outcome::failed(Failure::invalid(format!("{error:#}")));
            let name = request.map_or("watch", |(name, _)| name.as_str());
            let gateway = args.gateway.map(|name| name.to_string());
            print_json(&Response::new(name, gateway, None, outcome, started.elapsed()))?;
            return Ok(ExitCode::from(super::EXIT_WRONG));
        }
        Err(error) => return Err(super::WrongUsage(format!("{error:#}")).into()),
    };
    let Some((name, mut fields)) = request else {
        let timeout = args.timeout.map(Duration::try_from_secs_f64).transpose();
        let wrong = "--timeout: expected a number of seconds, as in 30";
        let timeout = timeout.map_err(|_| super::WrongUsage(wrong.to_owned()))?;
        return watch::run(gateway, args.json, timeout).await;
    };
    if let Some(timeout) = args.timeout {
        fields["timeout_s"] = arguments::seconds(timeout);
    }
    let mut outcome = match Command::read_request(name, fields.to_string().as_bytes()) {
        Err(refused) => Outcome::failed(refused.failure),
        Ok(request) => {
            let ChosenGateway { entry, declared, .. } = &gateway;
            let refused = match request.command.check_declared(&entry.name, declared) {
                Ok(()) => refused_by_user(&request.command, args.yes)?,
                Err(failure) => Some(failure),
            };
            match refused {
                Some(failure) => Outcome::failed(failure),
                None => {
                    let work = |report| execute(&gateway, &request, report);
                    progress::until_interrupted(&request.command, work).await
                }
            }
        }
    };
    if let Some(failure) = &mut outcome.error {
        failure.message = name_request_options(&failure.message);
    }
    let gateway_name = Some(gateway.entry.name.to_string());
    let answer = Response::new(name.as_str(), gateway_name, None, outcome, started.elapsed());
    let code = match (answer.result, answer.error.as_ref().map(|error| error.code)) {
        (ResultKind::Ok, _) => ExitCode::SUCCESS,
        (_, Some(FailureCode::InvalidRequest)) => ExitCode::from(super::EXIT_WRONG),
        (ResultKind::Partial | ResultKind::Error, _) => ExitCode::FAILURE,
    };
    show(name, &answer, &gateway.entry, args.json)?;
    Ok(code)
}

/// Replaces fields of the request by their options, and omits the example of a request.
fn name_request_options(message: &str) -> String {
    let (message, _) = message.split_once(EXAMPLE_FOLLOWS).unwrap_or((message, ""));
    message.replace("timeout_s", "--timeout").replace("wait_s", "--wait")
}

async fn execute(
    gateway: &ChosenGateway,
    request: &Request,
    progress: Sender<Progress>,
) -> Outcome {
    let deadline = request.timeout.map(|timeout| Instant::now() + timeout);
    let dial = gateway.target.dial(Arc::new(|_: &_| {}));
    let client = match deadline {
        None => dial.await,
        Some(deadline) => match tokio::time::timeout_at(deadline, dial).await {
            Ok(client) => client,
            Err(_) => {
                let message = "no connection to the gateway within --timeout; nothing was done";
                return Outcome::failed(Failure::new(FailureCode::Timeout, message));
            }
        },
    };
    match client {
        Ok(client) => {
            let calls = Calls::new(client.clone(), deadline).reporting_to(progress);
            let mut outcome = run_on(&request.command, &calls).await;
            let rows = outcome.listed.as_deref().unwrap_or_default();
            let details = read_details(&client, rows, deadline).await;
            outcome.render_devices(|rows| device_rows(&gateway.entry, rows, &details));
            if client.stored().is_none() {
                outcome.warn_not_remembered("`ctl` does not restore it");
            }
            gateway.warn_retained_by_config(&mut outcome);
            outcome
        }
        Err(error) => {
            let is_usage = is_usage_error(error.code());
            let Failure { code, message, .. } = error.into();
            let code = if is_usage { FailureCode::InvalidRequest } else { code };
            Outcome::failed(Failure::new(code, message))
        }
    }
}

/// Whether an option is wrong, so that the gateway was not called.
fn is_usage_error(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Dial(
            DialCode::CaFileUnreadable | DialCode::CaFileInvalid | DialCode::ServerNameInvalid
        )
    )
}

impl ChosenGateway {
    /// Warns about declared items that a command removed.
    fn warn_retained_by_config(&self, outcome: &mut Outcome) {
        let effects = std::mem::take(&mut outcome.effects);
        let retained_by_config = Reconciler::new(self.declared.clone()).command_finished(effects);
        let name = &self.entry.name;
        let warning = |item: DesiredItem| Warning::kept_by_configuration(name, item.device_id());
        outcome.warnings.extend(retained_by_config.into_iter().map(warning));
    }
}

/// The gateway that the options name.
fn gateway(args: &CtlArgs) -> anyhow::Result<ChosenGateway> {
    match (&args.address, &args.ca_file, &args.gateway) {
        (Some(address), Some(ca_file), None) => by_address(address, ca_file, &args.server_name),
        (Some(_), Some(_), Some(_)) => {
            bail!("--gateway and --address exclude each other; omit one")
        }
        (Some(_), None, _) => bail!(
            "--address needs --ca-file, the ca.crt that the gateway made when it was installed"
        ),
        (None, None, name) if args.server_name.is_none() => {
            match config::load(&args.config, std::env::vars_os()) {
                Ok(loaded) => configured(&loaded.config, name.as_ref()),
                Err(error) => bail!("{error}\n(or name a gateway with --address and --ca-file)"),
            }
        }
        (None, ..) => bail!("--ca-file and --server-name belong to --address; give that too"),
    }
}

fn by_address(
    address: &str,
    ca_file: &Path,
    server_name: &Option<String>,
) -> anyhow::Result<ChosenGateway> {
    let address = config::read_text(config::gateway_address::<_, HostPort>, address);
    let address = address.map_err(|error| anyhow!("--address: {error}"))?;
    let server_name = server_name.clone().unwrap_or_else(|| address.host.clone());
    let (shown, peer) = (address.to_string(), Peer::Address(address.to_string()));
    let target = GatewayTarget::Direct(GatewayOptions {
        peer: peer.clone(),
        address,
        files: TlsFiles { ca_file: Some(ca_file.to_owned()), ..TlsFiles::default() },
        server_name: Some(server_name),
        queue_size: QUEUE_SIZE_DEFAULT,
        timing: LinkTiming::default(),
    });
    let (name, devices) = (UNNAMED.parse()?, Arc::default());
    let entry = GatewayEntry { name, address: shown, master: None, area: None, devices };
    Ok(ChosenGateway { target, entry, declared: DesiredState::default(), peer })
}

fn configured(config: &Config, wanted: Option<&GatewayName>) -> anyhow::Result<ChosenGateway> {
    let names = config.gateways.keys().map(GatewayName::as_str).collect::<Vec<_>>().join(", ");
    let remedy = match config.masters.is_empty() {
        true => "",
        false => "; one behind a master needs a table [gateways.NAME] with master and gateway_id",
    };
    let name = match (wanted, config.gateways.keys().next()) {
        (Some(name), _) => name,
        (None, Some(only)) if config.gateways.len() == 1 => only,
        (None, Some(_)) => {
            bail!("several gateways are configured; choose with --gateway one of {names}")
        }
        (None, None) => bail!("no gateway is configured{remedy}"),
    };
    let Some(gateway) = config.gateways.get(name) else {
        let others = if names.is_empty() { "" } else { "; there are " };
        bail!("no gateway {name} is configured{others}{names}{remedy}");
    };
    let target = gateway_target(&config.masters, name, gateway)?;
    let entry = gateway_entry(&config.masters, name, gateway);
    let (declared, peer) = (desired(gateway), Peer::Gateway(name.clone()));
    Ok(ChosenGateway { target, entry, declared, peer })
}

/// Asks for confirmation of a command that affects every device. Returns why it is not run.
fn refused_by_user(command: &Command, yes: bool) -> anyhow::Result<Option<Failure>> {
    let allows_all = match command {
        Command::FilterAllowAll(enabled) => *enabled,
        Command::FilterSet(filter) => filter.allow_all,
        _ => false,
    };
    let question = match command {
        Command::DisconnectAll if !yes => "This disconnects every device of the gateway.",
        _ if allows_all && !yes => "This accepts every device that dials the gateway.",
        _ => return Ok(None),
    };
    let input = std::io::stdin();
    if !input.is_terminal() {
        let message = format!("{question} Add --yes to confirm; nothing was done");
        return Ok(Some(Failure::new(Code::Cancelled, message)));
    }
    write!(std::io::stderr(), "{question} Continue? [y/N] ")?;
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    let confirmed = matches!(line.trim().to_lowercase().as_str(), "y" | "yes");
    Ok((!confirmed).then(|| Failure::new(Code::Cancelled, "nothing was done")))
}

fn print_json(answer: &Response) -> anyhow::Result<bool> {
    super::print(&format!("{}\n", serde_json::to_string(answer)?))
}

/// Prints data to stdout, then errors to stderr, even if stdout is closed.
fn show(
    command: CommandName,
    answer: &Response,
    entry: &GatewayEntry,
    json: bool,
) -> anyhow::Result<()> {
    if json {
        return print_json(answer).map(drop);
    }
    let name_of = |id: DeviceId| entry.devices.get(&id)?.name.clone();
    let mut shown = Ok(true);
    // A command that failed as a whole has no data, but may have steps.
    if answer.result != ResultKind::Error || answer.data.value()["steps"].get(0).is_some() {
        let by_number = |id: u64| name_of(DeviceId::new(u32::try_from(id).ok()?)?);
        let terminal = Terminal::of_stdout();
        let (text, omitted) = table::format(command, answer.data.value(), by_number, terminal);
        shown = super::print(&text);
        if !omitted.is_empty() {
            let omitted = omitted.join(", ");
            super::say(&format!("no room for {omitted}; widen the terminal, or use --json"));
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
    if let Some(error) = answer.error.as_ref().filter(|_| answer.device_errors.is_empty()) {
        super::say(&escaped(&error.to_string()));
    }
    shown.map(drop)
}
