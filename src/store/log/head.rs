//! The head of the log: a small file with the chain of the log and the proofs that it may continue.
//!
//! It is replaced as a whole: written to another file, synced, renamed. Without it nothing is
//! proven, and a new chain begins.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::frame::{FORMAT, json_frame, split_frame};
use super::segment::{remove, set_aside};
use crate::store::StoreError;
use crate::store::state_dir::read_regular;

pub(crate) const NAME: &str = "head";

/// The content of the head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogHead {
    pub(crate) format: u32,
    pub(crate) chain: String,
    /// The boot of the machine in which it was written.
    pub(crate) boot: String,
    /// The process has stopped cleanly, after everything was synced.
    pub(crate) clean: bool,
    /// Everything was synced before it was published.
    pub(crate) always: bool,
    /// The number of the first segment; lower ones belong to a log that this one has replaced.
    pub(crate) first: u32,
}

impl LogHead {
    /// The head of a log that this boot of the machine writes to.
    pub(crate) fn new(chain: String, always: bool, first: u32) -> Self {
        Self { format: FORMAT, chain, boot: boot_id(), clean: false, always, first }
    }

    /// Reads it. A damaged one is set aside and counts as missing.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(NAME);
        let bytes = match read_regular(&path) {
            // Emptied where it could not be removed.
            Ok(bytes) if bytes.is_empty() => return Ok(None),
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(StoreError::io("reading", &path)(cause)),
        };
        let json = split_frame(&bytes).map_or(&[][..], |(json, _)| json);
        let head: Value = serde_json::from_slice(json).unwrap_or_default();
        if let Some(found) = head["format"].as_u64()
            && found > u64::from(FORMAT)
        {
            return Err(StoreError::LaterFormat { path, found });
        }
        let head = serde_json::from_value(head).ok();
        if head.is_none() {
            set_aside(&path)?;
        }
        Ok(head)
    }

    /// Replaces it, synced.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let (beside, path) = (dir.join("head.new"), dir.join(NAME));
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(&json_frame(self)?)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            // A start might find either head: without one, it takes nothing for everything.
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.inspect_err(|_| _ = fs::remove_file(&path))
        };
        write().map_err(StoreError::io("writing", &path))
    }

    /// Removes it, so that no start takes what is there for everything. It is emptied in a folder
    /// that does not permit to remove it.
    pub(crate) fn remove(dir: &Path) -> Result<(), StoreError> {
        let path = dir.join(NAME);
        remove(&path).or_else(|error| {
            let file = File::options().write(true).truncate(true).open(&path);
            file.and_then(|file| file.sync_all()).map_err(|_| error)
        })?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("syncing", dir))
    }

    /// Why this does not prove that the log holds everything that was published; `None` if it does.
    pub(crate) fn unproven(&self) -> Option<&'static str> {
        let same_boot = self.boot == boot_id() && !self.boot.is_empty();
        (!same_boot && !self.clean && !self.always).then_some(
            "the machine was restarted without a clean stop, so the last writes may be lost; \
             outbox.sync = \"always\" prevents that",
        )
    }
}

/// The ID of this boot of the machine; empty if it is unknown.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
