//! The gateways: one task each that reads and hands on, and the typed client for all calls.
//!
//! May not touch MQTT nor decide about a device's state: `fleet/` does, from what is handed on.

mod calls;
mod channel;
mod client;
mod convert;
mod error;
mod failures;
mod link;
mod live;
mod lost;
mod observation;
mod options;
mod package;
mod subscription;
mod types;

pub use client::{GatewayClient, Rpc, RpcObserver};
pub use error::{Error, code_name};
pub use link::{Link, Observations};
pub use observation::{LinkError, Observation};
pub use options::{GatewayOptions, PORT_DEFAULT, QUEUE_SIZE_DEFAULT, Timing};
pub use package::Package;
pub use types::{AcceptFilter, DEVICE_PORT_DEFAULT, DeviceError, Found, Pending, Slaves, Target};
