//! The questions about a master gateway: where it is, and which tenant's certificate to show.

use std::path::PathBuf;
use std::sync::Arc;

use super::asker::{Asker, InitStop, NewContents, Question};
use super::draft::Draft;
use super::files::FileAccess;
use super::gateway::{other_name, show, unused};
use crate::config;
use crate::doctor;
use crate::gsdk::MasterClient;
use crate::ids::GatewayName;

/// The options of a device gateway that say nothing of a master.
const GATEWAY_ONLY: [&str; 4] = ["gateway_name", "gateway_address", "fingerprint", "devices"];

/// The options that set a master's keys.
const OPTIONS: [(&str, &str); 5] = [
    ("address", "--master-address"),
    ("ca_file", "--ca-file"),
    ("cert_file", "--cert-file"),
    ("key_file", "--key-file"),
    ("server_name", "--server-name"),
];

/// A master gateway, in place of a device gateway.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MasterArgs {
    /// A master gateway's name in topics, as in campus
    #[arg(long, value_name = "NAME", conflicts_with_all = GATEWAY_ONLY)]
    master_name: Option<String>,
    /// Where a master gateway listens
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = GATEWAY_ONLY)]
    master_address: Option<String>,
    /// The certificate of its tenant, which is copied beside the configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = GATEWAY_ONLY)]
    cert_file: Option<PathBuf>,
    /// Its private key, which is copied too
    #[arg(long, value_name = "FILE", conflicts_with_all = GATEWAY_ONLY)]
    key_file: Option<PathBuf>,
}

impl MasterArgs {
    /// Whether a master gateway is meant.
    pub(crate) const fn is_given(&self) -> bool {
        self.master_name.is_some()
            || self.master_address.is_some()
            || self.cert_file.is_some()
            || self.key_file.is_some()
    }
}

/// Asks for a master gateway until it accepts the login, and describes it in the draft.
pub(crate) async fn ask(
    asker: Asker,
    mut args: MasterArgs,
    mut ca_file: Option<PathBuf>,
    mut server_name: Option<String>,
    draft: &mut Draft,
) -> Result<(), InitStop> {
    let question = Question {
        text: "Name of the master gateway in topics:",
        option: "--master-name",
        default: Some("campus"),
    };
    let name = asker.read(args.master_name.take(), question, |text| unused(text, draft))?;
    let mut last_address: Option<String> = None;
    loop {
        let question = Question {
            text: "Address of the master gateway (host:port, usually port 4010):",
            option: "--master-address",
            default: last_address.as_deref(),
        };
        let address = asker.read(args.master_address.take(), question, |text| {
            config::read_text(config::master_address, text)
        })?;
        let ca_file = file(asker, ca_file.take(), "Its ca.crt:", "--ca-file")?;
        let certificate = "Certificate of the tenant:";
        let certificate = file(asker, args.cert_file.take(), certificate, "--cert-file")?;
        let key = file(asker, args.key_file.take(), "Its private key:", "--key-file")?;
        let files = [
            draft.put(&format!("{name}-ca.crt"), ca_file, FileAccess::Public)?,
            draft.put(&format!("{name}.crt"), certificate, FileAccess::Public)?,
            draft.put(&format!("{name}.key"), key, FileAccess::Secret)?,
        ];
        let address = address.to_string();
        match attempt(asker, &name, &address, &files, server_name.take(), draft).await {
            Ok(()) => return Ok(()),
            Err(stop) => {
                let table = format!("masters.{name}");
                asker.report_refused(draft.explain(stop, &table, &OPTIONS))?;
            }
        }
        last_address = Some(address);
    }
}

/// Describes the master in the draft, and logs in.
async fn attempt(
    asker: Asker,
    name: &GatewayName,
    address: &str,
    files: &[String; 3],
    mut server_name: Option<String>,
    draft: &mut Draft,
) -> Result<(), InitStop> {
    loop {
        let [ca_file, cert_file, key_file] = files.each_ref().map(|file| Some(file.as_str()));
        let keys = [
            ("address", Some(address)),
            ("ca_file", ca_file),
            ("cert_file", cert_file),
            ("key_file", key_file),
            ("server_name", server_name.as_deref()),
        ];
        draft.document.set("masters", name, &keys);
        let config = draft.load()?.config;
        let options = draft.peer_options(&config, name)?;
        match MasterClient::dial(&options, Arc::new(|_: &_| {})).await {
            Ok(_) => {
                return show(&doctor::examine_master(options, &config, name).await);
            }
            Err(error) => server_name = Some(other_name(asker, &error, server_name.as_deref())?),
        }
    }
}

/// A file that a master needs.
fn file(
    asker: Asker,
    given: Option<PathBuf>,
    text: &str,
    option: &'static str,
) -> Result<NewContents, InitStop> {
    let source = asker.file(given, Question { text, option, default: None })?;
    source.ok_or_else(|| InitStop::WrongUsage(format!("{option} is empty; name the file")))
}
