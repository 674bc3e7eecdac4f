//! The wire: types generated from `proto/` in modules named as the packages. `make proto` generates
//! them again.
//!
//! Enums on the wire are open: read them as numbers, since a newer gateway may send values that are
//! not listed here.
#![allow(unreachable_pub, clippy::all, clippy::pedantic, clippy::large_futures)]

/// Package `gsdk.connect`: a device gateway's connections.
pub mod connect {
    include!("../proto/generated/gsdk.connect.rs");
}
/// Package `gsdk.connect_master`: the same through a master gateway.
pub mod connect_master {
    include!("../proto/generated/gsdk.connect_master.rs");
}
/// Package `gsdk.device`: the types of device, and the details of a device.
pub mod device {
    include!("../proto/generated/gsdk.device.rs");
}
/// Package `gsdk.err`: errors of single devices.
pub mod err {
    include!("../proto/generated/gsdk.err.rs");
}
/// Package `gsdk.event`: the logs of devices.
pub mod event {
    include!("../proto/generated/gsdk.event.rs");
}
/// Package `gsdk.gateway`: the device gateways of a master.
pub mod gateway {
    include!("../proto/generated/gsdk.gateway.rs");
}
/// Package `gsdk.login`: access to a master gateway.
pub mod login {
    include!("../proto/generated/gsdk.login.rs");
}
