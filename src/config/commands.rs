//! The commands that clients may request, and the list of those that are allowed.

use std::borrow::Cow;
use std::collections::BTreeSet;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::schema::nearest;

/// Every command of the contract that a client may request of a gateway, and whether it changes
/// something.
pub const COMMANDS: [(&str, bool); 18] = [
    ("devices", false),
    ("search", false),
    ("pending", false),
    ("accept_filter/get", false),
    ("slaves/get", false),
    ("connect", true),
    ("disconnect", true),
    ("disconnect_all", true),
    ("async/add", true),
    ("async/remove", true),
    ("accept_filter/set", true),
    ("accept_filter/add", true),
    ("accept_filter/remove", true),
    ("accept_filter/allow_all", true),
    ("mode/set", true),
    ("ssl/enable", true),
    ("ssl/disable", true),
    ("slaves/set", true),
];

/// Every command of the contract that a client may request of the bridge itself, and whether it
/// removes something.
pub const OWN_COMMANDS: [(&str, bool); 3] =
    [("republish", false), ("forget", true), ("history", false)];

/// The names of all commands.
fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().chain(&OWN_COMMANDS).map(|(name, _)| *name)
}

/// Everything that `commands.allow` may contain: names, `group/*` and `*`.
fn patterns() -> Vec<String> {
    let groups: BTreeSet<String> =
        names().filter_map(|name| Some(format!("{}/*", name.split_once('/')?.0))).collect();
    names().map(str::to_owned).chain(groups).chain(["*".to_owned()]).collect()
}

/// The commands that may run: exact names, `group/*`, or `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow(BTreeSet<String>);

impl Allow {
    /// Whether a command may run.
    #[must_use]
    pub fn permits(&self, command: &str) -> bool {
        self.0.contains("*")
            || self.0.contains(command)
            || command
                .split_once('/')
                .is_some_and(|(group, _)| self.0.contains(&format!("{group}/*")))
    }

    /// The names and patterns as configured.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether no command may run, so that no request is subscribed to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The permitted commands that change something; worth a warning when there are any.
    pub fn changing(&self) -> impl Iterator<Item = &'static str> {
        let changing = COMMANDS.iter().chain(&OWN_COMMANDS).filter(|(_, changes)| *changes);
        changing.map(|(name, _)| *name).filter(|name| self.permits(name))
    }
}

impl<'de> Deserialize<'de> for Allow {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let allowed = BTreeSet::<String>::deserialize(source)?;
        let known = patterns();
        let Some(unknown) = allowed.iter().find(|pattern| !known.contains(pattern)) else {
            return Ok(Self(allowed));
        };
        let remedy = nearest(unknown, &known).map_or_else(
            || format!("the commands are {}", names().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean {near:?}?"),
        );
        Err(D::Error::custom(format!("{unknown:?} is not a command; {remedy}")))
    }
}

impl JsonSchema for Allow {
    fn schema_name() -> Cow<'static, str> {
        "Allow".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string", "enum": patterns() } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_lists_know_names_groups_and_all() {
        let allow = |patterns: &[&str]| Allow(patterns.iter().map(|p| (*p).to_owned()).collect());
        assert!(allow(&["accept_filter/*"]).permits("accept_filter/add"));
        assert!(!allow(&["accept_filter/*"]).permits("accept_filter"));
        assert!(!allow(&["connect"]).permits("disconnect"));
        assert!(allow(&["*"]).permits("disconnect_all"));
        assert!(!allow(&[]).permits("devices"));
        assert!(allow(&[]).is_empty());
    }
}
