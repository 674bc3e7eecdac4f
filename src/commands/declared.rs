//! Commands that contradict what the configuration declares of a gateway's devices.

use super::failure::Failure;
use super::response::{Warning, WarningCode};
use crate::ids::{DeviceId, GatewayName};

/// A command would undo what the configuration declares of a device.
#[must_use]
pub fn declared_by_configuration(gateway: &GatewayName, id: DeviceId) -> Failure {
    Failure::invalid(format!(
        "the configuration declares how device {id} is connected; change \
         gateways.{gateway}.devices.{id}.connect there (\"observe\" leaves it to commands) and \
         restart the bridge"
    ))
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
