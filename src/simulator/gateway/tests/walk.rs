//! Random walks: any order of calls, faults and waiting keeps a gateway's invariants.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

/// Devices 1 to 8 exist; 9 and 10 are only in requests.
const IDS: std::ops::RangeInclusive<u32> = 1..=10;

#[derive(Clone, Debug)]
enum Act {
    Connect(u32, bool),
    AddAsync(Vec<(u32, u32, bool)>),
    DeleteAsync(Vec<u32>),
    Disconnect(Vec<u32>),
    DisconnectAll,
    Filter(bool, Vec<u32>),
    Mode(Vec<u32>, DialMode),
    Ssl(Vec<u32>, bool),
    Power(u32, bool),
    Drop(u32),
    Network(bool),
    Restart,
    Remove(u32),
    Slaves(u32),
    Flip(u32),
    Manage,
}

fn ids() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(IDS, 0..4)
}

fn act() -> impl Strategy<Value = Act> {
    let mode = prop_oneof![Just(DialMode::ServerToDevice), Just(DialMode::DeviceToServer)];
    prop_oneof![
        (IDS, any::<bool>()).prop_map(|(id, ssl)| Act::Connect(id, ssl)),
        prop::collection::vec((IDS, IDS, any::<bool>()), 0..4).prop_map(Act::AddAsync),
        ids().prop_map(Act::DeleteAsync),
        ids().prop_map(Act::Disconnect),
        Just(Act::DisconnectAll),
        (any::<bool>(), ids()).prop_map(|(all, ids)| Act::Filter(all, ids)),
        (ids(), mode).prop_map(|(ids, mode)| Act::Mode(ids, mode)),
        (ids(), any::<bool>()).prop_map(|(ids, ssl)| Act::Ssl(ids, ssl)),
        (IDS, any::<bool>()).prop_map(|(id, on)| Act::Power(id, on)),
        IDS.prop_map(Act::Drop),
        any::<bool>().prop_map(Act::Network),
        Just(Act::Restart),
        IDS.prop_map(Act::Remove),
        IDS.prop_map(Act::Slaves),
        IDS.prop_map(Act::Flip),
        Just(Act::Manage),
    ]
}

fn address(id: u32) -> String {
    format!("10.0.0.{id}")
}

fn gateway(seed: u64) -> SimulatedGateway {
    let device = |id: u32| {
        let ip = Ipv4Addr::new(10, 0, 0, u8::try_from(id).unwrap());
        let mut device = SiteDevice::new(id, Type::Xpass2, ip);
        device.ssl = id.is_multiple_of(2);
        device.mode = if id > 5 { DialMode::DeviceToServer } else { DialMode::ServerToDevice };
        device
    };
    let rules = Rules { timing: GatewayTiming::default(), reports_tries: seed.is_multiple_of(2) };
    let clock = GatewayClock { start_unix_ms: 0, skew_ms: 0 };
    SimulatedGateway::new("walk", rules, (1..=8).map(device).collect(), clock, seed)
}

fn info((id, at, ssl): (u32, u32, bool)) -> AsyncConnectInfo {
    AsyncConnectInfo { device_id: id, ip_addr: address(at), port: 0, use_ssl: ssl }
}

/// Performs one act; errors are answers like any other.
fn perform(gateway: &mut SimulatedGateway, now: Millis, act: Act) {
    match act {
        Act::Connect(id, ssl) => {
            let info = ConnectInfo { ip_addr: address(id), port: 51211, use_ssl: ssl };
            if let Ok(dialing) = gateway.start_connect(now, Some(&info)) {
                let _ = gateway.finish_connect(now, dialing);
            }
        }
        Act::AddAsync(infos) => {
            let infos: Vec<_> = infos.into_iter().map(info).collect();
            let _ = gateway.add_async(now, &infos);
        }
        Act::DeleteAsync(ids) => drop(gateway.delete_async(now, &ids)),
        Act::Disconnect(ids) => ids.into_iter().for_each(|id| drop(gateway.disconnect(now, id))),
        Act::DisconnectAll => gateway.disconnect_all(now),
        Act::Filter(allow_all, device_i_ds) => {
            let filter = AcceptFilter { allow_all, device_i_ds, ..AcceptFilter::default() };
            let _ = gateway.set_filter(Some(filter));
        }
        Act::Mode(ids, mode) => {
            ids.into_iter().for_each(|id| drop(gateway.change(now, id, |it| it.mode = mode)));
        }
        Act::Ssl(ids, ssl) => {
            ids.into_iter().for_each(|id| drop(gateway.change(now, id, |it| it.ssl = ssl)));
        }
        Act::Power(id, on) => drop(gateway.connections_mut().power(now, id, on)),
        Act::Drop(id) => drop(gateway.connections_mut().disconnect(now, id)),
        Act::Network(up) => gateway.connections_mut().set_network(now, up),
        Act::Restart => gateway.restart(now),
        Act::Remove(id) => drop(gateway.connections_mut().remove_device(now, id)),
        Act::Slaves(id) => {
            let info = SlaveDeviceInfo { device_id: id, ..SlaveDeviceInfo::default() };
            let _ = gateway.set_slaves(&[info]);
        }
        Act::Flip(id) => {
            gateway.flip(now, id);
            gateway.finish_storm(now, id);
        }
        Act::Manage => gateway.manage_all(now),
    }
}

/// The last status reported of each device.
fn take_reports(gateway: &mut SimulatedGateway, last: &mut BTreeMap<u32, i32>) {
    for change in gateway.connections_mut().reports_mut().take() {
        last.insert(change.device_id, change.status);
    }
}

proptest! {
    #[test]
    fn list_streams_and_pending_agree_whatever_happens(
        seed: u64,
        steps in prop::collection::vec((act(), 0_u64..45_000), 1..60),
    ) {
        let mut gateway = gateway(seed);
        let mut last = BTreeMap::new();
        let mut now = 0;
        for (act, wait) in steps {
            now += wait;
            gateway.connections_mut().advance(now);
            prop_assert_eq!(violations(&gateway), Vec::<String>::new());
            take_reports(&mut gateway, &mut last);
            let restarted = matches!(act, Act::Restart);
            perform(&mut gateway, now, act);
            prop_assert_eq!(violations(&gateway), Vec::<String>::new());
            take_reports(&mut gateway, &mut last);
            if restarted {
                last.clear();
            }
        }
        // Quiet is when what was just registered has had its first try.
        gateway.connections_mut().advance(now + 4_000);
        take_reports(&mut gateway, &mut last);
        for entry in gateway.connections().list() {
            let reported = last.get(&entry.device_id).copied().unwrap_or(0);
            prop_assert_eq!(entry.status, reported, "{}", entry.device_id);
        }
        for (id, status) in &last {
            let listed = gateway.connections().managed().contains_key(id);
            prop_assert!(listed || !matches!(*status, 1 | 2), "{} reported as {}", id, status);
        }
        for pending in gateway.connections().pending() {
            prop_assert!(!gateway.connections().subnet().is_connected(pending.device_id));
        }
    }
}
