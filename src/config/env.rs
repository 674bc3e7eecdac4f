//! The environment's layer: `GSDK2MQTT_MQTT__URL` and its like, `STATE_DIRECTORY` of systemd.
//!
//! May not read the process's environment: the variables are an argument, so that tests are pure.

use std::ffi::OsString;

use super::error::{Mistake, Origin};
use super::keys::{self, KEYS, Node};
use super::layers::{KeyPath, Layer, value_of_text};

/// What our variables begin with.
pub(super) const PREFIX: &str = "GSDK2MQTT_";

/// Names behind the prefix that are no keys: the file, and what the command line reads itself.
const NOT_KEYS: [&str; 2] = ["CONFIG", "LOG"];

/// What the environment says.
pub(super) struct Environment {
    /// Values of keys.
    pub(super) layer: Layer,
    /// What systemd says; it stands below the file.
    pub(super) systemd: Layer,
    /// The file named by `GSDK2MQTT_CONFIG`.
    pub(super) config: Option<OsString>,
    /// Names that fit no key and are perhaps not ours.
    pub(super) warnings: Vec<String>,
}

/// Reads all variables that concern us.
pub(super) fn read(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    mistakes: &mut Vec<Mistake>,
) -> Environment {
    let mut found = Environment {
        layer: Layer::new("environment"),
        systemd: Layer::new("systemd"),
        config: None,
        warnings: Vec::new(),
    };
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        if name == "STATE_DIRECTORY" {
            state_directory(&value, &mut found.systemd);
        } else if let Some(rest) = name.strip_prefix(PREFIX) {
            if rest == "CONFIG" {
                found.config = (!value.is_empty()).then_some(value);
            } else if !NOT_KEYS.contains(&rest) {
                variable(name, rest, &value, &mut found, mistakes);
            }
        }
    }
    found
}

/// systemd gives a list separated by colons; ours is the first.
fn state_directory(value: &OsString, layer: &mut Layer) {
    let first = value.to_str().and_then(|text| text.split(':').next());
    if let Some(path) = first.filter(|path| !path.is_empty()) {
        let origin = Origin::Variable("STATE_DIRECTORY".to_owned());
        layer.set(KeyPath::of(&["state_dir"]), path.into(), origin);
    }
}

fn variable(
    name: &str,
    rest: &str,
    value: &OsString,
    found: &mut Environment,
    mistakes: &mut Vec<Mistake>,
) {
    let capitals = !rest.bytes().any(|byte| byte.is_ascii_lowercase());
    let path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    let origin = Origin::Variable(name.to_owned());
    let node = if capitals { keys::lookup(&path) } else { Node::Unknown };
    let Node::Leaf(key) = node else {
        let remedy = nearest(rest, &path);
        if rest.contains("__") {
            let text = format!("fits no key; {remedy}");
            mistakes.push(Mistake { origin, key: String::new(), text });
        } else {
            found.warnings.push(format!("environment {name}: fits no key, ignored; {remedy}"));
        }
        return;
    };
    let path = KeyPath(path);
    match value.to_str().ok_or_else(|| "is not UTF-8".to_owned()) {
        Ok(text) => match value_of_text(key.form, text) {
            Ok(value) => found.layer.set(path, value, origin),
            Err(text) => mistakes.push(Mistake { origin, key: path.to_string(), text }),
        },
        Err(text) => mistakes.push(Mistake { origin, key: path.to_string(), text }),
    }
}

/// The known variable nearest to an unknown one, in words to end a sentence with.
///
/// The user's own names (of gateways and devices) are taken over from the wrong variable.
fn nearest(rest: &str, path: &[String]) -> String {
    let known = KEYS.iter().map(|key| {
        let mut given = path.iter();
        let parts = key.path.split('.').map(|part| match (part, given.next()) {
            ("*", Some(name)) => name.to_uppercase(),
            ("*", None) => "NAME".to_owned(),
            (part, _) => part.to_uppercase(),
        });
        parts.collect::<Vec<_>>().join("__")
    });
    let known: Vec<String> = known.collect();
    let upper = rest.to_uppercase();
    keys::nearest(&upper, known.iter().map(String::as_str)).map_or_else(
        || format!("a variable is {PREFIX} and the key in capitals with __ for each dot"),
        |near| format!("did you mean {PREFIX}{near}?"),
    )
}

/// The variable that sets a key.
#[must_use]
pub fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}
