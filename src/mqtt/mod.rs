//! The broker's side: topics, what is published and in which order, the session that carries it.
//!
//! May not call gateways or decide what is true of a device.

mod answers;
mod changed;
mod clear_queue;
mod clearing;
mod connection;
mod desk;
mod dial;
mod discovery;
mod discovery_topics;
mod drive;
mod failures;
mod fault;
mod isolation;
mod outgoing;
mod packet_log;
mod packets;
mod phase;
mod publisher;
mod refusal;
mod refusals;
mod requests;
mod sending;
mod sent;
pub mod session;
mod silence;
mod tap;
#[cfg(test)]
mod tests;
mod topics;
mod v4;
mod v5;
mod words;

pub use answers::AnswerDropped;
pub use connection::{Connection, Publish, PublishError, Retained, SubscribeError};
pub use dial::Password;
pub use discovery::DiscoverySettings;
pub use fault::Fault;
pub use outgoing::{Acknowledged, Kind, Outgoing, Rejected, View};
pub use publisher::Publisher;
pub use refusal::Refusal;
pub use refusals::Rejection;
pub use requests::{Answer, ReplyTo, Request};
pub use session::{
    Ack, Connected, Event, Generation, Limits, Message, Protocol, Session, Settings, Will,
};
pub use topics::{FILTERS_PER_PACKET, Owner, Topics};
