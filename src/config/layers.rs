//! The layers of the configuration as figment providers: file, environment, command line.
//!
//! Values of environment and command line are text; the key's type reads them later.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use serde::Deserialize as _;
use toml::de::{DeTable, Deserializer};

use super::error::{Mistake, Origin};
use super::schema::{KeyPath, Schema, is_secret, is_table};
use crate::ids::nearest;

/// The file that is read when none is named; it may be missing.
pub const DEFAULT_FILE: &str = "/etc/gsdk2mqtt/config.toml";

/// The prefix of the environment's variables.
const PREFIX: &str = "GSDK2MQTT_";

/// The name of the file's layer.
pub(crate) const FILE: &str = "file";

/// The settings of one source: the file, a variable or a flag.
#[derive(Clone)]
pub(crate) struct Layer {
    /// [`FILE`], the variable, or the flag as typed.
    name: String,
    root: Dict,
}

impl Layer {
    fn of_key(name: impl Into<String>, path: &[String], text: &str) -> Self {
        let nest = |inner: Value, name: &String| Dict::from([(name.clone(), inner)]).into();
        let root = path.iter().rev().fold(text.into(), nest);
        Self { name: name.into(), root: root.into_dict().unwrap_or_default() }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.root.clone()))
    }
}

/// A configuration file, parsed, with the place of every key.
pub(crate) struct ParsedFile<'a> {
    path: Arc<Path>,
    /// The offset of each line's end.
    newlines: Vec<usize>,
    table: DeTable<'a>,
}

impl<'a> ParsedFile<'a> {
    /// Parses a file's text; its first syntax error if there is one. No line is quoted, since it
    /// may hold a secret.
    pub(crate) fn parse(path: &Path, text: &'a str) -> Result<(Self, Layer), Mistake> {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let newlines = newlines.map(|(offset, _)| offset).collect();
        let mut file = Self { path: path.into(), newlines, table: DeTable::new() };
        let parsed = DeTable::parse(text).and_then(|table| {
            let root = Dict::deserialize(Deserializer::from(table.clone()))?;
            Ok((table, root))
        });
        match parsed {
            Ok((table, root)) => {
                file.table = table.into_inner();
                Ok((file, Layer { name: FILE.to_owned(), root }))
            }
            Err(error) => {
                let span = error.span().unwrap_or_default();
                let key = text.get(span.clone()).filter(|_| error.message() == "duplicate key");
                let key = key.map_or(String::new(), |key| format!(" {key}"));
                let line = file.line(span.start);
                let hint = if key.is_empty() { hint(text.lines().nth(line - 1)) } else { "" };
                let text = format!("is not valid TOML: {}{key}{hint}", error.message());
                let origin = Origin::File { path: file.path.clone(), line };
                Err(Mistake { origin, key: String::new(), text })
            }
        }
    }

    /// Where a key or table of the file begins.
    pub(crate) fn origin(&self, path: &KeyPath) -> Option<Origin> {
        let (name, tables) = path.0.split_last()?;
        let table = tables.iter().try_fold(&self.table, |table, name| {
            table.get(name.as_str()).and_then(|value| value.get_ref().as_table())
        });
        let (key, _) = table?.get_key_value(name.as_str())?;
        Some(Origin::File { path: self.path.clone(), line: self.line(key.span().start) })
    }

    /// The line of an offset; the first is 1.
    fn line(&self, offset: usize) -> usize {
        1 + self.newlines.partition_point(|newline| *newline < offset)
    }
}

/// What to write in a line that is not valid TOML, where its value is a text without its quotes.
fn hint(line: Option<&str>) -> &'static str {
    match line.and_then(|line| line.split_once('=')).map(|(_, value)| value.trim_start()) {
        Some(value) if value.contains('\\') => "; put a text with backslashes into single quotes",
        Some(value) if !value.starts_with(['"', '\'', '[', '{']) => "; put texts into quotes",
        _ => "",
    }
}

/// What the environment sets.
pub(crate) struct Environment {
    /// The values of keys.
    pub(crate) layers: Vec<Layer>,
    /// systemd's directory; the file has precedence.
    pub(crate) systemd: Option<Layer>,
    /// The file that `GSDK2MQTT_CONFIG` names.
    pub(crate) config: Option<OsString>,
    /// Variables that set nothing and perhaps come from elsewhere.
    pub(crate) warnings: Vec<String>,
}

/// Reads the variables that begin with the prefix, and systemd's `STATE_DIRECTORY`.
pub(crate) fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    schema: &Schema,
    mistakes: &mut Vec<Mistake>,
) -> Environment {
    let mut found =
        Environment { layers: Vec::new(), systemd: None, config: None, warnings: Vec::new() };
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let rest = match name.strip_prefix(PREFIX) {
            Some("CONFIG") => {
                found.config = Some(value).filter(|value| !value.is_empty());
                continue;
            }
            Some(rest) => rest,
            None if name == "STATE_DIRECTORY" => {
                // A list; the service has one.
                let first = value.to_str().and_then(|text| text.split(':').next());
                let first = first.filter(|first| !first.is_empty());
                found.systemd =
                    first.map(|first| Layer::of_key(name, &["state_dir".to_owned()], first));
                continue;
            }
            _ => continue,
        };
        let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        let capitals = variable_of(&path.join("."));
        let is_key = schema.at(&path).is_some_and(|node| !is_table(node));
        let (is_ours, origin) = (rest.contains("__"), Origin::Variable(name.to_owned()));
        let wrong = |text| Mistake { origin, key: String::new(), text };
        match value.to_str() {
            _ if !is_ours && !is_key => {
                let near = nearest_variable(rest, schema);
                found.warnings.push(format!("environment {name}: fits no key, ignored; {near}"));
            }
            _ if name != capitals => {
                mistakes.push(wrong(format!("fits no key; did you mean {capitals}?")));
            }
            None => mistakes.push(wrong("is not UTF-8".to_owned())),
            Some(text) => found.layers.push(Layer::of_key(name, &path, text)),
        }
    }
    found
}

/// Compares names without the prefix, which would make any two of them alike.
fn nearest_variable(rest: &str, schema: &Schema) -> String {
    let keys = schema.keys().into_iter().map(|(key, _)| key.0.join("__").to_uppercase());
    let config = rest.starts_with("CONFIG").then(|| "CONFIG".to_owned());
    config.or_else(|| nearest(rest, keys)).map_or_else(
        || format!("a variable is {PREFIX} and the key in capitals with __ for each dot"),
        |near| format!("did you mean {PREFIX}{near}?"),
    )
}

/// The variable that sets a key.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Reads the `--set KEY=VALUE` arguments.
pub(crate) fn command_line(
    sets: &[String],
    schema: &Schema,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Layer> {
    let mut layers = Vec::new();
    for set in sets {
        let (key, value) = set.split_once('=').map_or((&**set, None), |(key, it)| (key, Some(it)));
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let secret = schema.at(&path).is_some_and(is_secret);
        let flag = format!("--set {key}");
        let text = match value {
            _ if secret => format!("would be visible to every user; set {key}_file instead"),
            None => "has no value; write --set KEY=VALUE".to_owned(),
            Some(value) => {
                layers.push(Layer::of_key(flag, &path, value));
                continue;
            }
        };
        mistakes.push(Mistake { origin: Origin::Flag(flag), key: String::new(), text });
    }
    layers
}
