//! The tables of spans: reads a tracker's initial state, writes its rows, removes old ones.

use std::time::Duration;

use rusqlite::{Connection, Transaction, params};

use super::{Row, StoredSpans, Tracker};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::store::history::error::Error;

/// Comments inside a statement stay in the file: `.schema` of the sqlite3 shell prints them.
pub(crate) const TABLES: &str = "
CREATE TABLE spans ( -- unbroken times of one device
  gateway   TEXT    NOT NULL,
  device_id INTEGER NOT NULL,
  from_at   INTEGER NOT NULL, -- Unix milliseconds by the bridge's clock
  to_at     INTEGER,          -- NULL: it lasts
  state     TEXT    NOT NULL, -- connected, disconnected, absent, unknown
  PRIMARY KEY (gateway, device_id, from_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX spans_open ON spans (state) WHERE to_at IS NULL;
CREATE TABLE unobserved ( -- times in which no device was observed
  gateway TEXT,             -- NULL: of no gateway
  from_at INTEGER NOT NULL,
  to_at   INTEGER,          -- NULL: it lasts
  reason  TEXT    NOT NULL  -- bridge_stopped, gateway_lost, clock_unset, store_failed, ...
) STRICT;
CREATE INDEX unobserved_by_gateway ON unobserved (gateway, from_at);
CREATE TABLE gateways (
  gateway       TEXT    PRIMARY KEY,
  first_seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE devices (
  gateway       TEXT    NOT NULL,
  device_id     INTEGER NOT NULL,
  name          TEXT    NOT NULL,
  first_seen_at INTEGER NOT NULL,
  PRIMARY KEY (gateway, device_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE observation ( -- one row
  proven_at   INTEGER, -- up to then all of this is proven; NULL: nothing was observed yet
  spans_since INTEGER  -- spans that ended before then are not here; NULL: there are none
) STRICT;
INSERT INTO observation VALUES (NULL, NULL);
";

/// The tables of an open database.
#[derive(Debug)]
pub(crate) struct SpanTables<'a> {
    connection: &'a mut Connection,
    keep: Duration,
}

impl<'a> SpanTables<'a> {
    pub(crate) const fn new(connection: &'a mut Connection, keep: Duration) -> Self {
        Self { connection, keep }
    }

    /// Restores a tracker from the tables.
    pub(crate) fn attach(&self, tracker: &mut Tracker) -> Result<(), Error> {
        tracker.attach(read(self.connection)?);
        Ok(())
    }

    /// Writes the rows of a tracker. `durable`: they survive a power cut.
    pub(crate) fn write(&mut self, tracker: &Tracker, durable: bool) -> Result<(), Error> {
        if durable {
            self.connection.pragma_update(None, "synchronous", "FULL")?;
        }
        let transaction = self.connection.transaction()?;
        for row in tracker.rows() {
            write_row(&transaction, row)?;
        }
        if let Some(at) = tracker.proven_at() {
            transaction.execute(
                "UPDATE observation SET proven_at = ?1, spans_since = ifnull(spans_since,
                 ifnull((SELECT min(first_seen_at) FROM gateways), ?1))",
                [at.millis()],
            )?;
        }
        transaction.commit()?;
        if durable {
            self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        }
        Ok(())
    }

    /// Removes what has become too old, and devices that have been absent for as long.
    pub(crate) fn trim(&mut self, now: Moment) -> Result<(), Error> {
        let keep = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
        let before = [now.plus(keep.saturating_neg()).millis()];
        let gone = "to_at IS NULL AND state = 'absent' AND from_at < ?1";
        let transaction = self.connection.transaction()?;
        for sql in [
            &format!(
                "DELETE FROM devices WHERE (gateway, device_id) IN
                 (SELECT gateway, device_id FROM spans WHERE {gone})"
            ),
            &format!("DELETE FROM spans WHERE to_at < ?1 OR ({gone})"),
            "DELETE FROM unobserved WHERE to_at < ?1",
            "UPDATE observation SET spans_since = ?1 WHERE spans_since < ?1",
        ] {
            transaction.execute(sql, before)?;
        }
        Ok(transaction.commit()?)
    }
}

/// Reads what a tracker continues with.
fn read(connection: &Connection) -> Result<StoredSpans, Error> {
    let moment = |millis: Option<i64>| millis.map(Moment::from_millis);
    let proven_at = connection
        .query_row("SELECT proven_at FROM observation", (), |row| row.get(0).map(moment))?;
    let mut stored = StoredSpans { proven_at, ..StoredSpans::default() };
    let mut gateways = connection.prepare(
        "SELECT gateway, (SELECT max(from_at) FROM unobserved
         WHERE gateway = g.gateway AND to_at IS NULL AND reason = 'not_configured')
         FROM gateways g",
    )?;
    let mut rows = gateways.query(())?;
    while let Some(row) = rows.next()? {
        if let Ok(name) = row.get_ref(0)?.as_str().unwrap_or_default().parse::<GatewayName>() {
            stored.gateways.push((name, moment(row.get(1)?)));
        }
    }
    let mut devices = connection.prepare(
        "SELECT d.gateway, d.device_id, s.from_at FROM devices d LEFT JOIN spans s
         ON s.gateway = d.gateway AND s.device_id = d.device_id
         AND s.to_at IS NULL AND s.state = 'absent'",
    )?;
    let mut rows = devices.query(())?;
    while let Some(row) = rows.next()? {
        let name = row.get_ref(0)?.as_str().unwrap_or_default().parse::<GatewayName>();
        if let (Ok(name), Some(id)) = (name, DeviceId::new(row.get(1)?)) {
            stored.devices.push((name, id, moment(row.get(2)?)));
        }
    }
    Ok(stored)
}

fn write_row(transaction: &Transaction<'_>, row: &Row) -> Result<(), Error> {
    match row {
        Row::EndAll { at } => {
            for (table, column, lasting) in
                [("spans", "state", "absent"), ("unobserved", "reason", "not_configured")]
            {
                let open = format!("to_at IS NULL AND {column} <> '{lasting}'");
                let begun_later = format!("DELETE FROM {table} WHERE {open} AND from_at >= ?1");
                transaction.execute(&begun_later, [at.millis()])?;
                let end = format!("UPDATE {table} SET to_at = ?1 WHERE {open}");
                transaction.execute(&end, [at.millis()])?;
            }
        }
        Row::Span { gateway, device_id, from, to, .. } if *to == Some(*from) => {
            let mut delete = transaction.prepare_cached(
                "DELETE FROM spans WHERE gateway = ?1 AND device_id = ?2 AND from_at = ?3",
            )?;
            delete.execute(params![gateway.as_str(), device_id.get(), from.millis()])?;
        }
        Row::Span { gateway, device_id, state, from, to } => {
            let state: &str = state.into();
            let (gateway, to) = (gateway.as_str(), to.map(Moment::millis));
            let mut insert = transaction
                .prepare_cached("INSERT OR REPLACE INTO spans VALUES (?1, ?2, ?3, ?4, ?5)")?;
            insert.execute(params![gateway, device_id.get(), from.millis(), to, state])?;
        }
        Row::Unobserved { gateway, reason, from, to } => {
            let gateway = gateway.as_ref().map(GatewayName::as_str);
            let mut delete = transaction
                .prepare_cached("DELETE FROM unobserved WHERE gateway IS ?1 AND from_at = ?2")?;
            delete.execute(params![gateway, from.millis()])?;
            if *to != Some(*from) {
                let reason: &str = reason.into();
                let mut insert =
                    transaction.prepare_cached("INSERT INTO unobserved VALUES (?1, ?2, ?3, ?4)")?;
                let to = to.map(Moment::millis);
                insert.execute(params![gateway, from.millis(), to, reason])?;
            }
        }
        Row::Gateway { gateway, first_seen_at } => {
            let mut insert =
                transaction.prepare_cached("INSERT OR IGNORE INTO gateways VALUES (?1, ?2)")?;
            insert.execute(params![gateway.as_str(), first_seen_at.millis()])?;
        }
        Row::Device { gateway, device_id, name, is_final, first_seen_at } => {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO devices VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET name = excluded.name WHERE ?5",
            )?;
            let (gateway, first_seen_at) = (gateway.as_str(), first_seen_at.millis());
            insert.execute(params![gateway, device_id.get(), name, first_seen_at, is_final])?;
        }
    }
    Ok(())
}
