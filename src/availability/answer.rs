//! Answers queries for availability from the database of the history.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::buckets::{Bucket, BucketSize, buckets};
use super::figures::{Figures, Tiles};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::store::history::{self, RowKey, Selection, Snapshot, Timeline};

/// Characters of a wrong text that are quoted.
const QUOTED_MAX: usize = 60;

/// The query.
#[derive(Clone, Debug)]
pub struct AvailabilityRequest {
    /// Whether the rows are of gateways; otherwise they are of devices.
    pub of_gateways: bool,
    /// These gateways and their devices; none: all.
    pub gateways: BTreeSet<GatewayName>,
    /// These devices; none: all.
    pub device_ids: BTreeSet<DeviceId>,
    /// Rows that follow this one.
    pub after: Option<After>,
    /// The period. Time in the future is omitted.
    pub period: (Moment, Moment),
    /// The zone of days and months.
    pub zone: TimeZone,
    /// How the period is divided.
    pub bucket: BucketSize,
    /// The most rows.
    pub limit: usize,
    /// How long rows are read.
    pub deadline: Duration,
    /// The time.
    pub now: Moment,
}

/// The rows with what is true of all of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AvailabilityAnswer {
    /// What is true of all rows.
    #[serde(flatten)]
    pub head: AvailabilityHead,
    /// The rows, by gateway, device and time.
    pub availability: Vec<AvailabilityRow>,
    /// The `after` of the next page, where more rows follow.
    pub next: Option<String>,
}

/// What is true of all rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AvailabilityHead {
    /// The beginning of the period.
    pub from: Moment,
    /// Its end.
    pub to: Moment,
    /// The zone of days and months.
    pub time_zone: String,
    /// How the period is divided.
    pub bucket: BucketSize,
    /// Whether all of the period is recorded.
    pub complete: bool,
    /// Since when availability is recorded.
    pub oldest_at: Option<Moment>,
}

/// The figures of a device or gateway in a bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AvailabilityRow {
    /// The gateway.
    pub gateway: String,
    /// The device; `None`: the row is of the gateway.
    pub device_id: Option<u32>,
    /// Its name.
    pub name: String,
    /// The beginning of the bucket.
    pub start: Moment,
    /// Its end.
    pub end: Moment,
    /// The bucket's local name.
    pub label: String,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// When the device was first seen, or the gateway configured.
    pub first_seen_at: Moment,
    /// When it was removed, if it is absent at the end of the period.
    pub removed_at: Option<Moment>,
}

impl AvailabilityRow {
    /// What a page that ends with this row has as `next`: `lobby/544114231@1795428000000`.
    pub fn continuation(&self) -> String {
        let start = self.start.millis();
        match self.device_id {
            Some(id) => format!("{}/{id}@{start}", self.gateway),
            None => format!("{}@{start}", self.gateway),
        }
    }
}

/// The last row of a page: its device or gateway, and its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    place: RowKey,
    start: Moment,
}

/// A text that names no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the `next` of an answer")]
pub struct AfterError(String);

impl FromStr for After {
    type Err = AfterError;

    fn from_str(text: &str) -> Result<Self, AfterError> {
        let read = || {
            let (place, start) = text.split_once('@')?;
            let place = RowKey::parse(place)?;
            Some(Self { place, start: Moment::from_millis(start.parse().ok()?) })
        };
        read().ok_or_else(|| AfterError(text.chars().take(QUOTED_MAX).collect()))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such gateway is recorded.
    #[error("no gateway {0} is recorded; recorded are: {1}")]
    UnknownGateway(GatewayName, String),
    /// No such device is recorded.
    #[error("no device {0} is recorded; look for its ID on the device or in the status page")]
    UnknownDevice(DeviceId),
    /// The database cannot be read.
    #[error(transparent)]
    History(#[from] history::Error),
}

/// Answers from the database at this path, in which everything is recorded up to `recorded_to`, if
/// that is known to be later than its last proven instant.
///
/// # Errors
/// When it cannot be read, or has no such gateway or device.
pub fn answer(
    path: &Path,
    query: &AvailabilityRequest,
    recorded_to: Moment,
) -> Result<AvailabilityAnswer, Error> {
    let snapshot = Snapshot::open(path)?;
    check(&snapshot, query)?;
    Ok(read(snapshot, query, recorded_to)?)
}

/// The same of the gateways and devices that are recorded.
///
/// # Errors
/// When the database cannot be read.
pub fn recorded(
    path: &Path,
    query: &AvailabilityRequest,
    recorded_to: Moment,
) -> Result<AvailabilityAnswer, history::Error> {
    read(Snapshot::open(path)?, query, recorded_to)
}

fn read(
    mut snapshot: Snapshot,
    query: &AvailabilityRequest,
    recorded_to: Moment,
) -> Result<AvailabilityAnswer, history::Error> {
    snapshot.extend_to(recorded_to.min(query.now));
    let selection = Selection {
        gateways: query.gateways.clone(),
        device_ids: query.device_ids.clone(),
        first: query.after.as_ref().map(|after| after.place.clone()),
    };
    let (from, to) = query.period;
    let to = to.min(query.now).max(from);
    let oldest_at = snapshot.spans_since();
    let head = AvailabilityHead {
        from,
        to,
        time_zone: name(&query.zone),
        bucket: query.bucket,
        complete: oldest_at.is_some_and(|oldest| oldest <= from),
        oldest_at,
    };
    let buckets = buckets((from, to), &query.zone, query.bucket, query.limit.saturating_add(1));
    let proven_at = snapshot.proven_at().unwrap_or(from);
    let mut page = PageBuilder { query, head, buckets, proven_at, rows: Vec::new(), more: false };
    let started = Instant::now();
    let each = |timeline: Timeline| page.add(&timeline, started);
    if query.of_gateways {
        snapshot.gateway_timelines(&selection, (from, to), each)?;
    } else {
        snapshot.devices(&selection, (from, to), each)?;
    }
    Ok(page.finish())
}

fn name(zone: &TimeZone) -> String {
    zone.iana_name().unwrap_or("UTC").to_owned()
}

fn check(snapshot: &Snapshot, query: &AvailabilityRequest) -> Result<(), Error> {
    let known = snapshot.gateways()?;
    let is_known = |gateway: &&GatewayName| known.iter().any(|(name, _)| name == *gateway);
    if let Some(unknown) = query.gateways.iter().find(|gateway| !is_known(gateway)) {
        let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::UnknownGateway(unknown.clone(), names.join(", ")));
    }
    match snapshot.unknown_devices(&query.device_ids)?.first() {
        Some(id) => Err(Error::UnknownDevice(*id)),
        None => Ok(()),
    }
}

/// Collects rows until there are enough.
struct PageBuilder<'a> {
    query: &'a AvailabilityRequest,
    head: AvailabilityHead,
    buckets: Vec<Bucket>,
    proven_at: Moment,
    rows: Vec<AvailabilityRow>,
    more: bool,
}

impl PageBuilder<'_> {
    /// Adds the rows of a device or gateway; breaks once the page is full.
    fn add(&mut self, timeline: &Timeline, started: Instant) -> ControlFlow<()> {
        let AvailabilityHead { from, to, complete, .. } = self.head;
        let tiles = Tiles::new(timeline, (from, to), self.proven_at);
        // It was not there in this period, as far as that is known.
        if complete && tiles.is_absent() {
            return ControlFlow::Continue(());
        }
        let rest = self.rest_of(timeline);
        for bucket in rest.as_ref().unwrap_or(&self.buckets) {
            let is_full = self.rows.len() >= self.query.limit
                || (!self.rows.is_empty() && started.elapsed() > self.query.deadline);
            if is_full {
                self.more = true;
                return ControlFlow::Break(());
            }
            self.rows.push(AvailabilityRow {
                gateway: timeline.gateway.to_string(),
                device_id: timeline.device_id.map(DeviceId::get),
                name: timeline.name.clone(),
                start: bucket.start,
                end: bucket.end,
                label: bucket.label.clone(),
                figures: tiles.figures(bucket.start, bucket.end),
                first_seen_at: timeline.first_seen_at,
                removed_at: tiles.removed_at().filter(|at| *at > timeline.first_seen_at),
            });
        }
        ControlFlow::Continue(())
    }

    /// The buckets that follow the last row of the page before, if that was of this device.
    fn rest_of(&self, timeline: &Timeline) -> Option<Vec<Bucket>> {
        let after = self.query.after.as_ref().filter(|after| after.place == place(timeline))?;
        let (period, count) = ((after.start, self.head.to), self.query.limit.saturating_add(2));
        let mut rest = buckets(period, &self.query.zone, self.query.bucket, count);
        rest.drain(..rest.len().min(1));
        Some(rest)
    }

    fn finish(self) -> AvailabilityAnswer {
        let Self { head, rows: availability, more, .. } = self;
        let next = availability.last().filter(|_| more).map(AvailabilityRow::continuation);
        AvailabilityAnswer { head, availability, next }
    }
}

fn place(timeline: &Timeline) -> RowKey {
    RowKey { gateway: timeline.gateway.clone(), device_id: timeline.device_id }
}
