//! The database file: its tables, its format version, and the replacement of an unusable file.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::Error;
use super::spans;
use crate::ids::Moment;
use crate::store::error::StoreError;
use crate::store::state_dir::expect_regular;
use crate::task;

/// `application_id` of the file: `GSDK` in ASCII.
const APPLICATION_ID: i64 = 0x4753_444b;
/// `user_version` of the file. A change of the tables raises it and migrates older files.
const FORMAT_VERSION: i64 = 2;
/// When the write-ahead log is larger than this, a commit writes it into the database, unless a
/// reader needs it; then it grows until that has ended, and is truncated.
const WAL_PAGES_MAX: i64 = 2_048;
const PAGE_LEN: i64 = 4_096;
/// Pages held in memory, beside what a transaction writes.
const CACHE_KIB: i64 = 4 << 10;
/// How long reading waits while the database is created or recovered.
const READ_TIMEOUT: Duration = Duration::from_millis(500);
/// Steps of SQLite without giving way: some 50 us.
const STEPS_MAX: i32 = 1_000;
/// How long writing waits for another program that has locked the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Comments inside a statement stay in the file: `.schema` of the sqlite3 shell prints them.
const TABLES: &str = "
CREATE TABLE events (
  id          INTEGER PRIMARY KEY, -- grows with each event, never used again
  recorded_at INTEGER NOT NULL,    -- Unix milliseconds by the bridge's clock
  gateway     TEXT,                -- NULL: an event of the bridge
  device_id   INTEGER,             -- NULL: an event of the bridge or of a gateway
  event_type  TEXT    NOT NULL,
  delivered   INTEGER NOT NULL,    -- 1: the broker has acknowledged it
  dropped     INTEGER NOT NULL,    -- 1: it will not be delivered
  lost        INTEGER NOT NULL,    -- events of the same device or gateway dropped before it
  event       TEXT    NOT NULL     -- JSON as published, without lost
) STRICT;
CREATE INDEX events_by_device ON events (gateway, device_id); -- and the id, as in every index
CREATE INDEX events_waiting ON events (id) WHERE delivered = 0 AND dropped = 0;
CREATE TABLE blocks ( -- consecutive events; finds events by time, removed as a whole
  first_id  INTEGER PRIMARY KEY,
  last_id   INTEGER NOT NULL,
  events    INTEGER NOT NULL,
  oldest_at INTEGER NOT NULL,
  newest_at INTEGER NOT NULL
) STRICT;
CREATE TABLE gaps ( -- events that followed after_id and could not be written
  after_id INTEGER PRIMARY KEY,
  from_at  INTEGER NOT NULL,
  to_at    INTEGER NOT NULL
) STRICT;
CREATE TABLE progress ( -- one row
  segment         INTEGER NOT NULL, -- where reading of the log continues
  log_offset      INTEGER NOT NULL,
  last_id         INTEGER NOT NULL, -- of the newest event ever recorded here
  removed_through INTEGER NOT NULL, -- events up to this id are not here
  removed_until   INTEGER,          -- events from before this time are missing; NULL: none are
  chain           TEXT              -- of that log; NULL: unknown
) STRICT;
";

/// Opens the database for reading, which gives way to events.
pub(crate) fn open_to_read(path: &Path) -> Result<Connection, Error> {
    expect_regular(path).map_err(StoreError::io("opening", path))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(READ_TIMEOUT)?;
    // SQLite needs a file beside it, which it cannot create on a read-only file system.
    let read = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()));
    if let Err(error) = read
        && error.sqlite_error_code() == Some(ErrorCode::CannotOpen)
    {
        let log = with_suffix(path, "-wal").metadata();
        if log.is_ok_and(|log| log.len() > 0) {
            return Err(Error::ReadOnlyFolder { path: path.to_owned() });
        }
        let flags = flags | OpenFlags::SQLITE_OPEN_URI;
        connection = Connection::open_with_flags(immutable(path), flags)?;
    }
    let give_way = || {
        task::give_way();
        false
    };
    connection.progress_handler(STEPS_MAX, Some(give_way))?;
    Ok(connection)
}

/// The URI of a database that nothing writes to.
fn immutable(path: &Path) -> OsString {
    let mut uri = OsString::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.push(format!("%{byte:02x}")),
            byte => uri.push(OsStr::from_bytes(&[*byte])),
        }
    }
    uri.push("?immutable=1");
    uri
}

/// Opens the database; creates it where there is none, `replaced_at` where one was set aside.
pub(crate) fn open(path: &Path, replaced_at: Option<Moment>) -> Result<Connection, Error> {
    // SQLite would create it with the default mode; the files beside it take over its mode.
    expect_regular(path)
        .and_then(|()| OpenOptions::new().append(true).create(true).mode(0o600).open(path))
        .map_err(StoreError::io("opening", path))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let (application, version, tables) = connection.query_row(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
         FROM pragma_application_id, pragma_user_version",
        (),
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
    )?;
    match (application, version, tables) {
        // Before there is a write-ahead log, so that the file has its tables without it.
        (0, 0, 0) => create(&mut connection, replaced_at)?,
        (APPLICATION_ID, FORMAT_VERSION, _) => {
            // Earlier builds have written it without.
            if !connection.column_exists(None, "progress", "chain")? {
                connection.execute_batch("ALTER TABLE progress ADD COLUMN chain TEXT")?;
            }
        }
        (APPLICATION_ID, found, _) if found > FORMAT_VERSION => {
            let path = path.to_owned();
            return Err(Error::NewerFormat { path, found, supported: FORMAT_VERSION });
        }
        _ => return Err(Error::Foreign { path: path.to_owned() }),
    }
    configure(&connection)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<(), Error> {
    // The pragma answers with the mode that it has set.
    connection.query_row("PRAGMA journal_mode = WAL", (), |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES_MAX)?;
    connection.pragma_update(None, "journal_size_limit", WAL_PAGES_MAX * PAGE_LEN)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(())
}

fn create(connection: &mut Connection, replaced_at: Option<Moment>) -> Result<(), Error> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(spans::TABLES)?;
    transaction.execute(
        "INSERT INTO progress VALUES (0, 0, 0, 0, ?1, NULL)",
        [replaced_at.map(Moment::millis)],
    )?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// Syncs the write-ahead log: with this setting a commit does. This one writes the version again.
pub(crate) fn sync_log(connection: &Connection) -> Result<(), Error> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "user_version", FORMAT_VERSION)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(())
}

/// Renames a file that is not usable, with its write-ahead log, and returns its new name.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let mut names = (1_u32..).map(|number| with_suffix(path, &format!(".damaged-{number}")));
    let free = names.find(|aside| !aside.exists());
    let rename = || {
        let aside = free.ok_or(io::ErrorKind::AlreadyExists)?;
        for suffix in ["-wal", "-shm"] {
            match fs::rename(with_suffix(path, suffix), with_suffix(&aside, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(path, &aside)?;
        Ok(aside)
    };
    rename().map_err(StoreError::io("renaming", path))
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
