//! The text of a device in which searches look.

use crate::fleet::DeviceState;
use crate::payload::GatewayEntry;

/// Its name, ID, gateway, type, address and details, in lower case.
pub(crate) fn searchable(gateway: &GatewayEntry, state: &DeviceState) -> String {
    let DeviceState { device_id, info, details, .. } = state;
    let device_type = info.map(|info| info.device_type);
    let name = gateway.device_name(*device_id, device_type);
    let mut text = format!("{name}\n{device_id}\n{}", gateway.name);
    if let Some(known) = device_type {
        text += &format!("\n{known} {}", known.product_name());
    }
    if let Some(ip) = info.and_then(|info| info.ip) {
        text += &format!("\n{ip}");
    }
    let details =
        details.as_deref().map(|details| [&details.model, &details.firmware, &details.mac]);
    for detail in details.into_iter().flatten().flatten() {
        text += &format!("\n{detail}");
    }
    text.to_lowercase()
}
