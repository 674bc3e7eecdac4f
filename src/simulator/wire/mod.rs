//! The wire of a simulated gateway: TLS, package ages, services.
//!
//! May not decide how a gateway behaves: that is `gateway`. Here messages are read, the gateway is
//! asked under the hub's lock, and answers are written.

pub(crate) mod access;
pub(crate) mod connect;
mod errors;
pub(crate) mod front;
pub(crate) mod listen;
pub(crate) mod master;
pub(crate) mod valve;

/// The largest message a gateway reads: its default `max_recv_size` (wire, section 1).
pub(crate) const MESSAGE_SIZE_MAX: usize = 75_497_472;
