//! The G-SDK client: typed calls to a gateway, and for each gateway one task that reads its status
//! stream.

mod channel;
mod client;
mod connected_link;
mod connection;
mod convert;
mod disconnect;
mod error;
mod failure_log;
mod link;
mod options;
mod reports;
mod rpc;
mod subscription;
mod types;

pub use client::GatewayClient;
pub use connection::{RpcObserver, RpcRecord};
pub use error::{Error, ErrorCode, LinkError, code_name};
pub use link::Link;
pub use options::{GatewayOptions, PORT_DEFAULT, QUEUE_SIZE_DEFAULT, Timing};
pub use reports::{LinkReport, LinkReportSender};
pub use rpc::ApiVersion;
pub use types::{DEVICE_PORT_DEFAULT, DeviceError, FoundDevice, PendingDevice};

pub use crate::fleet::{AcceptFilter, Slaves, Target};
