//! Tests of the start: which log continues, and what the history of this or another log gets of it.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::log::{LogBatch, segment_path};
use super::*;
use crate::payload::Subject;

const KEEP: Duration = Duration::from_secs(365 * 86_400);
const NOW: Moment = Moment::from_millis(1_790_000_000_000);
const DAY_MS: i64 = 86_400_000;

fn settings(state_dir: &Path) -> StoreSettings {
    StoreSettings {
        state_dir: state_dir.to_owned(),
        always_sync: false,
        limits: OutboxLimits { max_events: 1_000, max_bytes: 1 << 20 },
        history: HistoryConfig { keep: KEEP, max_bytes: 1 << 30, keep_availability: KEEP },
        history_reader: Reader::new(state_dir.join(history::FILE_NAME)),
    }
}

fn started(state_dir: &Path, now: Moment) -> StartedStore {
    start(&settings(state_dir), now).unwrap()
}

/// A process that records this many events and stops; `begins`: it has to begin this chain.
/// Returns their IDs.
fn run(state_dir: &Path, begins: Option<&str>, events: u64, now: Moment) -> Vec<u64> {
    let StartedStore { dir, mut recorder, content, recovery } = started(state_dir, now);
    let mut log = match (begins, recovery) {
        (None, Recovery::Continue(log)) => *log,
        (Some(chain), Recovery::NewChain { .. }) => {
            let after = recorder.status().position.segment;
            let none = std::iter::empty();
            Log::create(&dir.log(), false, chain, content.next_id, after, none).unwrap()
        }
        (_, recovery) => panic!("{recovery:?}"),
    };
    let ids: Vec<_> = (content.next_id..).take(usize::try_from(events).unwrap()).collect();
    let mut batch = LogBatch::default();
    for &id in &ids {
        let (event_type, payload) = ("connected".into(), "{}".into());
        let (recorded_at, subject) = (now.plus(1_000), Subject::Bridge);
        let event = Event { id, recorded_at, subject, event_type, payload, read_at: None };
        batch.add(&Record::Event(Cow::Owned(event)));
    }
    log.write(&mut batch, true).unwrap();
    recorder.observed(Vec::new(), now.plus(2_000));
    recorder.written(log.current());
    let waiting = Instant::now();
    while recorder.status().last_id != ids.last().copied().unwrap_or(content.next_id - 1) {
        assert!(waiting.elapsed() < Duration::from_secs(20), "{:?}", recorder.status());
        std::thread::sleep(Duration::from_millis(10));
    }
    recorder.stop();
    log.stop().unwrap();
    ids
}

fn rows<T: rusqlite::types::FromSql>(state_dir: &Path, sql: &str) -> Vec<T> {
    let connection = Connection::open(state_dir.join(history::FILE_NAME)).unwrap();
    let mut query = connection.prepare(sql).unwrap();
    query.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Two state directories with logs of other lengths, the second of a day later.
fn two_of_other_logs(events: [u64; 2]) -> ([tempfile::TempDir; 2], [Vec<u64>; 2]) {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let first = run(dirs[0].path(), Some("aaaa"), events[0], NOW);
    let second = run(dirs[1].path(), Some("bbbb"), events[1], NOW.plus(DAY_MS));
    (dirs, [first, second])
}

fn restore_history(from: &Path, to: &Path) {
    fs::copy(from.join(history::FILE_NAME), to.join(history::FILE_NAME)).unwrap();
}

/// Aim: a history restored beside another log has all events of that log. Method: the log is
/// shorter, and longer, than the part of its own log that the history has read.
#[test]
fn a_history_of_an_earlier_log_gets_all_events_of_this_one_and_a_gap() {
    for events in [[40, 3], [3, 40]] {
        let ([earlier, later], [mut ids, of_later]) = two_of_other_logs(events);
        restore_history(earlier.path(), later.path());
        ids.extend(of_later);
        ids.extend(run(later.path(), None, 1, NOW.plus(2 * DAY_MS)));
        assert_eq!(rows::<u64>(later.path(), "SELECT id FROM events ORDER BY id"), ids);
        let gaps = rows::<i64>(later.path(), "SELECT to_at FROM gaps");
        assert_eq!(gaps, [NOW.plus(2 * DAY_MS).millis()], "{events:?}");
        assert_eq!(rows::<String>(later.path(), "SELECT chain FROM progress"), ["bbbb"]);
    }
}

/// Aim: IDs grow in the history too.
#[test]
fn a_history_of_a_later_log_gets_the_events_from_the_start_on() {
    let ([earlier, later], [_, mut ids]) = two_of_other_logs([3, 40]);
    restore_history(later.path(), earlier.path());
    ids.extend(run(earlier.path(), None, 5, NOW.plus(2 * DAY_MS)));
    assert_eq!(rows::<u64>(earlier.path(), "SELECT id FROM events ORDER BY id"), ids);
    assert_eq!(rows::<u64>(earlier.path(), "SELECT after_id FROM gaps"), [ids[39]]);
}

#[test]
fn a_history_of_a_build_that_did_not_store_the_chain_continues() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = run(dir.path(), Some("aaaa"), 3, NOW);
    let database = Connection::open(dir.path().join(history::FILE_NAME)).unwrap();
    database.execute_batch("ALTER TABLE progress DROP COLUMN chain").unwrap();
    drop(database);
    ids.extend(run(dir.path(), None, 3, NOW.plus(DAY_MS)));
    assert_eq!(rows::<u64>(dir.path(), "SELECT id FROM events ORDER BY id"), ids);
    assert!(rows::<i64>(dir.path(), "SELECT to_at FROM gaps").is_empty());
    assert_eq!(rows::<String>(dir.path(), "SELECT chain FROM progress"), ["aaaa"]);
}

#[test]
fn a_newest_segment_that_is_missing_ends_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), Some("aaaa"), 3, NOW);
    let log = dir.path().join("log");
    fs::copy(segment_path(&log, 1), segment_path(&log, 2)).unwrap();
    run(dir.path(), None, 3, NOW.plus(DAY_MS));
    fs::remove_file(segment_path(&log, 2)).unwrap();
    let recovery = started(dir.path(), NOW.plus(2 * DAY_MS)).recovery;
    let Recovery::NewChain { reason: Some(reason), .. } = recovery else { panic!("{recovery:?}") };
    assert!(reason.contains("was cut"), "{reason}");
}

/// Aim: no start waits for a writer of the pipe.
#[test]
fn a_named_pipe_in_place_of_a_file_is_refused() {
    let pipe = |path: &Path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    for name in ["lock", "log/head", "log/segment-0000000001"] {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), Some("aaaa"), 1, NOW);
        let path = dir.path().join(name);
        fs::remove_file(&path).unwrap();
        pipe(&path);
        for error in
            [start(&settings(dir.path()), NOW).unwrap_err(), check_files(dir.path()).unwrap_err()]
        {
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
            assert!(error.remedy().contains("move it away"), "{error}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), Some("aaaa"), 1, NOW);
    let database = dir.path().join(history::FILE_NAME);
    fs::remove_file(&database).unwrap();
    pipe(&database);
    let fault = started(dir.path(), NOW).recorder.status().fault.clone().unwrap();
    assert!(fault.contains("no regular file"), "{fault}");
}
