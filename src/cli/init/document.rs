//! The configuration as a TOML document whose comments and order are preserved.

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, InlineTable, Item, Table, TomlError, value};

use crate::config::{self, Loaded};
use crate::ids::{DeviceId, GatewayName};

/// What a new file begins with.
const HEAD: &str = "\
# Written by `gsdk2mqtt init`. `gsdk2mqtt check --connect` checks it; all keys are in
# docs/configuration.md of the project.

[mqtt]
";

/// The broker, as the answers describe it.
#[derive(Clone, Debug, Default)]
pub(crate) struct BrokerKeys<'a> {
    pub(crate) url: &'a str,
    pub(crate) username: Option<&'a str>,
    pub(crate) password_file: Option<&'a Path>,
    pub(crate) ca_file: Option<&'a Path>,
    pub(crate) protocol: Option<&'a str>,
}

/// A configuration file.
#[derive(Clone, Debug)]
pub(crate) struct ConfigDocument(DocumentMut);

impl ConfigDocument {
    pub(crate) fn new() -> Result<Self, TomlError> {
        Self::parse(HEAD)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, TomlError> {
        text.parse().map(Self)
    }

    pub(crate) fn text(&self) -> String {
        self.0.to_string()
    }

    /// The configuration that it is, as if it stood in this file.
    pub(crate) fn load(&self, path: &Path) -> Result<Loaded, config::Error> {
        config::from_toml(path, self.text())
    }

    /// Whether a gateway or master has this name.
    pub(crate) fn has(&self, name: &GatewayName) -> bool {
        let has = |tables: &str| self.0.get(tables)?.get(name.as_str());
        has("gateways").or_else(|| has("masters")).is_some()
    }

    /// Describes a gateway; an earlier description is replaced.
    pub(crate) fn set_gateway(
        &mut self,
        name: &GatewayName,
        address: &str,
        ca_file: &Path,
        server_name: Option<&str>,
    ) {
        let mut table = Table::new();
        table["address"] = value(address);
        table["ca_file"] = text_of(ca_file);
        if let Some(server_name) = server_name {
            table["server_name"] = value(server_name);
        }
        self.set("gateways", name, table);
    }

    /// Describes a master by its address, the authority, and the tenant's certificate and key.
    pub(crate) fn set_master(
        &mut self,
        name: &GatewayName,
        address: &str,
        files: &[PathBuf; 3],
        server_name: Option<&str>,
    ) {
        let mut table = Table::new();
        table["address"] = value(address);
        for (key, file) in ["ca_file", "cert_file", "key_file"].into_iter().zip(files) {
            table[key] = text_of(file);
        }
        if let Some(server_name) = server_name {
            table["server_name"] = value(server_name);
        }
        self.set("masters", name, table);
    }

    fn set(&mut self, tables: &str, name: &GatewayName, table: Table) {
        let tables = self.0.entry(tables).or_insert_with(|| {
            let mut tables = Table::new();
            tables.set_implicit(true);
            tables.into()
        });
        tables[name.as_str()] = table.into();
    }

    pub(crate) fn name_device(&mut self, gateway: &GatewayName, id: DeviceId, name: &str) {
        let mut device = InlineTable::new();
        device.insert("name", name.into());
        let gateway = &mut self.0["gateways"][gateway.as_str()];
        if gateway.get("devices").is_none() {
            gateway["devices"] = Table::new().into();
        }
        gateway["devices"][id.to_string().as_str()] = value(device);
    }

    pub(crate) fn set_broker(&mut self, broker: &BrokerKeys<'_>) {
        let mqtt = &mut self.0["mqtt"];
        mqtt["url"] = value(broker.url);
        let keys = [
            ("username", broker.username.map(value)),
            ("password_file", broker.password_file.map(text_of)),
            ("ca_file", broker.ca_file.map(text_of)),
            ("protocol", broker.protocol.map(value)),
        ];
        for (key, item) in keys {
            match item {
                Some(item) => mqtt[key] = item,
                None => {
                    mqtt.as_table_like_mut().map(|table| table.remove(key));
                }
            }
        }
    }

    pub(crate) fn enable_home_assistant(&mut self) {
        let mut table = Table::new();
        table["enabled"] = value(true);
        self.0["home_assistant"] = table.into();
    }
}

fn text_of(path: &Path) -> Item {
    value(path.display().to_string())
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
        let (annex, path) = ("annex".parse().unwrap(), Path::new("/etc/annex-ca.crt"));
        document.set_gateway(&annex, "10.0.0.1:4000", path, Some("gateway.local"));
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
