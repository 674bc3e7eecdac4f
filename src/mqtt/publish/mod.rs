//! Decides what is published next. Pure: no socket, no clock.
//!
//! Each kind of message has a component that tracks what has to be sent; the [`Publisher`]
//! schedules them in a fixed order within the broker's window.

mod answers;
mod clearing;
mod content;
mod discovery;
mod info;
mod isolation;
mod message;
mod pacing;
mod publisher;
mod refusals;
mod stale_discovery;
mod states;
#[cfg(test)]
mod tests;

pub(crate) use info::InfoOf;
pub(crate) use message::{Accepted, Answer, MessageKind, Rejected, View};
pub(crate) use publisher::Publisher;
