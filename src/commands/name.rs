//! The names of the commands, and which of them change something.
//!
//! May not know what a command does.

use std::fmt;
use std::str::FromStr;

use super::pool::Lane;

/// A command by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// `devices`
    Devices,
    /// `search`
    Search,
    /// `pending`
    Pending,
    /// `accept_filter/get`
    FilterGet,
    /// `slaves/get`
    SlavesGet,
    /// `connect`
    Connect,
    /// `disconnect`
    Disconnect,
    /// `disconnect_all`
    DisconnectAll,
    /// `async/add`
    AsyncAdd,
    /// `async/remove`
    AsyncRemove,
    /// `accept_filter/set`
    FilterSet,
    /// `accept_filter/add`
    FilterAdd,
    /// `accept_filter/remove`
    FilterRemove,
    /// `accept_filter/allow_all`
    FilterAllowAll,
    /// `mode/set`
    ModeSet,
    /// `ssl/enable`
    SslEnable,
    /// `ssl/disable`
    SslDisable,
    /// `slaves/set`
    SlavesSet,
}

impl Name {
    /// Every command, those without change first.
    pub const ALL: [Self; 18] = [
        Self::Devices,
        Self::Search,
        Self::Pending,
        Self::FilterGet,
        Self::SlavesGet,
        Self::Connect,
        Self::Disconnect,
        Self::DisconnectAll,
        Self::AsyncAdd,
        Self::AsyncRemove,
        Self::FilterSet,
        Self::FilterAdd,
        Self::FilterRemove,
        Self::FilterAllowAll,
        Self::ModeSet,
        Self::SslEnable,
        Self::SslDisable,
        Self::SlavesSet,
    ];

    /// The name as in topics and payloads.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Search => "search",
            Self::Pending => "pending",
            Self::FilterGet => "accept_filter/get",
            Self::SlavesGet => "slaves/get",
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::DisconnectAll => "disconnect_all",
            Self::AsyncAdd => "async/add",
            Self::AsyncRemove => "async/remove",
            Self::FilterSet => "accept_filter/set",
            Self::FilterAdd => "accept_filter/add",
            Self::FilterRemove => "accept_filter/remove",
            Self::FilterAllowAll => "accept_filter/allow_all",
            Self::ModeSet => "mode/set",
            Self::SslEnable => "ssl/enable",
            Self::SslDisable => "ssl/disable",
            Self::SlavesSet => "slaves/set",
        }
    }

    /// Whether it changes something at the gateway or a device.
    #[must_use]
    pub const fn changes(self) -> bool {
        match self {
            Self::Devices | Self::Search | Self::Pending | Self::FilterGet | Self::SlavesGet => {
                false
            }
            Self::Connect
            | Self::Disconnect
            | Self::DisconnectAll
            | Self::AsyncAdd
            | Self::AsyncRemove
            | Self::FilterSet
            | Self::FilterAdd
            | Self::FilterRemove
            | Self::FilterAllowAll
            | Self::ModeSet
            | Self::SslEnable
            | Self::SslDisable
            | Self::SlavesSet => true,
        }
    }

    /// Among which others it waits for its turn.
    #[must_use]
    pub const fn lane(self) -> Lane {
        match self {
            Self::Search => Lane::Search,
            name if name.changes() => Lane::Change,
            _ => Lane::Look,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_the_configuration_knows() {
        let ours: Vec<(&str, bool)> =
            Name::ALL.iter().map(|name| (name.as_str(), name.changes())).collect();
        assert_eq!(ours, crate::config::COMMANDS);
        assert_eq!("ssl/enable".parse(), Ok(Name::SslEnable));
        assert_eq!("SSL/enable".parse::<Name>(), Err(()));
    }
}
