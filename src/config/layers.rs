//! The layers: defaults, file, environment, command line; merged by figment, each value traceable.
//!
//! May not judge values: a layer holds what was written, already known to be of the key's form.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{Mistake, Origin};
use super::keys::{self, Form, KEYS, Key};

/// Where a key or table stands: its names from the outside in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(pub(super) Vec<String>);

impl KeyPath {
    pub(super) fn of(parts: &[&str]) -> Self {
        Self(parts.iter().map(|part| (*part).to_owned()).collect())
    }

    pub(super) fn child(&self, name: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_owned());
        Self(parts)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        for (index, part) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            if !part.is_empty() && part.chars().all(bare) {
                write!(f, "{dot}{part}")?;
            } else {
                write!(f, "{dot}{part:?}")?;
            }
        }
        Ok(())
    }
}

/// One source's settings; a `None` is a table that stands there, perhaps empty.
pub(super) struct Layer {
    name: &'static str,
    entries: BTreeMap<KeyPath, (Option<Value>, Origin)>,
}

impl Layer {
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, entries: BTreeMap::new() }
    }

    pub(super) fn set(&mut self, path: KeyPath, value: Value, origin: Origin) {
        self.entries.insert(path, (Some(value), origin));
    }

    pub(super) fn table(&mut self, path: KeyPath, origin: Origin) {
        self.entries.entry(path).or_insert((None, origin));
    }

    /// The names that stand below `table` in this layer.
    fn names_below(&self, table: &KeyPath) -> BTreeSet<String> {
        let depth = table.0.len();
        // Paths are ordered, so those of a table stand together: 100,000 devices are walked once.
        let below = self.entries.range(table..).map(|(path, _)| path);
        let below = below.take_while(|path| path.0.starts_with(&table.0));
        below.filter_map(|path| path.0.get(depth).cloned()).collect()
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for (path, (value, _)) in &self.entries {
            insert(&mut root, &path.0, value.clone());
        }
        Ok(Profile::Default.collect(root))
    }
}

fn insert(dict: &mut Dict, path: &[String], value: Option<Value>) {
    let Some((name, rest)) = path.split_first() else { return };
    if let (true, Some(value)) = (rest.is_empty(), &value) {
        dict.insert(name.clone(), value.clone());
        return;
    }
    let slot = dict.entry(name.clone()).or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, inner) = slot {
        insert(inner, rest, value);
    }
}

/// The configuration as typed: every key that has a value, with the place that won.
pub(super) struct Raw {
    root: Value,
    values: BTreeMap<KeyPath, (Value, Origin)>,
    tables: BTreeMap<KeyPath, Origin>,
}

impl Raw {
    /// Merges the layers, the later over the earlier, over the defaults of the keys and of every
    /// gateway and device that any layer names.
    pub(super) fn merge(layers: &[Layer]) -> Self {
        let defaults = defaults(layers);
        let all = || std::iter::once(&defaults).chain(layers);
        let figment = all().fold(Figment::new(), |figment, layer| figment.merge(layer));
        // Our providers cannot fail, so neither can this; an empty tree would miss every key.
        let root = figment.find_value("").unwrap_or_else(|_| Value::from(Dict::new()));
        let mut raw = Self { root, values: BTreeMap::new(), tables: BTreeMap::new() };
        for layer in all() {
            for (path, (value, origin)) in &layer.entries {
                if value.is_none() {
                    raw.tables.entry(path.clone()).or_insert_with(|| origin.clone());
                }
            }
        }
        let root = raw.root.clone();
        raw.flatten(&root, &KeyPath(Vec::new()), &|path, value| {
            let won = figment.get_metadata(value.tag())?;
            let layer = all().find(|layer| layer.name == won.name)?;
            layer.entries.get(path).map(|(_, origin)| origin.clone())
        });
        raw
    }

    fn flatten(
        &mut self,
        value: &Value,
        path: &KeyPath,
        origin_of: &dyn Fn(&KeyPath, &Value) -> Option<Origin>,
    ) {
        if let Value::Dict(_, dict) = value {
            for (name, inner) in dict {
                self.flatten(inner, &path.child(name), origin_of);
            }
        } else if let Some(origin) = origin_of(path, value) {
            self.values.insert(path.clone(), (value.clone(), origin));
        }
    }

    /// The value at a path and where it was set.
    pub(super) fn get(&self, path: &KeyPath) -> Option<(&Value, &Origin)> {
        self.values.get(path).map(|(value, origin)| (value, origin))
    }

    /// The names below a table.
    pub(super) fn names(&self, table: &KeyPath) -> Vec<String> {
        let mut value = Some(&self.root);
        for part in &table.0 {
            value = value.and_then(Value::as_dict).and_then(|dict| dict.get(part));
        }
        value.and_then(Value::as_dict).map_or_else(Vec::new, |dict| dict.keys().cloned().collect())
    }

    /// Where a table begins: its own line, else the place of the first value below it.
    pub(super) fn table_origin(&self, table: &KeyPath) -> Origin {
        let below = || {
            let set = self.values.iter().filter(|(path, _)| path.0.starts_with(&table.0));
            set.map(|(_, (_, origin))| origin).find(|origin| **origin != Origin::Default)
        };
        self.tables.get(table).or_else(below).cloned().unwrap_or(Origin::Default)
    }
}

/// The lowest layer: what every key, gateway and device has when nothing is said.
fn defaults(layers: &[Layer]) -> Layer {
    let names = |table: &KeyPath| {
        let names = layers.iter().flat_map(|layer| layer.names_below(table));
        names.collect::<BTreeSet<String>>().into_iter().collect()
    };
    let mut lowest = Layer::new("defaults");
    for key in KEYS {
        let Some(value) = key.fallback.value() else { continue };
        for path in instances(key.path, names) {
            lowest.set(path, value.clone(), Origin::Default);
        }
    }
    lowest
}

/// The paths a pattern stands for, given the names below a table.
pub(super) fn instances(
    pattern: &str,
    names_below: impl Fn(&KeyPath) -> Vec<String>,
) -> Vec<KeyPath> {
    pattern.split('.').fold(vec![KeyPath(Vec::new())], |paths, part| {
        let longer = paths.iter().flat_map(|path| {
            let names = if part == "*" { names_below(path) } else { vec![part.to_owned()] };
            names.into_iter().map(|name| path.child(&name)).collect::<Vec<_>>()
        });
        longer.collect()
    })
}

/// A value given as text (environment, command line), read by its key's form.
pub(super) fn value_of_text(form: Form, text: &str) -> Result<Value, String> {
    match form {
        Form::Text | Form::Secret => Ok(Value::from(text)),
        Form::Whole => {
            let digits = text.replace('_', "");
            let number = digits.parse::<i64>();
            number.map(Value::from).map_err(|_| format!("{text:?} is not a whole number"))
        }
        Form::Bool => {
            let truth = match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(format!("{text:?} is neither true nor false")),
            };
            truth.map(Value::from)
        }
        Form::List => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Ok(Value::from(parts.map(str::to_owned).collect::<Vec<_>>()))
        }
    }
}

/// Reads `--set KEY=VALUE` arguments into the highest layer.
pub(super) fn of_flags(sets: &[String], mistakes: &mut Vec<Mistake>) -> Layer {
    let mut layer = Layer::new("command line");
    for set in sets {
        let (key, text) = set.split_once('=').map_or((set.as_str(), None), |(k, t)| (k, Some(t)));
        let origin = Origin::Flag(format!("--set {key}"));
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let read = match (keys::lookup(&path), text) {
            (keys::Node::Leaf(Key { form: Form::Secret, .. }), _) => {
                Err(format!("would be seen by every user; set {key}_file instead"))
            }
            (keys::Node::Leaf(known), Some(text)) => value_of_text(known.form, text),
            (keys::Node::Leaf(_), None) => Err("write --set KEY=VALUE".to_owned()),
            (keys::Node::Table, _) => Err("is a table; name a key in it".to_owned()),
            (keys::Node::Unknown, _) => Err(format!("unknown key; {}", keys::suggestion(&path))),
        };
        match read {
            Ok(value) => layer.set(KeyPath(path), value, origin),
            Err(text) => mistakes.push(Mistake { origin, key: String::new(), text }),
        }
    }
    layer
}
