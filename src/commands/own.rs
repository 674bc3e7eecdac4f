//! What is asked of the bridge itself: all retained topics again, and devices to be forgotten.
//!
//! May not do it: the loop does.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::failure::{Failure, code};
use super::fields::Fields;
use super::request::{Refused, object, requested_by, timeout};
use super::transaction::Transaction;
use crate::ids::{DeviceId, GatewayName};

/// A command of the bridge itself, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnName {
    /// `republish`
    Republish,
    /// `forget`
    Forget,
}

/// What the bridge itself is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// Publish all retained topics again.
    Republish,
    /// Forget devices that are neither managed nor configured, or a whole gateway that is not.
    Forget {
        /// Of which gateway.
        gateway: GatewayName,
        /// Which devices; `None`: the whole gateway.
        device_ids: Option<BTreeSet<DeviceId>>,
    },
}

/// A request to the bridge itself that can be run. It is run at once, so that its `timeout_s` is
/// read and always kept.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnRequest {
    /// What it is to do.
    pub own: Own,
    /// What the requester calls this request.
    pub transaction: Option<Transaction>,
    /// Who asks, as claimed.
    pub requested_by: Option<String>,
}

impl OwnName {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Republish, Self::Forget];

    /// The name as in topics, payloads and the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Republish => "republish",
            Self::Forget => "forget",
        }
    }

    /// Whether it takes something away.
    #[must_use]
    pub const fn changes(self) -> bool {
        matches!(self, Self::Forget)
    }
}

impl FromStr for OwnName {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| {
            Failure::new(
                code::UNKNOWN_COMMAND,
                "the bridge itself takes republish, forget and history; all else is asked of a \
                 gateway, on its own request topic",
            )
        })
    }
}

impl OwnRequest {
    /// Reads a payload.
    ///
    /// # Errors
    /// With a message that names what is wrong and says what to do.
    pub fn read(name: OwnName, payload: &[u8]) -> Result<Self, Refused> {
        let map = object(payload).map_err(|failure| Refused { transaction: None, failure })?;
        let mut fields = Fields::new(map, "");
        let transaction = Transaction::read(&mut fields, payload)
            .map_err(|failure| Refused { transaction: None, failure })?;
        match read_fields(name, fields) {
            Ok((own, requested_by)) => Ok(Self { own, transaction, requested_by }),
            Err(failure) => Err(Refused { transaction, failure }),
        }
    }
}

fn read_fields(name: OwnName, mut fields: Fields) -> Result<(Own, Option<String>), Failure> {
    timeout(&mut fields)?;
    let requested_by = requested_by(&mut fields)?;
    let own = match name {
        OwnName::Republish => Own::Republish,
        OwnName::Forget => {
            let missing = fields.missing("gateway", "the gateway's name");
            let gateway = fields.text("gateway")?.ok_or(missing)?;
            let gateway =
                gateway.parse().map_err(|error| Failure::invalid(format!("gateway: {error}")))?;
            Own::Forget { gateway, device_ids: fields.some_device_ids()? }
        }
    };
    fields.finish()?;
    Ok((own, requested_by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_the_configuration_knows() {
        let [republish, forget] = OwnName::ALL.map(|name| (name.as_str(), name.changes()));
        let ours = [republish, forget, (super::super::history::HISTORY, false)];
        assert_eq!(ours, crate::config::OWN_COMMANDS);
    }
}
