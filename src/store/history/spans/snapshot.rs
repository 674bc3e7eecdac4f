//! Reads the recorded times of devices and gateways, in one snapshot of the database.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::{Connection, Row, params};

use super::{SpanState, UnobservedReason};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::store::history::error::Error;
use crate::store::history::schema::open_to_read;

/// How long after the last proven instant rows may be extended: the bridge writes it every 30 s.
const RECENT_MS: i64 = 45_000;

/// The database at one instant.
#[derive(Debug)]
pub struct Snapshot {
    connection: Connection,
    proven_at: Option<Moment>,
    spans_since: Option<Moment>,
}

/// Which devices or gateways are read, in the order of their names and IDs. An empty set selects
/// all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// These gateways and their devices.
    pub gateways: BTreeSet<GatewayName>,
    /// These devices.
    pub device_ids: BTreeSet<DeviceId>,
    /// This one and those that follow.
    pub first: Option<RowKey>,
}

/// A place in the order of gateways and devices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// The gateway.
    pub gateway: GatewayName,
    /// The device; `None`: the gateway.
    pub device_id: Option<DeviceId>,
}

impl RowKey {
    /// Parses `lobby` or `lobby/544114231`.
    pub fn parse(text: &str) -> Option<Self> {
        let (gateway, device_id) = match text.split_once('/') {
            Some((gateway, id)) => (gateway, Some(id.parse().ok()?)),
            None => (text, None),
        };
        Some(Self { gateway: gateway.parse().ok()?, device_id })
    }
}

/// What was recorded of a device or of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// The gateway.
    pub gateway: GatewayName,
    /// The device; `None`: it is of the gateway.
    pub device_id: Option<DeviceId>,
    /// The device's or the gateway's name.
    pub name: String,
    /// It was absent before.
    pub first_seen_at: Moment,
    /// In the order of their beginnings.
    pub spans: Vec<Span>,
    /// What it was in between.
    pub otherwise: SpanState,
}

/// A time with one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from: Moment,
    /// Its end; `None`: it lasts.
    pub to: Option<Moment>,
    /// The state.
    pub state: SpanState,
}

impl Snapshot {
    /// Opens the database for reading.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let connection = open_to_read(path)?;
        connection.execute_batch("BEGIN")?;
        let (proven_at, spans_since) =
            connection.query_row("SELECT proven_at, spans_since FROM observation", (), |row| {
                Ok((moment(row, 0)?, moment(row, 1)?))
            })?;
        Ok(Self { connection, proven_at, spans_since })
    }

    /// Up to when rows without an end last.
    pub const fn proven_at(&self) -> Option<Moment> {
        self.proven_at
    }

    /// The bridge has recorded everything up to then. That may be a while after the rows were
    /// proven, but no longer than it takes to write that.
    pub fn extend_to(&mut self, recorded_to: Moment) {
        let is_recent = |at: Moment| recorded_to.since(at) <= RECENT_MS;
        self.proven_at =
            self.proven_at.map(|at| if is_recent(at) { at.max(recorded_to) } else { at });
    }

    /// Since when spans are recorded; `None`: there are none.
    pub const fn spans_since(&self) -> Option<Moment> {
        self.spans_since
    }

    /// The names of the gateways.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn gateways(&self) -> Result<Vec<(GatewayName, Moment)>, Error> {
        let mut query = self
            .connection
            .prepare("SELECT gateway, first_seen_at FROM gateways ORDER BY gateway")?;
        let mut rows = query.query(())?;
        let mut gateways = Vec::new();
        while let Some(row) = rows.next()? {
            if let (Some(gateway), Some(first_seen_at)) = (gateway(row)?, moment(row, 1)?) {
                gateways.push((gateway, first_seen_at));
            }
        }
        Ok(gateways)
    }

    /// Those of these devices that are not recorded.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn unknown_devices(&self, ids: &BTreeSet<DeviceId>) -> Result<Vec<DeviceId>, Error> {
        let mut query = self
            .connection
            .prepare("SELECT EXISTS (SELECT 1 FROM devices WHERE device_id = ?1)")?;
        let mut unknown = Vec::new();
        for &id in ids {
            if !query.query_row([id.get()], |row| row.get::<_, bool>(0))? {
                unknown.push(id);
            }
        }
        Ok(unknown)
    }

    /// Reads what was recorded of the selected devices between these times, and hands over each
    /// until `each` breaks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn devices(
        &self,
        selection: &Selection,
        (from, to): (Moment, Moment),
        mut each: impl FnMut(Timeline) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (name, id) = match &selection.first {
            Some(RowKey { gateway, device_id }) => {
                (gateway.as_str(), device_id.map_or(0, DeviceId::get))
            }
            None => ("", 0),
        };
        let mut devices = self.connection.prepare(
            "SELECT gateway, device_id, name, first_seen_at FROM devices
             WHERE (gateway, device_id) >= (?1, ?2) ORDER BY gateway, device_id",
        )?;
        let mut spans = self.connection.prepare(
            "SELECT from_at, to_at, state FROM spans WHERE gateway = ?1 AND device_id = ?2
             AND from_at < ?3 AND (to_at IS NULL OR to_at > ?4) ORDER BY from_at",
        )?;
        let mut rows = devices.query(params![name, id])?;
        while let Some(row) = rows.next()? {
            let (Some(gateway), Some(device_id)) = (gateway(row)?, DeviceId::new(row.get(1)?))
            else {
                continue;
            };
            if !selection.takes(&gateway, Some(device_id)) {
                continue;
            }
            let range = params![gateway.as_str(), device_id.get(), to.millis(), from.millis()];
            let spans = spans.query_map(range, |row| span(row, device_state))?;
            let timeline = Timeline {
                name: row.get(2)?,
                first_seen_at: moment(row, 3)?.unwrap_or(from),
                spans: spans.collect::<Result<_, _>>()?,
                gateway,
                device_id: Some(device_id),
                otherwise: SpanState::Unknown,
            };
            if each(timeline).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The same for the selected gateways: connected while their devices were observed, as far as
    /// the rows of time not observed are kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn gateway_timelines(
        &self,
        selection: &Selection,
        (from, to): (Moment, Moment),
        mut each: impl FnMut(Timeline) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        // A gateway that is not configured is so while the bridge does not run, too.
        let mut query = self.connection.prepare(
            "SELECT from_at, to_at, reason FROM unobserved
             WHERE (gateway IS NULL OR gateway = ?1)
             AND from_at < ?2 AND (to_at IS NULL OR to_at > ?3)
             ORDER BY from_at, reason <> 'not_configured'",
        )?;
        for (gateway, first_seen_at) in self.gateways()? {
            if !selection.takes(&gateway, None) {
                continue;
            }
            let range = params![gateway.as_str(), to.millis(), from.millis()];
            let spans = query.query_map(range, |row| span(row, gateway_state))?;
            let mut spans = spans.collect::<Result<Vec<_>, _>>()?;
            let (proven, state) = (self.proven_at.unwrap_or(first_seen_at), SpanState::Unknown);
            // Rows that ended before `spans_since` are removed, so nothing says that it was
            // connected then. Absence that lasts longer is still known.
            let mut absent = spans.iter().filter(|span| span.state == SpanState::Absent);
            let absent_from = absent.next().map(|span| span.from);
            let known_from = self.spans_since.into_iter().chain(absent_from).min();
            spans.insert(0, Span { from: first_seen_at, to: known_from, state });
            spans.push(Span { from: proven, to: Some(Moment::from_millis(i64::MAX)), state });
            let timeline = Timeline {
                name: gateway.to_string(),
                gateway,
                device_id: None,
                first_seen_at,
                spans,
                otherwise: SpanState::Connected,
            };
            if each(timeline).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Selection {
    fn takes(&self, gateway: &GatewayName, device_id: Option<DeviceId>) -> bool {
        let follows = self
            .first
            .as_ref()
            .is_none_or(|first| (gateway, device_id) >= (&first.gateway, first.device_id));
        follows
            && (self.gateways.is_empty() || self.gateways.contains(gateway))
            && (self.device_ids.is_empty()
                || device_id.is_none_or(|id| self.device_ids.contains(&id)))
    }
}

fn gateway(row: &Row<'_>) -> rusqlite::Result<Option<GatewayName>> {
    Ok(row.get_ref(0)?.as_str()?.parse().ok())
}

fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Moment>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Moment::from_millis))
}

fn span(row: &Row<'_>, state: fn(&str) -> SpanState) -> rusqlite::Result<Span> {
    let from = moment(row, 0)?.unwrap_or_default();
    Ok(Span { from, to: moment(row, 1)?, state: state(row.get_ref(2)?.as_str()?) })
}

/// A state of a later version is ignored.
fn device_state(name: &str) -> SpanState {
    name.parse().unwrap_or(SpanState::Unknown)
}

fn gateway_state(reason: &str) -> SpanState {
    match reason.parse() {
        Ok(UnobservedReason::GatewayLost) => SpanState::Disconnected,
        Ok(UnobservedReason::NotConfigured) => SpanState::Absent,
        Ok(
            UnobservedReason::BridgeStopped
            | UnobservedReason::ClockUnset
            | UnobservedReason::StoreFailed,
        )
        | Err(_) => SpanState::Unknown,
    }
}
