//! The configuration: layers of settings, checked once into types that cannot be wrong.
//!
//! figment merges the layers, serde types them (`model`), and every mistake of all layers is
//! reported with the place where the wrong value was set. The process's environment and arguments
//! are parameters.
//!
//! ```
//! use gsdk2mqtt::config::{self, ConfigArgs};
//!
//! let environment = [
//!     ("GSDK2MQTT_GATEWAYS__LOBBY__ADDRESS".into(), "192.168.0.2:4000".into()),
//!     ("GSDK2MQTT_GATEWAYS__LOBBY__CA_FILE".into(), "/etc/gsdk2mqtt/lobby-ca.crt".into()),
//! ];
//! let loaded = config::load(&ConfigArgs::default(), environment)?;
//! assert_eq!(loaded.config.mqtt.client_id, "gsdk2mqtt_gsdk_bridge");
//! assert_eq!(loaded.config.gateways.len(), 1);
//! # Ok::<(), config::Error>(())
//! ```

mod addresses;
mod commands;
mod crosscheck;
mod error;
mod gateway;
mod layers;
mod model;
mod schema;
mod tree;
mod values;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use serde::Deserialize;

pub use addresses::BrokerAddress;
pub(crate) use addresses::{broker, gateway_address, master_address};
pub use commands::Allow;
pub use error::{Error, Mistake, Origin};
pub use gateway::{
    AcceptFilterConfig, ConnectMode, DeviceConfig, GatewayConfig, MasterConfig, Reach,
    UNKNOWN_AFTER_DEFAULT,
};
pub use layers::DEFAULT_FILE;
pub use model::{
    Commands, Config, DeviceSeries, HistoryConfig, HomeAssistant, Http, Include, MetricsConfig,
    Mqtt, MqttVersion, OutboxConfig, Sync,
};
pub use schema::json_schema;
pub use tree::Setting;
pub use values::Rate;
pub(crate) use values::{label, read_text};

use layers::{Environment, ParsedFile};
use schema::Schema;
use tree::Tree;

/// The largest file that is read: a gateway's 100,000 devices take a tenth of it.
const FILE_LEN_MAX: u64 = 128 << 20;

/// The part of the command line that concerns the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file [default: $GSDK2MQTT_CONFIG, else /etc/gsdk2mqtt/config.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Set one key, with precedence over file and environment, such as --set mqtt.url=mqtt://broker
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
}

/// A configuration with what is to be reported about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, checked.
    pub config: Config,
    /// What is odd but no mistake; for the log.
    pub warnings: Vec<String>,
    /// Every key with its value and origin, secrets hidden.
    pub settings: Vec<Setting>,
}

impl Loaded {
    /// Every file that the bridge reads while it runs, with the setting that names it.
    pub fn files(&self) -> Vec<(&Setting, &Path)> {
        let has_tls = self.config.mqtt.broker.tls;
        let is_used = |key: &str| {
            has_tls || !matches!(key, "mqtt.ca_file" | "mqtt.cert_file" | "mqtt.key_file")
        };
        let settings = self.settings.iter().filter(|setting| is_used(&setting.key));
        settings.filter_map(|setting| Some((setting, setting.file.as_deref()?))).collect()
    }
}

/// What reading a running bridge or its files needs of the configuration.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct LocalConfig {
    pub(crate) state_dir: PathBuf,
    #[serde(deserialize_with = "values::time_zone", default = "values::machine_time_zone")]
    pub(crate) time_zone: TimeZone,
    pub(crate) http: Http,
}

/// Loads the configuration: the defaults, over them the file, `variables`, and `args`.
///
/// `variables` is the environment: `std::env::vars_os()` in the program.
///
/// # Errors
///
/// Every mistake of all layers at once, each with its place and its remedy.
pub fn load(
    args: &ConfigArgs,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Error> {
    load_with(args, variables, full)
}

/// Loads what reading a running bridge needs, from the same sources. Gateways and broker are
/// neither required nor checked.
///
/// # Errors
///
/// As [`load`], of the keys outside of tables and those of `http`.
pub(crate) fn load_local(
    args: &ConfigArgs,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<LocalConfig, Error> {
    load_with(args, variables, |mut tree, _| {
        tree.check_local_types();
        Ok(tree.finish()?.0)
    })
}

fn load_with<T>(
    args: &ConfigArgs,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    finish: impl FnOnce(Tree<'_>, Vec<String>) -> Result<T, Vec<Mistake>>,
) -> Result<T, Error> {
    let (schema, mut mistakes) = (Schema::new(), Vec::new());
    let environment = layers::environment(variables, &schema, &mut mistakes);
    let named = args.config.clone().or_else(|| environment.config.clone().map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let file = match read_file(&path) {
        Ok(text) => Some((path, text)),
        Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => None,
        Err(error) => {
            let origin = Origin::File { path: path.as_path().into(), line: 0 };
            mistakes.push(Mistake { origin, key: String::new(), text: unread(&error) });
            // Without its file every other mistake would be a consequence of this one.
            return Err(Error::new(mistakes));
        }
    };
    assemble(file, environment, &args.set, &schema, mistakes, finish)
}

/// The configuration that is this TOML text over the defaults, without files and environment: for
/// the demo and for tests. Mistakes name `name` as their file.
///
/// # Errors
///
/// As [`load`].
pub fn from_toml(name: impl Into<PathBuf>, text: impl Into<String>) -> Result<Loaded, Error> {
    let (schema, mut mistakes) = (Schema::new(), Vec::new());
    let environment = layers::environment([], &schema, &mut mistakes);
    assemble(Some((name.into(), text.into())), environment, &[], &schema, mistakes, full)
}

/// Checks the whole configuration and types it.
fn full(mut tree: Tree<'_>, mut warnings: Vec<String>) -> Result<Loaded, Vec<Mistake>> {
    tree.check_types();
    warnings.extend(crosscheck::check(&mut tree));
    let (config, settings) = tree.finish()?;
    Ok(Loaded { config, warnings, settings })
}

/// Merges the layers; `finish` gets the result, with the warnings so far.
fn assemble<T>(
    source: Option<(PathBuf, String)>,
    environment: Environment,
    sets: &[String],
    schema: &Schema,
    mut mistakes: Vec<Mistake>,
    finish: impl FnOnce(Tree<'_>, Vec<String>) -> Result<T, Vec<Mistake>>,
) -> Result<T, Error> {
    let parsed = source.as_ref().map(|(path, text)| ParsedFile::parse(path, text)).transpose();
    let (file, file_layer) = match parsed {
        Ok(parsed) => parsed.unzip(),
        Err(mistake) => {
            mistakes.push(mistake);
            return Err(Error::new(mistakes));
        }
    };
    let command_line = layers::command_line(sets, schema, &mut mistakes);
    let below = [environment.systemd, file_layer].into_iter().flatten();
    let layers = below.chain(environment.layers).chain(command_line);
    let tree = Tree::new(layers, file.as_ref(), schema, mistakes);
    finish(tree, environment.warnings).map_err(Error::new)
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_LEN_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// What is wrong with a file that was not read.
fn unread(error: &io::Error) -> String {
    let text = match error.kind() {
        ErrorKind::NotFound => "does not exist; name another with --config, or create it",
        ErrorKind::FileTooLarge => "is larger than 128 MiB; name the right one with --config",
        ErrorKind::InvalidData => "is not UTF-8 text; save it as such",
        ErrorKind::IsADirectory => "is a directory; name the file in it with --config",
        ErrorKind::PermissionDenied => "may not be read; permit the service's user to read it",
        _ => return format!("the file cannot be read: {error}; name another with --config"),
    };
    format!("the file {text}")
}

#[cfg(test)]
mod tests;
