//! The integration tests: one binary, a module for each room, and `bridge` for the whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bridge;
mod gateway;
mod harness;
