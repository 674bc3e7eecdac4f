//! The commands: parses a request into a typed command, runs it on a gateway, and makes the
//! response. Used by MQTT and by the command line.

mod bridge_command;
mod calls;
mod command;
mod devices;
mod failure;
mod filter;
mod limits;
mod mode_ssl;
mod reconnect;
mod replay;
mod request;
mod response;
mod run;
mod step;
mod steps;
mod values;
mod verify;

pub use bridge_command::{BridgeCommand, history, read_history};
pub use calls::Calls;
pub use command::{Command, ModeOrSsl};
pub use devices::{device_rows, device_states, read_details};
pub use failure::{Failure, FailureCode};
pub use limits::{CommandSlots, Permit, Slot, TokenBucket};
pub use replay::{ReplayCache, ReplayKey, ReplayState};
pub use request::{EXAMPLE_FOLLOWS, RefusedRequest, Transaction, transaction_of};
pub use response::{
    AnswerLimit, Data, DeviceFailure, Outcome, Response, ResultKind, Warning, WarningCode,
};
pub use run::run;
pub use step::Progress;

/// A valid request, of a gateway by default.
pub type Request<C = Command> = request::Request<C>;
