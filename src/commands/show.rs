//! What gateways answer, as JSON (contract, section 4).
//!
//! May not decide anything.

use serde_json::{Value, json};

use crate::gsdk::{AcceptFilter, FoundDevice, PendingDevice, Slaves};
use crate::payload::rfc3339;

pub(super) fn found(found: &FoundDevice) -> Value {
    json!({
        "device_id": found.device_id,
        "type": found.device_type.to_string(),
        "ip": found.ip,
        "port": found.port,
        "mode": found.mode.to_string(),
        "ssl": found.ssl,
        "dhcp": found.dhcp,
        "server": found.server,
    })
}

pub(super) fn pending(pending: &PendingDevice) -> Value {
    json!({
        "device_id": pending.device_id,
        "type": pending.device_type.to_string(),
        "ip": pending.ip,
        "last_try": rfc3339(pending.last_try),
    })
}

pub(super) fn filter(filter: &AcceptFilter) -> Value {
    json!({
        "allow_all": filter.allow_all,
        "device_ids": filter.device_ids,
        "ips": filter.ips,
        "subnets": filter.subnets,
    })
}

pub(super) fn slaves(slaves: &Slaves) -> Value {
    json!({
        "device_id": slaves.device_id,
        "rs485": slaves.rs485,
        "wiegand": slaves.wiegand,
    })
}
