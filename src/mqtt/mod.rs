//! The broker's side: what is published and in which order, requests, and the session.

mod publish;
mod refusal;
mod request;
pub mod session;
pub mod wire;

pub(crate) use publish::{Accepted, Answer, InfoOf, MessageKind, Publisher, Rejected, View};
pub use refusal::Refusal;
pub(crate) use request::{ReceivedRequest, Requester};
pub use session::{
    Ack, BrokerConnection, Connected, ConnectionEnded, FILTERS_PER_PACKET, Message, Publish,
    RetainHandling, Session, SessionEvent, SessionLimits, SessionSettings, Will,
};
