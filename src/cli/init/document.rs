//! The configuration as a TOML document whose comments and order are preserved.

use std::path::Path;

use toml_edit::{DocumentMut, InlineTable, Table, TomlError, value};

use crate::config::{self, Loaded};
use crate::ids::{DeviceId, GatewayName};

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
