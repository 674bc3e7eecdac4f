//! What is published next. Pure: no socket, no clock.
//!
//! Each kind of message has a component that knows what of it is to be sent; the [`Publisher`]
//! schedules them in the contract's order within the broker's window.

mod answer;
mod answers;
mod changed_devices;
mod clear_queue;
mod clearing;
mod content;
mod discovery;
mod discovery_settings;
mod events;
mod full_publish;
mod in_flight;
mod isolation;
mod message;
mod publisher;
mod refusals;
mod states;
#[cfg(test)]
mod tests;

pub(crate) use answer::Answer;
pub(crate) use discovery_settings::DiscoverySettings;
pub(crate) use message::{Kind, Rejected, View};
pub(crate) use publisher::Publisher;
