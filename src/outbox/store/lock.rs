//! The state directory: made where it is missing, and held by one process at a time.
//!
//! May not touch what is kept in it. The lock ends with the process, however that ends. A directory
//! can be removed, moved or mounted over while it is held: then what is at its path is another.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// Nobody but the service reads what it remembers.
const MODE: u32 = 0o700;
/// The name of the file that is locked.
const NAME: &str = "lock";

/// A state directory that this process holds.
#[derive(Debug)]
pub struct StateDir {
    pub(super) path: PathBuf,
    lock: File,
}

impl StateDir {
    /// Makes it where it is missing, and holds it.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be written.
    pub fn hold(path: &Path) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(MODE)
            .create(path)
            .map_err(StoreError::io("making", path))?;
        let file = path.join(NAME);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .map_err(StoreError::io("opening", &file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Held { path: path.to_owned(), holder: named(lock) });
            }
            Err(TryLockError::Error(cause)) => {
                return Err(StoreError::Io { doing: "locking", path: file, cause });
            }
        }
        let pid = format!("{}\n", std::process::id());
        lock.set_len(0)
            .and_then(|()| lock.write_all(pid.as_bytes()))
            .map_err(StoreError::io("writing", &file))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Whether the directory at its path is still the one that is held.
    #[must_use]
    pub fn is_there(&self) -> bool {
        is_at(&self.lock, &self.path.join(NAME)).is_ok_and(|same| same)
    }

    /// Who holds it now, if anybody does. Makes nothing, and keeps nobody from holding it for
    /// longer than the look.
    #[must_use]
    pub fn holder(path: &Path) -> Option<String> {
        let lock = File::open(path.join(NAME)).ok()?;
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)).then(|| named(lock))
    }
}

/// Whether the file at this path is this open one.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (open, found) = (file.metadata()?, path.metadata()?);
    Ok((open.dev(), open.ino()) == (found.dev(), found.ino()))
}

/// The process that holds a lock, by what it wrote there.
fn named(mut lock: File) -> String {
    let mut pid = String::new();
    // Without the number it still is another process.
    _ = lock.read_to_string(&mut pid);
    match pid.trim() {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    }
}
