//! Tests of lists: applied differences, and devices that are added, removed and forgotten.

use super::rules::types;
use super::*;
use Status::*;

#[test]
fn the_first_list_is_believed_where_the_stream_was_silent_since_the_mark() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true), row(8, TlsConnected, true)]);
    bench.link_down();
    bench.input(LinkEvent::LinkUp);
    bench.out.clear();
    bench.input(LinkEvent::ListRequested);
    bench.status(8, Disconnected);
    bench.input(LinkEvent::List(vec![row(7, Disconnected, true), row(8, TlsConnected, true)]));
    let events = bench.events();
    let reported: Vec<_> = events.iter().map(|e| (e.device_id.get(), e.source)).collect();
    assert_eq!(reported, [(8, Source::Stream), (7, Source::Resync)]);
    assert_eq!(bench.device(8).status, Some(Disconnected), "the stream's word stands");

    bench.pass(2_000);
    assert!(bench.asked_for_list(), "a second look");
    bench.list(vec![row(7, Disconnected, true), row(8, TlsConnected, true)]);
    let events = bench.events();
    assert_eq!((events[0].event_type, events[0].source), (EventType::Connected, Source::Resync));
}

#[test]
fn an_audit_is_believed_only_when_a_second_look_agrees_and_the_stream_was_silent() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true)]);
    bench.pass(AUDIT_MS);
    assert!(bench.asked_for_list());
    bench.list(vec![row(7, Disconnected, true)]);
    assert!(bench.events().is_empty());
    bench.pass(2_000);
    assert!(bench.asked_for_list());
    bench.list(vec![row(7, Disconnected, true)]);
    assert_eq!(bench.events()[0].source, Source::Audit);
    assert_eq!(bench.fleet.counts(bench.gateway).unwrap().corrections, 1);

    bench.pass(AUDIT_MS);
    bench.list(vec![row(7, TlsConnected, true)]);
    bench.status(7, TlsConnected);
    bench.out.clear();
    bench.pass(2_000);
    bench.list(vec![row(7, TlsConnected, true)]);
    assert!(bench.events().is_empty(), "the list had overtaken the stream");
    assert_eq!(bench.fleet.counts(bench.gateway).unwrap().corrections, 1);
}

#[test]
fn a_retry_seen_in_the_list_is_no_difference() {
    let mut bench = Bench::online(vec![row(7, Disconnected, true)]);
    bench.status(7, TryToConnect);
    bench.status(7, TcpCannotConnect);
    bench.events();
    bench.pass(AUDIT_MS);
    bench.list(vec![row(7, TryToConnect, true)]);
    bench.out.clear();
    bench.pass(2_000);
    assert!(!bench.asked_for_list());
}

#[test]
fn a_synchronous_connection_that_drops_leaves_the_list_and_its_device_is_kept() {
    let mut bench = Bench::online(vec![row(7, TcpConnected, false)]);
    bench.pass(5_000);
    bench.status(7, Disconnected);
    assert!(bench.asked_for_list());
    bench.list(vec![]);
    let device = bench.device(7);
    assert_eq!((device.managed, device.connected), (false, Some(false)));
    assert!(bench.events().is_empty());
}

#[test]
fn a_connected_device_missing_from_the_list_disconnects_first() {
    let mut bench = Bench::online(vec![row(7, TcpConnected, false)]);
    bench.pass(AUDIT_MS);
    bench.list(vec![]);
    assert!(bench.device(7).managed, "not applied yet");
    bench.pass(2_000);
    bench.list(vec![]);
    assert_eq!(types(&bench.events()), ["disconnected"]);
    assert!(!bench.device(7).managed);
}

#[test]
fn statuses_of_an_unknown_device_become_events_once_it_is_listed() {
    let mut bench = Bench::online(vec![]);
    bench.pass(5_000);
    bench.status(9, TryToConnect);
    assert!(bench.asked_for_list());
    bench.input(LinkEvent::ListRequested);
    bench.status(9, TlsConnected);
    bench.input(LinkEvent::List(vec![row(9, TlsConnected, true)]));
    let events = bench.events();
    assert_eq!(types(&events), ["connecting", "connected"]);
    assert_eq!((events[0].previous, events[1].previous), (None, Some(TryToConnect)));
    assert_eq!(bench.device(9).seq, 2);
}

#[test]
fn an_unknown_device_is_counted_and_reported_at_most_once_a_second() {
    let mut bench = Bench::online(vec![]);
    bench.pass(5_000);
    let mut lists = 0;
    for number in 1..=500 {
        bench.status(number, TcpNotAllowed);
        lists += usize::from(bench.asked_for_list());
    }
    assert_eq!(lists, 1);
    bench.list(vec![]);
    assert_eq!(bench.gateway_events().len(), 1);
    assert_eq!(bench.fleet.device_ids(bench.gateway).count(), 0);
    assert_eq!(bench.fleet.counts(bench.gateway).unwrap().strangers, 500);
}

#[test]
fn forget_removes_only_devices_that_are_neither_listed_nor_declared() {
    let mut bench = Bench::new(&[1]);
    bench.input(LinkEvent::LinkUp);
    bench.list(vec![row(2, TcpConnected, true), row(3, Disconnected, false)]);
    bench.pass(AUDIT_MS);
    bench.list(vec![row(2, TcpConnected, true)]);
    bench.out.clear();
    let kept = bench.change(|gateway, _, out| gateway.forget(&[id(1), id(2), id(3)], out));
    assert_eq!(kept, [id(1), id(2)]);
    assert_eq!(bench.out, [Output::Forgotten { gateway: bench.gateway, device_id: id(3) }]);
}

#[test]
fn held_statuses_of_an_unknown_device_end_with_the_link() {
    let mut bench = Bench::online(vec![]);
    bench.pass(5_000);
    bench.status(9, TlsConnected);
    bench.link_down();
    bench.pass(3_600_000);
    bench.input(LinkEvent::LinkUp);
    bench.out.clear();
    bench.list(vec![row(9, TlsConnected, true)]);
    assert!(bench.events().is_empty());
    assert_eq!((bench.device(9).seq, bench.device(9).since_exact), (0, false));
    assert_eq!(bench.measures(9).observed.observed_ms, 0, "it was not observed");
    assert_eq!(bench.fleet.counts(bench.gateway).unwrap().strangers, 1);
}

#[test]
fn a_second_list_that_follows_at_once_does_not_count() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true)]);
    bench.pass(AUDIT_MS);
    bench.list(vec![row(7, Disconnected, true)]);
    bench.change(Gateway::request_list);
    bench.pass(1_000);
    bench.list(vec![row(7, Disconnected, true)]);
    assert!(bench.events().is_empty());
    bench.pass(1_000);
    bench.list(vec![row(7, Disconnected, true)]);
    assert_eq!(bench.events().len(), 1);
}

#[test]
fn seconds_run_only_while_a_device_is_expected() {
    let mut bench = Bench::new(&[2]);
    bench.input(LinkEvent::LinkUp);
    bench.list(vec![row(1, TcpConnected, false), row(2, TcpConnected, false)]);
    for number in [1, 2] {
        bench.status(number, Disconnected);
    }
    bench.list(vec![]);
    assert_eq!((bench.device(1).managed, bench.device(1).expected), (false, false));
    assert_eq!((bench.device(2).managed, bench.device(2).expected), (false, true));
    let counted = bench.fleet.gateway(bench.gateway).unwrap();
    assert_eq!((counted.devices(), counted.disconnected), (1, 1));
    bench.pass(5_000);
    let observed_ms = |bench: &mut Bench, number| bench.measures(number).observed.observed_ms;
    assert_eq!((observed_ms(&mut bench, 1), observed_ms(&mut bench, 2)), (0, 5_000));
    bench.set_kept(&[1]);
    bench.pass(1_000);
    assert_eq!((observed_ms(&mut bench, 1), observed_ms(&mut bench, 2)), (1_000, 6_000));
    bench.set_kept(&[]);
    bench.pass(1_000);
    bench.list(vec![row(1, TcpConnected, false)]);
    bench.pass(2_000);
    assert_eq!((observed_ms(&mut bench, 1), observed_ms(&mut bench, 2)), (3_000, 9_000));
}

#[test]
fn a_device_absent_for_long_is_forgotten_unless_a_command_keeps_it() {
    let all = || vec![row(1, Status::TcpConnected, false), row(2, Status::TcpConnected, false)];
    let mut bench = Bench::online(all());
    bench.set_kept(&[2]);
    assert!(bench.device(2).kept && !bench.device(1).kept);
    for number in [1, 2] {
        bench.status(number, Status::Disconnected);
    }
    bench.list(vec![]);
    bench.out.clear();
    // A disconnect long before does not count: only having left does.
    bench.pass(FORGET_MS - 1);
    bench.list(vec![]);
    assert!(bench.fleet.device(bench.gateway, id(1)).is_some());
    let stored = Output::StoreState { gateway: bench.gateway, device_id: id(1) };
    assert!(bench.out.contains(&stored), "a restart loses little of it: {:?}", bench.out);
    assert_eq!(absent_ms(&bench, 1), FORGET_MS - 1);
    assert_eq!(absent_ms(&bench, 2), 0, "it is expected");
    bench.pass(1);
    bench.out.clear();
    bench.list(vec![]);
    let forgotten = Output::Forgotten { gateway: bench.gateway, device_id: id(1) };
    assert!(bench.out.contains(&forgotten), "{:?}", bench.out);
    assert!(bench.fleet.device(bench.gateway, id(2)).is_some());
    // In the list again, its events continue their chain: an event's ID is never used again.
    bench.out.clear();
    bench.list(all());
    bench.status(1, Status::TlsConnected);
    let event = bench.events().pop().unwrap();
    assert_eq!((event.seq, event.previous), (2, Some(Status::Disconnected)));
}

fn absent_ms(bench: &Bench, number: u32) -> i64 {
    bench.fleet.remembered(bench.gateway, id(number)).unwrap().absent_ms
}

#[test]
fn absence_survives_a_restart_and_counts_only_while_lists_are_read() {
    let mut bench = Bench::online(vec![row(1, Status::TcpConnected, false)]);
    bench.status(1, Status::Disconnected);
    bench.list(vec![]);
    bench.pass(FORGET_MS / 2);
    bench.list(vec![]);
    let remembered = bench.fleet.remembered(bench.gateway, id(1)).unwrap();
    assert_eq!(remembered.absent_ms, FORGET_MS / 2);
    let mut bench = Bench::new(&[]);
    bench.fleet.restore(bench.now, bench.gateway, id(1), remembered);
    // Without a link it is unknown whether the device is back.
    bench.pass(10 * FORGET_MS);
    bench.input(LinkEvent::LinkUp);
    bench.list(vec![]);
    bench.fleet.set_wall_offset(56 * 365 * 86_400_000);
    bench.pass(FORGET_MS / 2 - 1);
    bench.link_down();
    bench.pass(10 * FORGET_MS);
    bench.input(LinkEvent::LinkUp);
    bench.list(vec![]);
    assert_eq!(absent_ms(&bench, 1), FORGET_MS - 1);
    bench.pass(1);
    bench.list(vec![]);
    assert_eq!(bench.fleet.device_ids(bench.gateway).count(), 0);
}
