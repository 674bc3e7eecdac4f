//! The files that the configuration names for later: whether they can be read now, for `check`.
//!
//! May not read what is in them, nor keep the bridge from starting: a file that is missing now may
//! be there when it is needed, and is then taken up.

use std::fs::File;
use std::io;
use std::path::Path;

use super::Loaded;
use super::error::{Mistake, Origin};

impl Loaded {
    /// Every named file that cannot be read, with its remedy.
    #[must_use]
    pub fn unreadable(&self) -> Vec<Mistake> {
        let gateways = self.config.gateways.iter();
        let mut files: Vec<(String, &Path)> = gateways
            .map(|(name, gateway)| (format!("gateways.{name}.ca_file"), gateway.ca_file.as_path()))
            .collect();
        let mqtt = &self.config.mqtt;
        if mqtt.broker.tls {
            let ca_file = mqtt.ca_file.as_deref().map(|path| ("mqtt.ca_file", path));
            let identity = mqtt.identity.iter().flat_map(|it| {
                [("mqtt.cert_file", &*it.cert_file), ("mqtt.key_file", &*it.key_file)]
            });
            let named = ca_file.into_iter().chain(identity);
            files.extend(named.map(|(key, path)| (key.to_owned(), path)));
        }
        let unread = |(key, path): (String, &Path)| {
            let error = File::open(path).err()?;
            Some(self.mistake(key, path, &error))
        };
        files.into_iter().filter_map(unread).collect()
    }

    fn mistake(&self, key: String, path: &Path, error: &io::Error) -> Mistake {
        let path = path.display();
        let text = match error.kind() {
            io::ErrorKind::NotFound => {
                format!("the file {path} does not exist; put it there, or name the right one")
            }
            io::ErrorKind::PermissionDenied => {
                format!("the file {path} may not be read; let the user of the service read it")
            }
            _ => format!("the file {path} cannot be opened ({error}); name the right one"),
        };
        let setting = self.settings.iter().find(|setting| setting.key == key);
        let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
        Mistake { origin, key, text }
    }
}
