//! The topics that Home Assistant's discovery names.

use super::topics::Topics;
use crate::homeassistant::{BridgeTopics, DeviceTopics, GatewayTopics};
use crate::ids::DeviceId;
use crate::payload::{self, GatewayEntry};

pub(super) fn bridge_topics(topics: &Topics) -> BridgeTopics {
    BridgeTopics {
        state: topics.bridge_state(),
        info: topics.bridge_info(),
        republish: topics.request_to_bridge("republish"),
    }
}

pub(super) fn gateway_topics(topics: &Topics, entry: &GatewayEntry) -> GatewayTopics {
    let name = &entry.name;
    GatewayTopics {
        bridge_state: topics.bridge_state(),
        state: topics.gateway_state(name),
        info: topics.gateway_info(name),
        disconnect_all: topics.request_to(name, "disconnect_all"),
        allow_all: topics.request_to(name, "accept_filter/allow_all"),
    }
}

pub(super) fn device_topics(
    topics: &Topics,
    entry: &GatewayEntry,
    device_id: DeviceId,
) -> DeviceTopics {
    let name = &entry.name;
    DeviceTopics {
        bridge_state: topics.bridge_state(),
        gateway_state: topics.gateway_state(name),
        state: topics.device_state(name, device_id),
        events: topics.event(&payload::Subject::Device(name.clone(), device_id), "+"),
        disconnect: topics.request_to(name, "disconnect"),
    }
}
