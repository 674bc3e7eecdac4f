//! The broker's side: topics, what is published and in which order, and the session that sends it.

mod publish;
mod refusal;
mod request;
pub mod session;
mod topics;

pub(crate) use publish::{Answer, DiscoverySettings, Kind, Publisher, Rejected, View};
pub use refusal::Refusal;
pub(crate) use refusal::Rejection;
pub(crate) use request::{ReplyTo, Request};
pub use session::{
    Ack, Connected, Connection, Event, Generation, Limits, Message, Password, Protocol, Publish,
    PublishError, RetainHandling, Session, Settings, Will,
};
pub use topics::{FILTERS_PER_PACKET, Owner, Topics};
