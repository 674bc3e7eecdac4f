//! gsdk2mqtt: an event bridge from Suprema G-SDK gateways to MQTT and Prometheus.
//!
//! Data flows in one direction: `gsdk` reads the gateways, `fleet` derives states and events,
//! `store` stores them, `mqtt` publishes them; `bridge` is the event loop that connects these.
//! `ARCHITECTURE.md` describes the modules.

pub mod availability;
pub mod bridge;
pub mod certificate;
pub mod cli;
pub mod commands;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod desired;
pub mod doctor;
pub mod fleet;
pub mod gsdk;
pub mod homeassistant;
pub mod http;
pub mod ids;
pub mod metrics;
pub mod mqtt;
pub mod net;
pub mod payload;
pub mod period;
pub mod proto;
pub mod schema;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod store;
pub mod task;
pub mod topics;
