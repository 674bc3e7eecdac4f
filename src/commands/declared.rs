//! What the configuration declares of a gateway's devices: commands may not contradict it.
//!
//! May not read the configuration: who starts the bridge fills this in.

use std::collections::BTreeMap;

use super::command::Command;
use super::failure::Failure;
use super::response::Warning;
use crate::ids::{DeviceId, GatewayName};

/// How a device is declared to be connected, other than only observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclaredAs {
    /// `connect = "async"`.
    Async,
    /// `connect = "accept"`.
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
        let undoes = |id: &DeviceId| {
            matches!(
                (command, self.0.get(id)),
                (Command::AsyncRemove(_), Some(DeclaredAs::Async))
                    | (Command::ModeSet { .. } | Command::Ssl { .. }, Some(_))
            )
        };
        let Some(id) = command.device_ids().into_iter().find(undoes) else { return Ok(()) };
        Err(Failure::invalid(format!(
            "the configuration declares how device {id} is connected; change \
             gateways.{gateway}.devices.{id}.connect there (\"observe\" leaves it to commands) and \
             start the bridge again"
        )))
    }
}

/// A command took away what the configuration wants: a device let in, or (`None`) all of them.
#[must_use]
pub fn kept_by_configuration(gateway: &GatewayName, device_id: Option<DeviceId>) -> Warning {
    let (what, key) = match device_id {
        Some(id) => ("it", format!("devices.{id}.connect")),
        None => ("every device", "accept_filter.allow_all".to_owned()),
    };
    let message = format!(
        "the configuration wants {what} let in, and the next link to the gateway does so again; \
         change gateways.{gateway}.{key} there too"
    );
    Warning { device_id, code: "kept_by_configuration", message }
}
