//! The core, pure: what is true of every device, decided from what the gateways say.
//!
//! May not use tokio, a clock (`now` is an argument), I/O, or any type of another room.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

mod status;

pub use status::{DeviceInfo, DeviceType, Listed, Mode, Status};
