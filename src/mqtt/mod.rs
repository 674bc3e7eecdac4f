//! The broker's side: topics, what is published and in which order, the session.
//!
//! May not call gateways or decide what is true of a device.

mod changed;
mod desk;
mod publisher;
#[cfg(test)]
mod tests;
mod topics;

pub use publisher::{Acknowledged, Kind, Outgoing, Publisher, View};
pub use topics::Topics;
