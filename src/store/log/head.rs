//! The head of the log: one small file that says which chain the log is of and what it proves.
//!
//! It is replaced as a whole: written beside, synced, renamed. Without it nothing is proven, and a
//! new chain begins.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::frame::{self, Next};
use crate::store::StoreError;

pub(crate) const NAME: &str = "head";
/// The format of head, segments and records. A later build reads the formats of earlier ones.
pub(crate) const FORMAT: u32 = 1;
/// Stands for a boot without an ID, which equals no other boot.
const BOOT_UNKNOWN: &str = "unknown";

/// When what was written is synced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Within a second while events wait for the broker, otherwise within 30 s.
    Interval,
    /// Before the write returns.
    Always,
}

/// The content of the head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) format: u32,
    pub(crate) chain: String,
    /// The boot of the machine in which it was written.
    pub(crate) boot: String,
    /// The process has stopped cleanly, after everything was synced.
    pub(crate) clean: bool,
    /// Everything was synced before it was published.
    pub(crate) always: bool,
    /// The number of the first segment; lower ones belong to a log that this one has replaced.
    pub(crate) first: u64,
}

impl Head {
    pub(crate) fn new(chain: &str, boot: &str, mode: SyncMode, first: u64) -> Self {
        let always = mode == SyncMode::Always;
        let (chain, boot) = (chain.to_owned(), boot.to_owned());
        Self { format: FORMAT, chain, boot, clean: false, always, first }
    }

    /// Reads it: `Ok(None)` where there is none, `Ok(Some(Err(why)))` where it is damaged.
    pub(crate) fn read(dir: &Path) -> Result<Option<Result<Self, String>>, StoreError> {
        let path = dir.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(StoreError::io("reading", &path)(cause)),
        };
        let Next::Whole(json, _) = frame::next(&bytes, 0) else {
            return Ok(Some(Err("its head is damaged".to_owned())));
        };
        let format = serde_json::from_slice::<Format>(json).map(|it| it.format);
        if let Ok(found) = format
            && found > FORMAT
        {
            return Err(StoreError::LaterFormat { path, found, known: FORMAT });
        }
        Ok(Some(serde_json::from_slice(json).map_err(|error| format!("its head is odd: {error}"))))
    }

    /// Replaces it, synced.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let (beside, path) = (dir.join("head.new"), dir.join(NAME));
        let write = || {
            let json = serde_json::to_vec(self)?;
            let mut file = File::create(&beside)?;
            file.write_all(&frame::frame_of(&json).unwrap_or_default())?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(StoreError::io("writing", &path))
    }

    /// Removes it, so that no start takes what is there for everything. Ignores errors: the disk
    /// may have failed.
    pub(crate) fn remove(dir: &Path) {
        let synced = fs::remove_file(dir.join(NAME)).and_then(|()| File::open(dir)?.sync_all());
        if let Err(error) = synced {
            tracing::debug!(%error, "removing the head of the log failed");
        }
    }

    /// Why this does not prove that the log holds everything that was published; `None` if it does.
    pub(crate) fn unproven(&self, boot: &str) -> Option<String> {
        let same_boot = self.boot == boot && boot != BOOT_UNKNOWN;
        (!same_boot && !self.clean && !self.always).then(|| {
            "the machine was restarted without a clean stop, so the last writes may be lost; \
             outbox.sync = \"always\" prevents that"
                .to_owned()
        })
    }
}

/// What every format's head begins with.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[cfg(feature = "model")]
thread_local! {
    static MODEL_BOOT_ID: std::cell::RefCell<Option<String>> =
        const { std::cell::RefCell::new(None) };
}

/// Sets the boot ID that logs opened by this thread see, as after a restart of the machine.
#[cfg(feature = "model")]
pub fn set_boot_id(id: &str) {
    MODEL_BOOT_ID.set(Some(id.to_owned()));
}

/// The ID of this boot of the machine.
pub(crate) fn boot_id() -> String {
    #[cfg(feature = "model")]
    if let Some(id) = MODEL_BOOT_ID.with_borrow(Clone::clone) {
        return id;
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id = id.trim();
    if id.is_empty() { BOOT_UNKNOWN.to_owned() } else { id.to_owned() }
}
