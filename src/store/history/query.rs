//! One query of the history: a page of events, and the gaps in its range.
//!
//! Events are read in windows of consecutive ids, so that a query with few matching events stops at
//! the deadline and the next page continues from there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Row, Transaction, params, params_from_iter};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::Error;
use super::schema::open_to_read;
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::EventTypeName;

/// The largest id of an event, so that it fits SQLite's signed integers.
pub const EVENT_ID_MAX: u64 = u64::MAX >> 1;
/// An id of an earlier state directory: ids begin far above.
const EARLIER_ID: u64 = 1;
/// Ids of a window.
const WINDOW_IDS: u64 = 16_384;
/// The most holes that a page names.
const MISSING_MAX: usize = 10;

/// Which events are requested; an empty list selects all. Each query sets its own limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Events of these gateways and of their devices.
    pub gateways: Vec<GatewayName>,
    /// Events of these devices.
    pub device_ids: BTreeSet<DeviceId>,
    /// Events of these types.
    pub event_types: Vec<EventTypeName>,
    /// Events that follow the one with this id.
    pub after_id: Option<u64>,
    /// Events that precede the one with this id.
    pub before_id: Option<u64>,
    /// Events recorded at or after this time.
    pub from: Option<Moment>,
    /// Events recorded before this time.
    pub to: Option<Moment>,
    /// Which of them come first.
    pub order: Order,
    /// The most events of a page.
    pub limit: usize,
    /// The most bytes of a page's events; one event is returned even if it is larger.
    pub max_bytes: usize,
    /// How long the query may go on to read windows.
    pub deadline: Duration,
}

/// The order of a page's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By growing ids.
    #[default]
    OldestFirst,
    /// By falling ids.
    NewestFirst,
}

/// A part of the requested events.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page {
    /// Events as published, each with `id` and `delivered`.
    pub events: Vec<Box<RawValue>>,
    /// The `after_id` of the next page, or its `before_id` where the newest come first.
    pub next: u64,
    /// Whether the next page may have more requested events now.
    pub more: bool,
    /// What is missing from the range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<EventGap>,
}

/// What is missing from a page's range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventGap {
    /// When the oldest event that is kept was recorded; given where earlier events of the range
    /// were removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_at: Option<Moment>,
    /// Times whose events could not be written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}

/// A time whose events could not be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its beginning.
    pub from: Moment,
    /// Its end.
    pub to: Moment,
}

/// The first and the last id of a range.
type EventIdRange = (u64, u64);

/// What retention has removed, and the newest event.
struct RetentionState {
    last_id: u64,
    removed_through: u64,
    removed_until: Option<i64>,
}

/// Reads one page in one snapshot of the database. No event of this state directory has had
/// `next_id` or a higher id.
pub(crate) fn page(path: &Path, filter: &EventFilter, next_id: u64) -> Result<Page, Error> {
    let mut connection = open_to_read(path)?;
    let snapshot = connection.transaction()?;
    let retention = RetentionState::read(&snapshot)?;
    // An id above the newest may still be one of ours: a database that was lost is filled again.
    let is_foreign = |id: u64| id >= next_id && id > retention.last_id;
    let known = |id| if is_foreign(id) { EARLIER_ID } else { id };
    let filter = &EventFilter { after_id: filter.after_id.map(known), ..filter.clone() };
    let next = match filter.order {
        Order::OldestFirst => filter.after_id.unwrap_or(0),
        Order::NewestFirst => filter.before_id.unwrap_or(retention.last_id.saturating_add(1)),
    };
    let mut page = Page { events: Vec::new(), next, more: false, gap: None };
    if let Some(range) = id_range(&snapshot, filter)? {
        page.fill(&snapshot, filter, range)?;
    }
    let is_open = filter.to.is_none() && filter.before_id.is_none();
    if !page.more && is_open && filter.order == Order::OldestFirst {
        // All events are read, so the next page need not look at them again.
        page.next = page.next.max(retention.last_id);
    }
    page.gap = gap(&snapshot, filter, &retention, &page)?;
    Ok(page)
}

/// The ID of the newest event that was ever recorded.
pub(crate) fn newest_id(path: &Path) -> Result<u64, Error> {
    let connection = open_to_read(path)?;
    Ok(connection.query_row("SELECT last_id FROM progress", (), |row| row.get(0))?)
}

/// The ids, both included, that enclose all events of the filter's ids and time.
fn id_range(
    snapshot: &Transaction<'_>,
    filter: &EventFilter,
) -> Result<Option<EventIdRange>, Error> {
    let after_id = filter.after_id.unwrap_or(0);
    let from = filter.from.map_or(i64::MIN, Moment::millis);
    let to = filter.to.map_or(i64::MAX, Moment::millis);
    let (first, last): (Option<u64>, Option<u64>) = snapshot.query_row(
        "SELECT min(first_id), max(last_id) FROM blocks
         WHERE last_id > ?1 AND newest_at >= ?2 AND oldest_at < ?3",
        params![after_id, from, to],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let before_id = filter.before_id.unwrap_or(u64::MAX);
    let last = last.map(|last| last.min(before_id.saturating_sub(1)));
    Ok(first.map(|first| first.max(after_id.saturating_add(1))).zip(last))
}

/// The first event of a range, or its last where the newest come first: ids are not without gaps.
fn first_in(
    snapshot: &Transaction<'_>,
    order: Order,
    range: EventIdRange,
) -> Result<Option<u64>, Error> {
    let sql = match order {
        Order::OldestFirst => "SELECT min(id) FROM events WHERE id BETWEEN ?1 AND ?2",
        Order::NewestFirst => "SELECT max(id) FROM events WHERE id BETWEEN ?1 AND ?2",
    };
    Ok(snapshot.prepare_cached(sql)?.query_row(<[u64; 2]>::from(range), |row| row.get(0))?)
}

impl RetentionState {
    fn read(snapshot: &Transaction<'_>) -> Result<Self, Error> {
        let state = snapshot.query_row(
            "SELECT last_id, removed_through, removed_until FROM progress",
            (),
            |row| {
                let (last_id, removed_through) = (row.get(0)?, row.get(1)?);
                Ok(Self { last_id, removed_through, removed_until: row.get(2)? })
            },
        )?;
        Ok(state)
    }

    /// Whether the range begins before the oldest event that is kept.
    fn is_exceeded_by(&self, filter: &EventFilter) -> bool {
        // An id below the first one comes from an earlier state directory.
        let earlier = filter.after_id.is_some_and(|id| id > 0);
        let by_id = filter.after_id.is_none_or(|id| id < self.removed_through);
        let by_time =
            filter.from.is_none_or(|from| self.removed_until.is_some_and(|at| from.millis() < at));
        by_id && by_time && (earlier || self.removed_until.is_some())
    }
}

impl Page {
    fn fill(
        &mut self,
        snapshot: &Transaction<'_>,
        filter: &EventFilter,
        mut range: EventIdRange,
    ) -> Result<(), Error> {
        let (started, mut bytes) = (Instant::now(), 0);
        let (sql, values) = select(filter);
        let mut statement = snapshot.prepare(&sql)?;
        while let Some(at) = first_in(snapshot, filter.order, range)? {
            let window = match filter.order {
                Order::OldestFirst => (at, range.1.min(at.saturating_add(WINDOW_IDS - 1))),
                Order::NewestFirst => (range.0.max(at.saturating_sub(WINDOW_IDS - 1)), at),
            };
            let ids = [window.0, window.1].map(|id| Value::Integer(id.cast_signed()));
            let mut rows = statement.query(params_from_iter(ids.iter().chain(&values)))?;
            while let Some(row) = rows.next()? {
                let (id, event) = event_json(row)?;
                bytes += event.get().len() + 1;
                let is_full = self.events.len() >= filter.limit || bytes > filter.max_bytes;
                if is_full && !self.events.is_empty() {
                    self.more = true;
                    return Ok(());
                }
                self.events.push(event);
                self.next = id;
            }
            let (read_to, rest) = match filter.order {
                Order::OldestFirst => (window.1, (window.1.saturating_add(1), range.1)),
                Order::NewestFirst => (window.0, (range.0, window.0.saturating_sub(1))),
            };
            if rest.0 <= rest.1 && started.elapsed() > filter.deadline {
                (self.more, self.next) = (true, read_to);
                return Ok(());
            }
            range = rest;
        }
        Ok(())
    }
}

/// The statement, whose first two parameters are the window, and the values of the others.
fn select(filter: &EventFilter) -> (String, Vec<Value>) {
    let mut sql = "SELECT id, delivered, dropped, lost, event FROM events WHERE id BETWEEN ? AND ?"
        .to_owned();
    let mut values = Vec::new();
    // The index leads to one device; for more of them reading by id is faster than sorting.
    let is_indexed = filter.gateways.len() == 1 && filter.device_ids.len() == 1;
    let prefix = if is_indexed { "" } else { "+" };
    let gateways = filter.gateways.iter().map(|name| Value::Text(name.as_str().to_owned()));
    let device_ids = filter.device_ids.iter().map(|id| Value::Integer(id.get().into()));
    let event_types = filter.event_types.iter().map(|name| Value::Text(name.as_str().to_owned()));
    let lists: [(&str, Vec<Value>); 3] = [
        ("gateway", gateways.collect()),
        ("device_id", device_ids.collect()),
        ("event_type", event_types.collect()),
    ];
    for (column, list) in lists {
        match list.len() {
            0 => {}
            1 => sql += &format!(" AND {prefix}{column} = ?"),
            count => {
                sql += &format!(" AND {prefix}{column} IN (?{})", ", ?".repeat(count - 1));
            }
        }
        values.extend(list);
    }
    for (condition, at) in [("recorded_at >= ?", filter.from), ("recorded_at < ?", filter.to)] {
        if let Some(at) = at {
            sql += &format!(" AND {condition}");
            values.push(Value::Integer(at.millis()));
        }
    }
    sql += match filter.order {
        Order::OldestFirst => " ORDER BY id",
        Order::NewestFirst => " ORDER BY id DESC",
    };
    (sql, values)
}

/// The event as published, with what is known of its delivery.
fn event_json(row: &Row<'_>) -> Result<(u64, Box<RawValue>), Error> {
    let (id, delivered): (u64, bool) = (row.get(0)?, row.get(1)?);
    let (dropped, lost): (bool, u64) = (row.get(2)?, row.get(3)?);
    let published = row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?;
    let mut json = published.strip_suffix('}').unwrap_or(published).to_owned();
    if lost > 0 {
        json += &format!(r#","lost":{lost}"#);
    }
    json += &format!(r#","id":{id},"delivered":{delivered}"#);
    if dropped {
        json += r#","dropped":true"#;
    }
    json.push('}');
    Ok((id, RawValue::from_string(json).map_err(|source| Error::Event { id, source })?))
}

/// What is missing from the range of a page.
fn gap(
    snapshot: &Transaction<'_>,
    filter: &EventFilter,
    retention: &RetentionState,
    page: &Page,
) -> Result<Option<EventGap>, Error> {
    // The newest come first: older pages follow, and `more` is false in the last one.
    let is_last = filter.order == Order::OldestFirst || !page.more;
    let oldest_at = if is_last && retention.is_exceeded_by(filter) {
        let oldest: Option<i64> = snapshot.query_row(
            "SELECT min(recorded_at) FROM (SELECT recorded_at FROM events ORDER BY id LIMIT 1)",
            (),
            |row| row.get(0),
        )?;
        oldest.or(retention.removed_until).map(Moment::from_millis)
    } else {
        None
    };
    let (mut after, mut before) =
        (filter.after_id.unwrap_or(0), filter.before_id.unwrap_or(EVENT_ID_MAX));
    match filter.order {
        Order::OldestFirst if page.more => before = page.next,
        Order::NewestFirst if page.more => after = page.next,
        _ => {}
    }
    let mut holes = snapshot.prepare(
        "SELECT from_at, to_at FROM gaps WHERE after_id >= ?1 AND after_id < ?2
         AND to_at >= ?3 AND from_at < ?4 ORDER BY after_id LIMIT ?5",
    )?;
    let range = params![
        after,
        before,
        filter.from.map_or(i64::MIN, Moment::millis),
        filter.to.map_or(i64::MAX, Moment::millis),
        MISSING_MAX,
    ];
    let time = |row: &Row<'_>, column: usize| row.get(column).map(Moment::from_millis);
    let hole = |row: &Row<'_>| Ok(Missing { from: time(row, 0)?, to: time(row, 1)? });
    let missing = holes.query_map(range, hole)?.collect::<Result<Vec<_>, _>>()?;
    let is_whole = oldest_at.is_none() && missing.is_empty();
    Ok((!is_whole).then_some(EventGap { oldest_at, missing }))
}
