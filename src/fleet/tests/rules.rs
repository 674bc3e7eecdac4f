//! The core's rules, one by one (contract, sections 2 and 3; design, decisions 1 to 5).
//!
//! May not use anything but the core's public face.

use super::*;
use Status::*;

fn types(events: &[DeviceEvent]) -> Vec<&'static str> {
    events.iter().map(|event| event.event_type.name()).collect()
}

#[test]
fn a_device_first_seen_in_a_list_is_a_state_not_an_event() {
    let mut bench = Bench::new(&[]);
    bench.input(Input::LinkUp);
    assert!(bench.asked_for_list());
    bench.list(vec![row(7, TlsConnected, true)]);
    assert!(bench.out.contains(&Output::State { gateway: bench.gateway, device_id: id(7) }));
    assert!(bench.events().is_empty());
    let device = bench.device(7);
    assert_eq!((device.connected, device.seq, device.managed), (Some(true), 0, true));
    assert_eq!((device.since, device.since_exact), (Some(bench.now), false));

    bench.status(7, Disconnected);
    let events = bench.events();
    assert_eq!((events[0].seq, events[0].previous), (1, Some(TlsConnected)));
    assert_eq!(events[0].duration_ms, None, "its beginning was not observed");
}

#[test]
fn an_event_tells_how_long_the_value_before_lasted() {
    let mut bench = Bench::online(vec![row(7, Disconnected, true)]);
    bench.status(7, TcpConnected);
    bench.pass(5_000);
    bench.status(7, TlsConnected);
    bench.pass(3_595_000);
    bench.status(7, Disconnected);
    let events = bench.events();
    assert_eq!(types(&events), ["connected", "status_changed", "disconnected"]);
    assert_eq!(events[2].duration_ms, Some(3_600_000), "TCP to TLS does not begin anew");
    assert!(bench.device(7).since_exact);
}

/// A machine that slept, or learnt the time only after its start.
#[test]
fn what_is_shown_follows_the_walls_clock_and_durations_do_not() {
    const HOUR_MS: i64 = 3_600_000;
    let mut bench = Bench::online(vec![row(7, TcpConnected, true), row(8, TcpConnected, true)]);
    bench.status(7, Disconnected);
    let (since, skew) = (bench.device(7).since, bench.fleet.gateway(bench.gateway).unwrap());
    bench.events();
    for ahead_ms in [HOUR_MS, -HOUR_MS] {
        bench.fleet.wall_is_ahead(ahead_ms);
        bench.pass(5_000);
        bench.status(7, TcpConnected);
        bench.pass(5_000);
        bench.status(7, Disconnected);
        let events = bench.events();
        let shown = bench.now.plus(ahead_ms);
        assert_eq!((events[1].received_at, events[1].duration_ms), (shown, Some(5_000)));
        let device = bench.device(7);
        assert_eq!((device.since, device.updated_at), (Some(shown), shown));
        let gateway = bench.fleet.gateway(bench.gateway).unwrap();
        assert_eq!(gateway.clock_skew_ms, skew.clock_skew_ms.map(|skew| skew - ahead_ms));
    }
    assert_eq!(bench.device(8).since, since, "what was shown before stays");
    assert_eq!(
        bench.measures(8).observed.observed_ms,
        20_000,
        "an hour that was not is not counted"
    );
}

#[test]
fn an_absent_device_makes_two_events_not_thousands() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true)]);
    bench.status(7, Disconnected);
    for _ in 0..1_000 {
        bench.pass(30_000);
        bench.status(7, TryToConnect);
        bench.status(7, TlsCannotConnect);
    }
    assert_eq!(types(&bench.events()), ["disconnected", "connecting", "connect_failed"]);
    assert_eq!(bench.measures(7).counts.connect_failures, 1_000);
    assert_eq!(bench.fleet.counts(bench.gateway).unwrap().repeated, 1_998);
    bench.status(7, TlsConnected);
    bench.status(7, TryToConnect);
    assert_eq!(types(&bench.events()), ["connected", "disconnected"], "told anew");
}

#[test]
fn a_lost_gateway_makes_its_devices_unknown_and_a_return_restores_them() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true)]);
    let since = bench.device(7).since;
    bench.pass(50_000);
    bench.link_down();
    bench.pass(9_999);
    assert_eq!(bench.device(7).connected, Some(true), "not lost yet");
    assert!(bench.out.is_empty(), "a link that broke is not told");
    bench.pass(1);
    assert_eq!(bench.gateway_events(), [GatewayEvent::Unreachable]);
    let device = bench.device(7);
    assert_eq!((device.connected, device.status, device.since), (None, None, None));
    let last = device.last_known.unwrap();
    assert_eq!((last.connected, last.status, Some(last.since)), (true, TlsConnected, since));
    assert!(bench.events().is_empty());

    bench.pass(100_000);
    bench.input(Input::LinkUp);
    bench.out.clear();
    bench.list(vec![row(7, TlsConnected, true)]);
    let at = |wanted: &dyn Fn(&Output) -> bool| bench.out.iter().position(wanted).unwrap();
    let state = at(&|out| matches!(out, Output::State { .. }));
    let online = at(&|out| matches!(out, Output::Gateway(_)));
    let reachable = at(&|out| matches!(out, Output::GatewayEvent(_, GatewayEvent::Reachable)));
    assert!(state < online && online < reachable);
    assert_eq!(bench.device(7).since, since, "a time of not knowing does not move it");
    let seconds = bench.measures(7).observed;
    assert_eq!((seconds.connected_ms, seconds.observed_ms), (50_000, 50_000));
    bench.pass(1_000);
    bench.status(7, Disconnected);
    let events = bench.events();
    assert_eq!(events[0].duration_ms, None, "a part was not observed");
    assert_eq!((events[0].seq, events[0].previous), (1, Some(TlsConnected)));
}

#[test]
fn a_link_back_in_time_makes_the_seconds_good() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true), row(8, TlsConnected, true)]);
    bench.pass(10_000);
    bench.link_down();
    bench.pass(5_000);
    assert_eq!(bench.measures(7).observed.observed_ms, 10_000, "frozen meanwhile");
    bench.input(Input::LinkUp);
    bench.list(vec![row(7, TlsConnected, true), row(8, Disconnected, true)]);
    bench.pass(1_000);
    assert_eq!(bench.measures(7).observed.observed_ms, 16_000);
    let changed = bench.measures(8).observed;
    assert_eq!((changed.connected_ms, changed.observed_ms), (10_000, 11_000));
    let events = bench.events();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].source, events[0].duration_ms), (Source::Resync, None));
    assert!(!bench.device(8).since_exact);
}

#[test]
fn a_frozen_gateway_is_lost_when_noticed_and_its_seconds_stop_at_its_last_sign() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true)]);
    bench.pass(15_000);
    let last_sign_of_life = bench.now.plus(-15_000);
    bench.input(Input::LinkDown { last_sign_of_life });
    assert_eq!(bench.gateway_events(), [GatewayEvent::Unreachable]);
    assert_eq!(bench.measures(7).observed.observed_ms, 0);
}

#[test]
fn a_gateway_never_heard_is_lost_once_unknown_after_has_passed() {
    let mut bench = Bench::new(&[7]);
    assert!(!bench.fleet.gateway(bench.gateway).unwrap().decided);
    bench.pass(UNKNOWN_MS);
    assert!(bench.fleet.gateway(bench.gateway).unwrap().decided);
    assert_eq!(bench.gateway_events(), [GatewayEvent::Unreachable]);
    assert_eq!((bench.device(7).connected, bench.device(7).last_known), (None, None));
}

#[test]
fn a_declared_device_that_no_list_holds_is_disconnected() {
    let mut bench = Bench::new(&[7]);
    bench.input(Input::LinkUp);
    bench.list(vec![]);
    let device = bench.device(7);
    assert_eq!((device.connected, device.status), (Some(false), Some(Disconnected)));
    assert!(!device.managed && device.since.is_some());
    bench.out.clear();
    bench.status(7, TcpConnected);
    assert_eq!(bench.events()[0].previous, Some(Disconnected));
}

#[test]
fn the_first_list_is_believed_where_the_stream_was_silent_since_the_mark() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true), row(8, TlsConnected, true)]);
    bench.link_down();
    bench.input(Input::LinkUp);
    bench.out.clear();
    bench.input(Input::ListAsked);
    bench.status(8, Disconnected);
    bench.input(Input::List(vec![row(7, Disconnected, true), row(8, TlsConnected, true)]));
    let events = bench.events();
    let told: Vec<_> = events.iter().map(|e| (e.device_id.get(), e.source)).collect();
    assert_eq!(told, [(8, Source::Stream), (7, Source::Resync)]);
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
fn a_synchronous_connection_that_drops_leaves_the_list_and_stays_known() {
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
    assert!(bench.device(7).managed, "not believed yet");
    bench.pass(2_000);
    bench.list(vec![]);
    assert_eq!(types(&bench.events()), ["disconnected"]);
    assert!(!bench.device(7).managed);
}

#[test]
fn what_the_stream_said_of_a_stranger_becomes_its_history_once_listed() {
    let mut bench = Bench::online(vec![]);
    bench.pass(5_000);
    bench.status(9, TryToConnect);
    assert!(bench.asked_for_list());
    bench.input(Input::ListAsked);
    bench.status(9, TlsConnected);
    bench.input(Input::List(vec![row(9, TlsConnected, true)]));
    let events = bench.events();
    assert_eq!(types(&events), ["connecting", "connected"]);
    assert_eq!((events[0].previous, events[1].previous), (None, Some(TryToConnect)));
    assert_eq!(bench.device(9).seq, 2);
}

#[test]
fn a_stranger_is_counted_and_told_at_most_once_a_second_and_leaves_nothing() {
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
fn an_unknown_status_is_kept_and_nobody_knows() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true)]);
    bench.pass(1_000);
    bench.status(7, Unknown(0x203));
    bench.pass(1_000);
    let device = bench.device(7);
    assert_eq!((device.connected, device.status), (None, Some(Unknown(0x203))));
    assert_eq!(bench.measures(7).observed.observed_ms, 1_000);
    bench.status(7, Disconnected);
    let events = bench.events();
    assert_eq!(types(&events), ["status_changed", "status_changed"]);
    assert_eq!(events[1].duration_ms, None);
}

#[test]
fn forget_takes_only_what_is_neither_listed_nor_declared() {
    let mut bench = Bench::new(&[1]);
    bench.input(Input::LinkUp);
    bench.list(vec![row(2, TcpConnected, true), row(3, Disconnected, false)]);
    bench.pass(AUDIT_MS);
    bench.list(vec![row(2, TcpConnected, true)]);
    bench.out.clear();
    let kept = bench.fleet.forget(bench.gateway, &[id(1), id(2), id(3)], &mut bench.out);
    assert_eq!(kept, [id(1), id(2)]);
    assert_eq!(bench.out, [Output::Forgotten { gateway: bench.gateway, device_id: id(3) }]);
}

#[test]
fn one_event_dated_an_hour_ahead_does_not_move_the_skew() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true)]);
    let skew = |bench: &Bench| bench.fleet.gateway(bench.gateway).unwrap().clock_skew_ms.unwrap();
    let mut event = |ahead_ms: i64| {
        let (received_at, timestamp) = (bench.now, bench.now.plus(ahead_ms));
        let status = Disconnected;
        bench.input(Input::Status { device_id: id(7), status, timestamp, received_at });
        let skew = skew(&bench);
        bench.pass(3_600_000);
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
fn the_skew_is_estimated_from_the_best_of_late_and_whole_seconds() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true)]);
    assert_eq!(bench.fleet.gateway(bench.gateway).unwrap().clock_skew_ms, None);
    for step in 0..50 {
        let true_gateway_clock = bench.now.millis() + 3_600_000 - 40;
        let timestamp = Moment::from_millis(true_gateway_clock / 1000 * 1000);
        let received_at = bench.now;
        let status = if step % 2 == 0 { Disconnected } else { TlsConnected };
        bench.input(Input::Status { device_id: id(7), status, timestamp, received_at });
        bench.pass(137);
    }
    let skew = bench.fleet.gateway(bench.gateway).unwrap().clock_skew_ms.unwrap();
    assert!((skew - 3_600_000).abs() < 600, "{skew}");
}

#[test]
fn a_counter_that_was_read_never_runs_backwards() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true)]);
    bench.pass(20_000);
    assert_eq!(bench.measures(7).observed.observed_ms, 20_000);
    let last_sign_of_life = bench.now.plus(-15_000);
    bench.input(Input::LinkDown { last_sign_of_life });
    let seconds = bench.measures(7).observed;
    assert_eq!((seconds.connected_ms, seconds.observed_ms), (20_000, 20_000));
    bench.input(Input::LinkUp);
    bench.list(vec![row(7, TlsConnected, true)]);
    bench.pass(14_000);
    assert_eq!(bench.measures(7).observed.observed_ms, 20_000, "until the truth has caught up");
    bench.pass(2_000);
    assert_eq!(bench.measures(7).observed.observed_ms, 21_000);
}

#[test]
fn what_was_said_of_a_stranger_ends_with_its_link() {
    let mut bench = Bench::online(vec![]);
    bench.pass(5_000);
    bench.status(9, TlsConnected);
    bench.link_down();
    bench.pass(3_600_000);
    bench.input(Input::LinkUp);
    bench.out.clear();
    bench.list(vec![row(9, TlsConnected, true)]);
    assert!(bench.events().is_empty());
    assert_eq!((bench.device(9).seq, bench.device(9).since_exact), (0, false));
    assert_eq!(bench.measures(9).observed.observed_ms, 0, "nobody watched");
    assert_eq!(bench.fleet.counts(bench.gateway).unwrap().strangers, 1);
}

#[test]
fn a_link_made_in_time_has_time_for_its_list_but_not_for_ever() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true)]);
    bench.link_down();
    bench.pass(9_500);
    bench.input(Input::LinkUp);
    bench.pass(1_000);
    bench.list(vec![row(7, TlsConnected, true)]);
    assert!(bench.gateway_events().is_empty(), "it was heard");
    bench.link_down();
    for _ in 0..4 {
        bench.pass(5_000);
        bench.input(Input::LinkUp);
        bench.link_down();
    }
    assert_eq!(bench.gateway_events(), [GatewayEvent::Unreachable], "links without a list");
}

#[test]
fn a_second_look_that_comes_at_once_is_none() {
    let mut bench = Bench::online(vec![row(7, TlsConnected, true)]);
    bench.pass(AUDIT_MS);
    bench.list(vec![row(7, Disconnected, true)]);
    bench.input(Input::ListWanted);
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
    bench.input(Input::LinkUp);
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
    bench.fleet.keep(bench.now, bench.gateway, [id(1)].into(), &mut bench.out);
    bench.pass(1_000);
    assert_eq!((observed_ms(&mut bench, 1), observed_ms(&mut bench, 2)), (1_000, 6_000));
    bench.fleet.keep(bench.now, bench.gateway, [].into(), &mut bench.out);
    bench.pass(1_000);
    bench.list(vec![row(1, TcpConnected, false)]);
    bench.pass(2_000);
    assert_eq!((observed_ms(&mut bench, 1), observed_ms(&mut bench, 2)), (3_000, 9_000));
}

#[test]
fn a_device_absent_for_long_is_forgotten_unless_a_command_keeps_it() {
    let all = || vec![row(1, Status::TcpConnected, false), row(2, Status::TcpConnected, false)];
    let mut bench = Bench::online(all());
    bench.fleet.keep(bench.now, bench.gateway, [id(2)].into(), &mut bench.out);
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
    let stored = Output::Store { gateway: bench.gateway, device_id: id(1) };
    assert!(bench.out.contains(&stored), "a restart loses little of it: {:?}", bench.out);
    assert_eq!(absent_ms(&bench, 1), FORGET_MS - 1);
    assert_eq!(absent_ms(&bench, 2), 0, "it is expected");
    bench.pass(1);
    bench.out.clear();
    bench.list(vec![]);
    let forgotten = Output::Forgotten { gateway: bench.gateway, device_id: id(1) };
    assert!(bench.out.contains(&forgotten), "{:?}", bench.out);
    assert!(bench.fleet.device(bench.gateway, id(2)).is_some());
    // Back in the list its events go on where they were: an event's ID is unique for ever.
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
    bench.input(Input::LinkUp);
    bench.list(vec![]);
    bench.fleet.wall_is_ahead(56 * 365 * 86_400_000);
    bench.pass(FORGET_MS / 2 - 1);
    bench.link_down();
    bench.pass(10 * FORGET_MS);
    bench.input(Input::LinkUp);
    bench.list(vec![]);
    assert_eq!(absent_ms(&bench, 1), FORGET_MS - 1);
    bench.pass(1);
    bench.list(vec![]);
    assert_eq!(bench.fleet.device_ids(bench.gateway).count(), 0);
}
