//! Logs connected devices that leave a gateway's list and are no longer expected.

use super::state::State;
use crate::fleet::{DeviceState, GatewayIndex, Listed};
use crate::ids::DeviceId;

/// The devices of earlier lists that are missing from this one, although the stream has not
/// reported that they are disconnected.
pub(crate) fn missing_devices(
    state: &State,
    gateway: GatewayIndex,
    rows: &[Listed],
) -> Vec<DeviceId> {
    let is_missing = |device: &DeviceState| {
        let known = device.last_known.map(|known| known.connected);
        let row = rows.binary_search_by_key(&device.device_id, |row| row.device_id);
        device.managed && device.connected.or(known) == Some(true) && row.is_err()
    };
    state.fleet.devices(gateway).filter(is_missing).map(|device| device.device_id).collect()
}

/// Warns of those devices that are no longer expected, as after a restart of a gateway that has
/// lost what another program registered: nothing else reports that they should be connected.
pub(crate) fn warn_of_unexpected(state: &State, gateway: GatewayIndex, missing: &[DeviceId]) {
    let devices = missing.iter().filter_map(|id| state.fleet.device(gateway, *id));
    let count = devices.filter(|device| !device.expected).count();
    let Some(entry) = state.directory.gateway(gateway).filter(|_| count > 0) else { return };
    let gateway = entry.name.as_str();
    let remedy = format!(
        "declare them with connect under [gateways.{gateway}.devices], or add them with the \
         command async/add"
    );
    let message = "connected devices left the gateway's list; they are no longer expected";
    tracing::warn!(gateway, count, remedy, message);
}
