//! Tests of lists: applied differences, and devices that are added, removed and forgotten.

use super::rules::types;
use super::*;
use Status::*;

#[test]
fn the_first_list_is_believed_where_the_stream_was_silent_since_the_mark() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true), row(8, TlsConnected, true)]);
    test.link_down();
    test.input(LinkEvent::LinkUp);
    test.out.clear();
    test.input(LinkEvent::ListRequested);
    test.status(8, Disconnected);
    test.input(LinkEvent::List(vec![row(7, Disconnected, true), row(8, TlsConnected, true)]));
    let events = test.events();
    let reported: Vec<_> = events.iter().map(|e| (e.device_id.get(), e.source)).collect();
    assert_eq!(reported, [(8, Source::Stream), (7, Source::Resync)]);
    assert_eq!(test.device(8).status, Some(Disconnected), "the stream's word stands");

    test.pass(2_000);
    assert!(test.asked_for_list(), "a second look");
    test.list(vec![row(7, Disconnected, true), row(8, TlsConnected, true)]);
    let events = test.events();
    assert_eq!((events[0].event_type, events[0].source), (EventType::Connected, Source::Resync));
}

#[test]
fn an_audit_is_believed_only_when_a_second_look_agrees_and_the_stream_was_silent() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true)]);
    test.pass(AUDIT_MS);
    assert!(test.asked_for_list());
    test.list(vec![row(7, Disconnected, true)]);
    assert!(test.events().is_empty());
    test.pass(2_000);
    assert!(test.asked_for_list());
    test.list(vec![row(7, Disconnected, true)]);
    assert_eq!(test.events()[0].source, Source::Audit);
    assert_eq!(test.gateway().counts().corrections, 1);

    test.pass(AUDIT_MS);
    test.list(vec![row(7, TlsConnected, true)]);
    test.status(7, TlsConnected);
    test.out.clear();
    test.pass(2_000);
    test.list(vec![row(7, TlsConnected, true)]);
    assert!(test.events().is_empty(), "the list had overtaken the stream");
    assert_eq!(test.gateway().counts().corrections, 1);
}

#[test]
fn a_retry_seen_in_the_list_is_no_difference() {
    let mut test = TestFleet::online(vec![row(7, Disconnected, true)]);
    test.status(7, TryToConnect);
    test.status(7, TcpCannotConnect);
    test.events();
    test.pass(AUDIT_MS);
    test.list(vec![row(7, TryToConnect, true)]);
    test.out.clear();
    test.pass(2_000);
    assert!(!test.asked_for_list());
}

#[test]
fn a_synchronous_connection_that_drops_leaves_the_list_and_its_device_is_kept() {
    let mut test = TestFleet::online(vec![row(7, TcpConnected, false)]);
    test.pass(5_000);
    test.status(7, Disconnected);
    assert!(test.asked_for_list());
    test.list(vec![]);
    let device = test.device(7);
    assert_eq!((device.managed, device.connected), (false, Some(false)));
    assert!(test.events().is_empty());
    test.pass(2_000);
    assert!(!test.asked_for_list(), "the stream had reported it");
}

#[test]
fn what_a_list_changed_is_looked_at_again_before_the_next_audit() {
    let all = || vec![row(7, TlsConnected, true), row(8, Disconnected, true)];
    let mut test = TestFleet::online(all());
    test.link_down();
    test.input(LinkEvent::LinkUp);
    test.list(vec![]);
    assert_eq!(types(&test.events()), ["disconnected"]);
    assert!(!test.device(8).managed);
    test.pass(2_000);
    assert!(test.asked_for_list(), "to confirm it");
    test.list(all());
    assert!(test.events().is_empty() && test.device(8).managed);
    test.pass(2_000);
    assert!(test.asked_for_list());
    test.list(all());
    assert_eq!(types(&test.events()), ["connected"]);
    // A device that changes all the time, which the stream does not report: one more list is read,
    // not one after the other.
    test.pass(AUDIT_MS - 1);
    assert!(!test.asked_for_list());
    test.pass(1);
    assert!(test.asked_for_list());
}

#[test]
fn a_device_that_leaves_the_list_by_mistake_is_back_with_the_confirming_list() {
    let mut test = TestFleet::online(vec![row(7, TcpConnected, false)]);
    test.status(7, Disconnected);
    // Registered later, so that its gateway no longer drops it.
    test.list(vec![row(7, Disconnected, true)]);
    test.pass(AUDIT_MS);
    test.list(vec![]);
    let left =
        |out: &Output| if let Output::LeftList { since, .. } = out { Some(*since) } else { None };
    assert_eq!(test.out.iter().find_map(left), Some(test.now));
    assert!(!test.device(7).managed);
    test.pass(2_000);
    assert!(test.asked_for_list());
    test.list(vec![row(7, Disconnected, true)]);
    assert!(test.device(7).managed);
    test.pass(2_000);
    assert!(!test.asked_for_list());
}

#[test]
fn a_device_that_is_registered_again_keeps_its_type() {
    let of_type = |code, status| {
        let mut row = row(7, status, true);
        row.info.device_type = DeviceType::from_code(code);
        vec![row]
    };
    let mut test = TestFleet::online(of_type(0x0D, TlsConnected));
    let known = test.device(7).info;
    test.status(7, Disconnected);
    test.link_down();
    test.input(LinkEvent::LinkUp);
    test.list(of_type(0, Disconnected));
    assert_eq!(test.device(7).info, known, "the gateway has forgotten it");
    test.list(vec![]);
    test.list(of_type(0, Disconnected));
    assert_eq!(test.device(7).info, known, "it was removed and added");
    test.list(of_type(0x12, Disconnected));
    assert_eq!(test.device(7).info.unwrap().device_type.to_string(), "biolite_n2");
}

#[test]
fn a_connected_device_missing_from_the_list_disconnects_first() {
    let mut test = TestFleet::online(vec![row(7, TcpConnected, false)]);
    test.pass(AUDIT_MS);
    test.list(vec![]);
    assert!(test.device(7).managed, "not applied yet");
    test.pass(2_000);
    test.list(vec![]);
    assert_eq!(types(&test.events()), ["disconnected"]);
    assert!(!test.device(7).managed);
}

#[test]
fn statuses_of_an_unknown_device_become_events_once_it_is_listed() {
    let mut test = TestFleet::online(vec![]);
    test.pass(5_000);
    test.status(9, TryToConnect);
    assert!(test.asked_for_list());
    test.input(LinkEvent::ListRequested);
    test.status(9, TlsConnected);
    test.input(LinkEvent::List(vec![row(9, TlsConnected, true)]));
    let events = test.events();
    assert_eq!(types(&events), ["connecting", "connected"]);
    assert_eq!((events[0].previous, events[1].previous), (None, Some(TryToConnect)));
    assert_eq!(test.device(9).seq, 2);
}

#[test]
fn an_unknown_device_is_counted_and_reported_at_most_once_a_second() {
    let mut test = TestFleet::online(vec![]);
    test.pass(5_000);
    let mut lists = 0;
    for number in 1..=500 {
        test.status(number, TcpNotAllowed);
        lists += usize::from(test.asked_for_list());
    }
    assert_eq!(lists, 1);
    test.list(vec![]);
    assert_eq!(test.gateway_events().len(), 1);
    assert_eq!(test.ids().len(), 0);
    assert_eq!(test.gateway().counts().strangers, 500);
}

#[test]
fn a_refused_device_that_keeps_dialing_causes_an_event_and_a_list_a_minute() {
    let mut test = TestFleet::online(vec![]);
    let strangers = |test: &TestFleet| test.gateway().counts().strangers;
    for minute in 1..=2 {
        test.pass(5_000);
        // Each of the three is reported, one for each list.
        for number in (1..=3).rev() {
            (1..=3).for_each(|it| test.status(it, TcpNotAllowed));
            assert!(test.asked_for_list());
            test.list(vec![]);
            let (device_id, status) = (id(number), TcpNotAllowed);
            assert_eq!(test.gateway_events(), [GatewayEvent::Stranger { device_id, status }]);
            test.pass(1_000);
        }
        // A status may have come after the last list was requested.
        test.list(vec![]);
        test.out.clear();
        let counted = strangers(&test);
        for _ in 0..50 {
            (1..=3).for_each(|it| test.status(it, TcpNotAllowed));
            test.pass(1_000);
        }
        assert!(!test.asked_for_list());
        assert_eq!(strangers(&test), counted + 150, "minute {minute}");
        test.pass(10_000);
        test.list(vec![]);
        assert!(test.gateway_events().is_empty());
    }
}

#[test]
fn a_refused_device_is_looked_up_at_once_if_its_status_differs_or_it_connects() {
    let mut test = TestFleet::online(vec![]);
    for status in [TcpNotAllowed, TryToConnect, TlsConnected, TlsConnected] {
        test.pass(5_000);
        test.status(1, status);
        assert!(test.asked_for_list(), "{status}");
        test.list(vec![]);
    }
    test.pass(5_000);
    test.out.clear();
    // What follows a connection is held with it.
    test.status(1, TlsConnected);
    test.input(LinkEvent::ListRequested);
    test.status(1, TcpNotAllowed);
    test.input(LinkEvent::List(vec![row(1, TlsConnected, true)]));
    assert_eq!(types(&test.events()), ["connected", "disconnected"]);
}

#[test]
fn forget_removes_only_devices_that_are_neither_listed_nor_declared() {
    let mut test = TestFleet::new(&[1]);
    test.input(LinkEvent::LinkUp);
    test.list(vec![row(2, TcpConnected, true), row(3, Disconnected, false)]);
    test.pass(AUDIT_MS);
    test.list(vec![row(2, TcpConnected, true)]);
    test.out.clear();
    let expected = test.change(|gateway, _, out| gateway.forget(&[id(1), id(2), id(3)], out));
    assert_eq!(expected, [id(1), id(2)]);
    assert_eq!(test.out, [Output::Forgotten { gateway: test.gateway, device_id: id(3) }]);
}

#[test]
fn held_statuses_of_an_unknown_device_become_events_also_after_a_new_link() {
    for (gap_ms, observed_ms) in [(UNKNOWN_MS - 1, UNKNOWN_MS + 999), (3_600_000, 1_000)] {
        let mut test = TestFleet::online(vec![]);
        test.pass(5_000);
        let began = test.now;
        test.status(8, TcpNotAllowed);
        test.status(9, TryToConnect);
        test.status(9, TlsConnected);
        test.pass(1_000);
        test.link_down();
        test.pass(gap_ms);
        test.input(LinkEvent::LinkUp);
        test.out.clear();
        test.list(vec![row(9, TlsConnected, true)]);
        assert!(test.out.iter().any(|out| matches!(
            out,
            Output::GatewayEvent(_, GatewayEvent::Stranger { device_id, .. }) if *device_id == id(8)
        )));
        let events = test.events();
        assert_eq!(types(&events), ["connecting", "connected"]);
        assert!(events.iter().all(|event| event.received_at == began));
        assert_eq!(test.device(9).since, Some(began));
        assert_eq!(test.measures(9).observed.observed_ms, observed_ms, "not while it was lost");
        assert_eq!(test.gateway().counts().strangers, 1);
        test.status(9, Disconnected);
        let lasted = (gap_ms < UNKNOWN_MS).then_some(observed_ms);
        assert_eq!(test.events()[0].duration_ms, lasted);
    }
}

#[test]
fn a_second_list_that_follows_at_once_does_not_count() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true)]);
    test.pass(AUDIT_MS);
    test.list(vec![row(7, Disconnected, true)]);
    test.change(Gateway::request_list);
    test.pass(1_000);
    test.list(vec![row(7, Disconnected, true)]);
    assert!(test.events().is_empty());
    test.pass(1_000);
    test.list(vec![row(7, Disconnected, true)]);
    assert_eq!(test.events().len(), 1);
}

#[test]
fn seconds_run_only_while_a_device_is_expected() {
    let mut test = TestFleet::new(&[2]);
    test.input(LinkEvent::LinkUp);
    test.list(vec![row(1, TcpConnected, false), row(2, TcpConnected, false)]);
    for number in [1, 2] {
        test.status(number, Disconnected);
    }
    test.list(vec![]);
    assert_eq!((test.device(1).managed, test.device(1).expected), (false, false));
    assert_eq!((test.device(2).managed, test.device(2).expected), (false, true));
    let counted = test.gateway().state();
    assert_eq!((counted.devices(), counted.disconnected), (1, 1));
    test.pass(5_000);
    let observed_ms = |test: &mut TestFleet, number| test.measures(number).observed.observed_ms;
    assert_eq!((observed_ms(&mut test, 1), observed_ms(&mut test, 2)), (0, 5_000));
    test.set_kept(&[1]);
    test.pass(1_000);
    assert_eq!((observed_ms(&mut test, 1), observed_ms(&mut test, 2)), (1_000, 6_000));
    test.set_kept(&[]);
    test.pass(1_000);
    test.list(vec![row(1, TcpConnected, false)]);
    test.pass(2_000);
    assert_eq!((observed_ms(&mut test, 1), observed_ms(&mut test, 2)), (3_000, 9_000));
}

#[test]
fn a_device_absent_for_long_is_forgotten_unless_a_command_keeps_it() {
    let all = || vec![row(1, Status::TcpConnected, false), row(2, Status::TcpConnected, false)];
    let mut test = TestFleet::online(all());
    test.set_kept(&[2]);
    assert!(test.device(2).kept && !test.device(1).kept);
    for number in [1, 2] {
        test.status(number, Status::Disconnected);
    }
    test.list(vec![]);
    test.out.clear();
    // A disconnect long before does not count: only having left does.
    test.pass(FORGET_MS - 1);
    test.list(vec![]);
    assert!(test.fleet.device(test.gateway, id(1)).is_some());
    let stored = Output::StoreState { gateway: test.gateway, device_id: id(1) };
    assert!(test.out.contains(&stored), "a restart loses little of it: {:?}", test.out);
    assert_eq!(absent_ms(&test, 1), FORGET_MS - 1);
    assert_eq!(absent_ms(&test, 2), 0, "it is expected");
    test.pass(1);
    test.out.clear();
    test.list(vec![]);
    let forgotten = Output::Forgotten { gateway: test.gateway, device_id: id(1) };
    assert!(test.out.contains(&forgotten), "{:?}", test.out);
    assert!(test.fleet.device(test.gateway, id(2)).is_some());
    // In the list again, its events continue their chain: an event's ID is never used again.
    test.out.clear();
    test.list(all());
    let event = test.events().pop().unwrap();
    assert_eq!((event.seq, event.previous), (2, Some(Status::Disconnected)));
}

#[test]
fn a_forgotten_device_that_is_connected_again_is_connected_at_once() {
    let all = || vec![row(1, Status::TcpConnected, false)];
    let mut test = TestFleet::online(all());
    test.status(1, Status::Disconnected);
    test.list(vec![]);
    test.change(|gateway, _, out| _ = gateway.forget(&[id(1)], out));
    test.out.clear();
    test.list(all());
    let state = test.device(1);
    assert_eq!((state.connected, state.status), (Some(true), Some(Status::TcpConnected)));
    let event = test.events().pop().unwrap();
    assert_eq!((event.seq, event.previous), (2, Some(Status::Disconnected)));
    assert_eq!(event.source, Source::Audit);
}

fn absent_ms(test: &TestFleet, number: u32) -> i64 {
    test.gateway().devices().remembered(id(number)).unwrap().absent_ms
}

#[test]
fn absence_survives_a_restart_and_counts_only_while_lists_are_read() {
    let mut test = TestFleet::online(vec![row(1, Status::TcpConnected, false)]);
    test.status(1, Status::Disconnected);
    test.list(vec![]);
    test.pass(FORGET_MS / 2);
    test.list(vec![]);
    let remembered = test.gateway().devices().remembered(id(1)).unwrap();
    assert_eq!(remembered.absent_ms, FORGET_MS / 2);
    let mut test = TestFleet::new(&[]);
    test.fleet.restore(test.now, test.gateway, id(1), remembered);
    // Without a link it is unknown whether the device is back.
    test.pass(10 * FORGET_MS);
    test.input(LinkEvent::LinkUp);
    test.list(vec![]);
    test.fleet.set_wall_offset(56 * 365 * 86_400_000);
    test.pass(FORGET_MS / 2 - 1);
    test.link_down();
    test.pass(10 * FORGET_MS);
    test.input(LinkEvent::LinkUp);
    test.list(vec![]);
    assert_eq!(absent_ms(&test, 1), FORGET_MS - 1);
    test.pass(1);
    test.list(vec![]);
    assert_eq!(test.ids().len(), 0);
}
