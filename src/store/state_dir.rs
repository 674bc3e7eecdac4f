//! The state directory: created if it is missing, and used by one process at a time.
//!
//! The lock ends with the process. A directory can be removed, moved or mounted over while it is
//! locked; then another one is at its path.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use super::StoreError;

/// Only the service can read its files.
const MODE: u32 = 0o700;
/// The file that is locked.
pub(crate) const LOCK: &str = "lock";
/// The log's folder.
pub(crate) const LOG: &str = "log";
/// The files of a build made before version 2.
const EARLIER_FILES: [&str; 2] = ["head", "end"];
const EARLIER_PREFIX: &str = "log-";

/// How long an answer is waited for, once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// The locked file. Without it at its path another process could lock the directory too.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Fails if it was removed or replaced.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        check_in_place(&self.file, &self.path, 0)
    }
}

/// A state directory that this process has locked.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    lock: Arc<LockFile>,
    probe: DiskProbe,
}

impl StateDir {
    /// Creates it where it is missing, and locks it.
    ///
    /// # Errors
    /// When another process has locked it, or it cannot be written.
    pub(crate) fn lock(path: &Path) -> Result<Self, StoreError> {
        create_dir(path)?;
        let lock_path = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = expect_regular(&lock_path)
            .and_then(|()| options.open(&lock_path))
            .map_err(StoreError::io("opening", &lock_path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: path.to_owned(), holder: holder(file) });
            }
            Err(TryLockError::Error(cause)) => {
                return Err(StoreError::io("locking", &lock_path)(cause));
            }
        }
        let pid = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.write_all(pid.as_bytes()))
            .map_err(StoreError::io("writing", &lock_path))?;
        create_dir(&path.join(LOG))?;
        let lock = Arc::new(LockFile { file, path: lock_path });
        Ok(Self { path: path.to_owned(), lock, probe: DiskProbe::default() })
    }

    /// The log's folder.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Fails if the disk does not answer. Waits for it a second at most.
    pub(crate) fn check_answers(&mut self) -> Result<(), StoreError> {
        if self.probe.answers(&self.path)? {
            return Ok(());
        }
        let path = self.path.display();
        Err(StoreError::Failed(format!(
            "the disk of {path} does not answer; check the disk or the network file system"
        )))
    }

    /// The locked file.
    pub(crate) fn lock_file(&self) -> Arc<LockFile> {
        Arc::clone(&self.lock)
    }

    /// Whether the directory at its path is still the locked one.
    pub(crate) fn is_in_place(&self) -> bool {
        self.lock.check().is_ok()
    }

    /// Moves the store of a build made before version 2 into a folder of its own, if there is one;
    /// returns that folder.
    pub(crate) fn set_aside_earlier(&self) -> Result<Option<PathBuf>, StoreError> {
        let reading = || StoreError::io("reading", &self.path);
        let mut earlier = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(reading())? {
            let name = entry.map_err(reading())?.file_name();
            let text = name.to_string_lossy();
            if EARLIER_FILES.contains(&&*text) || text.starts_with(EARLIER_PREFIX) {
                earlier.push(name);
            }
        }
        if earlier.is_empty() {
            return Ok(None);
        }
        let aside = free_name(&self.path.join("before-version-2"));
        create_dir(&aside)?;
        for name in earlier {
            let from = self.path.join(&name);
            fs::rename(&from, aside.join(&name)).map_err(StoreError::io("moving", &from))?;
        }
        Ok(Some(aside))
    }

    /// Moves a log that this process has not read out of the way, if there is one.
    pub(crate) fn set_aside_log(&self) -> Result<(), StoreError> {
        let log = self.log();
        let mut entries = fs::read_dir(&log).map_err(StoreError::io("reading", &log))?;
        if entries.next().is_none() {
            return Ok(());
        }
        let aside = free_name(&self.path.join("log.set-aside"));
        fs::rename(&log, &aside).map_err(StoreError::io("moving", &log))?;
        tracing::warn!(folder = %aside.display(), "set aside the log of another store");
        Ok(())
    }

    /// The process that uses a directory, if one does. Changes nothing.
    pub(crate) fn holder(path: &Path) -> Option<String> {
        let lock_path = path.join(LOCK);
        let lock = expect_regular(&lock_path).and_then(|()| File::open(lock_path)).ok()?;
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)).then(|| holder(lock))
    }
}

/// Tries whether a disk answers, in a thread, so that nothing else waits for one that hangs.
#[derive(Debug, Default)]
struct DiskProbe {
    /// Closed when the thread ends. At most one thread waits for the disk.
    running: Option<Receiver<()>>,
}

impl DiskProbe {
    /// Whether the disk of a folder answers, also if with an error. The caller waits a second at
    /// most, and not at all while an earlier try has not ended.
    ///
    /// # Errors
    /// When no thread can be started.
    fn answers(&mut self, dir: &Path) -> Result<bool, StoreError> {
        if let Some(running) = &self.running
            && running.try_recv() == Err(TryRecvError::Empty)
        {
            return Ok(false);
        }
        let running = Self::start(dir)?;
        let hangs = running.recv_timeout(ANSWERS_WITHIN) == Err(RecvTimeoutError::Timeout);
        self.running = hangs.then_some(running);
        Ok(!hangs)
    }

    fn start(dir: &Path) -> Result<Receiver<()>, StoreError> {
        let (ended, running) = channel::<()>();
        let folder = dir.to_owned();
        let thread = std::thread::Builder::new().name("disk".to_owned());
        let started = thread.spawn(move || {
            // An error is an answer; the next write of the store reports it.
            _ = write_to(&folder);
            drop(ended);
        });
        started.map_err(StoreError::io("starting a thread for", dir))?;
        Ok(running)
    }
}

fn write_to(dir: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(dir)?;
    file.write_all(b"gsdk2mqtt")?;
    file.sync_all()
}

/// Creates a directory, if it is not there.
pub(crate) fn create_dir(path: &Path) -> Result<(), StoreError> {
    let created = DirBuilder::new().recursive(true).mode(MODE).create(path);
    created.map_err(StoreError::io("creating", path))
}

/// Fails for a named pipe or a device, which opening or reading would wait for.
pub(crate) fn expect_regular(path: &Path) -> io::Result<()> {
    let is_special = |it: fs::Metadata| !it.is_file() && !it.is_dir();
    let special = fs::metadata(path).is_ok_and(is_special);
    let error = || io::Error::new(ErrorKind::AlreadyExists, "it is no regular file");
    if special { Err(error()) } else { Ok(()) }
}

/// Reads a file, unless that would wait.
pub(crate) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    expect_regular(path).and_then(|()| fs::read(path))
}

/// Fails if the file at this path is not this open one any more, or is shorter than this.
pub(crate) fn check_in_place(file: &File, path: &Path, len: u64) -> Result<(), StoreError> {
    let check = || {
        let open = file.metadata()?;
        match path.metadata() {
            Ok(found) if (open.dev(), open.ino()) == (found.dev(), found.ino()) => {
                let is_whole = found.len() >= len;
                let truncated = || io::Error::other("it was truncated while it was in use");
                is_whole.then_some(()).ok_or_else(truncated)
            }
            Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
            _ => Err(io::Error::other("it was removed or replaced while it was in use")),
        }
    };
    check().map_err(StoreError::io("looking at", path))
}

/// The process that holds a lock, by the number that it has written there.
fn holder(mut lock: File) -> String {
    let mut pid = String::new();
    // Without the number it still is another process.
    _ = lock.read_to_string(&mut pid);
    match pid.trim() {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    }
}

/// The path itself if nothing is there, otherwise with the first number behind it that is free.
pub(crate) fn free_name(path: &Path) -> PathBuf {
    let numbered = (2_u32..).map(|number| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    });
    let mut names = std::iter::once(path.to_owned()).chain(numbered);
    names.find(|name| !name.exists()).unwrap_or_else(|| path.to_owned())
}
