//! The merged layers as one tree: where each value comes from, and every error in its types.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use figment::Figment;
use figment::error::Kind;
use figment::value::{Dict, Value};
use serde::Deserialize as _;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::addresses;
use super::error::{Mistake, Origin, explain};
use super::gateway::{AcceptFilter, Device, Gateway};
use super::key_path::KeyPath;
use super::layers::{COMMAND_LINE, ENVIRONMENT, FILE, File, Layer, SYSTEMD, variable_of};
use super::model::{Commands, Config, History, HomeAssistant, Http, Metrics, Mqtt, Outbox};
use super::schema::{Schema, child, is_table};
use super::values;
use crate::ids::{DeviceId, GatewayName};

/// A key's value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, as in `gateways.lobby.address`.
    pub key: String,
    /// The value as TOML, `***` for a secret; `None` if there is none.
    pub value: Option<String>,
    /// Where it was set.
    pub origin: Origin,
}

/// The merged configuration before it is typed, and the mistakes found in it.
pub(crate) struct Tree<'a> {
    figment: Figment,
    root: Value,
    file: Option<&'a File<'a>>,
    schema: &'a Schema,
    mistakes: Vec<Mistake>,
    /// The tables that have a mistake of their own.
    wrong_tables: BTreeSet<KeyPath>,
}

impl<'a> Tree<'a> {
    /// Merges the layers, the later over the earlier, over the defaults.
    pub(crate) fn new(
        layers: impl IntoIterator<Item = Layer>,
        file: Option<&'a File<'a>>,
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
        let base = self.read(&mqtt.child("base_topic"), |it| values::topic(it).ok());
        let base = base.unwrap_or_else(|| "gsdk".to_owned());
        let bridge = self.read(&top.child("bridge_name"), |it| values::bridge_name(it).ok());
        let bridge = bridge.unwrap_or_else(|| "bridge".to_owned());
        // With a `/`, mosquitto would refuse every access list that has a pattern.
        let client_id = format!("gsdk2mqtt_{}_{bridge}", base.replace('/', "_"));
        self.set_default(&mqtt, "client_id", client_id);
        self.set_default(&commands, "response_prefix", format!("{base}-reply/"));
        let gateways = top.child("gateways");
        for name in self.names(&gateways) {
            let gateway = gateways.child(&name);
            let address =
                self.read(&gateway.child("address"), |it| addresses::gateway_address(it).ok());
            // A wrong address is a mistake of its own, so that this value is not used.
            let host = address.map_or_else(|| "localhost".to_owned(), |address| address.host);
            self.set_default(&gateway, "server_name", host);
        }
    }

    fn set_default(&mut self, table: &KeyPath, key: &str, text: String) {
        let table = table.0.iter().try_fold(&mut self.root, |value, name| match value {
            Value::Dict(_, dict) => dict.get_mut(name),
            _ => None,
        });
        if let Some(Value::Dict(_, table)) = table {
            table.entry(key.to_owned()).or_insert_with(|| text.into());
        }
    }

    fn value(&self, path: &KeyPath) -> Option<&Value> {
        path.0.iter().try_fold(&self.root, |value, name| value.as_dict()?.get(name))
    }

    pub(crate) fn is_set(&self, path: &KeyPath) -> bool {
        self.value(path).is_some()
    }

    /// The value of a key, if it is there and right.
    pub(crate) fn read<T>(
        &self,
        path: &KeyPath,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        self.value(path).and_then(read)
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
            Some(value) => {
                let layer = self.figment.get_metadata(value.tag()).map(|layer| &*layer.name);
                match layer {
                    Some(FILE) => self.file.and_then(|file| file.origin(path)),
                    Some(ENVIRONMENT) => Some(Origin::Variable(variable_of(&path.0.join(".")))),
                    Some(SYSTEMD) => Some(Origin::Variable("STATE_DIRECTORY".to_owned())),
                    Some(COMMAND_LINE) => Some(Origin::Flag(format!("--set {}", path.0.join(".")))),
                    _ => None,
                }
                .unwrap_or(Origin::Default)
            }
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

    /// Checks the type of every value, each table on its own.
    pub(crate) fn check_types(&mut self) {
        type Named = BTreeMap<String, IgnoredAny>;
        let top = KeyPath::default();
        self.check::<Config>(&top);
        self.check::<Mqtt>(&top.child("mqtt"));
        self.check::<Http>(&top.child("http"));
        self.check::<Commands>(&top.child("commands"));
        self.check::<HomeAssistant>(&top.child("home_assistant"));
        self.check::<Outbox>(&top.child("outbox"));
        self.check::<History>(&top.child("history"));
        self.check::<Metrics>(&top.child("metrics"));
        let gateways = top.child("gateways");
        self.check::<Named>(&gateways);
        for name in self.names(&gateways) {
            let gateway = gateways.child(&name);
            self.check_name::<GatewayName>(&gateway, &name);
            self.check::<Gateway>(&gateway);
            self.check::<AcceptFilter>(&gateway.child("accept_filter"));
            let devices = gateway.child("devices");
            self.check::<Named>(&devices);
            for id in self.names(&devices) {
                let device = devices.child(&id);
                self.check_name::<DeviceId>(&device, &id);
                self.check::<Device>(&device);
            }
        }
    }

    fn check_name<T: FromStr<Err: Display>>(&mut self, path: &KeyPath, name: &str) {
        if let Err(error) = name.parse::<T>() {
            self.wrong(path, error.to_string());
        }
    }

    /// Reads a table, without those in it, as often as it takes to find all its errors: what is
    /// wrong is reported and removed before the next attempt.
    fn check<T: DeserializeOwned>(&mut self, path: &KeyPath) {
        let Some(table) = self.value(path) else { return };
        let (mut table, mut absent) = self.without_tables(path, table);
        while let Err(error) = T::deserialize(&table) {
            if error.missing() {
                self.report_missing(path, &table, &absent);
                break;
            }
            self.report(&self.key_of(path, &error.path), &error.kind);
            if !remove(&mut table, &error.path) {
                break;
            }
            absent.extend(error.path);
        }
    }

    fn report_missing(&mut self, path: &KeyPath, table: &Value, absent: &[String]) {
        let schema = self.schema;
        let required = schema.at(&path.0).and_then(|node| node["required"].as_array());
        let required = required.into_iter().flatten().filter_map(|name| name.as_str());
        for name in required.filter(|name| !absent.iter().any(|absent| absent == name)) {
            if table.as_dict().is_some_and(|table| !table.contains_key(name)) {
                self.report(&path.child(name), &Kind::MissingField(name.to_owned().into()));
            }
        }
    }

    /// A table without those in it, and their names.
    fn without_tables(&self, path: &KeyPath, table: &Value) -> (Value, Vec<String>) {
        let Value::Dict(tag, dict) = table else { return (table.clone(), Vec::new()) };
        let (mut keys, mut tables) = (Dict::new(), Vec::new());
        let node = self.schema.at(&path.0);
        for (name, value) in dict {
            if node.and_then(|node| child(node, name)).is_some_and(is_table) {
                tables.push(name.clone());
            } else {
                keys.insert(name.clone(), value.clone());
            }
        }
        (Value::Dict(*tag, keys), tables)
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
    pub(crate) fn finish(mut self) -> Result<(Config, Vec<Setting>), Vec<Mistake>> {
        if self.mistakes.is_empty() {
            match Config::deserialize(&self.root) {
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
        let mut settings = Vec::new();
        for (pattern, node) in self.schema.keys() {
            let secret = node["writeOnly"] == serde_json::Value::Bool(true);
            for path in self.instances(&pattern) {
                let value = self.value(&path).map(|value| match secret {
                    true => "***".to_owned(),
                    false => shown(value),
                });
                let origin = value.as_ref().map_or(Origin::Default, |_| self.origin(&path));
                settings.push((path, value, origin));
            }
        }
        settings.sort_by(|(left, ..), (right, ..)| left.cmp(right));
        let setting =
            |(key, value, origin): (KeyPath, _, _)| Setting { key: key.to_string(), value, origin };
        settings.into_iter().map(setting).collect()
    }

    /// The paths that a pattern stands for.
    fn instances(&self, pattern: &str) -> Vec<KeyPath> {
        pattern.split('.').fold(vec![KeyPath::default()], |paths, part| {
            let longer = paths.iter().flat_map(|path| {
                let names = if part == "*" { self.names(path) } else { vec![part.to_owned()] };
                names.into_iter().map(|name| path.child(&name)).collect::<Vec<_>>()
            });
            longer.collect()
        })
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
