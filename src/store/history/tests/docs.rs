//! The queries of `docs/history.md`, run on a database with known rows.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use super::{Fixture, KEEP_ALL, apply, device};
use crate::ids::Moment;
use crate::payload::Subject;
use crate::store::history::LogChange;
use crate::store::{Event, Position};

const PAGE: &str = include_str!("../../../../docs/history.md");
const MINUTE_MS: i64 = 60_000;

/// The fenced queries by the words behind `sql`.
fn queries() -> BTreeMap<&'static str, &'static str> {
    let fenced = PAGE.split("```sql ").skip(1);
    fenced
        .filter_map(|text| text.split_once("\n```").map(|(text, _)| text.split_once('\n')))
        .flatten()
        .collect()
}

/// The rows of a query, each value as text.
fn rows(connection: &Connection, sql: &str) -> Vec<Vec<String>> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let text = |value: Value| match value {
        Value::Null => "null".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text,
        Value::Blob(_) => "blob".to_owned(),
    };
    let rows = statement
        .query_map((), |row| (0..columns).map(|at| row.get(at).map(text)).collect())
        .unwrap();
    rows.map(Result::unwrap).collect()
}

/// This morning at 01:00 and now, by the machine's clock, as the queries have it.
fn times(connection: &Connection) -> (Moment, Moment) {
    let millis = |sql: &str| connection.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap();
    let night = "SELECT unixepoch('now', 'localtime', 'start of day', '+1 hours', 'utc') * 1000";
    let now = "SELECT unixepoch('now') * 1000";
    (Moment::from_millis(millis(night)), Moment::from_millis(millis(now)))
}

fn event(id: u64, at: Moment, number: u32, event_type: &str, connected: bool) -> LogChange {
    let payload = format!(
        r#"{{"event_type":"{event_type}","name":"Door {number}","status":"s",
            "connected":{connected},"duration_s":90}}"#
    );
    let event_type = event_type.to_owned();
    LogChange::Recorded(Event {
        id,
        recorded_at: at,
        subject: device(number),
        event_type: event_type.into(),
        payload: payload.into(),
        read_at: None,
    })
}

#[test]
fn every_documented_query_returns_its_result() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    let (night, now) = times(&Connection::open_in_memory().unwrap());
    let earlier = now.plus(-40 * 24 * 60 * MINUTE_MS);
    let bridge = Event {
        id: 8,
        recorded_at: now,
        subject: Subject::Bridge,
        event_type: "chain_reset".into(),
        payload: "{}".into(),
        read_at: None,
    };
    let mut changes = vec![
        event(1, earlier, 1, "disconnected", false),
        event(2, earlier, 1, "connected", true),
        event(3, night, 1, "disconnected", false),
        event(4, night.plus(MINUTE_MS), 1, "connected", true),
        event(5, now, 544_114_231, "disconnected", false),
        event(6, now, 544_114_231, "connected", true),
        event(7, now, 544_114_231, "disconnected", false),
        LogChange::Recorded(bridge),
        event(9, now, 3, "connect_failed", false),
    ];
    changes.extend((1..=5).map(LogChange::Delivered));
    changes.push(LogChange::Dropped(6));
    apply(&mut database, &changes, Position::default()).unwrap();
    let hour = night.plus(60 * MINUTE_MS);
    database.mark_gap(hour, Position::default(), false).unwrap();

    write_spans(&fixture.path(), now);

    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(fixture.path(), flags).unwrap();
    let mut queries = queries();
    let mut run = |name: &str| rows(&connection, queries.remove(name).expect(name));
    let first = |rows: Vec<Vec<String>>, from: usize| -> Vec<Vec<String>> {
        rows.into_iter().map(|row| row.into_iter().skip(from).collect()).collect()
    };

    // Whatever the time of the day is, the night's event is in, and it was 60 s to 90 s.
    let down = first(run("who was down last night"), 1);
    assert!(down.contains(&["lobby", "1", "Door 1", "90"].map(str::to_owned).to_vec()), "{down:?}");
    let is_down = run("what is down");
    // Not the door that was removed, nor the one that was not observed since.
    let since =
        format!("SELECT datetime({} / 1000, 'unixepoch', 'localtime')", now.millis() - 30_000);
    let since = rows(&connection, &since)[0][0].clone();
    assert_eq!(is_down, [["lobby", "3", "Side door", &since].map(str::to_owned)]);
    let disconnects = run("how often a door was lost this month");
    assert_eq!(disconnects[0], ["lobby", "544114231", "Door 544114231", "2"]);
    let waiting = run("what waits");
    assert_eq!(
        (&waiting[0][..2], &waiting[1][..2]),
        (&strings(["null", "1"])[..], &strings(["lobby", "2"])[..])
    );
    let last = first(run("the last events of a device"), 1);
    let expected = ["disconnected", "connected", "disconnected"].map(|kind| strings([kind, "s"]));
    assert_eq!(last, expected);
    assert_eq!(run("what is missing").len(), 1);
    let disconnected = run("how long a door was disconnected this month");
    let expected = [["1", "Front door", "1", "90"], ["3", "Side door", "1", "30"]];
    assert_eq!(first(disconnected, 1), expected.map(strings));
    let unobserved = run("when doors were not observed");
    assert_eq!((unobserved.len(), &unobserved[0][..2]), (1, &strings(["all", "clock_unset"])[..]));
    assert_eq!(unobserved[0][3], "60");

    let backup = fixture.path().with_file_name("backup.db");
    let sql = queries.remove("a backup").unwrap();
    let sql = sql.replace("/var/backups/gsdk2mqtt/history.db", backup.to_str().unwrap());
    connection.execute_batch(&sql).unwrap();
    let copy = Connection::open_with_flags(backup, flags).unwrap();
    assert_eq!(rows(&copy, "SELECT count(*) FROM events"), [["9"]]);
    assert!(queries.is_empty(), "not tested: {queries:?}");
}

/// A door that was disconnected for 90 s and then not observed for 60 s, one that is disconnected,
/// and one that was removed.
fn write_spans(path: &Path, now: Moment) {
    let connection = Connection::open(path).unwrap();
    let at = |seconds_ago: i64| now.plus(-1_000 * seconds_ago).millis();
    let rows = [
        format!("UPDATE observation SET proven_at = {}, spans_since = {}", at(0), at(500)),
        format!("INSERT INTO devices VALUES ('lobby', 1, 'Front door', {})", at(500)),
        format!("INSERT INTO devices VALUES ('lobby', 3, 'Side door', {})", at(500)),
        format!("INSERT INTO devices VALUES ('lobby', 544114231, 'Gate', {})", at(500)),
        format!("INSERT INTO spans VALUES ('lobby', 1, {}, {}, 'connected')", at(500), at(190)),
        format!("INSERT INTO spans VALUES ('lobby', 1, {}, {}, 'disconnected')", at(190), at(100)),
        format!("INSERT INTO unobserved VALUES (NULL, {}, {}, 'clock_unset')", at(100), at(40)),
        format!("INSERT INTO spans VALUES ('lobby', 3, {}, NULL, 'disconnected')", at(30)),
        format!("INSERT INTO spans VALUES ('lobby', 544114231, {}, NULL, 'absent')", at(20)),
    ];
    connection.execute_batch(&rows.join(";")).unwrap();
}

#[test]
fn every_column_is_documented() {
    let fixture = Fixture::new();
    drop(fixture.open(KEEP_ALL));
    let connection = Connection::open(fixture.path()).unwrap();
    let names = "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c
                 WHERE m.type = 'table'";
    for row in rows(&connection, names) {
        let [table, column] = row.as_slice() else { panic!("{row:?}") };
        let known = PAGE.contains(&format!("`{table}`")) && PAGE.contains(&format!("`{column}`"));
        assert!(known, "{table}.{column} is not in docs/history.md");
    }
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}
