//! Tests of the database: kills, repeated batches, delivery marks, retention, damage, parallel
//! readers.

mod docs;
mod query;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::*;
use crate::config::HistoryConfig;
use crate::ids::{DeviceId, Moment};
use crate::payload::Subject;
use crate::store::Position;

const NOW: Moment = Moment::from_millis(1_795_428_000_000);
const HOUR_MS: i64 = 3_600_000;
const KEEP_ALL: HistoryConfig =
    HistoryConfig { keep: Duration::MAX, max_bytes: u64::MAX, keep_availability: Duration::MAX };
/// Ids begin above every earlier state directory's.
const FIRST_ID: u64 = 1_795_428_000_000_000;

struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(FILE_NAME)
    }

    fn open(&self, retention: HistoryConfig) -> Database {
        let database = Database::open(&self.path(), retention, NOW).unwrap();
        assert!(!self.set_aside(1).exists());
        database
    }

    /// The new name of a file that was set aside.
    fn set_aside(&self, number: u32) -> PathBuf {
        self.dir.path().join(format!("{FILE_NAME}.damaged-{number}"))
    }

    fn rows(&self, sql: &str) -> Vec<(u64, bool, bool, u64)> {
        let connection = read_only(&self.path());
        let mut statement = connection.prepare(sql).unwrap();
        let row =
            |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        statement.query_map((), row).unwrap().map(Result::unwrap).collect()
    }

    fn marks(&self) -> Vec<(u64, bool, bool, u64)> {
        self.rows("SELECT id, delivered, dropped, lost FROM events ORDER BY id")
    }
}

fn read_only(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

fn device(device_id: u32) -> Subject {
    Subject::Device("lobby".parse().unwrap(), DeviceId::new(device_id).unwrap())
}

fn event(id: u64, recorded_at: Moment, subject: Subject) -> Event {
    let payload = format!(r#"{{"event_type":"disconnected","number":{id}}}"#);
    let (event_type, payload) = ("disconnected".into(), Bytes::from(payload));
    Event { id, recorded_at, subject, event_type, payload, read_at: None }
}

fn apply(database: &mut Database, changes: &[LogChange], end: Position) -> Result<(), Error> {
    let mut batch = database.batch()?;
    batch.apply(changes)?;
    batch.commit(end, None)
}

/// Consecutive events, one a second.
fn recorded(ids: std::ops::Range<u64>) -> Vec<LogChange> {
    let at = |id: u64| NOW.plus(i64::try_from((id - FIRST_ID) * 1_000).unwrap());
    ids.map(|id| LogChange::Recorded(event(id, at(id), device(1)))).collect()
}

const fn position(segment: u32, offset: u64) -> Position {
    Position { segment, offset }
}

#[test]
fn a_batch_survives_a_kill_and_applied_again_changes_nothing() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    assert_eq!((database.position().unwrap(), database.last_id().unwrap()), (position(0, 0), 0));
    let mut batch = recorded(FIRST_ID..FIRST_ID + 3);
    batch.push(LogChange::Delivered(FIRST_ID));
    apply(&mut database, &batch, position(1, 300)).unwrap();
    // A kill leaves the files as they are, the write-ahead log among them.
    let killed = Fixture::new();
    for suffix in ["", "-wal"] {
        let name = format!("{FILE_NAME}{suffix}");
        fs::copy(fixture.dir.path().join(&name), killed.dir.path().join(&name)).unwrap();
    }
    let mut database = killed.open(KEEP_ALL);
    assert_eq!(
        (database.position().unwrap(), database.last_id().unwrap()),
        (position(1, 300), FIRST_ID + 2)
    );
    let before = (killed.marks(), database.totals().unwrap());
    apply(&mut database, &batch, position(1, 300)).unwrap();
    assert_eq!((killed.marks(), database.totals().unwrap()), before);
    let id = FIRST_ID;
    let rows = [(id, true, false, 0), (id + 1, false, false, 0), (id + 2, false, false, 0)];
    assert_eq!(before.0, rows);
    assert_eq!(before.1, Totals { events: 3, oldest_at: Some(NOW) });
}

#[test]
fn marks_reach_events_of_the_same_batch_and_of_earlier_ones() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    let id = FIRST_ID;
    for ids in [id..id + 4, id + 4..id + 8] {
        apply(&mut database, &recorded(ids), position(0, 0)).unwrap();
    }
    let mut batch = vec![LogChange::Delivered(id + 1), LogChange::Lost { id: id + 2, lost: 7 }];
    batch.extend(recorded(id + 8..id + 10));
    batch.extend([
        LogChange::Dropped(id),
        LogChange::Dropped(id + 8),
        LogChange::Lost { id: id + 9, lost: 2 },
        LogChange::Delivered(id + 9),
        // Of an event that was never recorded here.
        LogChange::Delivered(id + 99),
    ]);
    apply(&mut database, &batch, position(0, 1)).unwrap();
    let marked: Vec<_> =
        fixture.marks().into_iter().filter(|row| row.1 || row.2 || row.3 > 0).collect();
    let rows = [
        (id, false, true, 0),
        (id + 1, true, false, 0),
        (id + 2, false, false, 7),
        (id + 8, false, true, 0),
        (id + 9, true, false, 2),
    ];
    assert_eq!(marked, rows);
}

#[test]
fn events_that_are_in_no_log_do_not_wait() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    let id = FIRST_ID;
    let mut batch = recorded(id..id + 4);
    batch.extend([LogChange::Delivered(id), LogChange::Dropped(id + 1)]);
    apply(&mut database, &batch, position(1, 0)).unwrap();
    assert_eq!(database.drop_unknown(&[id + 3].into()).unwrap(), [device(1)]);
    let rows = [
        (id, true, false, 0),
        (id + 1, false, true, 0),
        (id + 2, false, true, 0),
        (id + 3, false, false, 0),
    ];
    assert_eq!(fixture.marks(), rows);
}

#[test]
fn every_kind_of_subject_has_its_columns() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    let gateway = Subject::Gateway("lobby".parse().unwrap());
    let subjects = [Subject::Bridge, gateway, device(7)];
    let events = subjects.into_iter().zip(FIRST_ID..).map(|(subject, id)| event(id, NOW, subject));
    let changes: Vec<_> = events.map(LogChange::Recorded).collect();
    apply(&mut database, &changes, position(0, 0)).unwrap();
    let connection = read_only(&fixture.path());
    let mut statement = connection.prepare("SELECT gateway, device_id FROM events").unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let rows: Vec<(Option<String>, Option<u32>)> =
        statement.query_map((), row).unwrap().map(Result::unwrap).collect();
    let lobby = || Some("lobby".to_owned());
    assert_eq!(rows, [(None, None), (lobby(), None), (lobby(), Some(7))]);
}

#[test]
fn retention_by_age_removes_one_block_at_a_time_and_never_reuses_an_id() {
    let fixture = Fixture::new();
    let keep = Duration::from_secs(3_600);
    let mut database = fixture.open(HistoryConfig { keep, ..KEEP_ALL });
    apply(&mut database, &recorded(FIRST_ID..FIRST_ID + 1_000), position(0, 0)).unwrap();
    assert!(!database.trim(Some(NOW.plus(HOUR_MS))).unwrap(), "nothing is older than an hour");
    // After 500 s more the first block of 256 is older than an hour as a whole.
    let now = NOW.plus(HOUR_MS + 500_000);
    assert!(!database.trim(None).unwrap(), "the time is not known");
    assert!(database.trim(Some(now)).unwrap());
    assert!(!database.trim(Some(now)).unwrap());
    let left = Totals { events: 744, oldest_at: Some(NOW.plus(256_000)) };
    assert_eq!(database.totals().unwrap(), left);
    while database.trim(Some(NOW.plus(3 * HOUR_MS))).unwrap() {}
    assert_eq!(database.totals().unwrap(), Totals::default());
    drop(database);
    let mut database = fixture.open(KEEP_ALL);
    assert_eq!(database.last_id().unwrap(), FIRST_ID + 999);
    apply(&mut database, &recorded(FIRST_ID..FIRST_ID + 1_001), position(0, 0)).unwrap();
    assert_eq!(database.totals().unwrap().events, 1);
}

#[test]
fn retention_by_bytes_holds_the_size_while_events_come() {
    const MAX_BYTES: u64 = 512 << 10;
    let fixture = Fixture::new();
    let mut database = fixture.open(HistoryConfig { max_bytes: MAX_BYTES, ..KEEP_ALL });
    for batch in 0..50 {
        let first = FIRST_ID + batch * 500;
        apply(&mut database, &recorded(first..first + 500), position(0, batch)).unwrap();
        while database.trim(Some(NOW)).unwrap() {}
    }
    let kept = database.totals().unwrap().events;
    drop(database);
    let size = fixture.path().metadata().unwrap().len();
    assert!(size < 2 * MAX_BYTES, "{size} bytes");
    assert!((500..25_000).contains(&kept), "{kept} events");
    assert_eq!(fixture.marks().len(), usize::try_from(kept).unwrap());
}

#[test]
fn a_limit_smaller_than_a_block_leaves_the_newest() {
    let fixture = Fixture::new();
    let mut database = fixture.open(HistoryConfig { max_bytes: 0, ..KEEP_ALL });
    apply(&mut database, &recorded(FIRST_ID..FIRST_ID + 300), position(0, 0)).unwrap();
    while database.trim(Some(NOW)).unwrap() {}
    assert_eq!(database.totals().unwrap().events, 44);
}

#[test]
fn a_damaged_or_foreign_file_is_set_aside_and_replaced() {
    let fixture = Fixture::new();
    let open = || Database::open(&fixture.path(), KEEP_ALL, NOW).unwrap();
    fs::write(fixture.path(), "no database, but long enough to look at\n".repeat(20)).unwrap();
    fs::write(fixture.dir.path().join(format!("{FILE_NAME}-wal")), "a log").unwrap();
    drop(open());
    let set_aside = fs::read_to_string(fixture.set_aside(1)).unwrap();
    assert!(set_aside.starts_with("no database"));
    fs::remove_file(fixture.path()).unwrap();
    let foreign = Connection::open(fixture.path()).unwrap();
    foreign.execute_batch("CREATE TABLE contacts (name TEXT)").unwrap();
    drop(foreign);
    drop(open());
    assert!(fixture.set_aside(2).exists());
    drop(open());
    assert!(!fixture.set_aside(3).exists(), "the new one is kept");
}

#[test]
fn damage_deep_in_the_file_is_reported_and_the_file_can_be_replaced() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    apply(&mut database, &recorded(FIRST_ID..FIRST_ID + 2_000), position(0, 1)).unwrap();
    drop(database);
    let mut bytes = fs::read(fixture.path()).unwrap();
    let pages = bytes.len() / 4_096;
    bytes[20 * 4_096..(pages - 5) * 4_096].fill(0xff);
    fs::write(fixture.path(), bytes).unwrap();
    let mut database = fixture.open(KEEP_ALL);
    let all: Vec<_> = (FIRST_ID..FIRST_ID + 2_000).map(LogChange::Delivered).collect();
    let error = apply(&mut database, &all, position(0, 2)).unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error:?}");
    drop(database);
    let mut replaced = Database::replace(&fixture.path(), KEEP_ALL, NOW).unwrap();
    assert!(fixture.set_aside(1).exists());
    assert_eq!(replaced.position().unwrap(), Position::default(), "the log is read again");
    apply(&mut replaced, &recorded(FIRST_ID..FIRST_ID + 1), position(0, 1)).unwrap();
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let fixture = Fixture::new();
    drop(fixture.open(KEEP_ALL));
    let connection = Connection::open(fixture.path()).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Database::open(&fixture.path(), KEEP_ALL, NOW).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 99, .. }), "{error}");
    assert!(error.to_string().contains(FILE_NAME), "{error}");
}

#[test]
fn only_the_owner_may_read_the_files() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    apply(&mut database, &recorded(FIRST_ID..FIRST_ID + 1), position(0, 0)).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let path = fixture.dir.path().join(format!("{FILE_NAME}{suffix}"));
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{suffix}");
    }
}

#[test]
fn the_write_ahead_log_is_small_again_after_a_long_reader() {
    const LOG_MAX: u64 = 8 << 20;
    const EVENTS: u64 = 4;
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    let log = fixture.dir.path().join(format!("{FILE_NAME}-wal"));
    let log_len = || log.metadata().unwrap().len();
    let mut next_id = FIRST_ID;
    let mut write = |database: &mut Database| {
        let large = |id| Event { payload: vec![b'x'; 1 << 20].into(), ..event(id, NOW, device(1)) };
        let events: Vec<_> =
            (next_id..next_id + EVENTS).map(|id| LogChange::Recorded(large(id))).collect();
        apply(database, &events, position(0, next_id)).unwrap();
        next_id += EVENTS;
    };
    let reader = read_only(&fixture.path());
    reader.execute_batch("BEGIN; SELECT count(*) FROM events;").unwrap();
    while log_len() < LOG_MAX + (EVENTS << 20) {
        write(&mut database);
    }
    let written = log_len();
    database.sync().unwrap();
    assert!(log_len() > written, "a commit, which syncs the log");
    reader.execute_batch("COMMIT").unwrap();
    (0..2).for_each(|_| write(&mut database));
    assert!(log_len() <= LOG_MAX, "{} bytes", log_len());
}

#[test]
fn a_failed_batch_leaves_everything_as_it_was() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    apply(&mut database, &recorded(FIRST_ID..FIRST_ID + 1), position(0, 1)).unwrap();
    let before =
        (database.position().unwrap(), database.last_id().unwrap(), database.totals().unwrap());
    let writer = Connection::open(fixture.path()).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    apply(&mut database, &recorded(FIRST_ID + 1..FIRST_ID + 2), position(0, 2)).unwrap_err();
    assert_eq!(
        (database.position().unwrap(), database.last_id().unwrap(), database.totals().unwrap()),
        before
    );
    writer.execute_batch("COMMIT").unwrap();
    apply(&mut database, &recorded(FIRST_ID + 1..FIRST_ID + 2), position(0, 2)).unwrap();
    assert_eq!(database.totals().unwrap().events, 2);
}

/// Run with `cargo test --release --lib history_cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement; meaningful in a release build"]
fn history_cost_of_an_event_at_2000_a_second() {
    const PER_BATCH: u64 = 2_000;
    const BATCHES: u64 = 100;
    let payload = format!(r#"{{"event_type":"disconnected","filler":"{}"}}"#, "x".repeat(350));
    for devices in [1_000_u32, 100_000] {
        let fixture = Fixture::new();
        let mut database = fixture.open(KEEP_ALL);
        let batch = |batch: u64| -> Vec<LogChange> {
            let at = NOW.plus(i64::try_from(batch * 1_000).unwrap());
            let first = FIRST_ID + batch * PER_BATCH;
            let ids = first..first + PER_BATCH;
            ids.flat_map(|id| {
                let subject = device(fastrand::u32(1..=devices));
                let payload = Bytes::from(payload.clone());
                let event = Event { payload, ..event(id, at, subject) };
                [LogChange::Recorded(event), LogChange::Delivered(id)]
            })
            .collect()
        };
        let batches: Vec<_> = (0..BATCHES).map(batch).collect();
        let started = cpu_time();
        for (offset, batch) in (0..).zip(&batches) {
            apply(&mut database, batch, position(0, offset)).unwrap();
        }
        let us = cpu_time().saturating_sub(started).as_secs_f64() * 1e6;
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let each = us / (PER_BATCH * BATCHES) as f64;
        println!("{devices} devices: {each:.1} us of CPU an event");
    }
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks: Vec<u64> =
        after_name.split_whitespace().skip(11).take(2).map(|tick| tick.parse().unwrap()).collect();
    Duration::from_millis((ticks[0] + ticks[1]) * 10)
}
