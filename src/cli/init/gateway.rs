//! The prompts for a device gateway: address, trusted certificate, names of devices.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::asker::{Asker, InitStop, NewContents, Question};
use super::draft::Draft;
use super::files::FileAccess;
use crate::cli::{escape::escaped, print_to_stderr};
use crate::config;
use crate::doctor::{self, Level};
use crate::fleet::DeviceType;
use crate::gsdk::{Error, GatewayClient};
use crate::ids::{DeviceId, GatewayName, HostPort};
use crate::net::{self, DialTarget, Peer, PresentedCertificate};

/// How long the gateway searches its subnet for devices to name.
const SEARCH: Duration = Duration::from_secs(5);
/// How long a gateway may take to show its certificate.
const DEADLINE: Duration = Duration::from_secs(10);

/// The options that set a gateway's keys.
const OPTIONS: [(&str, &str); 3] =
    [("address", "--gateway-address"), ("ca_file", "--ca-file"), ("server_name", "--server-name")];

/// A device gateway.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GatewayArgs {
    /// The gateway's name in topics, such as lobby
    #[arg(long, value_name = "NAME")]
    gateway_name: Option<String>,
    /// The gateway's address
    #[arg(long, value_name = "HOST:PORT")]
    gateway_address: Option<String>,
    /// The `ca.crt` of the gateway or master gateway, which is copied to the
    /// configuration's folder
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Instead of --ca-file: the SHA-256 fingerprint of the gateway's certificate
    #[arg(long, value_name = "SHA256", conflicts_with = "ca_file")]
    fingerprint: Option<String>,
    /// The name in the gateway's certificate, if it differs from the host
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// The display name of a device, such as 544114231="Front door"; may be repeated
    #[arg(long = "device", value_name = "ID=NAME", value_parser = device)]
    devices: Vec<(DeviceId, String)>,
}

impl GatewayArgs {
    /// Whether a device gateway is meant.
    pub(crate) const fn is_given(&self) -> bool {
        self.gateway_name.is_some() || self.gateway_address.is_some()
    }
}

fn device(text: &str) -> Result<(DeviceId, String), String> {
    let (id, name) = text.split_once('=').ok_or("write ID=NAME")?;
    let id = id.trim().parse().map_err(|_| format!("{id:?} is not the ID of a device"))?;
    Ok((id, name.trim().to_owned()))
}

/// Prompts for a gateway until it answers, and describes it in the draft.
pub(crate) async fn ask(
    asker: Asker,
    mut args: GatewayArgs,
    draft: &mut Draft,
) -> Result<(), InitStop> {
    let mut named = BTreeSet::new();
    if let Some((id, _)) = args.devices.iter().find(|(id, _)| !named.insert(*id)) {
        return Err(InitStop::WrongUsage(format!("--device names {id} twice; omit one")));
    }
    let question = Question {
        text: "Name of the gateway in topics:",
        option: "--gateway-name",
        default: Some("lobby"),
    };
    let name = asker.read(args.gateway_name.take(), question, |text| unused(text, draft))?;
    let mut last_address = None;
    let client = loop {
        match attempt(asker, &mut args, &mut last_address, &name, draft).await {
            Ok(client) => break client,
            Err(stop) => {
                let table = format!("gateways.{name}");
                asker.report_refused(draft.explain(stop, &table, &OPTIONS))?;
            }
        }
    };
    name_devices(asker, &name, args.devices, &client, draft).await
}

/// A name that the configuration does not have.
pub(crate) fn unused(text: &str, draft: &Draft) -> Result<GatewayName, String> {
    let name: GatewayName = text.parse().map_err(|error| format!("{error}"))?;
    match draft.document.has(&name) {
        true => {
            Err(format!("the configuration has a master or gateway {name}; choose another name"))
        }
        false => Ok(name),
    }
}

/// Prompts, and connects to the gateway. Each option counts for the first attempt.
async fn attempt(
    asker: Asker,
    args: &mut GatewayArgs,
    last_address: &mut Option<String>,
    name: &GatewayName,
    draft: &mut Draft,
) -> Result<GatewayClient, InitStop> {
    let question = Question {
        text: "Address of the gateway (host:port, usually port 4000):",
        option: "--gateway-address",
        default: last_address.as_deref(),
    };
    let address = asker.read(args.gateway_address.take(), question, |text| {
        config::read_text(config::gateway_address::<_, HostPort>, text)
    })?;
    let shown = last_address.insert(address.to_string());
    let authority = authority(asker, args, name, &address).await?;
    let ca_file = draft.put(&format!("{name}-ca.crt"), authority, FileAccess::Public)?;
    let mut server_name = args.server_name.take();
    loop {
        let keys = [
            ("address", Some(shown.as_str())),
            ("ca_file", Some(ca_file.as_str())),
            ("server_name", server_name.as_deref()),
        ];
        draft.document.set("gateways", name, &keys);
        let options = draft.peer_options(&draft.load()?.config, name)?;
        match GatewayClient::dial(&options, Arc::new(|_: &_| {})).await {
            Ok(client) => {
                show(&doctor::examine_gateway(options).await)?;
                return Ok(client);
            }
            Err(error) => server_name = Some(other_name(asker, &error, server_name.as_deref())?),
        }
    }
}

/// The certificate to trust.
async fn authority(
    asker: Asker,
    args: &mut GatewayArgs,
    name: &GatewayName,
    address: &HostPort,
) -> Result<NewContents, InitStop> {
    let expected = args.fingerprint.take();
    let file = match (args.ca_file.take(), &expected) {
        (Some(file), _) => Some(file),
        (None, Some(_)) => None,
        (None, None) if !asker.has_terminal => {
            return Err(InitStop::missing("--ca-file (or --fingerprint)", false));
        }
        (None, None) => {
            let prompt = inquire::Text::new("Its ca.crt (empty: look at its certificate):");
            let path = prompt.prompt()?.trim().to_owned();
            (!path.is_empty()).then(|| PathBuf::from(path))
        }
    };
    match file {
        Some(file) => NewContents::read(file).map_err(InitStop::InvalidAnswer),
        None => {
            let contents = confirmed_certificate(asker, name, address, expected.as_deref()).await?;
            Ok(NewContents { contents, path: None })
        }
    }
}

/// Prints findings; the failures are an error.
pub(crate) fn show(findings: &[doctor::Finding]) -> Result<(), InitStop> {
    let failed = |finding: &&doctor::Finding| finding.level == Level::Fail;
    for finding in findings.iter().filter(|finding| !failed(finding)) {
        print_to_stderr(&escaped(&finding.to_string()));
    }
    let failures: Vec<_> =
        findings.iter().filter(failed).map(|finding| finding.text.as_str()).collect();
    if failures.is_empty() { Ok(()) } else { Err(InitStop::InvalidAnswer(failures.join("\n"))) }
}

/// Shows the certificate that a gateway presents, which is trusted only once its fingerprint is
/// confirmed.
async fn confirmed_certificate(
    asker: Asker,
    name: &GatewayName,
    address: &HostPort,
    expected: Option<&str>,
) -> Result<Vec<u8>, InitStop> {
    let target = DialTarget {
        peer: Peer::Gateway(name.clone()),
        address: address.clone(),
        tls: None,
        websocket_path: None,
        deadline: DEADLINE,
    };
    let presented = net::presented_certificate(&target).await;
    let presented = presented.map_err(|error| InitStop::InvalidAnswer(error.to_string()))?;
    let fingerprint = presented.fingerprint();
    if let Some(expected) = expected {
        let digits = |text: &str| -> String {
            text.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_lowercase()
        };
        if digits(expected) == digits(&fingerprint) {
            return Ok(presented.pem());
        }
        return Err(InitStop::InvalidAnswer(format!(
            "{address} shows a certificate with the fingerprint {fingerprint}, not {expected}; it \
             is not trusted"
        )));
    }
    print_to_stderr(&escaped(&description(address, &presented)));
    print_to_stderr(&format!(
        "SHA-256 fingerprint: {fingerprint}\nCompare it with that of the certificate on the \
         gateway's machine:\n  openssl x509 -noout -fingerprint -sha256 -in CERTIFICATE"
    ));
    let question = "Are the two the same?";
    if asker.confirm_in_person(question, "--fingerprint")? {
        return Ok(presented.pem());
    }
    let reason = "the certificate is not trusted; name the gateway's ca.crt";
    Err(InitStop::InvalidAnswer(reason.to_owned()))
}

fn description(address: &HostPort, presented: &PresentedCertificate) -> String {
    let Some(certificate) = presented.read() else {
        return format!("{address} shows a certificate that cannot be read");
    };
    format!(
        "{address} shows a certificate of {:?} with the names {}, signed by {:?}, valid from {} \
         to {}",
        certificate.subject,
        certificate.names.join(", "),
        certificate.issuer,
        certificate.not_before.utc_day(),
        certificate.not_after.utc_day()
    )
}

/// The name to expect in the certificate, after an attempt with the address failed because the
/// certificate has other names. Where it failed for another reason, or a name was given, the answer
/// is refused.
pub(crate) fn other_name(
    asker: Asker,
    error: &Error,
    given: Option<&str>,
) -> Result<String, InitStop> {
    let names = match error {
        Error::Dial(error) if given.is_none() && !error.names.is_empty() => &error.names,
        error => return Err(InitStop::InvalidAnswer(error.to_string())),
    };
    print_to_stderr(&escaped(&error.to_string()));
    let usable = names.iter().find(|name| !name.starts_with('*'));
    let question = Question {
        text: "Name in its certificate:",
        option: "--server-name",
        default: usable.map(String::as_str),
    };
    asker.text(question)
}

/// Takes the names of the options; in a terminal, prompts for those of the found devices.
async fn name_devices(
    asker: Asker,
    gateway: &GatewayName,
    given: Vec<(DeviceId, String)>,
    client: &GatewayClient,
    draft: &mut Draft,
) -> Result<(), InitStop> {
    let ask = given.is_empty()
        && asker.is_interactive()
        && asker.confirm(None, "Search devices and name them?", "--device", true)?;
    for (id, name) in given {
        draft.document.name_device(gateway, id, &name);
    }
    if !ask {
        return draft.load().map(drop);
    }
    let mut found = BTreeMap::<DeviceId, DeviceType>::new();
    match client.device_list().await {
        Ok(rows) => found.extend(rows.iter().map(|row| (row.device_id, row.info.device_type))),
        Err(error) => print_to_stderr(&escaped(&error.to_string())),
    }
    print_to_stderr("searching the gateway's subnet for 5 s");
    match client.search(SEARCH).await {
        Ok(rows) => found.extend(rows.iter().map(|row| (row.device_id, row.device_type))),
        Err(error) => print_to_stderr(&escaped(&error.to_string())),
    }
    print_to_stderr(&format!("{} found; leave a name empty to go without", found.len()));
    for (id, device_type) in found {
        let text = format!("Name of {} {id}:", device_type.product_name());
        let question = Question { text: &text, option: "--device", default: Some("") };
        let read = |text: &str| match text {
            "" => Ok(None),
            text => config::read_text(config::label, text),
        };
        if let Some(name) = asker.read(None, question, read)? {
            draft.document.name_device(gateway, id, &name);
        }
    }
    draft.load().map(drop)
}
