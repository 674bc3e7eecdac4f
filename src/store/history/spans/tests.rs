//! Tests of the tracker with the tables: kills, power cuts, changes of the clock.

mod any_order;

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::*;
use crate::payload::DeviceEntry;

const START: i64 = 1_795_428_000_000;
const KEEP_MS: i64 = 1_000_000;

/// A bridge that observes, and its database.
struct Fixture {
    connection: Connection,
    tracker: Tracker,
    now: i64,
}

impl Fixture {
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        let mut fixture = Self { connection, tracker: Tracker::new(), now: START };
        fixture.start(&["lobby"]);
        fixture
    }

    /// A process starts with these gateways.
    fn start(&mut self, gateways: &[&str]) {
        self.tracker = Tracker::new();
        self.attach();
        self.gateways(gateways.iter().map(|name| entry(name)).collect());
    }

    fn gateways(&mut self, entries: Vec<GatewayEntry>) {
        self.apply(Observation::Gateways { entries, at: at(self.now) });
    }

    fn attach(&mut self) {
        tables(&mut self.connection).attach(&mut self.tracker).unwrap();
        self.advance(0);
    }

    fn apply(&mut self, observation: Observation) {
        self.tracker.apply(observation);
    }

    /// Time passes, as wall clock and bridge agree, and everything is written.
    fn advance(&mut self, by_ms: i64) {
        self.now += by_ms;
        self.tracker.advance(at(self.now));
        tables(&mut self.connection).write(&self.tracker, false).unwrap();
        self.tracker.written();
    }

    fn device(&mut self, device_id: u32, state: SpanState) {
        let (until, from) = (at(self.now), at(self.now));
        self.apply(device(device_id, state, until, from));
    }

    /// The same, of a known type.
    fn typed(&mut self, device_id: u32, state: SpanState) {
        let at = at(self.now);
        let mut observation = device(device_id, state, at, at);
        if let Observation::Device { device, .. } = &mut observation {
            device.device_type = Some(DeviceType::from_code(0x12));
        }
        self.apply(observation);
    }

    fn online(&mut self) {
        let (gateway, from) = (name("lobby"), at(self.now));
        self.apply(Observation::GatewayOnline { gateway, from });
    }

    fn lost(&mut self, ago_ms: i64) {
        self.lost_because(UnobservedReason::GatewayLost, ago_ms);
    }

    fn lost_because(&mut self, reason: UnobservedReason, ago_ms: i64) {
        let (gateway, until) = (name("lobby"), at(self.now - ago_ms));
        self.apply(Observation::GatewayLost { gateway, until, reason });
    }

    fn set_clock(&mut self, by_ms: i64) {
        let before = at(self.now);
        self.now += by_ms;
        self.apply(Observation::ClockSet { before, after: at(self.now) });
    }

    fn rows(&self, sql: &str) -> Vec<(String, i64, Option<i64>)> {
        let mut query = self.connection.prepare(sql).unwrap();
        let rows = query.query_map((), |row| {
            let since = |at: i64| at - START;
            Ok((row.get(0)?, since(row.get(1)?), row.get::<_, Option<i64>>(2)?.map(since)))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn spans(&self) -> Vec<(String, i64, Option<i64>)> {
        self.rows("SELECT device_id || ' ' || state, from_at, to_at FROM spans")
    }

    fn unobserved(&self) -> Vec<(String, i64, Option<i64>)> {
        self.rows(
            "SELECT ifnull(gateway || ' ', '') || reason, from_at, to_at FROM unobserved
             ORDER BY from_at, to_at, gateway",
        )
    }

    /// What is wrong with the tables, if anything is.
    fn broken(&self) -> Option<String> {
        let proven: i64 = self
            .connection
            .query_row("SELECT proven_at FROM observation", (), |row| row.get(0))
            .unwrap();
        let devices = self.rows(
            "SELECT device_id || '', first_seen_at, NULL FROM devices WHERE gateway = 'lobby'",
        );
        for (device_id, first_seen, _) in devices {
            let own = self.rows(&format!(
                "SELECT state, from_at, to_at FROM spans WHERE device_id = {device_id}
                 ORDER BY from_at"
            ));
            let others = self.rows(
                "SELECT reason, from_at, to_at FROM unobserved
                 WHERE gateway = 'lobby' OR gateway IS NULL",
            );
            let end = |to: Option<i64>| to.unwrap_or(proven - START);
            let unknown = others.into_iter().map(|(reason, from, to)| (reason, from, end(to)));
            let all = own.into_iter().map(|(state, from, to)| (state, from, end(to)));
            let mut all: Vec<_> = all.chain(unknown).collect();
            all.sort_by_key(|(_, from, to)| (*from, *to));
            let mut reached = first_seen;
            let mut observed_to = i64::MIN;
            let mut device_to = i64::MIN;
            for (what, from, to) in all {
                if from > reached {
                    return Some(format!("{device_id}: a hole before {what} at {from}"));
                }
                if what == "absent" || what == "not_configured" {
                    if what == "absent" && from < device_to {
                        return Some(format!("{device_id}: absent at {from} overlaps"));
                    }
                } else if from < observed_to && to > from {
                    return Some(format!("{device_id}: {what} at {from} overlaps"));
                } else {
                    observed_to = observed_to.max(to);
                }
                if SpanState::try_from(what.as_str()).is_ok() {
                    device_to = to;
                }
                reached = reached.max(to);
            }
            if reached < proven - START {
                return Some(format!("{device_id}: a hole at the end, from {reached}"));
            }
        }
        None
    }
}

fn tables(connection: &mut Connection) -> SpanTables<'_> {
    SpanTables::new(connection, Duration::from_millis(KEEP_MS.unsigned_abs()))
}

fn at(millis: i64) -> Moment {
    Moment::from_millis(millis)
}

fn name(name: &str) -> GatewayName {
    name.parse().unwrap()
}

fn entry(gateway: &str) -> GatewayEntry {
    let (name, address, devices) = (name(gateway), String::new(), Arc::default());
    GatewayEntry { name, address, master: None, area: None, devices }
}

fn device(device_id: u32, state: SpanState, until: Moment, from: Moment) -> Observation {
    let device_id = DeviceId::new(device_id).unwrap();
    let device = ObservedDevice { device_id, device_type: None, state, until, from };
    Observation::Device { gateway: name("lobby"), device }
}

fn row(what: &str, from: i64, to: impl Into<Option<i64>>) -> (String, i64, Option<i64>) {
    (what.to_owned(), from, to.into())
}

#[test]
fn a_row_is_an_unbroken_time() {
    let mut fixture = Fixture::new();
    fixture.advance(100);
    fixture.device(1, SpanState::Connected);
    fixture.device(2, SpanState::Disconnected);
    fixture.online();
    fixture.advance(1_000);
    fixture.device(1, SpanState::Disconnected);
    fixture.advance(1_000);
    fixture.device(1, SpanState::Connected);
    fixture.device(2, SpanState::Absent);
    fixture.advance(1_000);
    // The gateway gave no sign of life for 600 ms before this was known.
    fixture.lost(600);
    fixture.advance(1_000);
    fixture.device(1, SpanState::Connected);
    fixture.online();
    fixture.advance(1_000);
    let expected = [
        row("1 connected", 100, 1_100),
        row("1 disconnected", 1_100, 2_100),
        row("1 connected", 2_100, 2_500),
        row("1 connected", 4_100, None),
        row("2 disconnected", 100, 2_100),
        row("2 absent", 2_100, None),
    ];
    assert_eq!(fixture.spans(), expected);
    let expected = [row("lobby bridge_stopped", 0, 100), row("lobby gateway_lost", 2_500, 4_100)];
    assert_eq!(fixture.unobserved(), expected);
    assert_eq!(fixture.broken(), None);
}

#[test]
fn a_restart_ends_open_rows_at_the_last_proven_instant() {
    let mut fixture = Fixture::new();
    fixture.device(1, SpanState::Connected);
    fixture.device(2, SpanState::Connected);
    fixture.online();
    fixture.advance(30_000);
    // Killed before this was written.
    fixture.device(1, SpanState::Disconnected);
    fixture.now += 5_000;
    fixture.start(&["lobby"]);
    fixture.advance(500);
    fixture.device(1, SpanState::Disconnected);
    // Device 2 is not there any more.
    fixture.online();
    fixture.advance(1_000);
    let expected = [
        row("1 connected", 0, 30_000),
        row("1 disconnected", 35_500, None),
        row("2 connected", 0, 30_000),
        row("2 absent", 35_500, None),
    ];
    assert_eq!(fixture.spans(), expected);
    let expected =
        [row("bridge_stopped", 30_000, 35_000), row("lobby bridge_stopped", 35_000, 35_500)];
    assert_eq!(fixture.unobserved(), expected);
    assert_eq!(fixture.broken(), None);
}

#[test]
fn a_bridge_that_did_not_run_is_the_reason_until_the_gateway_itself_is_lost() {
    let mut fixture = Fixture::new();
    fixture.device(1, SpanState::Connected);
    fixture.online();
    fixture.advance(10_000);
    fixture.now += 60_000;
    fixture.lost(60_000);
    fixture.lost_because(UnobservedReason::BridgeStopped, 60_000);
    fixture.advance(1_000);
    fixture.lost(0);
    fixture.advance(1_000);
    let expected =
        [row("lobby bridge_stopped", 10_000, 71_000), row("lobby gateway_lost", 71_000, None)];
    assert_eq!(fixture.unobserved(), expected);
    assert_eq!(fixture.spans(), [row("1 connected", 0, 10_000)]);
    assert_eq!(fixture.broken(), None);
}

#[test]
fn a_gateway_that_is_not_configured_is_absent() {
    let mut fixture = Fixture::new();
    fixture.device(1, SpanState::Connected);
    fixture.online();
    fixture.advance(10_000);
    for _ in 0..2 {
        fixture.now += 1_000;
        fixture.start(&["attic"]);
        fixture.advance(10_000);
    }
    fixture.now += 1_000;
    fixture.start(&["lobby", "attic"]);
    fixture.device(1, SpanState::Connected);
    fixture.online();
    fixture.advance(10_000);
    let expected = [
        row("1 connected", 0, 10_000),
        row("1 absent", 11_000, 33_000),
        row("1 connected", 33_000, None),
    ];
    assert_eq!(fixture.spans(), expected);
    let unobserved = fixture.unobserved();
    assert!(unobserved.contains(&row("lobby not_configured", 11_000, 33_000)), "{unobserved:?}");
    assert_eq!(fixture.broken(), None);
}

#[test]
fn a_gateway_that_is_added_later_begins_then() {
    let mut fixture = Fixture::new();
    fixture.device(1, SpanState::Connected);
    fixture.online();
    fixture.advance(10_000);
    // Nothing was written since.
    fixture.now += 20_000;
    fixture.gateways(vec![entry("lobby"), entry("annex")]);
    // The last sign of life of the other one was before that.
    fixture.lost(5_000);
    fixture.advance(5_000);
    let expected =
        [row("lobby gateway_lost", 25_000, None), row("annex bridge_stopped", 30_000, None)];
    assert_eq!(fixture.unobserved(), expected);
    let gateways = fixture.rows("SELECT gateway, first_seen_at, NULL FROM gateways");
    assert_eq!(gateways, [row("annex", 30_000, None), row("lobby", 0, None)]);
    assert_eq!(fixture.spans(), [row("1 connected", 0, 25_000)]);
    assert_eq!(fixture.broken(), None);
}

#[test]
fn a_clock_that_is_set_back_changes_nothing_of_the_past() {
    let mut fixture = Fixture::new();
    fixture.device(1, SpanState::Connected);
    fixture.online();
    fixture.advance(10_000);
    fixture.set_clock(60_000);
    fixture.advance(10_000);
    fixture.set_clock(-60_000);
    fixture.device(1, SpanState::Disconnected);
    fixture.advance(59_000);
    assert!(fixture.tracker.is_clock_implausible());
    fixture.advance(5_000);
    let expected = [
        row("1 connected", 0, 10_000),
        row("1 connected", 70_000, 80_000),
        row("1 disconnected", 84_000, None),
    ];
    assert_eq!(fixture.spans(), expected);
    let expected = [row("clock_unset", 10_000, 70_000), row("clock_unset", 80_000, 84_000)];
    assert_eq!(fixture.unobserved(), expected);
    assert_eq!(fixture.broken(), None);
}

#[test]
fn a_start_with_a_clock_of_the_past_waits_until_it_is_plausible() {
    let mut fixture = Fixture::new();
    fixture.device(1, SpanState::Connected);
    fixture.online();
    fixture.advance(10_000);
    fixture.now = 1_000;
    fixture.start(&["lobby"]);
    fixture.device(1, SpanState::Connected);
    fixture.online();
    fixture.advance(1_000);
    assert_eq!(fixture.unobserved(), [row("clock_unset", 10_000, None)]);
    fixture.set_clock(START + 40_000 - fixture.now);
    fixture.advance(1_000);
    assert_eq!(fixture.unobserved(), [row("clock_unset", 10_000, 40_000)]);
    let expected = [row("1 connected", 0, 10_000), row("1 connected", 40_000, None)];
    assert_eq!(fixture.spans(), expected);
}

#[test]
fn a_change_behind_a_broken_link_leaves_that_time_unknown() {
    let mut fixture = Fixture::new();
    fixture.device(1, SpanState::Connected);
    fixture.online();
    fixture.advance(10_000);
    let (until, from) = (at(fixture.now - 4_000), at(fixture.now - 1_000));
    fixture.apply(device(1, SpanState::Disconnected, until, from));
    fixture.advance(0);
    let expected = [
        row("1 connected", 0, 6_000),
        row("1 unknown", 6_000, 9_000),
        row("1 disconnected", 9_000, None),
    ];
    assert_eq!(fixture.spans(), expected);
}

#[test]
fn a_database_that_could_not_be_written_has_a_gap() {
    let mut fixture = Fixture::new();
    fixture.device(1, SpanState::Connected);
    fixture.online();
    fixture.advance(10_000);
    fixture.device(1, SpanState::Disconnected);
    fixture.tracker.detach(UnobservedReason::StoreFailed);
    fixture.now += 90_000;
    fixture.attach();
    fixture.advance(1_000);
    let expected = [row("1 connected", 0, 10_000), row("1 disconnected", 100_000, None)];
    assert_eq!(fixture.spans(), expected);
    assert_eq!(fixture.unobserved(), [row("store_failed", 10_000, 100_000)]);
    // Another file took its place, with nothing in it.
    fixture.connection = Connection::open_in_memory().unwrap();
    fixture.connection.execute_batch(TABLES).unwrap();
    fixture.tracker.detach(UnobservedReason::StoreFailed);
    fixture.attach();
    let names = fixture.rows("SELECT name, first_seen_at, NULL FROM devices");
    assert_eq!(names, [row("Device 1", 101_000, None)]);
    assert_eq!(fixture.spans(), [row("1 disconnected", 101_000, None)]);
    assert_eq!(fixture.broken(), None);
}

#[test]
fn an_absent_device_keeps_its_name() {
    let mut fixture = Fixture::new();
    let names = |fixture: &mut Fixture| {
        fixture.advance(0);
        let rows = fixture.rows("SELECT name, 0, NULL FROM devices");
        rows.into_iter().map(|(name, ..)| name).collect::<Vec<_>>()
    };
    fixture.typed(1, SpanState::Connected);
    fixture.online();
    fixture.typed(1, SpanState::Absent);
    assert_eq!(names(&mut fixture), ["BioLite N2 1"]);
    // The type is not known yet.
    fixture.start(&["lobby"]);
    assert_eq!(names(&mut fixture), ["BioLite N2 1"]);
    fixture.typed(1, SpanState::Absent);
    fixture.online();
    assert_eq!(names(&mut fixture), ["BioLite N2 1"]);
    // Forgotten: nothing is known of it.
    fixture.device(1, SpanState::Absent);
    assert_eq!(names(&mut fixture), ["BioLite N2 1"]);
    // The configuration gives it a name, and no longer.
    let mut named = entry("lobby");
    let device = DeviceEntry { name: Some("Gate".to_owned()), ..DeviceEntry::default() };
    named.devices = Arc::new([(DeviceId::new(1).unwrap(), device)].into());
    fixture.gateways(vec![named]);
    assert_eq!(names(&mut fixture), ["Gate"]);
    fixture.start(&["lobby"]);
    fixture.typed(1, SpanState::Absent);
    assert_eq!(names(&mut fixture), ["BioLite N2 1"]);
}

#[test]
fn old_events_are_removed() {
    let mut fixture = Fixture::new();
    fixture.device(1, SpanState::Connected);
    fixture.device(2, SpanState::Absent);
    fixture.online();
    fixture.advance(10_000);
    fixture.device(1, SpanState::Disconnected);
    fixture.advance(10_000);
    tables(&mut fixture.connection).trim(at(START + 10_001).plus(KEEP_MS)).unwrap();
    assert_eq!(fixture.spans(), [row("1 disconnected", 10_000, None)]);
    let kept = fixture.rows("SELECT 'since', spans_since, NULL FROM observation");
    assert_eq!(kept, [row("since", 10_001, None)]);
    let devices = fixture.rows("SELECT device_id || '', first_seen_at, NULL FROM devices");
    assert_eq!(devices, [row("1", 0, None)]);
    // A device that is listed again after that time is a new one.
    fixture.device(2, SpanState::Connected);
    fixture.advance(0);
    let devices = fixture.rows("SELECT device_id || '', first_seen_at, NULL FROM devices");
    assert_eq!(devices, [row("1", 0, None), row("2", 20_000, None)]);
}
