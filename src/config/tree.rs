//! The merged layers as one tree: where each value comes from, and every error in its types.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use figment::Figment;
use figment::error::Kind;
use figment::value::{Dict, Value};
use serde::Deserialize as _;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::addresses;
use super::error::{Mistake, Origin, explain};
use super::gateway::{AcceptFilterConfig, DeviceConfig, GatewayTable, MasterConfig};
use super::layers::{FILE, Layer, ParsedFile};
use super::model::{
    Commands, Config, HistoryConfig, HomeAssistant, Http, MetricsConfig, Mqtt, OutboxConfig,
};
use super::schema::{KeyPath, Schema, child, is_secret, is_table};
use super::values;
use crate::ids::{DEVICE_PORT, DeviceId, GatewayName, HostPort};

/// A key's value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, as in `gateways.lobby.address`.
    pub key: String,
    /// The value as TOML, `***` for a secret; `None` if there is none.
    pub value: Option<String>,
    /// The file that it names.
    pub file: Option<PathBuf>,
    /// Where it was set.
    pub origin: Origin,
}

/// The merged configuration before it is typed, and the mistakes found in it.
pub(crate) struct Tree<'a> {
    figment: Figment,
    root: Value,
    file: Option<&'a ParsedFile<'a>>,
    schema: &'a Schema,
    mistakes: Vec<Mistake>,
    /// The tables that have a mistake of their own.
    wrong_tables: BTreeSet<KeyPath>,
}

impl<'a> Tree<'a> {
    /// Merges the layers, the later over the earlier, over the defaults.
    pub(crate) fn new(
        layers: impl IntoIterator<Item = Layer>,
        file: Option<&'a ParsedFile<'a>>,
        schema: &'a Schema,
        mistakes: Vec<Mistake>,
    ) -> Self {
        let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
        // Our providers cannot fail, so neither can this; an empty tree would miss every gateway.
        let mut root = figment.find_value("").unwrap_or_else(|_| Dict::new().into());
        schema.complete(&mut root);
        let wrong_tables = BTreeSet::new();
        let mut tree = Self { figment, root, file, schema, mistakes, wrong_tables };
        tree.complete_derived();
        tree
    }

    /// Fills in the defaults that follow from other keys.
    fn complete_derived(&mut self) {
        let top = KeyPath::default();
        let (mqtt, commands) = (top.child("mqtt"), top.child("commands"));
        let base = self.read(&mqtt.child("base_topic"), values::topic);
        let base = base.unwrap_or_else(|| "gsdk".to_owned());
        let bridge = self.read(&top.child("bridge_name"), values::bridge_name);
        let bridge = bridge.unwrap_or_else(|| "bridge".to_owned());
        // With a `/`, mosquitto would refuse every access list that has a pattern.
        let client_id = format!("gsdk2mqtt_{}_{bridge}", base.replace('/', "_"));
        self.set_default(&mqtt, "client_id", client_id);
        self.set_default(&commands, "response_prefix", format!("{base}-reply/"));
        let (gateways, masters) = (top.child("gateways"), top.child("masters"));
        let mut with_gateways = BTreeSet::new();
        for gateway in self.names(&gateways).iter().map(|name| gateways.child(name)) {
            let master = gateway.child("master");
            if self.is_set(&master) {
                with_gateways.extend(self.read(&master, String::deserialize));
            } else {
                self.set_server_name(&gateway);
            }
            let devices = gateway.child("devices");
            for device in self.names(&devices).iter().map(|id| devices.child(id)) {
                let mode = self.read(&device.child("connect"), String::deserialize);
                if mode.is_some_and(|mode| mode.eq_ignore_ascii_case("async")) {
                    self.set_default(&device, "port", DEVICE_PORT);
                    self.set_default(&device, "ssl", false);
                }
            }
        }
        for name in self.names(&masters) {
            let master = masters.child(&name);
            self.set_server_name(&master);
            self.set_default(&master, "discover", !with_gateways.contains(&name));
        }
    }

    /// Sets the default of a gateway's or master's `server_name`: the host of its address.
    fn set_server_name(&mut self, table: &KeyPath) {
        let address = self.read(&table.child("address"), addresses::gateway_address);
        // A wrong address is a mistake of its own, so that this value is not used.
        let host = address.map_or_else(|| "localhost".to_owned(), |it: HostPort| it.host);
        self.set_default(table, "server_name", host);
    }

    fn set_default(&mut self, table: &KeyPath, key: &str, value: impl Into<Value>) {
        let table = table.0.iter().try_fold(&mut self.root, |value, name| match value {
            Value::Dict(_, dict) => dict.get_mut(name),
            _ => None,
        });
        if let Some(Value::Dict(_, table)) = table {
            table.entry(key.to_owned()).or_insert_with(|| value.into());
        }
    }

    pub(crate) const fn has_file(&self) -> bool {
        self.file.is_some()
    }

    fn value(&self, path: &KeyPath) -> Option<&Value> {
        path.0.iter().try_fold(&self.root, |value, name| value.as_dict()?.get(name))
    }

    pub(crate) fn is_set(&self, path: &KeyPath) -> bool {
        self.value(path).is_some()
    }

    /// The value of a key, if it is there and right.
    pub(crate) fn read<'v, T>(
        &'v self,
        path: &KeyPath,
        read: impl FnOnce(&'v Value) -> figment::error::Result<T>,
    ) -> Option<T> {
        read(self.value(path)?).ok()
    }

    /// The names below a table.
    pub(crate) fn names(&self, table: &KeyPath) -> Vec<String> {
        let dict = self.value(table).and_then(Value::as_dict);
        dict.map_or_else(Vec::new, |dict| dict.keys().cloned().collect())
    }

    /// Where a key was set, else its table. A table is where the file has it, else where the first
    /// of its keys was set.
    pub(crate) fn origin(&self, path: &KeyPath) -> Origin {
        match self.value(path) {
            None => path.parent().map_or(Origin::Default, |table| self.origin(&table)),
            Some(Value::Dict(_, table)) => {
                let in_file = self.file.and_then(|file| file.origin(path));
                let below = || {
                    let origins = table.keys().map(|name| self.origin(&path.child(name)));
                    origins.into_iter().find(|origin| *origin != Origin::Default)
                };
                in_file.or_else(below).unwrap_or(Origin::Default)
            }
            Some(value) => match self.figment.get_metadata(value.tag()).map(|layer| &*layer.name) {
                Some(FILE) => self.file.and_then(|file| file.origin(path)),
                Some(flag) if flag.starts_with("--set ") => Some(Origin::Flag(flag.to_owned())),
                Some(variable) => Some(Origin::Variable(variable.to_owned())),
                None => None,
            }
            .unwrap_or(Origin::Default),
        }
    }

    /// Reports a mistake about a key.
    pub(crate) fn wrong(&mut self, path: &KeyPath, text: impl Into<String>) {
        let (origin, key) = (self.origin(path), path.to_string());
        self.mistakes.push(Mistake { origin, key, text: text.into() });
        self.wrong_tables.extend(path.parent());
    }

    /// Whether a key of a table was reported, which may explain what the table lacks.
    pub(crate) fn is_wrong(&self, table: &KeyPath) -> bool {
        self.wrong_tables.contains(table)
    }

    /// Checks the types of the keys outside of tables, and of those of `http`.
    pub(crate) fn check_local_types(&mut self) {
        let top = KeyPath::default();
        self.check::<Config>(&top);
        self.check::<Http>(&top.child("http"));
    }

    /// Checks the type of every value, each table on its own.
    pub(crate) fn check_types(&mut self) {
        type Named = BTreeMap<String, IgnoredAny>;
        let top = KeyPath::default();
        self.check_local_types();
        self.check::<Mqtt>(&top.child("mqtt"));
        self.check::<Commands>(&top.child("commands"));
        self.check::<HomeAssistant>(&top.child("home_assistant"));
        self.check::<OutboxConfig>(&top.child("outbox"));
        self.check::<HistoryConfig>(&top.child("history"));
        self.check::<MetricsConfig>(&top.child("metrics"));
        let masters = top.child("masters");
        self.check::<Named>(&masters);
        for name in self.names(&masters) {
            let master = masters.child(&name);
            self.check_name::<GatewayName>(&master, &name);
            self.check::<MasterConfig>(&master);
        }
        let gateways = top.child("gateways");
        self.check::<Named>(&gateways);
        for name in self.names(&gateways) {
            let gateway = gateways.child(&name);
            self.check_name::<GatewayName>(&gateway, &name);
            self.check::<GatewayTable>(&gateway);
            self.check::<AcceptFilterConfig>(&gateway.child("accept_filter"));
            let devices = gateway.child("devices");
            self.check::<Named>(&devices);
            for id in self.names(&devices) {
                let device = devices.child(&id);
                self.check_name::<DeviceId>(&device, &id);
                self.check::<DeviceConfig>(&device);
            }
        }
    }

    fn check_name<T: FromStr<Err: Display>>(&mut self, path: &KeyPath, name: &str) {
        if let Err(error) = name.parse::<T>()
            && !self.schema.is_misplaced(path)
        {
            self.wrong(path, error.to_string());
        }
    }

    /// Reads a table, without those in it, as often as it takes to find all its errors: what is
    /// wrong is reported and removed before the next attempt.
    fn check<T: DeserializeOwned>(&mut self, path: &KeyPath) {
        let (Some(node), Some(value)) = (self.schema.at(&path.0), self.value(path)) else { return };
        let mut table = value.clone();
        if let Value::Dict(_, dict) = &mut table {
            dict.retain(|name, _| !child(node, name).is_some_and(is_table));
        }
        while let Err(error) = T::deserialize(&table) {
            // The cross-checks report what a table lacks.
            if error.missing() {
                break;
            }
            self.report(&self.key_of(path, &error.path), &error.kind);
            if !remove(&mut table, &error.path) {
                break;
            }
        }
        // Texts that their types accept may still be empty, or too long for MQTT.
        for (name, value) in table.as_dict().into_iter().flatten() {
            if let Some(problem) = value.as_str().and_then(values::unusable_text) {
                self.wrong(&path.child(name), problem);
            }
        }
    }

    /// The key that an error in a table is about; the items of a list belong to their key.
    fn key_of(&self, table: &KeyPath, names: &[String]) -> KeyPath {
        names.iter().fold(table.clone(), |path, name| match self.schema.at(&path.0) {
            Some(node) if is_table(node) => path.child(name),
            _ => path,
        })
    }

    fn report(&mut self, path: &KeyPath, kind: &Kind) {
        let mut below = Vec::new();
        let mut value = self.value(path);
        while let Some(dict) = value.and_then(Value::as_dict).filter(|dict| dict.len() == 1) {
            below.extend(dict.keys().cloned());
            value = dict.values().next();
        }
        let text = explain(self.schema, path, &below, kind);
        self.wrong(path, text);
    }

    /// The typed configuration with every setting, or the mistakes.
    pub(crate) fn finish<T>(mut self) -> Result<(T, Vec<Setting>), Vec<Mistake>>
    where
        T: DeserializeOwned,
    {
        if self.mistakes.is_empty() {
            match T::deserialize(&self.root) {
                Ok(config) => return Ok((config, self.settings())),
                Err(error) => {
                    self.report(&self.key_of(&KeyPath::default(), &error.path), &error.kind);
                }
            }
        }
        Err(self.mistakes)
    }

    /// Every key with its value and origin.
    fn settings(&self) -> Vec<Setting> {
        let mut keys = self.schema.keys_with(|table| self.names(table));
        keys.sort_by(|(left, _), (right, _)| left.cmp(right));
        let setting = |(path, node): (KeyPath, _)| {
            let value = self.value(&path);
            let names_file = path.0.last().is_some_and(|name| name.ends_with("_file"));
            let file = value.filter(|_| names_file).and_then(Value::as_str);
            let shown = |value| if is_secret(node) { "***".to_owned() } else { shown(value) };
            Setting {
                key: path.to_string(),
                value: value.map(shown),
                file: file.map(PathBuf::from),
                origin: value.map_or(Origin::Default, |_| self.origin(&path)),
            }
        };
        keys.into_iter().map(setting).collect()
    }
}

/// Removes the innermost key of a path that is there.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let (Value::Dict(_, dict), Some((name, rest))) = (value, path.split_first()) else {
        return false;
    };
    dict.get_mut(name).is_some_and(|inner| remove(inner, rest)) || dict.remove(name).is_some()
}

/// A value as TOML.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Array(_, items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        // The numbers of defaults are unsigned, those of the layers signed.
        other => {
            let signed = other.to_i128().map(|number| number.to_string());
            signed.or_else(|| Some(other.to_u128()?.to_string())).unwrap_or_default()
        }
    }
}
