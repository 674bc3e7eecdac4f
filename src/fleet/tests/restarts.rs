//! Tests of what outlives the process, and of new chains.

use super::*;

/// What a process leaves of a device that is connected since long, and of one with a retry
/// reported.
fn left() -> Vec<(u32, Remembered)> {
    let mut test = TestFleet::online(vec![row(1, Status::TlsConnected, true)]);
    test.status(1, Status::Disconnected);
    test.status(1, Status::TryToConnect);
    test.status(1, Status::TcpCannotConnect);
    test.status(1, Status::TlsConnected);
    test.list(vec![row(1, Status::TlsConnected, true), row(2, Status::TcpConnected, true)]);
    test.status(2, Status::TryToConnect);
    test.status(2, Status::TcpCannotConnect);
    test.status(2, Status::TryToConnect);
    test.gateway().devices().all_remembered().map(|(id, device)| (id.get(), device)).collect()
}

fn restored() -> TestFleet {
    let mut test = TestFleet::new(&[]);
    test.pass(3_600_000);
    test.out.clear();
    for (number, remembered) in left() {
        test.fleet.restore(test.now, test.gateway, id(number), remembered);
    }
    test
}

#[test]
fn a_restored_device_of_which_nothing_is_new_keeps_everything() {
    let mut test = restored();
    let before = left();
    assert_eq!(test.device(1).connected, None, "it is unknown yet");
    assert_eq!(test.device(1).last_known.unwrap().status, Status::TlsConnected);
    test.input(LinkEvent::LinkUp);
    // A reported retry is a repeat after a restart, too.
    test.list(vec![row(1, Status::TlsConnected, true), row(2, Status::TcpCannotConnect, true)]);
    assert_eq!(test.events(), []);
    let state = test.device(1);
    assert_eq!((state.connected, state.seq, state.since_exact), (Some(true), 4, true));
    assert_eq!(state.since, Some(before[0].1.known.unwrap().since));
    assert_eq!(test.device(2).seq, 2);
}

#[test]
fn changes_while_the_bridge_was_stopped_continue_the_chain() {
    let mut test = restored();
    test.input(LinkEvent::LinkUp);
    test.list(vec![row(2, Status::TcpConnected, true)]);
    let events = test.events();
    let reported: Vec<_> = events
        .iter()
        .map(|it| (it.device_id.get(), it.seq, it.previous, it.status, it.source, it.duration_ms))
        .collect();
    let (on, off) = (Status::TlsConnected, Status::Disconnected);
    let retry = Some(Status::TcpCannotConnect);
    let expected = [
        (2, 3, retry, Status::TcpConnected, Source::Resync, None),
        (1, 5, Some(on), off, Source::Resync, None),
    ];
    assert_eq!(reported.len(), 2);
    assert!(expected.iter().all(|event| reported.contains(event)), "{reported:?}");
}

#[test]
fn a_change_on_the_stream_after_a_restart_has_no_duration() {
    let mut test = restored();
    test.input(LinkEvent::LinkUp);
    test.status(1, Status::Disconnected);
    let events = test.events();
    assert_eq!((events[0].seq, events[0].duration_ms), (5, None));
}

#[test]
fn a_gateway_forgotten_before_a_restart_counts_as_lost_once_it_exists_again() {
    let mut test = TestFleet::new(&[]);
    for (number, remembered) in left() {
        test.fleet.restore(test.now, test.gateway, id(number), remembered);
    }
    test.change(|gateway, _, out| gateway.forget_all(out));
    assert_eq!(test.out.len(), 2, "its devices are forgotten: {:?}", test.out);
    assert_eq!(test.fleet.gateways().count(), 0);
    test.pass(UNKNOWN_MS);
    let recalled_at = test.now;
    test.change(|gateway, now, _| gateway.recall(now));
    assert_eq!(test.fleet.gateways().count(), 1);
    assert!(test.gateway().link().is_decided());
    assert_eq!(test.gateway().link().observed_until(), Some(recalled_at));
    let state = test.gateway().state();
    assert_eq!((state.state, state.since), (LinkState::Lost, recalled_at));
    test.input(LinkEvent::LinkUp);
    test.out.clear();
    test.list(vec![row(1, Status::TlsConnected, true)]);
    assert!(test.fleet.gateway_is_live(test.gateway));
    assert_eq!(test.device(1).seq, 4, "the device keeps its place in the chain");
    assert_eq!(test.gateway_events(), [GatewayEvent::Reachable]);
}

#[test]
fn a_new_chain_begins_with_1_and_the_status_last_known() {
    let mut test = TestFleet::online(vec![row(1, Status::TlsConnected, true)]);
    test.status(1, Status::Disconnected);
    test.out.clear();
    test.status(1, Status::TlsConnected);
    test.status(1, Status::Disconnected);
    let mut unpublished = test.events();
    test.fleet.new_chain(&mut unpublished);
    test.status(1, Status::TlsConnected);
    let reported: Vec<_> = unpublished.into_iter().chain(test.events()).collect();
    assert_eq!(reported.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(reported[0].previous, Some(Status::Disconnected));
    assert_eq!(test.device(1).seq, 3);
    test.fleet.new_chain([]);
    assert_eq!(test.device(1).seq, 0);
}
