//! One file of the log: made, written to, synced, and found to be gone.
//!
//! May not know what is in its frames but for the first, which says under which chain it is.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::code::Write as _;
use super::error::StoreError;
use super::frame::{self, FRAME_HEAD_LEN};
use super::head::FORMAT;
use super::load::segment_path;
use super::lock::is_at;

/// A segment that is written to.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    path: PathBuf,
}

impl LogFile {
    /// Makes a segment, with its first frame and its name synced; returns its length too.
    pub(super) fn make(dir: &Path, number: u64, chain: &str) -> Result<(Self, u64), StoreError> {
        let path = segment_path(dir, number);
        let mut frame = vec![0; FRAME_HEAD_LEN];
        frame.put_bytes(FORMAT.as_bytes());
        frame.put_bytes(chain.as_bytes());
        frame::seal(&mut frame).ok_or(StoreError::TooLarge(frame.len()))?;
        let make = || {
            let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            file.write_all(&frame)?;
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        };
        let file = make().map_err(StoreError::io("making", &path))?;
        Ok((Self { file, path }, frame.len() as u64))
    }

    pub(super) fn append(&self, frame: &[u8]) -> Result<(), StoreError> {
        (&self.file).write_all(frame).map_err(StoreError::io("writing", &self.path))
    }

    pub(super) fn sync_data(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(StoreError::io("syncing", &self.path))
    }

    /// Forces it to the disk; a file that nobody will find there again fails as well.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::io("syncing", &self.path))?;
        self.is_there()
    }

    /// Whether the next start will find it.
    pub(super) fn is_there(&self) -> Result<(), StoreError> {
        match is_at(&self.file, &self.path) {
            Ok(true) => Ok(()),
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::Io { doing: "looking at", path: self.path.clone(), cause })
            }
            Ok(false) | Err(_) => Err(StoreError::Gone { path: self.path.clone() }),
        }
    }
}
