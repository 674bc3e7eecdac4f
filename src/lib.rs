//! gsdk2mqtt: an event bridge from Suprema G-SDK gateways to MQTT and Prometheus.
//!
//! See `ARCHITECTURE.md` for the rooms and the one way through them.

pub mod cli;
pub mod config;
pub mod fleet;
pub mod gateway;
pub mod http;
pub mod ids;
pub mod metrics;
pub mod mqtt;
pub mod outbox;
pub mod payload;
pub mod proto;
