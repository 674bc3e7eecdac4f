//! The commands: parses a request into a typed command, runs it on a gateway, and makes the
//! response. Used by MQTT and by the command line.

mod bridge_command;
mod calls;
mod command;
mod declared;
mod devices;
mod failure;
mod filter;
mod history;
mod mode_ssl;
mod rate;
mod reconnect;
mod replay;
mod request;
mod response;
mod run;
mod slots;
mod step;
mod steps;
mod transaction;
mod values;
mod verify;

pub use bridge_command::BridgeCommand;
pub use calls::Calls;
pub use command::Command;
pub use declared::{declared_by_configuration, kept_by_configuration};
pub use devices::{device_rows, device_states};
pub use failure::{Failure, FailureCode};
pub use history::{HistoryQuery, history};
pub use rate::TokenBucket;
pub use replay::{Replay, ReplayCache, ReplayKey};
pub use request::{RefusedRequest, transaction_of};
pub use response::{
    AnswerLimit, Data, DeviceFailure, Outcome, Response, ResultKind, Warning, WarningCode,
};
pub use run::run;
pub use slots::{CommandSlots, Permit, Slot};
pub use transaction::Transaction;

/// A valid request, of a gateway by default.
pub type Request<C = Command> = request::Request<C>;
