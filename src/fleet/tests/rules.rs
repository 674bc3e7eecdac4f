//! The core's rules, one by one.

use super::*;
use Status::*;

pub(crate) fn types(events: &[DeviceEvent]) -> Vec<&'static str> {
    events.iter().map(|event| event.event_type.name()).collect()
}

#[test]
fn a_device_first_seen_in_a_list_is_a_state_not_an_event() {
    let mut test = TestFleet::new(&[]);
    test.input(LinkEvent::LinkUp);
    assert!(test.asked_for_list());
    test.list(vec![row(7, TlsConnected, true)]);
    assert!(test.out.contains(&Output::StateChanged { gateway: test.gateway, device_id: id(7) }));
    assert!(test.events().is_empty());
    let device = test.device(7);
    assert_eq!((device.connected, device.seq, device.managed), (Some(true), 0, true));
    assert_eq!((device.since, device.since_exact), (Some(test.now), false));

    test.status(7, Disconnected);
    let events = test.events();
    assert_eq!((events[0].seq, events[0].previous), (1, Some(TlsConnected)));
    assert_eq!(events[0].duration_ms, None, "its beginning was not observed");
}

#[test]
fn an_event_reports_how_long_the_value_before_lasted() {
    let mut test = TestFleet::online(vec![row(7, Disconnected, true)]);
    test.status(7, TcpConnected);
    test.pass(5_000);
    test.status(7, TlsConnected);
    test.pass(3_595_000);
    test.status(7, Disconnected);
    let events = test.events();
    assert_eq!(types(&events), ["connected", "status_changed", "disconnected"]);
    assert_eq!(events[2].duration_ms, Some(3_600_000), "TCP to TLS does not restart the duration");
    assert!(test.device(7).since_exact);
}

#[test]
fn a_failed_attempt_does_not_show_when_a_device_lost_its_connection() {
    let mut test = TestFleet::new(&[9]);
    test.input(LinkEvent::LinkUp);
    test.list(vec![]);
    test.status(9, TryToConnect);
    assert!(!test.device(9).since_exact);
    test.pass(3_500);
    test.status(9, TcpConnected);
    assert_eq!(test.events().pop().unwrap().duration_ms, None);
    assert!(test.device(9).since_exact);
}

/// A machine that was suspended, or got the time only after its start.
#[test]
fn published_times_follow_the_wall_clock_and_durations_do_not() {
    const HOUR_MS: i64 = 3_600_000;
    let mut test = TestFleet::online(vec![row(7, TcpConnected, true), row(8, TcpConnected, true)]);
    test.status(7, Disconnected);
    let (since, skew) = (test.device(7).since, test.gateway().state());
    test.events();
    for ahead_ms in [HOUR_MS, -HOUR_MS] {
        test.fleet.set_wall_offset(ahead_ms);
        test.pass(5_000);
        test.status(7, TcpConnected);
        test.pass(5_000);
        test.status(7, Disconnected);
        let events = test.events();
        let shown = test.now.plus(ahead_ms);
        assert_eq!((events[1].received_at, events[1].duration_ms), (shown, Some(5_000)));
        let device = test.device(7);
        assert_eq!((device.since, device.updated_at), (Some(shown), shown));
        let gateway = test.gateway().state();
        assert_eq!(gateway.clock_skew_ms, skew.clock_skew_ms.map(|skew| skew - ahead_ms));
    }
    assert_eq!(test.device(8).since, since, "what was shown before stays");
    assert_eq!(
        test.measures(8).observed.observed_ms,
        20_000,
        "an hour that was not is not counted"
    );
}

#[test]
fn a_gateway_that_is_added_after_the_clock_was_set_begins_at_the_wall_time() {
    let mut test = TestFleet::new(&[]);
    test.fleet.set_wall_offset(5_000);
    let added = test.fleet.add_gateway(test.now, SETTINGS, &[id(7)]);
    assert_eq!(test.fleet.gateway(added).unwrap().state().since, test.now.plus(5_000));
    assert_eq!(test.fleet.device(added, id(7)).unwrap().updated_at, test.now.plus(5_000));
}

#[test]
fn an_absent_device_makes_two_events_not_thousands() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true)]);
    test.status(7, Disconnected);
    for _ in 0..1_000 {
        test.pass(30_000);
        test.status(7, TryToConnect);
        test.status(7, TlsCannotConnect);
    }
    assert_eq!(types(&test.events()), ["disconnected", "connecting", "connect_failed"]);
    assert_eq!(test.measures(7).counts.connect_failures, 1_000);
    assert_eq!(test.gateway().counts().repeated, 1_998);
    test.status(7, TlsConnected);
    test.status(7, TryToConnect);
    assert_eq!(types(&test.events()), ["connected", "disconnected"], "reported again");
}

#[test]
fn a_lost_gateway_makes_its_devices_unknown_and_a_return_restores_them() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true)]);
    let since = test.device(7).since;
    test.pass(50_000);
    test.link_down();
    test.pass(9_999);
    assert_eq!(test.device(7).connected, Some(true), "not lost yet");
    assert!(test.out.is_empty(), "a link that broke is not reported");
    test.pass(1);
    assert_eq!(test.gateway_events(), [GatewayEvent::Unreachable]);
    let device = test.device(7);
    assert_eq!((device.connected, device.status, device.since), (None, None, None));
    let last = device.last_known.unwrap();
    assert_eq!((last.connected, last.status, Some(last.since)), (true, TlsConnected, since));
    assert!(test.events().is_empty());

    test.pass(100_000);
    test.input(LinkEvent::LinkUp);
    test.out.clear();
    test.list(vec![row(7, TlsConnected, true)]);
    let at = |wanted: &dyn Fn(&Output) -> bool| test.out.iter().position(wanted).unwrap();
    let state = at(&|out| matches!(out, Output::StateChanged { .. }));
    let online = at(&|out| matches!(out, Output::GatewayChanged(_)));
    let reachable = at(&|out| matches!(out, Output::GatewayEvent(_, GatewayEvent::Reachable)));
    assert!(state < online && online < reachable);
    assert_eq!(test.device(7).since, since, "a time of not knowing does not move it");
    let seconds = test.measures(7).observed;
    assert_eq!((seconds.connected_ms, seconds.observed_ms), (50_000, 50_000));
    test.pass(1_000);
    test.status(7, Disconnected);
    let events = test.events();
    assert_eq!(events[0].duration_ms, None, "a part was not observed");
    assert_eq!((events[0].seq, events[0].previous), (1, Some(TlsConnected)));
}

#[test]
fn a_link_back_in_time_makes_the_seconds_good() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true), row(8, TlsConnected, true)]);
    test.pass(10_000);
    test.link_down();
    test.pass(5_000);
    assert_eq!(test.measures(7).observed.observed_ms, 10_000, "frozen meanwhile");
    test.input(LinkEvent::LinkUp);
    test.list(vec![row(7, TlsConnected, true), row(8, Disconnected, true)]);
    test.pass(1_000);
    assert_eq!(test.measures(7).observed.observed_ms, 16_000);
    let changed = test.measures(8).observed;
    assert_eq!((changed.connected_ms, changed.observed_ms), (10_000, 11_000));
    let events = test.events();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].source, events[0].duration_ms), (Source::Resync, None));
    assert!(!test.device(8).since_exact);
}

#[test]
fn a_frozen_gateway_is_lost_when_noticed_and_its_seconds_stop_at_its_last_sign() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true)]);
    test.pass(15_000);
    let last_sign_of_life = test.now.plus(-15_000);
    test.link_down_after(last_sign_of_life);
    assert_eq!(test.gateway_events(), [GatewayEvent::Unreachable]);
    assert_eq!(test.measures(7).observed.observed_ms, 0);
}

#[test]
fn a_gateway_never_heard_is_lost_once_unknown_after_has_passed() {
    let mut test = TestFleet::new(&[7]);
    assert!(!test.gateway().link().is_decided());
    test.pass(UNKNOWN_MS);
    assert!(test.gateway().link().is_decided());
    assert_eq!(test.gateway_events(), [GatewayEvent::Unreachable]);
    assert_eq!((test.device(7).connected, test.device(7).last_known), (None, None));
}

#[test]
fn a_gateway_that_its_master_does_not_have_is_not_waited_for() {
    let mut test = TestFleet::new(&[7]);
    test.input(LinkEvent::Absent);
    assert!(test.gateway().link().is_decided());
    assert_eq!(test.gateway_events(), [GatewayEvent::Unreachable]);
    test.input(LinkEvent::Absent);
    assert_eq!(test.gateway_events(), []);
}

#[test]
fn a_declared_device_that_no_list_holds_is_disconnected() {
    let mut test = TestFleet::new(&[7]);
    test.input(LinkEvent::LinkUp);
    test.list(vec![]);
    let device = test.device(7);
    assert_eq!((device.connected, device.status), (Some(false), Some(Disconnected)));
    assert!(!device.managed && device.since.is_some());
    test.out.clear();
    test.status(7, TcpConnected);
    assert_eq!(test.events()[0].previous, Some(Disconnected));
}

#[test]
fn an_unknown_status_is_kept_and_connected_is_unknown() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true)]);
    test.pass(1_000);
    test.status(7, Unknown(0x203));
    test.pass(1_000);
    let device = test.device(7);
    assert_eq!((device.connected, device.status), (None, Some(Unknown(0x203))));
    assert_eq!(test.measures(7).observed.observed_ms, 1_000);
    test.status(7, Disconnected);
    let events = test.events();
    assert_eq!(types(&events), ["status_changed", "status_changed"]);
    assert_eq!(events[1].duration_ms, None);
}

#[test]
fn one_event_dated_an_hour_ahead_does_not_move_the_skew() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true)]);
    let skew = |test: &TestFleet| test.gateway().state().clock_skew_ms.unwrap();
    let mut event = |ahead_ms: i64| {
        test.status_dated(7, Disconnected, test.now.plus(ahead_ms));
        let skew = skew(&test);
        test.pass(3_600_000);
        skew
    };
    event(3_600_000);
    assert!(event(-500).abs() < 600, "the second event already says otherwise");
    event(-500);
    for _ in 0..3 {
        assert!(event(3_600_000).abs() < 600, "one event, hours after any other");
        assert!(event(-500).abs() < 600);
        assert!(event(-500).abs() < 600);
    }
    // A clock that was set is followed.
    assert!(event(3_600_000).abs() < 600);
    assert!((event(3_600_000) - 3_600_000).abs() < 600);
}

#[test]
fn a_clock_that_was_corrected_has_no_estimate_from_before_for_longer_than_a_day() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true)]);
    for status in [Disconnected, TryToConnect, TlsConnected] {
        test.status_dated(7, status, test.now.plus(-120_000));
        test.pass(10_000);
    }
    let skew = |test: &TestFleet| test.gateway().state().clock_skew_ms;
    assert!((skew(&test).unwrap() + 120_000).abs() < 600);
    // No status comes for a day: only lists.
    test.pass(86_400_000);
    test.list(vec![row(7, TlsConnected, true)]);
    assert_eq!(skew(&test), None);
    test.status_dated(7, Disconnected, test.now);
    assert!(skew(&test).unwrap().abs() < 600, "what it was a day ago does not count");
    test.link_down();
    test.pass(UNKNOWN_MS);
    assert_eq!(skew(&test), None, "nothing is known of a gateway that is lost");
}

#[test]
fn the_skew_is_estimated_from_the_best_of_late_and_whole_seconds() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true)]);
    test.status_dated(7, Disconnected, Moment::from_millis(0));
    test.status_dated(7, TlsConnected, Moment::from_millis(0));
    assert_eq!(test.gateway().state().clock_skew_ms, None, "no timestamp");
    for step in 0..50 {
        let true_gateway_clock = test.now.millis() + 3_600_000 - 40;
        let timestamp = Moment::from_millis(true_gateway_clock / 1000 * 1000);
        let status = if step % 2 == 0 { Disconnected } else { TlsConnected };
        test.status_dated(7, status, timestamp);
        test.pass(137);
    }
    let skew = test.gateway().state().clock_skew_ms.unwrap();
    assert!((skew - 3_600_000).abs() < 600, "{skew}");
}

#[test]
fn a_counter_that_was_read_never_runs_backwards() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true)]);
    test.pass(20_000);
    assert_eq!(test.measures(7).observed.observed_ms, 20_000);
    let last_sign_of_life = test.now.plus(-15_000);
    test.link_down_after(last_sign_of_life);
    let seconds = test.measures(7).observed;
    assert_eq!((seconds.connected_ms, seconds.observed_ms), (20_000, 20_000));
    test.input(LinkEvent::LinkUp);
    test.list(vec![row(7, TlsConnected, true)]);
    test.pass(14_000);
    assert_eq!(test.measures(7).observed.observed_ms, 20_000, "until the truth has caught up");
    test.pass(2_000);
    assert_eq!(test.measures(7).observed.observed_ms, 21_000);
}

#[test]
fn a_link_made_in_time_has_limited_time_for_its_list() {
    let mut test = TestFleet::online(vec![row(7, TlsConnected, true)]);
    test.link_down();
    test.pass(9_500);
    test.input(LinkEvent::LinkUp);
    test.pass(1_000);
    test.list(vec![row(7, TlsConnected, true)]);
    assert!(test.gateway_events().is_empty(), "it was received");
    test.link_down();
    for _ in 0..4 {
        test.pass(5_000);
        test.input(LinkEvent::LinkUp);
        test.link_down();
    }
    assert_eq!(test.gateway_events(), [GatewayEvent::Unreachable], "links without a list");
}
