//! The bridge's state directory: the part that a power cut leaves, and the events in it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gsdk2mqtt::payload::Subject;
use gsdk2mqtt::store::history::{FILE_NAME, LogChange};
use gsdk2mqtt::store::{LogReader, Position};
use rusqlite::{Connection, OpenFlags};

/// How long, in real time, the history's thread may take to close the database after a stop.
const CLOSES_WITHIN: Duration = Duration::from_secs(20);

/// What a power cut takes of the log, at most what was written since the bridge started: only that
/// may be unsynced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PowerCut {
    pub(crate) lost_bytes: u64,
    /// The file keeps its length and ends in zeros, as some file systems leave it.
    pub(crate) zeros: bool,
}

/// An event in the log or in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredEvent {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) delivered: bool,
    pub(crate) dropped: bool,
    pub(crate) lost: u64,
}

/// What the history holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// By ID.
    pub(crate) events: BTreeMap<u64, StoredEvent>,
    pub(crate) gaps: u64,
}

/// The state directory on a disk that loses what was not synced.
#[derive(Debug)]
pub(crate) struct Storage {
    dir: PathBuf,
    /// The newest segment and its length when the bridge had started.
    synced: (PathBuf, u64),
    /// The history as it was then.
    synced_history: PathBuf,
}

impl Storage {
    pub(crate) fn new(dir: PathBuf) -> Self {
        let (synced, synced_history) = ((PathBuf::new(), 0), dir.with_extension("history"));
        Self { dir, synced, synced_history }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The machine starts again: the log's head then names an earlier boot.
    pub(crate) fn reboot(&self) {
        let path = self.log_dir().join("head");
        let Ok(head) = fs::read(&path) else { return };
        let mut json: serde_json::Value = serde_json::from_slice(&head[12..]).unwrap();
        json["boot"] = "an earlier one".into();
        let json = json.to_string().into_bytes();
        let mut lengths = u32::try_from(json.len()).unwrap().to_le_bytes().to_vec();
        lengths.extend(crc32fast::hash(&json).to_le_bytes());
        let check = crc32fast::hash(&lengths).to_le_bytes();
        fs::write(&path, [&lengths[..], &check, &json].concat()).unwrap();
    }

    /// The bridge has started, so it has synced the log. The history may lose everything that
    /// follows. It has nothing yet that the log has not: its thread runs in real time, but reads
    /// only the log.
    pub(crate) fn bridge_started(&mut self) {
        self.synced = self.newest_segment();
        _ = fs::remove_file(&self.synced_history);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let history = Connection::open_with_flags(self.dir.join(FILE_NAME), flags).unwrap();
        history.busy_timeout(CLOSES_WITHIN).unwrap();
        let copy = self.synced_history.display().to_string();
        history.execute("VACUUM INTO ?1", [copy]).unwrap();
    }

    /// Removes what was not synced. The bridge has ended.
    pub(crate) fn cut_power(&self, cut: PowerCut) {
        let (segment, len) = self.newest_segment();
        assert_eq!(segment, self.synced.0, "a run writes less than a segment");
        let file = OpenOptions::new().write(true).open(segment).unwrap();
        file.set_len(len.saturating_sub(cut.lost_bytes).max(self.synced.1)).unwrap();
        if cut.zeros {
            file.set_len(len).unwrap();
        }
        assert!(self.is_closed());
        fs::copy(&self.synced_history, self.dir.join(FILE_NAME)).unwrap();
    }

    fn newest_segment(&self) -> (PathBuf, u64) {
        let files = fs::read_dir(self.log_dir()).unwrap().map(|entry| entry.unwrap().path());
        let is_segment = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-"))
        };
        let newest = files.filter(is_segment).max().unwrap();
        let len = newest.metadata().unwrap().len();
        (newest, len)
    }

    fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The events of log and history, by ID.
    pub(crate) fn events(&self) -> BTreeMap<u64, StoredEvent> {
        let mut events = self.history().events;
        let mut log = LogReader::new(self.log_dir(), Position::default(), None);
        log.skip_missing().unwrap();
        loop {
            let mut changes = Vec::new();
            log.read(u32::MAX, &mut changes).unwrap();
            if changes.is_empty() {
                return events;
            }
            for change in changes {
                let LogChange::Recorded(event) = change else { continue };
                let (gateway, device_id) = match &event.subject {
                    Subject::Bridge => (None, None),
                    Subject::Gateway(gateway) => (Some(gateway.to_string()), None),
                    Subject::Device(gateway, id) => (Some(gateway.to_string()), Some(id.get())),
                };
                events.entry(event.id).or_insert(StoredEvent {
                    topic: topic(gateway.as_deref(), device_id, &event.event_type),
                    payload: event.payload,
                    delivered: false,
                    dropped: false,
                    lost: 0,
                });
            }
        }
    }

    /// What the history holds; the bridge does not run.
    pub(crate) fn history(&self) -> History {
        // Reads the file alone and leaves nothing beside it.
        let uri = format!("file:{}?immutable=1", self.dir.join(FILE_NAME).display());
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri, flags).unwrap();
        if !connection.table_exists(None, "events").unwrap() {
            return History::default();
        }
        let mut query = connection
            .prepare(
                "SELECT id, gateway, device_id, event_type, event, delivered, dropped, lost
                 FROM events ORDER BY id",
            )
            .unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            let gateway: Option<String> = row.get(1)?;
            let (device_id, event_type): (Option<u32>, String) = (row.get(2)?, row.get(3)?);
            let event = StoredEvent {
                topic: topic(gateway.as_deref(), device_id, &event_type),
                payload: row.get::<_, String>(4)?.into(),
                delivered: row.get(5)?,
                dropped: row.get(6)?,
                lost: row.get(7)?,
            };
            Ok((row.get(0)?, event))
        };
        let events = query.query_map((), row).unwrap().map(Result::unwrap).collect();
        let gaps = connection.query_row("SELECT count(*) FROM gaps", (), |row| row.get(0)).unwrap();
        History { events, gaps }
    }

    /// Waits until the history is complete after a clean stop. Its thread runs in real time, so the
    /// stop may have ended before it.
    pub(crate) fn wait_until_closed(&self) {
        let started = Instant::now();
        while !self.is_closed() {
            assert!(started.elapsed() < CLOSES_WITHIN, "the history is still open");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The last connection removes the write-ahead log.
    fn is_closed(&self) -> bool {
        !self.dir.join(format!("{FILE_NAME}-wal")).exists()
    }
}

fn topic(gateway: Option<&str>, device_id: Option<u32>, event_type: &str) -> String {
    match (gateway, device_id) {
        (Some(gateway), Some(id)) => format!("gsdk/{gateway}/{id}/event/{event_type}"),
        (Some(gateway), None) => format!("gsdk/{gateway}/event/{event_type}"),
        (None, _) => format!("gsdk/bridge/event/{event_type}"),
    }
}
