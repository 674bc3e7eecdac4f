//! Results of the typed calls, and the conversion between the wire's types and ours, in this file
//! only.
//!
//! Enums are open: an unlisted number keeps its value. Rows with the device ID 0 convert to `None`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use prost::Message;
use serde::Serialize;
use tonic::{Code, Status as GrpcStatus};

use crate::fleet::{
    AcceptFilter, DeviceDetails, DeviceInfo, DeviceType, Listed, Mode, Slaves, Status,
    StreamedStatus, Target,
};
use crate::ids::{DeviceId, Moment};
use crate::proto::{connect, device, err, gateway};

/// The longest text of a device that is taken.
const TEXT_CHARS_MAX: usize = 64;

/// A device that dialed the gateway and was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PendingDevice {
    pub device_id: DeviceId,
    #[serde(rename = "type")]
    pub device_type: DeviceType,
    pub ip: Option<Ipv4Addr>,
    /// By the gateway's clock.
    pub last_try: Moment,
}

/// A device that answered a search of the gateway's subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundDevice {
    pub device_id: DeviceId,
    #[serde(rename = "type")]
    pub device_type: DeviceType,
    pub ip: Option<Ipv4Addr>,
    /// As sent.
    pub port: i32,
    pub mode: Mode,
    pub ssl: bool,
    pub dhcp: bool,
    /// The server that the device dials; empty if none.
    pub server: String,
}

/// A gateway of a master, as the master lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGateway {
    pub id: String,
    pub is_connected: bool,
    pub device_ids: Vec<DeviceId>,
}

/// Why a call for many devices failed for one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceError {
    pub device_id: DeviceId,
    pub code: Code,
    /// The gateway's message.
    pub message: String,
}

pub(crate) fn status_change(
    wire: connect::StatusChange,
    received: Instant,
) -> Option<StreamedStatus> {
    Some(StreamedStatus {
        device_id: DeviceId::new(wire.device_id)?,
        status: Status::from(wire.status),
        timestamp_s: wire.timestamp,
        received,
    })
}

pub(crate) fn listed(wire: connect::DeviceInfo) -> Option<Listed> {
    let info = DeviceInfo {
        device_type: DeviceType::from_code(wire.r#type),
        ip: ipv4(&wire.ip_addr),
        port: wire.port,
        mode: Mode::from(wire.connection_mode),
        ssl: wire.use_ssl,
        auto_reconnect: wire.auto_reconnect,
    };
    let device_id = DeviceId::new(wire.device_id)?;
    Some(Listed { device_id, status: Status::from(wire.status), info })
}

/// Orders a list by ID, each device once. Older gateways may list a device twice while they hold
/// two connections to it: a connected row wins over one that is not, otherwise the last.
pub(crate) fn one_row_per_device(rows: Vec<Listed>) -> Vec<Listed> {
    let connected = |row: &Listed| row.status.connected() == Some(true);
    let mut unique: BTreeMap<DeviceId, Listed> = BTreeMap::new();
    for row in rows {
        let known = unique.get(&row.device_id);
        if !known.is_some_and(|known| connected(known) && !connected(&row)) {
            unique.insert(row.device_id, row);
        }
    }
    unique.into_values().collect()
}

/// `None` for an empty address and for one that is not IPv4.
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let text = std::str::from_utf8(text).ok()?;
    text.trim().parse().ok().filter(|ip: &Ipv4Addr| !ip.is_unspecified())
}

pub(crate) fn pending(wire: connect::PendingDeviceInfo) -> Option<PendingDevice> {
    Some(PendingDevice {
        device_id: DeviceId::new(wire.device_id)?,
        device_type: DeviceType::from_code(wire.r#type),
        ip: ipv4(&wire.ip_addr),
        last_try: Moment::from_millis(i64::from(wire.last_try) * 1000),
    })
}

pub(crate) fn found(wire: connect::SearchDeviceInfo) -> Option<FoundDevice> {
    Some(FoundDevice {
        device_id: DeviceId::new(wire.device_id)?,
        device_type: DeviceType::from_code(wire.r#type),
        ip: ipv4(&wire.ip_addr),
        port: wire.port,
        mode: Mode::from(wire.connection_mode),
        ssl: wire.use_ssl,
        dhcp: wire.use_dhcp,
        server: String::from_utf8_lossy(&wire.server_addr).into_owned(),
    })
}

pub(crate) fn device_details(wire: device::FactoryInfo) -> DeviceDetails {
    DeviceDetails {
        model: text(&wire.model_name),
        firmware: text(&wire.firmware_version),
        mac: text(&wire.mac_addr).map(|mac| mac.to_lowercase()),
    }
}

/// A text of a device, without what a fixed field is filled up with; `None` if that is all.
fn text(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let printable: String = text.chars().filter(|letter| !letter.is_control()).collect();
    let text: String = printable.trim().chars().take(TEXT_CHARS_MAX).collect();
    (!text.is_empty()).then_some(text)
}

pub(crate) fn slaves(wire: connect::SlaveDeviceInfo) -> Option<Slaves> {
    Some(Slaves {
        device_id: DeviceId::new(wire.device_id)?,
        rs485: ids(wire.rs485_slave_device_i_ds),
        wiegand: ids(wire.wiegand_slave_device_i_ds),
    })
}

pub(crate) fn slave_info(slaves: &Slaves) -> connect::SlaveDeviceInfo {
    connect::SlaveDeviceInfo {
        device_id: slaves.device_id.get(),
        rs485_slave_device_i_ds: numbers(&slaves.rs485),
        wiegand_slave_device_i_ds: numbers(&slaves.wiegand),
    }
}

pub(crate) fn ids<C: FromIterator<DeviceId>>(numbers: impl IntoIterator<Item = u32>) -> C {
    numbers.into_iter().filter_map(DeviceId::new).collect()
}

pub(crate) fn numbers<'a>(ids: impl IntoIterator<Item = &'a DeviceId>) -> Vec<u32> {
    ids.into_iter().map(|id| id.get()).collect()
}

/// An absent filter accepts nothing.
pub(crate) fn accept_filter(wire: Option<connect::AcceptFilter>) -> AcceptFilter {
    let wire = wire.unwrap_or_default();
    AcceptFilter {
        allow_all: wire.allow_all,
        device_ids: ids(wire.device_i_ds),
        ips: wire.ip_addrs,
        subnets: wire.subnet_masks,
    }
}

pub(crate) fn wire_filter(filter: &AcceptFilter) -> connect::AcceptFilter {
    connect::AcceptFilter {
        allow_all: filter.allow_all,
        device_i_ds: numbers(&filter.device_ids),
        ip_addrs: filter.ips.clone(),
        subnet_masks: filter.subnets.clone(),
    }
}

pub(crate) fn connect_info(Target { ip, port, ssl }: Target) -> connect::ConnectInfo {
    connect::ConnectInfo { ip_addr: ip.to_string(), port: i32::from(port), use_ssl: ssl }
}

pub(crate) fn async_connect_info(device: &(DeviceId, Target)) -> connect::AsyncConnectInfo {
    let (device_id, target) = device;
    let connect::ConnectInfo { ip_addr, port, use_ssl } = connect_info(*target);
    connect::AsyncConnectInfo { device_id: device_id.get(), ip_addr, port, use_ssl }
}

pub(crate) fn listed_gateway(wire: gateway::GatewayInfo) -> ListedGateway {
    ListedGateway {
        id: wire.gateway_id,
        is_connected: wire.is_connected,
        device_ids: ids(wire.device_i_ds),
    }
}

pub(crate) const fn gateway_is_connected(wire: &gateway::StatusChange) -> bool {
    wire.status == gateway::Status::Connected as i32
}

/// The devices that failed; rows with the code OK did not.
pub(crate) fn device_errors(wire: Vec<err::ErrorResponse>) -> Vec<DeviceError> {
    let failed = wire.into_iter().filter(|error| error.code != Code::Ok as i32);
    let error = |error: err::ErrorResponse| {
        let (device_id, code) = (DeviceId::new(error.device_id)?, Code::from_i32(error.code));
        Some(DeviceError { device_id, code, message: error.msg })
    };
    failed.filter_map(error).collect()
}

/// The devices that failed, from an error's `grpc-status-details-bin`; `None` if it names none. The
/// type's package depends on the API version.
pub(crate) fn multi_errors(status: &GrpcStatus) -> Option<Vec<DeviceError>> {
    let status = tonic_types::pb::Status::decode(status.details()).ok()?;
    let mut errors = Vec::new();
    for detail in status.details {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        if matches!(name, "gsdk.err.MultiErrorResponse" | "err.MultiErrorResponse") {
            let multi = err::MultiErrorResponse::decode(detail.value.as_slice()).ok()?;
            errors.extend(device_errors(multi.device_errors));
        }
    }
    (!errors.is_empty()).then_some(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(device_id: u32, status: i32) -> connect::DeviceInfo {
        connect::DeviceInfo { device_id, status, ..Default::default() }
    }

    #[test]
    fn a_connected_row_wins_over_its_duplicate() {
        let wire = [info(7, 2), info(3, 0), info(7, 0), info(3, 4), info(0, 1)];
        let rows = one_row_per_device(wire.into_iter().filter_map(listed).collect());
        let rows: Vec<_> = rows.iter().map(|row| (row.device_id.get(), row.status)).collect();
        assert_eq!(rows, [(3, Status::TryToConnect), (7, Status::TlsConnected)]);
    }

    #[test]
    fn numbers_of_a_newer_gateway_keep_their_value() {
        let wire = connect::DeviceInfo {
            connection_mode: 9,
            r#type: 0x99,
            ip_addr: b"fd00::1".to_vec(),
            ..info(1, 0x203)
        };
        let row = listed(wire).unwrap();
        assert_eq!(row.status, Status::Unknown(0x203));
        assert_eq!(row.info.mode, Mode::Unknown(9));
        assert_eq!(row.info.device_type.code(), 0x99);
        assert_eq!(row.info.ip, None);
    }

    #[test]
    fn device_details_have_only_printable_characters() {
        let wire = device::FactoryInfo {
            mac_addr: b"00:17:FC:00:00:01".to_vec(),
            model_name: [b"BioEntry W2\0\0 \x1b".as_slice(), &[0xff]].concat(),
            firmware_version: b" \0".to_vec(),
            ..Default::default()
        };
        let details = device_details(wire);
        assert_eq!(details.mac.as_deref(), Some("00:17:fc:00:00:01"));
        assert_eq!(details.model.as_deref(), Some("BioEntry W2 \u{fffd}"));
        assert_eq!(details.firmware, None);
        let long = device::FactoryInfo { model_name: vec![b'x'; 5_000], ..Default::default() };
        assert_eq!(device_details(long).model.unwrap().len(), TEXT_CHARS_MAX);
    }

    #[test]
    fn a_status_without_details_names_no_device() {
        assert_eq!(multi_errors(&GrpcStatus::internal("x")), None);
        let garbage = GrpcStatus::with_details(Code::Internal, "x", vec![0xff; 9].into());
        assert_eq!(multi_errors(&garbage), None);
    }

    #[test]
    fn a_filter_is_sent_back_as_read() {
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
