//! The prompts for a device gateway: address, trusted certificate, names of devices.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::asker::{Asker, InitStop, Question};
use super::draft::Draft;
use super::files::FileAccess;
use crate::bridge::gateway_target;
use crate::cli::{escape::escaped, print_to_stderr};
use crate::config;
use crate::doctor::{self, Level};
use crate::fleet::DeviceType;
use crate::gsdk::{Error, GatewayClient, GatewayOptions, GatewayTarget};
use crate::ids::{DeviceId, GatewayName, HostPort};
use crate::net::{self, DialTarget, Peer, PresentedCertificate};

/// How long the gateway searches its subnet for devices to name.
const SEARCH: Duration = Duration::from_secs(5);
/// How long a gateway may take to show its certificate.
const DEADLINE: Duration = Duration::from_secs(10);

/// A device gateway.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GatewayArgs {
    /// The gateway's name in topics, such as lobby
    #[arg(long, value_name = "NAME")]
    gateway_name: Option<GatewayName>,
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
    args: GatewayArgs,
    draft: &mut Draft,
) -> Result<(), InitStop> {
    let GatewayArgs { gateway_name, gateway_address, ca_file, fingerprint, .. } = args;
    let name = match gateway_name {
        Some(name) => unused(&name.to_string(), draft).map_err(InitStop::WrongUsage)?,
        None => {
            let question = Question {
                text: "Name of the gateway in topics:",
                option: "--gateway-name",
                default: Some("lobby"),
            };
            asker.read(None, question, |text| unused(text, draft))?
        }
    };
    let mut questions = Questions {
        address: gateway_address,
        ca_file,
        fingerprint,
        server_name: args.server_name,
        last_address: None,
    };
    let client = loop {
        match questions.attempt(asker, &name, draft).await {
            Ok(client) => break client,
            Err(stop) => asker.again(stop)?,
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

/// The values of the options, each for the first attempt only.
struct Questions {
    address: Option<String>,
    ca_file: Option<PathBuf>,
    fingerprint: Option<String>,
    server_name: Option<String>,
    last_address: Option<String>,
}

impl Questions {
    /// Prompts, and connects to the gateway.
    async fn attempt(
        &mut self,
        asker: Asker,
        name: &GatewayName,
        draft: &mut Draft,
    ) -> Result<GatewayClient, InitStop> {
        let question = Question {
            text: "Address of the gateway (host:port, usually port 4000):",
            option: "--gateway-address",
            default: self.last_address.as_deref(),
        };
        let address = asker.read(self.address.take(), question, config::gateway_address)?;
        self.last_address = Some(address.to_string());
        let authority = self.authority(asker, name, &address).await?;
        let ca_file = draft.put(&format!("{name}-ca.crt"), authority, FileAccess::Public)?;
        let mut server_name = self.server_name.take();
        loop {
            let shown = address.to_string();
            draft.document.set_gateway(name, &shown, &ca_file, server_name.as_deref());
            let options = options(name, draft)?;
            match GatewayClient::dial(&options, Arc::new(|_: &_| {})).await {
                Ok(client) => {
                    show(&doctor::examine_gateway(options).await)?;
                    return Ok(client);
                }
                Err(error) => {
                    server_name = Some(other_name(asker, &error, server_name.as_deref())?);
                }
            }
        }
    }

    /// The certificate to trust, in PEM form.
    async fn authority(
        &mut self,
        asker: Asker,
        name: &GatewayName,
        address: &HostPort,
    ) -> Result<Vec<u8>, InitStop> {
        let expected = self.fingerprint.take();
        let file = match (self.ca_file.take(), &expected) {
            (Some(file), _) => Some(file),
            (None, Some(_)) => None,
            (None, None) if !asker.has_terminal => {
                let option = "--ca-file (or --fingerprint)";
                return Err(InitStop::Missing { option, has_default: false });
            }
            (None, None) => {
                let prompt = inquire::Text::new("Its ca.crt (empty: look at its certificate):");
                let path = prompt.prompt()?.trim().to_owned();
                (!path.is_empty()).then(|| PathBuf::from(path))
            }
        };
        match file {
            Some(file) => read_authority(&file),
            None => confirmed(asker, name, address, expected.as_deref()).await,
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

fn options(name: &GatewayName, draft: &Draft) -> Result<GatewayOptions, InitStop> {
    let loaded = draft.load()?;
    let gateway = loaded.config.gateways.get(name);
    let gateway = gateway.ok_or_else(|| InitStop::Failed(format!("no table of gateway {name}")))?;
    let Some(GatewayTarget::Direct(mut options)) = gateway_target(&loaded.config, name, gateway)
    else {
        return Err(InitStop::Failed(format!("gateway {name} is behind a master")));
    };
    options.files.ca_file = options.files.ca_file.map(|path| draft.trial_path(&path));
    Ok(options)
}

fn read_authority(file: &Path) -> Result<Vec<u8>, InitStop> {
    std::fs::read(file).map_err(|error| {
        let path = file.display();
        InitStop::InvalidAnswer(format!(
            "{path} cannot be read ({error}); name the gateway's ca.crt"
        ))
    })
}

/// Shows the certificate that a gateway presents, which is trusted only once its fingerprint is
/// confirmed.
async fn confirmed(
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
    let day = |at: crate::ids::Moment| at.timestamp().strftime("%Y-%m-%d").to_string();
    format!(
        "{address} shows a certificate of {:?} with the names {}, signed by {:?}, valid from {} \
         to {}",
        certificate.subject,
        certificate.names.join(", "),
        certificate.issuer,
        day(certificate.not_before),
        day(certificate.not_after)
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
        Error::Dial(error) if given.is_none() => error.certificate_names(),
        _ => None,
    };
    let names = names.ok_or_else(|| InitStop::InvalidAnswer(error.to_string()))?;
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
        let read = |text: &str| Ok::<_, Infallible>(text.to_owned());
        let name = asker.read(None, question, read)?;
        if !name.is_empty() {
            draft.document.name_device(gateway, id, &name);
        }
    }
    draft.load().map(drop)
}
