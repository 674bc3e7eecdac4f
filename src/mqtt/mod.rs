//! The broker's side: what is published and in which order, requests, and the session.

mod publish;
mod refusal;
mod request;
pub mod session;

pub(crate) use publish::{Answer, Kind, Publisher, Rejected, View};
pub use refusal::Refusal;
pub(crate) use refusal::Rejection;
pub(crate) use request::{Request, Requester};
pub use session::{
    Ack, Connected, Connection, Event, FILTERS_PER_PACKET, Generation, Limits, Message, Password,
    Protocol, Publish, PublishError, RetainHandling, Session, Settings, Will,
};
