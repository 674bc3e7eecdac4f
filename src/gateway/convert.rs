//! The one file that turns the wire's types into ours and back.
//!
//! May not drop what it does not know: enums are open, and an unlisted number keeps its value. What
//! no device can have, the ID 0, is left out; the caller warns of it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use prost::Message;
use tonic::{Code, Status as Answer};

use crate::fleet::{DeviceInfo, DeviceType, Listed, Mode, Status};
use crate::ids::{DeviceId, Moment};
use crate::proto::{connect, err};

use super::error::code_name;
use super::types::{AcceptFilter, DeviceError, Found, Pending, Slaves, Target};

/// What was read, and how much of it had the ID 0 and was left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read<T> {
    pub(super) rows: T,
    pub(super) without_id: usize,
}

/// Those rows whose device ID is one.
fn with_id<W, T>(
    wire: Vec<W>,
    number: impl Fn(&W) -> u32,
    row: impl Fn(DeviceId, W) -> T,
) -> Read<Vec<T>> {
    let count = wire.len();
    let rows: Vec<T> = wire
        .into_iter()
        .filter_map(|wire| DeviceId::new(number(&wire)).map(|id| row(id, wire)))
        .collect();
    Read { without_id: count - rows.len(), rows }
}

/// A status change: which device, its status, and the gateway's time in whole seconds.
pub(super) fn status_change(wire: connect::StatusChange) -> Option<(DeviceId, Status, u32)> {
    let device_id = DeviceId::new(wire.device_id)?;
    Some((device_id, Status::from_code(wire.status), wire.timestamp))
}

/// A list in the order of its IDs, each once. Where a gateway lists a device twice (older ones hold
/// two connections for a moment), a connected row wins over one that is not, else the last.
pub(super) fn listed(wire: Vec<connect::DeviceInfo>) -> Read<Vec<Listed>> {
    let read = with_id(wire, |info| info.device_id, listed_row);
    let mut rows: BTreeMap<DeviceId, Listed> = BTreeMap::new();
    for row in read.rows {
        let connected = |row: &Listed| row.status.connected() == Some(true);
        if !rows.get(&row.device_id).is_some_and(|known| connected(known) && !connected(&row)) {
            rows.insert(row.device_id, row);
        }
    }
    Read { rows: rows.into_values().collect(), without_id: read.without_id }
}

fn listed_row(device_id: DeviceId, wire: connect::DeviceInfo) -> Listed {
    let info = DeviceInfo {
        device_type: DeviceType::from_code(wire.r#type),
        ip: ipv4(&wire.ip_addr),
        port: wire.port,
        mode: Mode::from_code(wire.connection_mode),
        ssl: wire.use_ssl,
        auto_reconnect: wire.auto_reconnect,
    };
    Listed { device_id, status: Status::from_code(wire.status), info }
}

/// An address; `None` for an empty one and for what is no IPv4.
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let text = std::str::from_utf8(text).ok()?;
    text.trim().parse().ok().filter(|ip: &Ipv4Addr| !ip.is_unspecified())
}

/// The pending devices.
pub(super) fn pending(wire: Vec<connect::PendingDeviceInfo>) -> Read<Vec<Pending>> {
    with_id(
        wire,
        |info| info.device_id,
        |device_id, info| Pending {
            device_id,
            device_type: DeviceType::from_code(info.r#type),
            ip: ipv4(&info.ip_addr),
            last_try: Moment::from_millis(i64::from(info.last_try) * 1000),
        },
    )
}

/// The devices that answered a search.
pub(super) fn found(wire: Vec<connect::SearchDeviceInfo>) -> Read<Vec<Found>> {
    with_id(
        wire,
        |info| info.device_id,
        |device_id, info| Found {
            device_id,
            device_type: DeviceType::from_code(info.r#type),
            ip: ipv4(&info.ip_addr),
            port: info.port,
            mode: Mode::from_code(info.connection_mode),
            ssl: info.use_ssl,
            dhcp: info.use_dhcp,
            server: String::from_utf8_lossy(&info.server_addr).into_owned(),
        },
    )
}

/// The slaves of each device.
pub(super) fn slaves(wire: Vec<connect::SlaveDeviceInfo>) -> Read<Vec<Slaves>> {
    with_id(
        wire,
        |info| info.device_id,
        |device_id, info| Slaves {
            device_id,
            rs485: ids(info.rs485_slave_device_i_ds),
            wiegand: ids(info.wiegand_slave_device_i_ds),
        },
    )
}

fn ids(numbers: Vec<u32>) -> Vec<DeviceId> {
    numbers.into_iter().filter_map(DeviceId::new).collect()
}

/// The numbers of device IDs.
pub(super) fn numbers<'a>(ids: impl IntoIterator<Item = &'a DeviceId>) -> Vec<u32> {
    ids.into_iter().map(|id| id.get()).collect()
}

/// Slaves, for the wire.
pub(super) fn slave_infos(slaves: &[Slaves]) -> Vec<connect::SlaveDeviceInfo> {
    let info = |slaves: &Slaves| connect::SlaveDeviceInfo {
        device_id: slaves.device_id.get(),
        rs485_slave_device_i_ds: numbers(&slaves.rs485),
        wiegand_slave_device_i_ds: numbers(&slaves.wiegand),
    };
    slaves.iter().map(info).collect()
}

/// The accept filter. Absent means that nothing is let in.
pub(super) fn accept_filter(wire: Option<connect::AcceptFilter>) -> AcceptFilter {
    let wire = wire.unwrap_or_default();
    AcceptFilter {
        allow_all: wire.allow_all,
        device_ids: ids(wire.device_i_ds).into_iter().collect(),
        ips: wire.ip_addrs,
        subnets: wire.subnet_masks,
    }
}

/// An accept filter, for the wire.
pub(super) fn wire_filter(filter: &AcceptFilter) -> connect::AcceptFilter {
    connect::AcceptFilter {
        allow_all: filter.allow_all,
        device_i_ds: numbers(&filter.device_ids),
        ip_addrs: filter.ips.clone(),
        subnet_masks: filter.subnets.clone(),
    }
}

/// A synchronous connection, for the wire.
pub(super) fn connect_info(target: Target) -> connect::ConnectInfo {
    connect::ConnectInfo {
        ip_addr: target.ip.to_string(),
        port: i32::from(target.port),
        use_ssl: target.ssl,
    }
}

/// An asynchronous connection, for the wire.
pub(super) fn async_info(device_id: DeviceId, target: Target) -> connect::AsyncConnectInfo {
    connect::AsyncConnectInfo {
        device_id: device_id.get(),
        ip_addr: target.ip.to_string(),
        port: i32::from(target.port),
        use_ssl: target.ssl,
    }
}

/// What failed on single devices. A row with the code of success is no failure.
pub(super) fn device_errors(wire: Vec<err::ErrorResponse>) -> Vec<DeviceError> {
    let failed = wire.into_iter().filter(|error| error.code != Code::Ok as i32);
    let error = |device_id, error: err::ErrorResponse| DeviceError {
        device_id,
        code: code_name(Code::from_i32(error.code)),
        message: error.msg,
    };
    with_id(failed.collect(), |error| error.device_id, error).rows
}

/// What failed on single devices, from an error's `grpc-status-details-bin`; `None` where it tells
/// of none. The package's name is that of the gateway's age (wire, section 1).
pub(super) fn multi_errors(answer: &Answer) -> Option<Vec<DeviceError>> {
    let status = tonic_types::pb::Status::decode(answer.details()).ok()?;
    let mut errors = Vec::new();
    for detail in status.details {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        if matches!(name, "gsdk.err.MultiErrorResponse" | "err.MultiErrorResponse") {
            let multi = err::MultiErrorResponse::decode(detail.value.as_slice()).ok()?;
            errors.extend(device_errors(multi.device_errors));
        }
    }
    if errors.is_empty() { None } else { Some(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(device_id: u32, status: i32) -> connect::DeviceInfo {
        connect::DeviceInfo { device_id, status, ..Default::default() }
    }

    #[test]
    fn a_connected_row_wins_over_its_double() {
        let read = listed(vec![info(7, 2), info(3, 0), info(7, 0), info(3, 4), info(0, 1)]);
        let rows: Vec<_> = read.rows.iter().map(|row| (row.device_id.get(), row.status)).collect();
        assert_eq!(rows, [(3, Status::TryToConnect), (7, Status::TlsConnected)]);
        assert_eq!(read.without_id, 1);
    }

    #[test]
    fn numbers_of_a_newer_gateway_keep_their_value() {
        let wire = connect::DeviceInfo {
            connection_mode: 9,
            r#type: 0x99,
            ip_addr: b"fd00::1".to_vec(),
            ..info(1, 0x203)
        };
        let row = listed(vec![wire]).rows.remove(0);
        assert_eq!(row.status, Status::Unknown(0x203));
        assert_eq!(row.info.mode, Mode::Unknown(9));
        assert_eq!(row.info.device_type.code(), 0x99);
        assert_eq!(row.info.ip, None);
    }

    #[test]
    fn an_answer_without_details_tells_of_no_device() {
        assert_eq!(multi_errors(&Answer::internal("x")), None);
        let garbage = Answer::with_details(Code::Internal, "x", vec![0xff; 9].into());
        assert_eq!(multi_errors(&garbage), None);
    }

    #[test]
    fn the_filter_is_handed_back_as_read() {
        let wire = connect::AcceptFilter {
            allow_all: false,
            device_i_ds: vec![9, 4],
            ip_addrs: vec!["10.0.0.1".to_owned()],
            subnet_masks: vec!["255.0.0.0".to_owned()],
        };
        let ours = accept_filter(Some(wire.clone()));
        let back = wire_filter(&ours);
        assert_eq!(back.device_i_ds, [4, 9]);
        assert_eq!((back.ip_addrs, back.subnet_masks), (wire.ip_addrs, wire.subnet_masks));
    }
}
