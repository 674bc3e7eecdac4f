//! The new configuration: a TOML document whose comments and order are preserved, and its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use toml_edit::{DocumentMut, InlineTable, Table, TomlError, value};

use super::asker::{InitStop, NewContents};
use super::files::{self, FileAccess, NewFile};
use crate::bridge::{gateway_target, master_options};
use crate::config::{self, Config, Loaded};
use crate::gsdk::{GatewayOptions, GatewayTarget};
use crate::ids::{DeviceId, GatewayName};

/// The keys of a table, with the options that set them.
pub(crate) type Options<'a> = &'a [(&'a str, &'a str)];

/// What will be written.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) document: ConfigDocument,
    path: PathBuf,
    may_replace: bool,
    files: Vec<NewFile>,
    /// Temporary copies of these files, to try the connections with.
    trial: TempDir,
    /// The files that were given, by their temporary copies.
    given: BTreeMap<PathBuf, PathBuf>,
}

impl Draft {
    pub(crate) fn new(
        document: ConfigDocument,
        path: &Path,
        may_replace: bool,
    ) -> Result<Self, InitStop> {
        // The paths in the configuration have to be valid in every working directory.
        let path = std::path::absolute(path)
            .map_err(|error| InitStop::WrongUsage(format!("--output: {error}")))?;
        let trial = tempfile::tempdir().map_err(|error| {
            InitStop::Failed(format!("no temporary folder can be made ({error})"))
        })?;
        Ok(Self { document, path, may_replace, files: Vec::new(), trial, given: BTreeMap::new() })
    }

    /// Adds a file beside the configuration, or replaces it; returns its path. Another file in its
    /// place is an error, and one with the same contents remains.
    pub(crate) fn put(
        &mut self,
        name: &str,
        source: NewContents,
        access: FileAccess,
    ) -> Result<String, InitStop> {
        let (contents, copy) = (source.contents, self.trial.path().join(name));
        std::fs::write(&copy, &contents)
            .map_err(|error| InitStop::Failed(format!("a temporary file: {error}")))?;
        self.withdraw(name);
        let path = self.folder().join(name);
        self.given.insert(copy, source.path.unwrap_or_else(|| path.clone()));
        let shown = path.display().to_string();
        let mut may_replace = self.may_replace;
        if !may_replace && path.symlink_metadata().is_ok() {
            if std::fs::read(&path).ok().as_ref() != Some(&contents) {
                return Err(files::exists(&path));
            }
            if access == FileAccess::Public {
                return Ok(shown);
            }
            // Others might read it: it is written again with its own mode.
            may_replace = true;
        }
        self.files.push(NewFile { path, contents, access, may_replace });
        Ok(shown)
    }

    /// Takes back a file of an answer before.
    pub(crate) fn withdraw(&mut self, name: &str) {
        let path = self.folder().join(name);
        self.files.retain(|file| file.path != path);
    }

    /// The configuration so far.
    pub(crate) fn load(&self) -> Result<Loaded, InitStop> {
        self.document.load(&self.path).map_err(InitStop::wrong_usage)
    }

    /// Replaces the path of a file that is not written yet by that of its temporary copy.
    pub(crate) fn use_trial(&self, path: &mut Option<PathBuf>) {
        let name = path.as_deref().and_then(Path::file_name);
        let copy = name.map(|name| self.trial.path().join(name));
        if let Some(copy) = copy.filter(|copy| self.given.contains_key(copy)) {
            *path = Some(copy);
        }
    }

    /// How a gateway or master of the draft is reached, with the temporary copies of its files.
    pub(crate) fn peer_options(
        &self,
        config: &Config,
        name: &GatewayName,
    ) -> Result<GatewayOptions, InitStop> {
        let direct = |gateway| match gateway_target(&config.masters, name, gateway) {
            Ok(GatewayTarget::Direct(options)) => Some(options),
            _ => None,
        };
        let master = config.masters.get(name).map(|master| master_options(name, master));
        let options = master.or_else(|| config.gateways.get(name).and_then(direct));
        let mut options = options.ok_or_else(|| InitStop::Failed(format!("no table of {name}")))?;
        let files = &mut options.files;
        for path in [&mut files.ca_file, &mut files.cert_file, &mut files.key_file] {
            self.use_trial(path);
        }
        Ok(options)
    }

    /// The reason why an answer was refused, with the files that were given and the options instead
    /// of temporary files and the keys of a table.
    pub(crate) fn explain(&self, stop: InitStop, table: &str, options: Options<'_>) -> InitStop {
        let InitStop::InvalidAnswer(mut reason) = stop else { return stop };
        for (copy, given) in &self.given {
            reason = reason.replace(&*copy.to_string_lossy(), &given.to_string_lossy());
        }
        for (key, option) in options {
            reason = reason.replace(&format!("{table}.{key}"), option);
        }
        InitStop::InvalidAnswer(reason)
    }

    /// The folder of the configuration and its files.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// The files beside the configuration, and last the configuration, which may replace the one
    /// that was read. Of a symbolic link to a configuration the target is replaced.
    pub(crate) fn into_files(mut self, was_read: bool) -> Vec<NewFile> {
        self.files.push(NewFile {
            contents: self.document.text().into_bytes(),
            path: self.path.canonicalize().unwrap_or(self.path),
            access: FileAccess::Group,
            may_replace: self.may_replace || was_read,
        });
        self.files
    }
}

/// What a new file begins with.
const HEAD: &str = "\
# Written by `gsdk2mqtt init`. `gsdk2mqtt check --connect` checks it; all keys are in
# docs/configuration.md of the project.

[mqtt]
";

const BYTE_ORDER_MARK: char = '\u{feff}';

/// The keys of a table; those without a value are left out.
pub(crate) type Keys<'a> = &'a [(&'a str, Option<&'a str>)];

/// A configuration file.
#[derive(Clone, Debug)]
pub(crate) struct ConfigDocument {
    toml: DocumentMut,
    /// Whether its lines end as on Windows, which the parser does not preserve.
    has_crlf: bool,
    /// Nor does it preserve what editors on Windows put before the text.
    has_mark: bool,
}

impl ConfigDocument {
    pub(crate) fn new() -> Result<Self, TomlError> {
        Self::parse(HEAD)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, TomlError> {
        Ok(Self {
            toml: text.parse()?,
            has_crlf: text.contains("\r\n") && !text.replace("\r\n", "").contains('\n'),
            has_mark: text.starts_with(BYTE_ORDER_MARK),
        })
    }

    pub(crate) fn text(&self) -> String {
        let text = self.toml.to_string().replace("\r\n", "\n");
        let text = if self.has_crlf { text.replace('\n', "\r\n") } else { text };
        if self.has_mark { format!("{BYTE_ORDER_MARK}{text}") } else { text }
    }

    /// The configuration that it is, as if it stood in this file.
    pub(crate) fn load(&self, path: &Path) -> Result<Loaded, config::Error> {
        config::from_toml(path, self.text())
    }

    /// Whether a gateway or master has this name.
    pub(crate) fn has(&self, name: &GatewayName) -> bool {
        let has = |tables: &str| self.toml.get(tables)?.get(name.as_str());
        has("gateways").or_else(|| has("masters")).is_some()
    }

    /// Describes a gateway or master (`tables`); an earlier description is replaced.
    pub(crate) fn set(&mut self, tables: &str, name: &GatewayName, keys: Keys<'_>) {
        let tables = self.toml.entry(tables).or_insert_with(|| {
            let mut tables = Table::new();
            tables.set_implicit(true);
            tables.into()
        });
        let mut table = Table::new();
        fill(&mut table, keys);
        tables[name.as_str()] = table.into();
    }

    pub(crate) fn name_device(&mut self, gateway: &GatewayName, id: DeviceId, name: &str) {
        let mut device = InlineTable::new();
        device.insert("name", name.into());
        let gateway = &mut self.toml["gateways"][gateway.as_str()];
        if gateway.get("devices").is_none() {
            gateway["devices"] = Table::new().into();
        }
        gateway["devices"][id.to_string().as_str()] = value(device);
    }

    /// Sets the broker of a new document.
    pub(crate) fn set_broker(&mut self, keys: Keys<'_>) {
        if let Some(mqtt) = self.toml["mqtt"].as_table_mut() {
            mqtt.clear();
            fill(mqtt, keys);
        }
    }

    pub(crate) fn enable_home_assistant(&mut self) {
        let mut table = Table::new();
        table["enabled"] = value(true);
        self.toml["home_assistant"] = table.into();
    }
}

fn fill(table: &mut Table, keys: Keys<'_>) {
    for (key, text) in keys {
        if let Some(text) = text {
            table[*key] = value(*text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Reach;

    #[test]
    fn a_gateway_is_added_and_nothing_else_changes() {
        let before = "# ours\n[mqtt] # the broker\nurl = \"mqtt://h\"\n\n[gateways.lobby]\n\
                      address = \"gw:4000\" # first\nca_file = \"a\"\n[http]\n# not yet\n";
        let mut document = ConfigDocument::parse(before).unwrap();
        let annex = "annex".parse().unwrap();
        let keys = [
            ("address", Some("10.0.0.1:4000")),
            ("ca_file", Some("/etc/annex-ca.crt")),
            ("server_name", Some("gateway.local")),
        ];
        document.set("gateways", &annex, &keys);
        document.name_device(&annex, DeviceId::new(7).unwrap(), "Back \"door\"");
        let after = document.text();
        for line in before.lines() {
            assert!(after.contains(line), "{line} in\n{after}");
        }
        let config = document.load(Path::new("config.toml")).unwrap().config;
        let gateway = &config.gateways[&annex];
        let Reach::Direct { server_name, .. } = &gateway.reach else { panic!("{gateway:?}") };
        assert_eq!(server_name, "gateway.local");
        let names: Vec<_> = gateway.devices.values().filter_map(|it| it.name.as_deref()).collect();
        assert_eq!(names, ["Back \"door\""]);
        assert!(document.has(&annex) && !document.has(&"cellar".parse().unwrap()));
    }
}
