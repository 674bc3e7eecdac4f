//! The files that the configuration names and that are read at each connection.

use std::path::Path;

use super::Loaded;
use super::checked::Password;
use super::error::{Mistake, Origin};

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
    /// Every file that the bridge needs for its connections.
    #[must_use]
    pub fn files(&self) -> Vec<NamedFile<'_>> {
        let file = |key: String, path| NamedFile { key, path, is_password: false };
        let gateways = self.config.gateways.iter();
        let mut files: Vec<NamedFile<'_>> = gateways
            .map(|(name, gateway)| file(format!("gateways.{name}.ca_file"), &*gateway.ca_file))
            .collect();
        let mqtt = &self.config.mqtt;
        let password = mqtt.credentials.as_ref().and_then(|it| it.password.as_ref());
        if let Some(Password::File(path)) = password {
            let key = "mqtt.password_file".to_owned();
            files.push(NamedFile { key, path, is_password: true });
        }
        if mqtt.broker.tls {
            let ca_file = mqtt.ca_file.as_deref().map(|path| ("mqtt.ca_file", path));
            let identity = mqtt.identity.iter().flat_map(|it| {
                [("mqtt.cert_file", &*it.cert_file), ("mqtt.key_file", &*it.key_file)]
            });
            let named = ca_file.into_iter().chain(identity);
            files.extend(named.map(|(key, path)| file(key.to_owned(), path)));
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
