//! Tests of copying from a log into a database.

use std::borrow::Cow;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rusqlite::Connection;

use super::*;
use crate::payload::Subject;
use crate::store::log::{Log, LogBatch, Record, segment_path};
use crate::store::{Event, history};

/// `make nightly` sets a million.
const EVENTS: u64 = 80_000;
/// Recorded in one go, as in a burst.
const EVENTS_A_SECOND: u64 = 20_000;
const EVENTS_A_BATCH: u64 = 20;
const HISTORY_MAX: u64 = 4 << 20;
const LONG: Duration = Duration::from_secs(365 * 86_400);
const KEEP: HistoryConfig =
    HistoryConfig { keep: LONG, max_bytes: HISTORY_MAX, keep_availability: LONG };
/// With the newest part of the log, of which nothing is removed before it is recorded.
const FILE_MAX: u64 = 4 * HISTORY_MAX;
/// The segment in use, and two more.
const LOG_MAX: u64 = 12 << 20;

const NOW: Moment = Moment::from_millis(1_790_000_000_000);

/// A log and a writer in this folder: the log's folder, the database, and both.
fn started(dir: &Path) -> (PathBuf, PathBuf, Log, HistoryWriter) {
    let (log_dir, database) = (dir.join("log"), dir.join(history::FILE_NAME));
    fs::create_dir(&log_dir).unwrap();
    let log = Log::create(&log_dir, false, "k7f3", 1, 0, std::iter::empty()).unwrap();
    let reader = Reader::new(database.clone());
    let writer = HistoryWriter::new(log_dir.clone(), reader, KEEP, false);
    (log_dir, database, log, writer)
}

fn write_delivered(log: &mut Log, first: u64, recorded_at: Moment) {
    let mut batch = LogBatch::default();
    for id in first..first + EVENTS_A_BATCH {
        let event = Event {
            id,
            recorded_at,
            subject: Subject::Bridge,
            event_type: "connected".into(),
            payload: Bytes::from_static(&[b'x'; 300]),
            read_at: None,
        };
        batch.add(&Record::Event(Cow::Owned(event)));
    }
    log.write(&mut batch, true).unwrap();
    (first..first + EVENTS_A_BATCH).for_each(|id| batch.add(&Record::Done { id, delivered: true }));
    log.write(&mut batch, false).unwrap();
}

/// Aim: a long query or a backup is no failure, and the log is cleaned beside it.
#[test]
fn a_reader_of_an_old_state_does_not_stop_the_history() {
    let (dir, now) = (tempfile::tempdir().unwrap(), NOW);
    let (log_dir, database) = (dir.path().join("log"), dir.path().join(history::FILE_NAME));
    fs::create_dir(&log_dir).unwrap();
    let mut log = Log::create(&log_dir, false, "k7f3", 1, 0, std::iter::empty()).unwrap();
    let mut status = HistoryStatus::default();
    HistoryWriter::new(log_dir.clone(), Reader::new(database.clone()), KEEP, false)
        .try_open(now, &mut status);
    let reader = Connection::open(&database).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    write_delivered(&mut log, 1, now);
    let mut writer = HistoryWriter::new(log_dir, Reader::new(database), KEEP, false);
    writer.try_record(LogEnd::Segment(log.current()), now, &mut status);
    assert_eq!((&status.fault, status.last_id), (&None, EVENTS_A_BATCH));
    assert_eq!(status.keep_from_segment, log.current());
}

/// Aim: no event is missing from the history outside its gaps. Method: events are written that the
/// history does not read before the log fails.
#[test]
fn a_gap_begins_where_the_history_was_complete() {
    let dir = tempfile::tempdir().unwrap();
    let (log_dir, database, mut log, mut writer) = started(dir.path());
    let mut status = HistoryStatus::default();
    write_delivered(&mut log, 1, NOW);
    writer.try_record(LogEnd::Segment(log.current()), NOW.plus(100), &mut status);
    write_delivered(&mut log, 1 + EVENTS_A_BATCH, NOW.plus(500));
    log.give_up();
    writer.try_record(LogEnd::Failed, NOW.plus(2_000), &mut status);
    assert_eq!(gaps(&database), [(NOW.plus(100), NOW.plus(2_000))]);
    let after = status.position.segment;
    let log = Log::create(&log_dir, false, "m2x9", 100, after, std::iter::empty()).unwrap();
    let now = NOW.plus(60_000);
    writer.log_replaced(ReplacedLog { end: LogEnd::Failed, waiting: BTreeSet::new() });
    writer.try_record(LogEnd::Segment(log.current()), now, &mut status);
    assert_eq!((&status.fault, status.last_id), (&None, EVENTS_A_BATCH));
    assert_eq!(gaps(&database), [(NOW.plus(100), now)]);
}

/// Aim: damaged bytes in front of a whole segment hide no event. Method: they are found later than
/// the last proof that everything is recorded.
#[test]
fn damaged_bytes_at_the_end_of_a_segment_are_a_gap_since_the_newest_event() {
    let dir = tempfile::tempdir().unwrap();
    let (log_dir, database, mut log, mut writer) = started(dir.path());
    let mut status = HistoryStatus::default();
    write_delivered(&mut log, 1, NOW);
    writer.observe(&mut Backlog::default(), NOW.plus(500));
    writer.try_record(LogEnd::Segment(1), NOW.plus(500), &mut status);
    let mut segment = fs::File::options().append(true).open(segment_path(&log_dir, 1)).unwrap();
    segment.write_all(&[7; 100]).unwrap();
    let next = dir.path().join("next");
    let mut log = Log::create(&next, false, "k7f3", 100, 1, std::iter::empty()).unwrap();
    write_delivered(&mut log, 100, NOW.plus(1_000));
    fs::copy(segment_path(&next, 2), segment_path(&log_dir, 2)).unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON gaps BEGIN SELECT raise(ABORT, 'full'); END";
    Connection::open(&database).unwrap().execute_batch(full).unwrap();
    writer.try_record(LogEnd::Segment(2), NOW.plus(1_500), &mut status);
    assert!(status.fault.is_some(), "a gap that cannot be written is written later");
    Connection::open(&database).unwrap().execute_batch("DROP TRIGGER full").unwrap();
    writer.try_record(LogEnd::Segment(2), NOW.plus(2_000), &mut status);
    assert_eq!((&status.fault, status.last_id), (&None, 99 + EVENTS_A_BATCH));
    assert_eq!(status.totals.events, 2 * EVENTS_A_BATCH);
    assert_eq!(gaps(&database), [(NOW, NOW.plus(2_000))]);
}

/// From when to when events are missing.
fn gaps(database: &Path) -> Vec<(Moment, Moment)> {
    let connection = Connection::open(database).unwrap();
    let mut query = connection.prepare("SELECT from_at, to_at FROM gaps").unwrap();
    let at = |row: &rusqlite::Row<'_>, column| row.get(column).map(Moment::from_millis);
    let rows = query.query_map((), |row| Ok((at(row, 0)?, at(row, 1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Aim: a database that is lost with its directory is replaced as lost when the directory is back.
#[test]
fn a_database_lost_with_its_directory_says_that_the_past_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().join("state");
    let (log_dir, database) = (state_dir.join("log"), state_dir.join(history::FILE_NAME));
    fs::create_dir_all(&log_dir).unwrap();
    let mut writer =
        HistoryWriter::new(log_dir.clone(), Reader::new(database.clone()), KEEP, false);
    let mut status = HistoryStatus::default();
    writer.try_record(LogEnd::Unknown, NOW, &mut status);
    fs::remove_dir_all(&state_dir).unwrap();
    writer.try_record(LogEnd::Unknown, NOW, &mut status);
    assert!(status.fault.is_some());
    fs::create_dir_all(&log_dir).unwrap();
    writer.try_record(LogEnd::Unknown, NOW.plus(1), &mut status);
    assert_eq!(status.fault, None);
    let connection = Connection::open(&database).unwrap();
    let query = "SELECT removed_until FROM progress";
    let until: Option<i64> = connection.query_row(query, (), |row| row.get(0)).unwrap();
    assert_eq!(until.map(Moment::from_millis), Some(NOW.plus(1)));
}

/// Aim: no query fails, or ends the process, while the database is replaced. Method: an intact one
/// is set aside many times, and read all the time.
#[tokio::test(flavor = "multi_thread")]
async fn queries_do_not_notice_that_the_database_is_replaced() {
    const REPLACED_TIMES: usize = 25;
    let dir = tempfile::tempdir().unwrap();
    let (_, _, mut log, mut writer) = started(dir.path());
    let mut status = HistoryStatus::default();
    write_delivered(&mut log, 1, NOW);
    writer.try_record(LogEnd::Segment(log.current()), NOW, &mut status);
    let done = Arc::new(AtomicBool::new(false));
    let queries = [(); 4].map(|()| {
        let (reader, done) = (writer.reader.with_own_limit(), Arc::clone(&done));
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                reader.newest_id().await.unwrap();
            }
        })
    });
    for _ in 0..REPLACED_TIMES {
        writer.replace(NOW).unwrap();
        writer.try_record(LogEnd::Segment(log.current()), NOW, &mut status);
        assert_eq!((&status.fault, status.last_id), (&None, EVENTS_A_BATCH));
    }
    done.store(true, Ordering::Relaxed);
    for query in queries {
        query.await.unwrap();
    }
}

#[test]
fn any_number_of_events_leaves_a_small_log_and_a_history_within_its_limit() {
    let events = std::env::var("STORE_EVENTS").map_or(EVENTS, |count| count.parse().unwrap());
    let (dir, now) = (tempfile::tempdir().unwrap(), NOW);
    let (log_dir, database, mut log, mut writer) = started(dir.path());
    let mut status = HistoryStatus::default();
    for first in (1..=events).step_by(usize::try_from(EVENTS_A_SECOND).unwrap()) {
        for batch in 0..EVENTS_A_SECOND / EVENTS_A_BATCH {
            write_delivered(&mut log, first + batch * EVENTS_A_BATCH, now);
        }
        writer.try_record(LogEnd::Segment(log.current()), now, &mut status);
        log.clean(status.keep_from_segment).unwrap();
        assert_eq!((&status.fault, status.last_id), (&None, first + EVENTS_A_SECOND - 1));
        let file = database.metadata().unwrap().len();
        assert!(file <= FILE_MAX, "{file} bytes after {} events", status.last_id);
    }
    let started = Instant::now();
    let log_size = || -> u64 {
        // A file may be removed meanwhile.
        let files = fs::read_dir(&log_dir).unwrap();
        files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
    };
    while log_size() > LOG_MAX {
        assert!(started.elapsed() < Duration::from_secs(60), "{} bytes of log", log_size());
        std::thread::sleep(Duration::from_millis(100));
        writer.try_record(LogEnd::Segment(log.current()), now, &mut status);
        log.clean(status.keep_from_segment).unwrap();
    }
}
