//! A loaded configuration, with the origins of its values and the files that it names.

use std::path::Path;

use super::model::Config;
use super::tree::Setting;

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
    #[must_use]
    pub fn files(&self) -> Vec<(&Setting, &Path)> {
        let has_tls = self.config.mqtt.broker.tls;
        let is_used = |key: &str| {
            has_tls || !matches!(key, "mqtt.ca_file" | "mqtt.cert_file" | "mqtt.key_file")
        };
        let settings = self.settings.iter().filter(|setting| is_used(&setting.key));
        settings.filter_map(|setting| Some((setting, setting.file.as_deref()?))).collect()
    }
}
