//! gsdk2mqtt: an event bridge from Suprema G-SDK gateways to MQTT and Prometheus.
//!
//! See `ARCHITECTURE.md` for the rooms and the one way through them.

pub mod fleet;
pub mod ids;
pub mod mqtt;
pub mod proto;
