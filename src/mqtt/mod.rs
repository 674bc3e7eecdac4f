//! The broker: one session with it, publishes out with their acknowledgements, messages in.
//!
//! May not call gateways nor know what a device is. What is published, when, and again after a
//! loss, the one loop decides; a session only carries, and says what became of it.

mod backoff;
mod connection;
mod dial;
mod drive;
mod fault;
pub mod session;
mod tls;
mod v4;
mod v5;
mod words;

pub use backoff::Retry;
pub use connection::{Connection, Publish, PublishError, SubscribeError};
pub use fault::Fault;
pub use session::{
    Ack, Connected, Event, Generation, Limits, Message, Protocol, Refusal, Session, Settings, Will,
};
pub use tls::Tls;
