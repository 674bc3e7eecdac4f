//! The commands: a request becomes a typed command, is checked, run on a gateway, and answered.
//!
//! May not touch topics, MQTT types or the configuration: the command line uses it too, and whoever
//! opens a door to it brings what it is to know. A command runs only as a typed one, in which
//! nothing can be wrong any more.

mod apply;
mod calls;
mod change;
mod command;
mod declared;
mod devices;
mod dials;
mod failure;
mod fields;
mod filter;
mod history;
mod look;
mod memory;
mod name;
mod own;
mod pool;
mod rate;
mod request;
mod response;
mod run;
mod show;
mod transaction;
mod work;

pub use calls::Calls;
pub use command::Command;
pub use declared::{Declared, DeclaredAs, kept_by_configuration};
pub use devices::{device_rows, device_states};
pub use failure::{Failure, code};
pub use history::{HISTORY, HistoryRequest, history};
pub use memory::{Memory, Recalled};
pub use name::Name;
pub use own::{Own, OwnName, OwnRequest};
pub use pool::{Lane, Place, Pool, Turn};
pub use rate::Bucket;
pub use request::{Refused, Request, transaction_of};
pub use response::{AnswerLimit, Body, Data, DeviceFailure, Outcome, Response, Verdict, Warning};
pub use run::run;
pub use transaction::Transaction;
