//! Tests of what outlives the process, and of new chains.

use super::*;

/// What a process leaves of a device that is connected since long, and of one with a retry
/// reported.
fn left() -> Vec<(u32, Remembered)> {
    let mut bench = Bench::online(vec![row(1, Status::TlsConnected, true)]);
    bench.status(1, Status::Disconnected);
    bench.status(1, Status::TryToConnect);
    bench.status(1, Status::TcpCannotConnect);
    bench.status(1, Status::TlsConnected);
    bench.list(vec![row(1, Status::TlsConnected, true), row(2, Status::TcpConnected, true)]);
    bench.status(2, Status::TryToConnect);
    bench.status(2, Status::TcpCannotConnect);
    bench.status(2, Status::TryToConnect);
    let ids: Vec<_> = bench.fleet.device_ids(bench.gateway).collect();
    let remembered = |id| bench.fleet.remembered(bench.gateway, id).unwrap();
    ids.into_iter().map(|id| (id.get(), remembered(id))).collect()
}

fn restored() -> Bench {
    let mut bench = Bench::new(&[]);
    bench.pass(3_600_000);
    bench.out.clear();
    for (number, remembered) in left() {
        bench.fleet.restore(bench.now, bench.gateway, id(number), remembered);
    }
    bench
}

#[test]
fn a_restored_device_of_which_nothing_is_new_keeps_everything() {
    let mut bench = restored();
    let before = left();
    assert_eq!(bench.device(1).connected, None, "it is unknown yet");
    assert_eq!(bench.device(1).last_known.unwrap().status, Status::TlsConnected);
    bench.input(LinkEvent::LinkUp);
    // A reported retry is a repeat after a restart, too.
    bench.list(vec![row(1, Status::TlsConnected, true), row(2, Status::TcpCannotConnect, true)]);
    assert_eq!(bench.events(), []);
    let state = bench.device(1);
    assert_eq!((state.connected, state.seq, state.since_exact), (Some(true), 4, true));
    assert_eq!(state.since, Some(before[0].1.known.unwrap().since));
    assert_eq!(bench.device(2).seq, 2);
}

#[test]
fn changes_while_the_bridge_was_stopped_continue_the_chain() {
    let mut bench = restored();
    bench.input(LinkEvent::LinkUp);
    bench.list(vec![row(2, Status::TcpConnected, true)]);
    let events = bench.events();
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
    let mut bench = restored();
    bench.input(LinkEvent::LinkUp);
    bench.status(1, Status::Disconnected);
    let events = bench.events();
    assert_eq!((events[0].seq, events[0].duration_ms), (5, None));
}

#[test]
fn a_gateway_forgotten_before_a_restart_counts_as_lost_once_it_exists_again() {
    let mut bench = Bench::new(&[]);
    for (number, remembered) in left() {
        bench.fleet.restore(bench.now, bench.gateway, id(number), remembered);
    }
    bench.change(|gateway, _, out| gateway.forget_all(out));
    assert_eq!(bench.out.len(), 2, "its devices are forgotten: {:?}", bench.out);
    assert_eq!(bench.fleet.gateways().count(), 0);
    bench.pass(UNKNOWN_MS);
    let recalled_at = bench.now;
    bench.change(|gateway, now, _| gateway.recall(now));
    assert_eq!(bench.fleet.gateways().count(), 1);
    assert!(bench.fleet.gateway_is_decided(bench.gateway));
    assert_eq!(bench.fleet.observed_until(bench.gateway), Some(recalled_at));
    let state = bench.fleet.gateway(bench.gateway).unwrap();
    assert_eq!((state.state, state.since), (LinkState::Lost, recalled_at));
    bench.input(LinkEvent::LinkUp);
    bench.out.clear();
    bench.list(vec![row(1, Status::TlsConnected, true)]);
    assert!(bench.fleet.gateway_is_live(bench.gateway));
    assert_eq!(bench.device(1).seq, 4, "the device keeps its place in the chain");
    assert_eq!(bench.gateway_events(), [GatewayEvent::Reachable]);
}

#[test]
fn a_new_chain_begins_with_1_and_the_status_last_known() {
    let mut bench = Bench::online(vec![row(1, Status::TlsConnected, true)]);
    bench.status(1, Status::Disconnected);
    bench.out.clear();
    bench.status(1, Status::TlsConnected);
    bench.status(1, Status::Disconnected);
    let mut unpublished = bench.events();
    bench.fleet.new_chain(&mut unpublished);
    bench.status(1, Status::TlsConnected);
    let reported: Vec<_> = unpublished.into_iter().chain(bench.events()).collect();
    assert_eq!(reported.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(reported[0].previous, Some(Status::Disconnected));
    assert_eq!(bench.device(1).seq, 3);
    bench.fleet.new_chain([]);
    assert_eq!(bench.device(1).seq, 0);
}
