//! The configuration: layers of settings, checked once into types that cannot be wrong.
//!
//! May not use any other room but `ids`, nor read the process's environment or arguments: both are
//! given. What is easily got wrong: figment merges the layers but forgets lines, so `file` keeps
//! the line of every key, and a mistake is told with the place of the layer that won.
//!
//! ```
//! use gsdk2mqtt::config::{self, Args};
//!
//! let environment = [
//!     ("GSDK2MQTT_GATEWAYS__LOBBY__ADDRESS".into(), "192.168.0.2:4000".into()),
//!     ("GSDK2MQTT_GATEWAYS__LOBBY__CA_FILE".into(), "/etc/gsdk2mqtt/lobby-ca.crt".into()),
//! ];
//! let loaded = config::load(&Args::default(), environment)?;
//! assert_eq!(loaded.config.mqtt.client_id, "gsdk2mqtt_gsdk_bridge");
//! assert_eq!(loaded.config.gateways.len(), 1);
//! # Ok::<(), config::Error>(())
//! ```

mod checked;
mod env;
mod error;
mod file;
mod files;
pub mod keys;
mod layers;
mod read;
mod read_gateways;
mod settings;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use checked::{
    AcceptFilter, Allow, Commands, Config, Connect, Credentials, Device, DeviceSeries, Gateway,
    History, HomeAssistant, Http, Identity, Metrics, Mqtt, Outbox, Password, Protocol, Sync,
};
pub use env::variable_of;
pub use error::{Error, Mistake, Origin};
pub use files::NamedFile;
pub use settings::Setting;
pub use values::{Broker, Rate};

use layers::Raw;
use read::Reader;

/// The file that is read when none is named; it may be missing.
pub const DEFAULT_FILE: &str = "/etc/gsdk2mqtt/config.toml";

/// The largest file that is read: a gateway's 100,000 devices take a tenth of it.
const FILE_LEN_MAX: u64 = 128 << 20;

/// Every command of the contract that a client may ask a gateway for, and whether it changes
/// something.
pub const COMMANDS: [(&str, bool); 18] = [
    ("devices", false),
    ("search", false),
    ("pending", false),
    ("accept_filter/get", false),
    ("slaves/get", false),
    ("connect", true),
    ("disconnect", true),
    ("disconnect_all", true),
    ("async/add", true),
    ("async/remove", true),
    ("accept_filter/set", true),
    ("accept_filter/add", true),
    ("accept_filter/remove", true),
    ("accept_filter/allow_all", true),
    ("mode/set", true),
    ("ssl/enable", true),
    ("ssl/disable", true),
    ("slaves/set", true),
];

/// Every command of the contract that a client may ask the bridge itself for, and whether it takes
/// something away.
pub const OWN_COMMANDS: [(&str, bool); 3] =
    [("republish", false), ("forget", true), ("history", false)];

/// The part of the command line that concerns the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// The configuration file [default: $GSDK2MQTT_CONFIG, else /etc/gsdk2mqtt/config.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Sets one key over file and environment, as in --set mqtt.url=mqtt://broker
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
}

/// A configuration with all that is to be told about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What was meant.
    pub config: Config,
    /// What is odd but no mistake; for the log.
    pub warnings: Vec<String>,
    /// Every key, its value and where that came from, secrets hidden.
    pub settings: Vec<Setting>,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
}

/// Loads the configuration: defaults, below the file, below `variables`, below `args`.
///
/// `variables` is the environment: `std::env::vars_os()` in the program.
///
/// # Errors
///
/// Every mistake of all layers at once, each with its place and its remedy.
pub fn load(
    args: &Args,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Error> {
    let mut mistakes = Vec::new();
    let environment = env::read(variables, &mut mistakes);
    let named = args.config.clone().or_else(|| environment.config.clone().map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let file = match read_text(&path) {
        Ok(text) => Some((path, text)),
        Err(Unread::Missing) if named.is_none() => None,
        Err(refusal) => {
            let origin = Origin::File { path: path.as_path().into(), line: 0 };
            let text = match refusal {
                Unread::Missing => format!("{refusal}; name another with --config, or create it"),
                refusal => refusal.to_string(),
            };
            mistakes.push(Mistake { origin, key: String::new(), text });
            // Without its file every other mistake would be a consequence of this one.
            return Err(Error::new(mistakes));
        }
    };
    assemble(file, environment, args, mistakes)
}

/// A base topic as `mqtt.base_topic` takes it.
///
/// # Errors
///
/// What is wrong with it, in words that end a sentence.
pub fn base_topic(text: &str) -> Result<String, String> {
    values::topic(text)
}

/// A bridge's name as `bridge_name` takes it.
///
/// # Errors
///
/// As [`base_topic`].
pub fn bridge_name(text: &str) -> Result<String, String> {
    read::bridge_name(text)
}

/// The configuration that is this TOML text over the defaults, whatever files and environment say:
/// for the demo and for tests. Mistakes name `name` as their file.
///
/// # Errors
///
/// As [`load`].
pub fn from_toml(name: impl Into<PathBuf>, text: impl Into<String>) -> Result<Loaded, Error> {
    let mut mistakes = Vec::new();
    let environment = env::read([], &mut mistakes);
    assemble(Some((name.into(), text.into())), environment, &Args::default(), mistakes)
}

/// Merges the layers and reads what they make.
fn assemble(
    file: Option<(PathBuf, String)>,
    environment: env::Environment,
    args: &Args,
    mut mistakes: Vec<Mistake>,
) -> Result<Loaded, Error> {
    let layer = match &file {
        Some((path, text)) => file::read(path, text, &mut mistakes),
        None => layers::Layer::new("file"),
    };
    let flags = layers::of_flags(&args.set, &mut mistakes);
    let raw = Raw::merge(&[environment.systemd, layer, environment.layer, flags]);
    let mut reader = Reader { raw: &raw, mistakes, warnings: environment.warnings };
    match (read::config(&mut reader), reader.mistakes.is_empty()) {
        (Some(config), true) => Ok(Loaded {
            settings: settings::all(&raw, &config),
            config,
            warnings: reader.warnings,
            file: file.map(|(path, _)| path),
        }),
        _ => Err(Error::new(reader.mistakes)),
    }
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("the file does not exist")]
    Missing,
    #[error("the file cannot be read: {0}; let the user of the service read it")]
    Io(std::io::Error),
    #[error("the file is larger than 128 MiB; this is not the right one")]
    TooLarge,
    #[error("the file is not UTF-8 text; save it as such")]
    NotText,
}

fn read_text(path: &Path) -> Result<String, Unread> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Unread::Missing,
        _ => Unread::Io(error),
    })?;
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(Unread::Io)?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(Unread::TooLarge);
    }
    String::from_utf8(bytes).map_err(|_| Unread::NotText)
}

#[cfg(test)]
mod tests;
