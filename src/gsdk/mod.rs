//! The G-SDK client: typed calls to a gateway, and for each gateway, or for each master with the
//! gateways behind it, one task that reads its status stream.

mod behind_master;
mod channel;
mod client;
mod connected_link;
mod connection;
mod convert;
mod device_routes;
mod disconnect;
mod encoded;
mod error;
mod held_statuses;
mod link;
mod link_output;
mod master_client;
mod master_link;
mod master_session;
mod master_timers;
mod options;
mod reports;
mod rpc;
mod stored;
mod subscription;
mod supervisor;
mod target;
mod token;

pub use client::GatewayClient;
pub use connection::{RpcObserver, RpcRecord};
pub use convert::{DeviceError, FoundDevice, ListedGateway, PendingDevice};
pub(crate) use error::NOT_STORED;
pub use error::{Error, ErrorCode, LinkError, code_name};
pub use link::Link;
pub use master_client::MasterClient;
pub use master_link::MasterLink;
pub use options::{GatewayOptions, LinkTiming, QUEUE_SIZE_DEFAULT};
pub use reports::{LinkReport, LinkReportSender, MasterReport, MasterReportSender};
pub use rpc::{ApiVersion, Method};
pub use stored::StoredItems;
pub use target::GatewayTarget;

pub use crate::fleet::{AcceptFilter, Slaves, Target};
