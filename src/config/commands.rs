//! The list of the commands that clients may request.

use std::borrow::Cow;
use std::collections::BTreeSet;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::ids::{CommandName, nearest};

fn command_names() -> Vec<&'static str> {
    CommandName::ALL.iter().map(|name| name.as_str()).collect()
}

/// Everything that `commands.allow` may contain: names, `group/*` and `*`.
fn patterns() -> Vec<String> {
    let names = command_names();
    let group = |name: &&str| Some(format!("{}/*", name.split_once('/')?.0));
    let groups: BTreeSet<String> = names.iter().filter_map(group).collect();
    names.into_iter().map(str::to_owned).chain(groups).chain(["*".to_owned()]).collect()
}

/// The commands that may run: exact names, `group/*`, or `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow(BTreeSet<String>);

impl Allow {
    pub fn permits(&self, command: CommandName) -> bool {
        let name = command.as_str();
        let has_group = |(group, _)| self.0.contains(&format!("{group}/*"));
        self.0.contains("*") || self.0.contains(name) || name.split_once('/').is_some_and(has_group)
    }

    /// The names and patterns as configured.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether no command may run, so that no request is subscribed to.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The permitted commands that change something; worth a warning when there are any.
    pub fn changing(&self) -> impl Iterator<Item = &'static str> {
        let changing = |name: &CommandName| name.changes() && self.permits(*name);
        CommandName::ALL.iter().copied().filter(changing).map(CommandName::as_str)
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
            || format!("the commands are {}", command_names().join(", ")),
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
    fn allow_lists_accept_names_groups_and_all() {
        let allow = |patterns: &[&str]| Allow(patterns.iter().map(|p| (*p).to_owned()).collect());
        assert!(allow(&["accept_filter/*"]).permits(CommandName::FilterAdd));
        assert!(!allow(&["accept_filter/*"]).permits(CommandName::SlavesSet));
        assert!(!allow(&["connect"]).permits(CommandName::Disconnect));
        assert!(allow(&["*"]).permits(CommandName::DisconnectAll));
        assert!(!allow(&[]).permits(CommandName::Devices));
        assert!(allow(&[]).is_empty());
    }
}
