//! How far the log has come: one small file, written over after each batch and before anything of
//! that batch is published.
//!
//! May not decide what follows from it (`load` does). The kernel has it as soon as it has the
//! batch. So within one boot a log that is shorter was not cut by a kill: somebody cut it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// The name of its file.
const NAME: &str = "end";
/// Three numbers and their CRC: small enough that no kill leaves half of it.
const LEN: usize = 3 * 8 + 4;

/// What the log has to hold at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The first segment that is needed.
    pub(super) oldest: u64,
    /// The segment that was written to last.
    pub(super) segment: u64,
    /// How long that was then.
    pub(super) len: u64,
}

impl End {
    /// Reads it; `Err` says why it cannot be believed.
    pub(super) fn read(dir: &Path) -> Result<Self, String> {
        let bytes = fs::read(dir.join(NAME))
            .map_err(|error| format!("the file that says where its log ends is gone: {error}"))?;
        Self::parse(&bytes).ok_or_else(|| "the file that says where its log ends is odd".to_owned())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (numbers, check) = bytes.split_at_checked(LEN - 4)?;
        (check == crc32fast::hash(numbers).to_le_bytes()).then_some(())?;
        let number =
            |at: usize| Some(u64::from_le_bytes(numbers.get(at..at + 8)?.try_into().ok()?));
        Some(Self { oldest: number(0)?, segment: number(8)?, len: number(16)? })
    }

    fn bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let (numbers, check) = bytes.split_at_mut(LEN - 4);
        numbers[..8].copy_from_slice(&self.oldest.to_le_bytes());
        numbers[8..16].copy_from_slice(&self.segment.to_le_bytes());
        numbers[16..].copy_from_slice(&self.len.to_le_bytes());
        check.copy_from_slice(&crc32fast::hash(numbers).to_le_bytes());
        bytes
    }
}

/// Its file, open.
#[derive(Debug)]
pub(super) struct EndFile {
    file: File,
    path: PathBuf,
}

impl EndFile {
    /// Makes it where it is missing, and says this in it, synced.
    pub(super) fn begin(dir: &Path, end: End) -> Result<Self, StoreError> {
        let path = dir.join(NAME);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(StoreError::io("opening", &path))?;
        file.set_len(LEN as u64).map_err(StoreError::io("writing", &path))?;
        let begun = Self { file, path };
        begun.write(end)?;
        begun.sync()?;
        Ok(begun)
    }

    pub(super) fn write(&self, end: End) -> Result<(), StoreError> {
        let written = self.file.write_all_at(&end.bytes(), 0);
        written.map_err(StoreError::io("writing", &self.path))
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::io("syncing", &self.path))
    }
}
