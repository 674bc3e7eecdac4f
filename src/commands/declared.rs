//! The devices that the configuration declares; commands must not contradict it.

use std::collections::BTreeMap;

use super::command::Command;
use super::failure::Failure;
use super::response::{Warning, WarningCode};
use crate::ids::{DeviceId, GatewayName};

/// The declared `connect` of a device, unless it is `observe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclaredAs {
    Async,
    Accept,
}

/// The declared devices of one gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared(pub BTreeMap<DeviceId, DeclaredAs>);

impl Declared {
    /// Refuses a command that would undo what is declared.
    ///
    /// # Errors
    /// Naming the line of the configuration to change.
    pub fn check(&self, gateway: &GatewayName, command: &Command) -> Result<(), Failure> {
        let is_undone = |id: &DeviceId| {
            matches!(
                (command, self.0.get(id)),
                (Command::AsyncRemove(_), Some(DeclaredAs::Async))
                    | (Command::ModeSet { .. } | Command::Ssl { .. }, Some(_))
            )
        };
        let Some(id) = command.device_ids().into_iter().find(is_undone) else { return Ok(()) };
        Err(Failure::invalid(format!(
            "the configuration declares how device {id} is connected; change \
             gateways.{gateway}.devices.{id}.connect there (\"observe\" leaves it to commands) and \
             restart the bridge"
        )))
    }
}

/// A command removed what the configuration declares: an accepted device, or (`None`) all of them.
#[must_use]
pub fn kept_by_configuration(gateway: &GatewayName, device_id: Option<DeviceId>) -> Warning {
    let (what, key) = match device_id {
        Some(id) => ("this device", format!("devices.{id}.connect")),
        None => ("every device", "accept_filter.allow_all".to_owned()),
    };
    let message = format!(
        "the configuration declares {what} as accepted, and the bridge adds it again at the next \
         link to the gateway; change gateways.{gateway}.{key} there too"
    );
    Warning { device_id, code: WarningCode::KeptByConfiguration, message }
}
