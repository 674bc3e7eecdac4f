//! The commands: one table of their names, classes, scopes and example requests.

use std::fmt;
use std::str::FromStr;

use strum::VariantArray;

/// A command of docs/commands.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
pub enum CommandName {
    Devices,
    Search,
    Pending,
    FilterGet,
    SlavesGet,
    Connect,
    Disconnect,
    DisconnectAll,
    AsyncAdd,
    AsyncRemove,
    FilterSet,
    FilterAdd,
    FilterRemove,
    FilterAllowAll,
    ModeSet,
    SslEnable,
    SslDisable,
    SlavesSet,
    Republish,
    Forget,
    History,
}

/// What a command does. Commands of one class share a limit on how many run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandClass {
    /// Changes something, and is permitted only where the configuration names it.
    Change,
    /// Changes nothing, and is answered at once by the gateway or the bridge.
    Read,
    /// Takes the time in the request, up to a minute.
    Search,
}

/// The owner of a command: gateway or bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandScope {
    Gateway,
    Bridge,
    Both,
}

struct CommandRow {
    name: &'static str,
    class: CommandClass,
    scope: CommandScope,
    example: &'static str,
}

impl CommandName {
    /// All commands, those of gateways first.
    pub const ALL: &[Self] = Self::VARIANTS;

    const fn row(self) -> CommandRow {
        use CommandClass::{Change, Read, Search};
        use CommandScope::{Both, Bridge, Gateway};
        const DEVICES: &str = r#"{"device_ids":[544114231]}"#;
        let (name, class, scope, example) = match self {
            Self::Devices => ("devices", Read, Gateway, "{}"),
            Self::Search => ("search", Search, Gateway, r#"{"wait_s":5}"#),
            Self::Pending => ("pending", Read, Gateway, "{}"),
            Self::FilterGet => ("accept_filter/get", Read, Gateway, "{}"),
            Self::SlavesGet => ("slaves/get", Read, Gateway, "{}"),
            Self::Connect => {
                ("connect", Change, Gateway, r#"{"ip":"192.168.0.104","port":51211,"ssl":false}"#)
            }
            Self::Disconnect => ("disconnect", Change, Gateway, DEVICES),
            Self::DisconnectAll => ("disconnect_all", Change, Gateway, "{}"),
            Self::AsyncAdd => (
                "async/add",
                Change,
                Gateway,
                r#"{"devices":[{"device_id":544114231,"ip":"192.168.0.104"}]}"#,
            ),
            Self::AsyncRemove => ("async/remove", Change, Gateway, DEVICES),
            Self::FilterSet => (
                "accept_filter/set",
                Change,
                Gateway,
                r#"{"allow_all":false,"device_ids":[544114231]}"#,
            ),
            Self::FilterAdd => ("accept_filter/add", Change, Gateway, DEVICES),
            Self::FilterRemove => ("accept_filter/remove", Change, Gateway, DEVICES),
            Self::FilterAllowAll => {
                ("accept_filter/allow_all", Change, Gateway, r#"{"enabled":true}"#)
            }
            Self::ModeSet => (
                "mode/set",
                Change,
                Gateway,
                r#"{"device_ids":[544114231],"mode":"device_to_server"}"#,
            ),
            Self::SslEnable => ("ssl/enable", Change, Gateway, DEVICES),
            Self::SslDisable => ("ssl/disable", Change, Gateway, DEVICES),
            Self::SlavesSet => (
                "slaves/set",
                Change,
                Gateway,
                r#"{"slaves":[{"device_id":544114231,"rs485":[7],"wiegand":[]}]}"#,
            ),
            Self::Republish => ("republish", Read, Bridge, "{}"),
            Self::Forget => {
                ("forget", Change, Bridge, r#"{"gateway":"lobby","device_ids":[544114231]}"#)
            }
            Self::History => {
                ("history", Read, Both, r#"{"device_ids":[544114231],"from":"24h","limit":100}"#)
            }
        };
        CommandRow { name, class, scope, example }
    }

    /// The name in topics, payloads and the configuration.
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }

    pub const fn class(self) -> CommandClass {
        self.row().class
    }

    pub const fn scope(self) -> CommandScope {
        self.row().scope
    }

    /// A request that is accepted.
    pub const fn example(self) -> &'static str {
        self.row().example
    }

    pub const fn changes(self) -> bool {
        matches!(self.class(), CommandClass::Change)
    }
}

impl fmt::Display for CommandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCommand;

impl FromStr for CommandName {
    type Err = UnknownCommand;

    fn from_str(text: &str) -> Result<Self, UnknownCommand> {
        Self::ALL.iter().copied().find(|name| name.as_str() == text).ok_or(UnknownCommand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in CommandName::ALL {
            assert_eq!(name.as_str().parse(), Ok(*name));
        }
        assert_eq!("SSL/enable".parse::<CommandName>(), Err(UnknownCommand));
    }
}
