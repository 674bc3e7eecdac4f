//! The files of the log: each is a sequence of frames, the first of which says what it belongs to.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::frame;
use super::head::FORMAT;
use crate::store::StoreError;
use crate::store::state_dir::is_at;

const PREFIX: &str = "segment-";

/// The first frame of a segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) format: u32,
    pub(crate) chain: String,
}

/// The path of a segment.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:010}"))
}

/// The numbers of the segments in a folder, in order.
pub(crate) fn segment_numbers(dir: &Path) -> Result<Vec<u64>, StoreError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("reading", dir))? {
        let name = entry.map_err(StoreError::io("reading", dir))?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// A segment that is written to.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    file: File,
    path: PathBuf,
}

impl SegmentFile {
    /// Creates a segment, synced with its name; returns its length too.
    pub(crate) fn create(dir: &Path, number: u64, chain: &str) -> Result<(Self, u64), StoreError> {
        let path = segment_path(dir, number);
        let opening = Opening { format: FORMAT, chain: chain.to_owned() };
        let create = || {
            let frame = frame::frame_of(&serde_json::to_vec(&opening)?).unwrap_or_default();
            let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            file.write_all(&frame)?;
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
            Ok((file, frame.len() as u64))
        };
        let (file, len) = create().map_err(StoreError::io("creating", &path))?;
        Ok((Self { file, path }, len))
    }

    /// Opens a segment to append to it.
    pub(crate) fn open(dir: &Path, number: u64) -> Result<Self, StoreError> {
        let path = segment_path(dir, number);
        let file = OpenOptions::new().append(true).open(&path);
        Ok(Self { file: file.map_err(StoreError::io("opening", &path))?, path })
    }

    pub(crate) fn append(&self, frame: &[u8]) -> Result<(), StoreError> {
        (&self.file).write_all(frame).map_err(StoreError::io("writing", &self.path))
    }

    /// Syncs it. A file that the next start will not find at its path is an error too.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::io("syncing", &self.path))?;
        self.check_path()
    }

    /// Whether it is still the file at its path.
    pub(crate) fn check_path(&self) -> Result<(), StoreError> {
        match is_at(&self.file, &self.path) {
            Ok(true) => Ok(()),
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                Err(StoreError::io("looking at", &self.path)(cause))
            }
            Ok(false) | Err(_) => Err(StoreError::Replaced { path: self.path.clone() }),
        }
    }
}
