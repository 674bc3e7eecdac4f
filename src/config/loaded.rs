//! A loaded configuration, with the origins of its values and the files that it names.

use std::path::{Path, PathBuf};

use super::error::{Mistake, Origin};
use super::gateway::Reach;
use super::master::MasterConfig;
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
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
}

/// A file that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile<'a> {
    /// The key that names it.
    pub key: String,
    /// Where it is.
    pub path: &'a Path,
    /// Whether it holds a password.
    pub is_password: bool,
}

impl Loaded {
    /// Every file that the bridge reads while it runs.
    #[must_use]
    pub fn files(&self) -> Vec<NamedFile<'_>> {
        let file = |key: String, path| NamedFile { key, path, is_password: false };
        let gateways = self.config.gateways.iter();
        let mut files: Vec<NamedFile<'_>> = gateways
            .filter_map(|(name, gateway)| match &gateway.reach {
                Reach::Direct { ca_file, .. } => {
                    Some(file(format!("gateways.{name}.ca_file"), &**ca_file))
                }
                Reach::Master { .. } => None,
            })
            .collect();
        for (name, master) in &self.config.masters {
            let MasterConfig { ca_file, cert_file, key_file, .. } = master;
            for (key, path) in
                [("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)]
            {
                files.push(file(format!("masters.{name}.{key}"), &**path));
            }
        }
        let mqtt = &self.config.mqtt;
        if let Some(path) = mqtt.password_file.as_deref() {
            let key = "mqtt.password_file".to_owned();
            files.push(NamedFile { key, path, is_password: true });
        }
        if mqtt.broker.tls {
            let named = [
                ("mqtt.ca_file", &mqtt.ca_file),
                ("mqtt.cert_file", &mqtt.cert_file),
                ("mqtt.key_file", &mqtt.key_file),
            ];
            for (key, path) in named {
                files.extend(path.iter().map(|path| file(key.to_owned(), path)));
            }
        }
        let http = &self.config.http;
        let named = [
            ("http.token_file", &http.token_file),
            ("http.cert_file", &http.cert_file),
            ("http.key_file", &http.key_file),
        ];
        for (key, path) in named {
            files.extend(path.iter().map(|path| file(key.to_owned(), path)));
        }
        files
    }

    /// A mistake about a key, with the place where the key was set.
    #[must_use]
    pub fn mistake(&self, key: &str, text: String) -> Mistake {
        let setting = self.settings.iter().find(|setting| setting.key == key);
        let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
        Mistake { origin, key: key.to_owned(), text }
    }
}
