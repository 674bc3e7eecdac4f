//! Every key with its value and where that came from, for `check` to print.
//!
//! May not show a secret: its value is `***`.

use figment::value::Value;

use super::checked::Config;
use super::error::Origin;
use super::keys::{Fallback, Form, KEYS, Key};
use super::layers::{KeyPath, Raw, instances};

/// A key's value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, as in `gateways.lobby.address`.
    pub key: String,
    /// The value as TOML, `***` for a secret; `None` if there is none.
    pub value: Option<String>,
    /// Where it was set.
    pub origin: Origin,
    /// What happens without a value, where there is none.
    pub without: &'static str,
}

/// Every key of the table, of every gateway and device, in the table's order.
pub(super) fn all(raw: &Raw, config: &Config) -> Vec<Setting> {
    let mut settings = Vec::new();
    for key in KEYS {
        for path in instances(key.path, |table| raw.names(table)) {
            settings.push(one(raw, config, key, &path));
        }
    }
    // Stable, so that a gateway's keys stand together in the table's order.
    settings.sort_by_key(|(owner, _)| owner.clone());
    settings.into_iter().map(|(_, setting)| setting).collect()
}

/// A key's setting, behind the names of the gateway and device it is of.
fn one(raw: &Raw, config: &Config, key: &Key, path: &KeyPath) -> (Vec<String>, Setting) {
    let (value, origin) = match raw.get(path) {
        Some((_, origin)) if key.form == Form::Secret => (Some("***".to_owned()), origin.clone()),
        Some((value, origin)) => (Some(shown(value)), origin.clone()),
        None => (derived(config, key.path, path), Origin::Default),
    };
    let without = if let Fallback::Absent(words) = key.fallback { words } else { "" };
    let wildcards = key.path.split('.').zip(&path.0).filter(|(pattern, _)| *pattern == "*");
    let owner = wildcards.map(|(_, name)| name.clone()).collect();
    (owner, Setting { key: path.to_string(), value, origin, without })
}

/// The defaults that follow from other keys.
fn derived(config: &Config, key: &str, path: &KeyPath) -> Option<String> {
    let text = match key {
        "mqtt.client_id" => &config.mqtt.client_id,
        "commands.response_prefix" => &config.commands.response_prefix,
        "gateways.*.server_name" => {
            let name = path.0.get(1)?.parse().ok()?;
            &config.gateways.get(&name)?.server_name
        }
        _ => return None,
    };
    Some(format!("{text:?}"))
}

/// A value as it would stand in the file.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Array(_, items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_i128().map_or_else(String::new, |number| number.to_string()),
    }
}
