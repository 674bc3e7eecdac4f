//! The integration tests: real brokers and gateways, as processes, seen from outside.
//!
//! One module a theme; `harness` starts what they need. May not sleep where a condition can be
//! awaited.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod harness;
mod mqtt_session;
