//! The wire: types generated from `proto/`, in modules named as the packages.
//!
//! Enums on the wire are open: read them as numbers, since a newer gateway may send values that are
//! not listed here.
#![allow(unreachable_pub, clippy::all, clippy::pedantic, clippy::large_futures)]

/// Package `gsdk.connect`: a device gateway's connections.
pub mod connect {
    tonic::include_proto!("gsdk.connect");
}
/// Package `gsdk.connect_master`: the same through a master gateway.
pub mod connect_master {
    tonic::include_proto!("gsdk.connect_master");
}
/// Package `gsdk.device`: the types of device, and the details of a device.
pub mod device {
    tonic::include_proto!("gsdk.device");
}
/// Package `gsdk.err`: errors of single devices.
pub mod err {
    tonic::include_proto!("gsdk.err");
}
/// Package `gsdk.event`: the logs of devices.
pub mod event {
    tonic::include_proto!("gsdk.event");
}
/// Package `gsdk.gateway`: the device gateways of a master.
pub mod gateway {
    tonic::include_proto!("gsdk.gateway");
}
/// Package `gsdk.login`: access to a master gateway.
pub mod login {
    tonic::include_proto!("gsdk.login");
}
