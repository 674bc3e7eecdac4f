//! Tests of the gateway's state machine.

use std::net::Ipv4Addr;

use tonic::Code;

use super::*;
use crate::proto::device::Type;

mod walk;

const PLAIN: u32 = 11;
const SECURE: u32 = 12;
const DIALLER: u32 = 13;
const SECURE_DIALLER: u32 = 14;

fn ip(last: u32) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 0, u8::try_from(last).unwrap())
}

fn gateway() -> SimulatedGateway {
    gateway_with(Rules { timing: GatewayTiming::default(), reports_tries: true })
}

fn gateway_with(rules: Rules) -> SimulatedGateway {
    let device = |id, mode, ssl| {
        let device = SiteDevice::new(id, Type::BioentryW2, ip(id));
        SiteDevice { mode, ssl, ..device }
    };
    let devices = vec![
        device(PLAIN, DialMode::ServerToDevice, false),
        device(SECURE, DialMode::ServerToDevice, true),
        device(DIALLER, DialMode::DeviceToServer, false),
        device(SECURE_DIALLER, DialMode::DeviceToServer, true),
    ];
    let clock = GatewayClock { start_unix_ms: 1_600_000_000_000, skew_ms: 0 };
    SimulatedGateway::new("gateway", rules, devices, clock, 7)
}

/// The statuses reported up to `now`, with their devices.
fn reported(gateway: &mut SimulatedGateway, now: Millis) -> Vec<(u32, i32)> {
    gateway.connections_mut().advance(now);
    assert_eq!(violations(gateway), Vec::<String>::new());
    let changes = gateway.connections_mut().reports_mut().take();
    changes.into_iter().map(|change| (change.device_id, change.status)).collect()
}

/// Only those of this device.
fn reported_of(gateway: &mut SimulatedGateway, now: Millis, id: u32) -> Vec<i32> {
    reported(gateway, now).into_iter().filter(|one| one.0 == id).map(|one| one.1).collect()
}

fn connect(gateway: &mut SimulatedGateway, now: Millis, id: u32, ssl: bool) -> Result<u32, Code> {
    let info = ConnectInfo { ip_addr: ip(id).to_string(), port: 51211, use_ssl: ssl };
    let dialing = gateway.start_connect(now, Some(&info)).map_err(|status| status.code())?;
    gateway.connections_mut().advance(dialing.until);
    gateway.finish_connect(dialing.until, dialing).map_err(|status| status.code())
}

/// What must always hold, as a list of what does not: empty when all is well.
fn violations(gateway: &SimulatedGateway) -> Vec<String> {
    let (connections, mut found) = (gateway.connections(), Vec::new());
    for (id, entry) in connections.managed() {
        let connected = connections.subnet().is_connected(*id);
        if !entry.reconnects() && !connected {
            found.push(format!("{id}: {:?} and not connected, but listed", entry.origin));
        }
        if connected && connections.pending().iter().any(|one| one.device_id == *id) {
            found.push(format!("{id}: connected and pending"));
        }
    }
    let unlisted = |id: &u32| !connections.managed().contains_key(id);
    let connected = connections.subnet().connected();
    let unlisted = connected.into_iter().filter(unlisted);
    found.extend(unlisted.map(|id| format!("{id}: connected and not listed")));
    found
}

fn info(id: u32, ssl: bool) -> AsyncConnectInfo {
    AsyncConnectInfo { device_id: id, ip_addr: ip(id).to_string(), port: 51211, use_ssl: ssl }
}

#[test]
fn a_synchronous_connection_leaves_the_list_when_lost() {
    let mut gateway = gateway();
    assert_eq!(connect(&mut gateway, 0, PLAIN, false), Ok(PLAIN));
    assert_eq!(reported_of(&mut gateway, 5_000, PLAIN), [1]);
    let list = gateway.connections().list();
    assert_eq!((list.len(), list[0].auto_reconnect, list[0].status), (1, false, 1));
    assert_eq!(list[0].r#type, Type::BioentryW2 as i32);
    assert!(gateway.connections_mut().disconnect(6_000, PLAIN));
    assert_eq!(reported_of(&mut gateway, 100_000, PLAIN), [0]);
    assert!(gateway.connections().list().is_empty());
}

#[test]
fn connect_fails_for_the_reasons_a_gateway_has() {
    let mut gateway = gateway();
    let code = |result: Result<u32, Code>| result.unwrap_err();
    assert_eq!(code(connect(&mut gateway, 0, SECURE, false)), Code::Unavailable);
    assert_eq!(code(connect(&mut gateway, 0, PLAIN, true)), Code::Unavailable);
    assert_eq!(code(connect(&mut gateway, 0, DIALLER, false)), Code::Unavailable);
    assert_eq!(code(connect(&mut gateway, 0, 99, false)), Code::Unavailable);
    assert_eq!(connect(&mut gateway, 0, SECURE, true), Ok(SECURE));
    assert_eq!(code(connect(&mut gateway, 0, SECURE, true)), Code::AlreadyExists);
    assert_eq!(gateway.start_connect(0, None).unwrap_err().code(), Code::InvalidArgument);
    for (ip_addr, port) in [("", 51211), ("here", 51211), ("1.2.3.4", -1), ("1.2.3.4", 65536)] {
        let info = ConnectInfo { ip_addr: ip_addr.to_owned(), port, use_ssl: false };
        let refusal = gateway.start_connect(0, Some(&info)).unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{ip_addr} {port}");
    }
}

#[test]
fn an_asynchronous_connection_comes_back_after_the_interval() {
    let mut gateway = gateway();
    gateway.add_async(0, &[info(PLAIN, false), info(SECURE, true)]).unwrap();
    assert_eq!(gateway.connections().list()[0].status, 0);
    let changes = reported(&mut gateway, 200);
    assert!(changes.contains(&(PLAIN, 4)) && changes.contains(&(PLAIN, 1)), "{changes:?}");
    assert!(changes.contains(&(SECURE, 4)) && changes.contains(&(SECURE, 2)), "{changes:?}");
    gateway.disconnect(1_000, PLAIN).unwrap();
    assert_eq!(reported_of(&mut gateway, 30_999, PLAIN), [0]);
    assert_eq!(gateway.connections().list()[0].status, 0, "between tries it stays listed");
    assert_eq!(reported_of(&mut gateway, 31_100, PLAIN), [4, 1]);
}

#[test]
fn an_absent_device_is_tried_without_end() {
    let mut gateway = gateway();
    gateway.add_async(0, &[info(99, false), info(98, true)]).unwrap();
    let mut nowhere = info(97, false);
    nowhere.ip_addr = String::new();
    gateway.add_async(0, &[nowhere]).unwrap();
    let changes = reported(&mut gateway, 68_000);
    for (id, failure) in [(99, 0x100), (98, 0x200), (97, 0x100)] {
        let of: Vec<i32> = changes.iter().filter(|one| one.0 == id).map(|one| one.1).collect();
        assert_eq!(of, [4, failure, 4, failure, 4], "{id}");
    }
    assert_eq!(gateway.connections().list().len(), 3);
    gateway.delete_async(70_000, &[97, 98, 99]).unwrap();
    assert_eq!(reported_of(&mut gateway, 200_000, 99), Vec::<i32>::new());
    assert!(gateway.connections().list().is_empty());
}

#[test]
fn older_gateways_do_not_report_their_tries() {
    let mut gateway =
        gateway_with(Rules { timing: GatewayTiming::default(), reports_tries: false });
    gateway.add_async(0, &[info(PLAIN, false)]).unwrap();
    assert_eq!(reported_of(&mut gateway, 1_000, PLAIN), [1]);
}

#[test]
fn deleting_disconnects_first() {
    let mut gateway = gateway();
    gateway.add_async(0, &[info(PLAIN, false)]).unwrap();
    reported(&mut gateway, 1_000);
    let refusal = gateway.delete_async(1_000, &[PLAIN, 77]).unwrap_err();
    assert_eq!(refusal.code(), Code::NotFound);
    assert_eq!(reported_of(&mut gateway, 1_000, PLAIN), [0]);
    assert!(gateway.connections().list().is_empty());
}

#[test]
fn devices_that_dial_are_pending_until_the_filter_accepts_them() {
    let mut gateway = gateway();
    let changes = reported(&mut gateway, 2_000);
    assert!(changes.contains(&(DIALLER, 0x101)) && changes.contains(&(SECURE_DIALLER, 0x201)));
    let pending = gateway.connections().pending();
    assert_eq!(pending.len(), 2);
    assert!((1_600_000_000..=1_600_000_001).contains(&pending[0].last_try));
    let filter = AcceptFilter { device_i_ds: vec![DIALLER], ..AcceptFilter::default() };
    gateway.set_filter(Some(filter)).unwrap();
    assert_eq!(reported_of(&mut gateway, 8_000, DIALLER), [1]);
    assert_eq!(gateway.connections().pending().len(), 1);
    let list = gateway.connections().list();
    assert_eq!((list[0].auto_reconnect, list[0].connection_mode, list[0].port), (false, 1, 0));
    gateway.disconnect(8_000, DIALLER).unwrap();
    assert!(gateway.connections().list().is_empty(), "an accepted device leaves the list");
    assert_eq!(reported_of(&mut gateway, 14_000, DIALLER), [0, 1], "and dials again");
    gateway.set_filter(Some(AcceptFilter { allow_all: true, ..AcceptFilter::default() })).unwrap();
    assert_eq!(reported_of(&mut gateway, 20_000, SECURE_DIALLER), [2]);
}

#[test]
fn a_mode_change_needs_a_connection_and_has_its_consequences() {
    let mut gateway = gateway();
    let to_server = |device: &mut SiteDevice| device.mode = DialMode::DeviceToServer;
    assert_eq!(gateway.change(0, PLAIN, to_server).unwrap_err().code(), Code::NotFound);
    gateway.add_async(0, &[info(PLAIN, false)]).unwrap();
    assert_eq!(gateway.change(0, PLAIN, to_server).unwrap_err().code(), Code::FailedPrecondition);
    reported(&mut gateway, 1_000);
    assert_eq!(checks::mode(5).unwrap_err().code(), Code::InvalidArgument);
    gateway.change(1_000, PLAIN, to_server).unwrap();
    let of = reported_of(&mut gateway, 40_000, PLAIN);
    assert_eq!(of[0], 0, "it drops its connection");
    assert!(of.contains(&0x101), "it dials in and is refused: {of:?}");
    assert!(of.contains(&0x100), "the registration fails on: {of:?}");
    gateway.delete_async(40_000, &[PLAIN]).unwrap();
    let filter = AcceptFilter { device_i_ds: vec![PLAIN], ..AcceptFilter::default() };
    gateway.set_filter(Some(filter)).unwrap();
    assert_eq!(reported_of(&mut gateway, 50_000, PLAIN), [1]);
    gateway.change(50_000, PLAIN, |device| device.mode = DialMode::ServerToDevice).unwrap();
    assert_eq!(reported_of(&mut gateway, 90_000, PLAIN), [0]);
    assert_eq!(connect(&mut gateway, 90_000, PLAIN, false), Ok(PLAIN));
}

#[test]
fn ssl_has_to_match_after_it_was_changed() {
    let mut gateway = gateway();
    connect(&mut gateway, 0, PLAIN, false).unwrap();
    gateway.change(5_000, PLAIN, |device| device.ssl = true).unwrap();
    assert!(gateway.connections().list().is_empty());
    assert!(connect(&mut gateway, 6_000, PLAIN, false).is_err());
    connect(&mut gateway, 12_000, PLAIN, true).unwrap();
    assert_eq!(reported_of(&mut gateway, 20_000, PLAIN), [1, 0, 2]);
    gateway.change(20_000, PLAIN, |device| device.ssl = true).unwrap();
    assert_eq!(reported_of(&mut gateway, 21_000, PLAIN), Vec::<i32>::new(), "no change, no drop");
    let secure = gateway.change(21_000, SECURE, |device| device.ssl = false);
    assert_eq!(secure.unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_dead_device_is_detected_within_the_keep_alive() {
    let mut gateway = gateway();
    connect(&mut gateway, 0, PLAIN, false).unwrap();
    assert!(gateway.connections_mut().power(10_000, PLAIN, false));
    assert!(gateway.connections().search(u32::MAX).iter().all(|found| found.device_id != PLAIN));
    assert_eq!(reported_of(&mut gateway, 10_000, PLAIN), [1]);
    assert_eq!(reported_of(&mut gateway, 42_000, PLAIN), [0]);
    assert!(connect(&mut gateway, 50_000, PLAIN, false).is_err());
    assert!(!gateway.connections_mut().power(50_000, 4711, true));
}

#[test]
fn a_short_loss_of_the_device_network_is_survived() {
    let mut gateway = gateway();
    connect(&mut gateway, 0, PLAIN, false).unwrap();
    reported(&mut gateway, 5_000);
    gateway.connections_mut().set_network(6_000, false);
    gateway.connections_mut().set_network(6_000, true);
    assert_eq!(reported_of(&mut gateway, 60_000, PLAIN), Vec::<i32>::new());
    gateway.connections_mut().set_network(60_000, false);
    assert_eq!(reported_of(&mut gateway, 92_000, PLAIN), [0]);
}

#[test]
fn a_restart_loses_what_clients_added() {
    let mut gateway = gateway();
    gateway.manage_all(0);
    reported(&mut gateway, 10_000);
    assert_eq!(gateway.connections().list().len(), 4);
    let slave = SlaveDeviceInfo {
        device_id: PLAIN,
        rs485_slave_device_i_ds: vec![1],
        ..Default::default()
    };
    gateway.set_slaves(&[slave]).unwrap();
    assert_eq!(gateway.slaves().len(), 1);
    gateway.restart(10_000);
    assert!(gateway.connections().list().is_empty() && gateway.slaves().is_empty());
    assert_eq!(gateway.connections_mut().admission_mut().filter(), AcceptFilter::default());
    assert_eq!(reported_of(&mut gateway, 12_000, DIALLER), [0x101], "the devices dial again");
    assert_eq!(connect(&mut gateway, 12_000, PLAIN, false), Ok(PLAIN));
}

#[test]
fn a_silent_change_shows_in_the_list_alone() {
    let mut gateway = gateway();
    gateway.add_async(0, &[info(PLAIN, false)]).unwrap();
    connect(&mut gateway, 0, SECURE, true).unwrap();
    reported(&mut gateway, 10_000);
    assert!(gateway.change_silently(10_000, PLAIN, 0));
    assert!(gateway.change_silently(10_000, SECURE, 0));
    assert_eq!(reported(&mut gateway, 10_000), []);
    let list = gateway.connections().list();
    assert_eq!((list.len(), list[0].device_id, list[0].status), (1, PLAIN, 0));
    assert!(gateway.change_silently(10_000, PLAIN, 1));
    assert!(gateway.change_silently(10_000, PLAIN, 0x203));
    assert_eq!(gateway.connections().list()[0].status, 0x203);
    assert_eq!(reported_of(&mut gateway, 10_000, PLAIN), Vec::<i32>::new());
}

#[test]
fn re_registering_takes_over_and_is_idempotent() {
    let mut gateway = gateway();
    connect(&mut gateway, 0, PLAIN, false).unwrap();
    reported(&mut gateway, 5_000);
    gateway.add_async(5_000, &[info(PLAIN, false), info(PLAIN, false)]).unwrap();
    let list = gateway.connections().list();
    assert_eq!((list.len(), list[0].auto_reconnect, list[0].status), (1, true, 1));
    assert_eq!(reported_of(&mut gateway, 60_000, PLAIN), Vec::<i32>::new());
    let bad = AsyncConnectInfo { device_id: 5, ip_addr: "x".to_owned(), port: 1, use_ssl: false };
    assert_eq!(gateway.add_async(0, &[bad]).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(
        gateway.add_async(0, &[AsyncConnectInfo::default()]).unwrap_err().code(),
        Code::InvalidArgument
    );
}
