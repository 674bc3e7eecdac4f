//! A simulated year of 1,000 doors with known outages: the report equals the simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::HistoryConfig;
use crate::ids::GatewayName;
use crate::payload::GatewayEntry;
use crate::store::history::{
    Database, FILE_NAME, Observation, ObservedDevice, SpanState, Tracker, UnobservedReason,
};

const GATEWAYS: usize = 10;
const DEVICES: usize = 100;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// From a time up to another.
type Times = Vec<(i64, i64)>;

/// What really happened.
struct Truth {
    /// By gateway and device.
    down: Vec<Vec<Times>>,
    /// By gateway.
    lost: Vec<Times>,
    stopped: Times,
}

/// What the bridge sees, in the order of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Start,
    Online(usize),
    Door(usize, usize),
    Lost(usize),
    Kill,
}

fn times(rng: &mut fastrand::Rng, (from, to): (i64, i64), pause: i64, length: i64) -> Times {
    let (mut times, mut at) = (Vec::new(), from);
    loop {
        at += rng.i64(1..pause * 2);
        let end = at + rng.i64(1..length * 2);
        if end >= to {
            return times;
        }
        times.push((at, end));
        at = end;
    }
}

fn is_in(times: &Times, at: i64) -> bool {
    let index = times.partition_point(|(from, _)| *from <= at);
    index > 0 && at < times[index - 1].1
}

impl Truth {
    fn new(rng: &mut fastrand::Rng, year: (i64, i64)) -> Self {
        let mut of_gateway = || -> Vec<Times> {
            (0..DEVICES).map(|_| times(rng, year, 20 * DAY_MS, 3 * HOUR_MS)).collect()
        };
        let down = (0..GATEWAYS).map(|_| of_gateway()).collect();
        let lost = (0..GATEWAYS).map(|_| times(rng, year, 60 * DAY_MS, HOUR_MS)).collect();
        Self { down, lost, stopped: times(rng, year, 90 * DAY_MS, 10 * MINUTE_MS) }
    }

    fn steps(&self, start: i64) -> Vec<(i64, Step)> {
        let mut steps = vec![(start, Step::Start)];
        steps.extend((0..GATEWAYS).map(|gateway| (start, Step::Online(gateway))));
        for (from, to) in &self.stopped {
            steps.extend([(*from, Step::Kill), (*to, Step::Start)]);
            steps.extend((0..GATEWAYS).map(|gateway| {
                let is_lost = is_in(&self.lost[gateway], *to);
                (*to, if is_lost { Step::Lost(gateway) } else { Step::Online(gateway) })
            }));
        }
        for (gateway, lost) in self.lost.iter().enumerate() {
            for (from, to) in lost {
                steps.extend([(*from, Step::Lost(gateway)), (*to, Step::Online(gateway))]);
            }
            for (device, down) in self.down[gateway].iter().enumerate() {
                let edges = down.iter().flat_map(|(from, to)| [*from, *to]);
                steps.extend(edges.map(|at| (at, Step::Door(gateway, device))));
            }
        }
        steps.sort_unstable();
        steps
    }

    /// The figures of a door in a bucket, from what really happened.
    fn figures(&self, gateway: usize, device: usize, bucket: (i64, i64)) -> BTreeMap<&str, i64> {
        let (down, lost) = (&self.down[gateway][device], &self.lost[gateway]);
        let all = [down, lost, &self.stopped];
        let mut edges: Vec<i64> =
            all.iter().flat_map(|times| times.iter().flat_map(|(from, to)| [*from, *to])).collect();
        edges.extend([bucket.0, bucket.1]);
        edges.retain(|at| (bucket.0..=bucket.1).contains(at));
        edges.sort_unstable();
        let (mut figures, mut last, mut outage) = (BTreeMap::new(), "", 0);
        for pair in edges.windows(2).filter(|pair| pair[0] < pair[1]) {
            let (at, ms) = (pair[0], pair[1] - pair[0]);
            let state = match () {
                () if is_in(lost, at) || is_in(&self.stopped, at) => "unobserved",
                () if is_in(down, at) => "disconnected",
                () => "connected",
            };
            *figures.entry(state).or_default() += ms;
            outage = match (state, last) {
                ("disconnected", "disconnected") => outage + ms,
                ("disconnected", _) => ms,
                _ => 0,
            };
            if state == "disconnected" && last != "disconnected" {
                *figures.entry("outages").or_default() += 1;
            }
            let longest = figures.entry("longest").or_default();
            *longest = outage.max(*longest);
            last = state;
        }
        figures.retain(|_, value| *value > 0);
        figures
    }
}

fn name(gateway: usize) -> GatewayName {
    format!("gateway_{gateway}").parse().unwrap()
}

fn id(device: usize) -> DeviceId {
    DeviceId::new(u32::try_from(device).unwrap() + 1).unwrap()
}

/// The bridge. What it has observed is written each day, and at a kill.
struct Bridge {
    database: Database,
    tracker: Tracker,
    is_running: bool,
}

impl Bridge {
    fn write(&mut self, at: i64) {
        self.tracker.advance(Moment::from_millis(at));
        self.database.spans().write(&self.tracker, false).unwrap();
        self.tracker.written();
    }

    fn start(&mut self, at: i64) {
        (self.tracker, self.is_running) = (Tracker::new(), true);
        self.database.spans().attach(&mut self.tracker).unwrap();
        self.tracker.advance(Moment::from_millis(at));
        let entry = |gateway| {
            let (name, address, devices) = (name(gateway), String::new(), Arc::default());
            GatewayEntry { name, address, master: None, area: None, devices }
        };
        let (entries, at) = ((0..GATEWAYS).map(entry).collect(), Moment::from_millis(at));
        self.tracker.apply(Observation::Gateways { entries, at });
    }

    fn door(&mut self, truth: &Truth, gateway: usize, device: usize, at: i64) {
        let is_down = is_in(&truth.down[gateway][device], at);
        let state = if is_down { SpanState::Disconnected } else { SpanState::Connected };
        let (until, from) = (Moment::from_millis(at), Moment::from_millis(at));
        let (device_id, device_type) = (id(device), None);
        let device = ObservedDevice { device_id, device_type, state, until, from };
        self.tracker.apply(Observation::Device { gateway: name(gateway), device });
    }

    fn step(&mut self, truth: &Truth, at: i64, step: Step) {
        match step {
            Step::Start => self.start(at),
            _ if !self.is_running => {}
            Step::Kill => {
                self.write(at);
                self.is_running = false;
            }
            Step::Online(gateway) => {
                (0..DEVICES).for_each(|device| self.door(truth, gateway, device, at));
                let (gateway, from) = (name(gateway), Moment::from_millis(at));
                self.tracker.apply(Observation::GatewayOnline { gateway, from });
            }
            Step::Lost(gateway) => {
                let (gateway, until) = (name(gateway), Moment::from_millis(at));
                let reason = UnobservedReason::GatewayLost;
                self.tracker.apply(Observation::GatewayLost { gateway, until, reason });
            }
            Step::Door(gateway, device) => {
                if !is_in(&truth.lost[gateway], at) {
                    self.door(truth, gateway, device, at);
                }
            }
        }
    }
}

#[test]
fn the_report_of_a_simulated_year_equals_the_simulation() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let zone = zone("Europe/Berlin");
    let year = (at("2026-12-31T23:00:00Z").millis(), at("2027-12-31T23:00:00Z").millis());
    let truth = Truth::new(&mut fastrand::Rng::with_seed(seed), year);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let keep = HistoryConfig {
        keep: Duration::MAX,
        max_bytes: u64::MAX,
        keep_availability: Duration::MAX,
    };
    let database = Database::open(&path, keep, Moment::from_millis(year.0)).unwrap();
    let mut bridge = Bridge { database, tracker: Tracker::new(), is_running: false };
    let mut written = year.0;
    for (at, step) in truth.steps(year.0) {
        bridge.step(&truth, at, step);
        if bridge.is_running && at - written > DAY_MS {
            bridge.write(at);
            written = at;
        }
    }
    bridge.write(year.1);

    let query = |bucket, of_gateways| AvailabilityRequest {
        of_gateways,
        gateways: BTreeSet::new(),
        device_ids: BTreeSet::new(),
        after: None,
        period: (Moment::from_millis(year.0), Moment::from_millis(year.1)),
        zone: zone.clone(),
        bucket,
        limit: usize::MAX,
        deadline: Duration::MAX,
        now: Moment::from_millis(year.1 + DAY_MS),
    };
    for (bucket, count) in [(BucketSize::Total, 1), (BucketSize::Month, 12)] {
        let answer = answer(&path, &query(bucket, false), Moment::default()).unwrap();
        assert_eq!((answer.availability.len(), answer.next), (1_000 * count, None));
        assert!(answer.head.complete);
        for (index, row) in answer.availability.iter().enumerate() {
            let door = index / count;
            let (gateway, device) = (door / DEVICES, door % DEVICES);
            assert_eq!(
                (&*row.gateway, row.device_id),
                (name(gateway).as_str(), Some(id(device).get()))
            );
            let figures = &row.figures;
            let mut found = BTreeMap::from([
                ("connected", figures.connected_ms),
                ("disconnected", figures.disconnected_ms),
                ("unobserved", figures.unobserved_ms),
                ("outages", figures.outages.cast_signed()),
                ("longest", figures.longest_outage_ms.unwrap_or(0)),
            ]);
            found.retain(|_, value| *value > 0);
            let period = (row.start.millis(), row.end.millis());
            assert_eq!(found, truth.figures(gateway, device, period), "{row:?}");
            assert_eq!(figures.absent_ms, 0, "{row:?}");
        }
    }
    let gateways = answer(&path, &query(BucketSize::Total, true), Moment::default()).unwrap();
    for (row, lost) in gateways.availability.iter().zip(&truth.lost) {
        let edges = |(from, to): &(i64, i64)| (*from..*to).step_by(1_000);
        let is_observed = |at: &i64| !is_in(&truth.stopped, *at);
        let lost_s = lost.iter().flat_map(edges).filter(is_observed).count();
        let found_s = usize::try_from(row.figures.disconnected_ms / 1_000).unwrap();
        assert!(found_s.abs_diff(lost_s) <= 2 * (lost.len() + truth.stopped.len()), "{row:?}");
    }
}

#[test]
fn pages_contain_the_whole_answer_and_unknown_names_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let keep = HistoryConfig {
        keep: Duration::MAX,
        max_bytes: u64::MAX,
        keep_availability: Duration::MAX,
    };
    let start = at("2027-01-01T00:00:00Z");
    let database = Database::open(&path, keep, start).unwrap();
    let mut bridge = Bridge { database, tracker: Tracker::new(), is_running: false };
    let truth = Truth {
        down: vec![vec![Vec::new(); DEVICES]; GATEWAYS],
        lost: vec![Vec::new(); GATEWAYS],
        stopped: Vec::new(),
    };
    bridge.start(start.millis());
    bridge.step(&truth, start.millis(), Step::Online(3));
    bridge.write(start.millis() + HOUR_MS);
    let mut query = AvailabilityRequest {
        of_gateways: false,
        gateways: BTreeSet::new(),
        device_ids: BTreeSet::new(),
        after: None,
        period: (start, start.plus(2 * HOUR_MS)),
        zone: TimeZone::UTC,
        bucket: BucketSize::Hour,
        limit: 33,
        deadline: Duration::MAX,
        now: start.plus(90 * MINUTE_MS),
    };
    let mut rows = Vec::new();
    loop {
        let page = answer(&path, &query, Moment::default()).unwrap();
        assert!(page.availability.len() <= 33);
        rows.extend(page.availability);
        let Some(next) = page.next else { break };
        query.after = Some(next.parse().unwrap());
    }
    assert_eq!(rows.len(), 2 * DEVICES);
    let is_in_order = |pair: &[AvailabilityRow]| {
        (pair[0].device_id, pair[0].start) < (pair[1].device_id, pair[1].start)
    };
    assert!(rows.windows(2).all(is_in_order));
    for wrong in ["", "lobby", "lobby/0@1", "lobby/1@", "Lobby@1", "lobby/1"] {
        assert!(wrong.parse::<After>().is_err(), "{wrong}");
    }
    // The second hour is cut to what has passed, and nothing of it was observed.
    assert_eq!(rows[1].figures.period_ms, 30 * MINUTE_MS);
    assert_eq!(
        (rows[1].figures.unobserved_ms, rows[1].figures.availability),
        (30 * MINUTE_MS, None)
    );
    (query.after, query.device_ids) = (None, [id(500)].into());
    assert!(
        answer(&path, &query, Moment::default()).unwrap_err().to_string().contains("no device 501")
    );
    query.gateways = ["x".parse().unwrap()].into();
    let error = answer(&path, &query, Moment::default()).unwrap_err().to_string();
    assert!(error.contains("no gateway x") && error.contains("gateway_0, gateway_1"), "{error}");
}
