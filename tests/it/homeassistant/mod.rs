//! Home Assistant: discovery at a real broker, and (`make test-homeassistant`) in a real Home
//! Assistant.

mod broker;
mod demo;
mod hass;
mod real;

const ENABLED: &str = "[home_assistant]\nenabled = true\n";

/// The unique ID of an entity of one of the lobby's devices.
fn id(device: u32, key: &str) -> String {
    format!("gsdk_lobby_{device}_{key}")
}
