//! The JSON Schema that the types of `model` describe, and what loading reads from it: the keys,
//! their defaults and types, and the key nearest to an unknown one.

use std::fmt;

use figment::value::{Dict, Value};
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use serde::Deserialize as _;
use serde_json::Value as Json;
use toml::de::ValueDeserializer;

use super::model::Config;
use crate::ids::nearest;

/// Where a key or a table is: its names from the outside in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyPath(pub(crate) Vec<String>);

impl KeyPath {
    pub(crate) fn child(&self, name: &str) -> Self {
        let mut names = self.0.clone();
        names.push(name.to_owned());
        Self(names)
    }

    pub(crate) fn parent(&self) -> Option<Self> {
        self.0.split_last().map(|(_, table)| Self(table.to_vec()))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        for (index, name) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            if !name.is_empty() && name.chars().all(bare) {
                write!(f, "{dot}{name}")?;
            } else {
                write!(f, "{dot}{name:?}")?;
            }
        }
        Ok(())
    }
}

/// The JSON Schema of the configuration file, for editors.
pub fn json_schema() -> Json {
    let mut schema = generate();
    // Nothing is required: what a file lacks the environment may have.
    RecursiveTransform(|node: &mut schemars::Schema| {
        node.remove("required");
        node.remove("x-default");
        if let Some(Json::String(text)) = node.get_mut("description") {
            text.retain(|c| c != '`');
        }
    })
    .transform(&mut schema);
    schema.to_value()
}

fn generate() -> schemars::Schema {
    // TOML has no null, and a description is one line.
    let plain = |node: &mut schemars::Schema| {
        if let Some(Json::Array(types)) = node.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [kind] = &*types.clone() {
                node.insert("type".to_owned(), kind.clone());
            }
        }
        if node.get("default") == Some(&Json::Null) {
            node.remove("default");
        }
        if let Some(Json::String(text)) = node.get_mut("description") {
            *text = text.replace('\n', " ");
        }
    };
    SchemaSettings::draft07()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(plain))
        .into_generator()
        .into_root_schema_for::<Config>()
}

/// The schema as loading uses it.
pub(crate) struct Schema(Json);

impl Schema {
    pub(crate) fn new() -> Self {
        Self(generate().to_value())
    }

    /// The description of the key or table at a path.
    pub(crate) fn at(&self, path: &[String]) -> Option<&Json> {
        path.iter().try_fold(&self.0, |node, name| child(node, name))
    }

    /// Every key with its description; NAME stands for a name that the user chooses.
    pub(crate) fn keys(&self) -> Vec<(KeyPath, &Json)> {
        self.keys_with(|_| vec!["NAME".to_owned()])
    }

    /// Every key with its description; `names` gives those that the user has chosen below a table.
    pub(crate) fn keys_with(
        &self,
        names: impl Fn(&KeyPath) -> Vec<String>,
    ) -> Vec<(KeyPath, &Json)> {
        let mut keys = Vec::new();
        collect_keys(&self.0, KeyPath::default(), &names, &mut keys);
        keys
    }

    /// Fills in the defaults, and reads text as what its key takes: number, true or false, list.
    pub(crate) fn complete(&self, root: &mut Value) {
        complete(&self.0, root);
    }

    /// Whether a key has the name of one outside of tables: it probably follows the last table.
    pub(crate) fn is_misplaced(&self, path: &KeyPath) -> bool {
        let outside = path.0.last().and_then(|name| child(&self.0, name));
        outside.is_some_and(|node| !is_table(node))
    }

    /// What to write instead of an unknown key of a table with these `known` keys: a near one, else
    /// the same key of another table, else the list. `below` are names below the unknown key.
    pub(crate) fn suggestion(&self, path: &KeyPath, below: &[String], known: &[&str]) -> String {
        let Some((name, table)) = path.0.split_last() else { return String::new() };
        if let Some(near) = nearest(name, known) {
            return format!("did you mean {}?", KeyPath(table.to_vec()).child(near));
        }
        let name = below.last().unwrap_or(name);
        let keys = self.keys();
        match keys.iter().find(|(key, _)| key.0.last() == Some(name)) {
            Some((key, _)) if key.0.len() == 1 => {
                format!("did you mean {key}, before the first [table]?")
            }
            Some((key, _)) => format!("did you mean {key}?"),
            None => format!("the keys here are {}", known.join(", ")),
        }
    }
}

/// The description of the values of a table by name.
pub(crate) fn child<'a>(table: &'a Json, name: &str) -> Option<&'a Json> {
    let any = table.get("additionalProperties").filter(|any| any.is_object());
    table["properties"].get(name).or(any)
}

pub(crate) fn is_table(node: &Json) -> bool {
    node["type"] == "object"
}

pub(crate) fn is_secret(node: &Json) -> bool {
    node["writeOnly"] == true
}

/// Whether the text of a key ends in a unit.
pub(crate) fn has_unit(node: &Json) -> bool {
    let title = node["title"].as_str().unwrap_or_default();
    ["duration", "rate", "size"].iter().any(|kind| title.starts_with(kind))
}

/// The words of a key that takes one of a fixed set.
pub(crate) fn choices(node: &Json) -> Vec<&str> {
    let listed = node["enum"].as_array().into_iter().flatten();
    let described = node["oneOf"].as_array().into_iter().flatten().map(|choice| &choice["const"]);
    listed.chain(described).filter_map(Json::as_str).collect()
}

fn collect_keys<'a>(
    node: &'a Json,
    path: KeyPath,
    names: &impl Fn(&KeyPath) -> Vec<String>,
    keys: &mut Vec<(KeyPath, &'a Json)>,
) {
    if !is_table(node) {
        return keys.push((path, node));
    }
    let named = node["properties"].as_object().into_iter().flat_map(|it| it.keys().cloned());
    let chosen = if node["additionalProperties"].is_object() { names(&path) } else { Vec::new() };
    for name in named.chain(chosen) {
        if let Some(child) = child(node, &name) {
            collect_keys(child, path.child(&name), names, keys);
        }
    }
}

fn complete(node: &Json, value: &mut Value) {
    match value {
        Value::Dict(_, dict) => {
            for (name, property) in node["properties"].as_object().into_iter().flatten() {
                let default = match property.get("default") {
                    _ if dict.contains_key(name) => None,
                    None => is_table(property).then(|| Dict::new().into()),
                    Some(default) => Value::serialize(default).ok(),
                };
                dict.extend(default.map(|default| (name.clone(), default)));
            }
            for (name, inner) in dict {
                if let Some(node) = child(node, name) {
                    complete(node, inner);
                }
            }
        }
        Value::String(tag, text) => {
            let converted = match node["type"].as_str() {
                Some("integer") => {
                    text.replace('_', "").parse::<i64>().ok().map(|n| Value::Num(*tag, n.into()))
                }
                Some("boolean") => {
                    value.to_bool_lossy().map(|truth| Value::Bool(value.tag(), truth))
                }
                Some("array") => {
                    let toml = ValueDeserializer::parse(text).and_then(Vec::<String>::deserialize);
                    let parts = toml.unwrap_or_else(|_| {
                        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                        parts.map(str::to_owned).collect()
                    });
                    Some(Value::Array(*tag, parts.into_iter().map(Value::from).collect()))
                }
                _ => None,
            };
            if let Some(converted) = converted {
                *value = converted;
            }
        }
        _ => {}
    }
}
