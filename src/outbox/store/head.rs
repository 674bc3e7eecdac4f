//! The head: one small file that proves what a start may go on with.
//!
//! May not decide that (`verdict` does). Replaced as a whole: written beside, synced, renamed.
//! Where it is missing, nothing is proven.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use super::error::StoreError;

/// The name of its file.
pub(super) const NAME: &str = "head";
/// The format of head and log.
pub(super) const FORMAT: &str = "gsdk2mqtt store 1";
/// What stands for a boot that cannot be known, and so is never the same.
const BOOT_UNKNOWN: &str = "unknown";

/// What the head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) chain: String,
    /// The boot of the machine in which it was written.
    pub(super) boot: String,
    /// The process has ended in order, and all was synced.
    pub(super) clean: bool,
    /// Everything was synced before it was published.
    pub(super) always: bool,
    /// The number of the first segment; those before it are of the past.
    pub(super) first: u64,
    /// Another file says where the log ends. The first builds kept none.
    pub(super) has_end: bool,
}

impl Head {
    /// Reads it: `Ok(None)` where there is none, `Err` with why where it cannot be read.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, String> {
        match fs::read_to_string(dir.join(NAME)) {
            Ok(text) => {
                let body = whole(&text);
                body.and_then(Self::parse).map(Some).ok_or_else(|| {
                    match body.and_then(|body| body.lines().next()) {
                        Some(other) if other != FORMAT => format!(
                            "another version wrote it ({other}, where this one has {FORMAT})"
                        ),
                        _ => "its head is damaged".to_owned(),
                    }
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("its head cannot be read: {error}")),
        }
    }

    fn parse(body: &str) -> Option<Self> {
        let mut lines = body.lines();
        (lines.next()? == FORMAT).then_some(())?;
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        Some(Self {
            chain: value("chain")?.to_owned(),
            boot: value("boot")?.to_owned(),
            clean: value("stopped")? == "clean",
            always: value("sync")? == "always",
            first: value("first")?.parse().ok()?,
            has_end: value("end") == Some("kept"),
        })
    }

    fn text(&self) -> String {
        let stopped = if self.clean { "clean" } else { "no" };
        let sync = if self.always { "always" } else { "interval" };
        let end = if self.has_end { "kept" } else { "none" };
        let Self { chain, boot, first, .. } = self;
        let body = format!(
            "{FORMAT}\nchain {chain}\nboot {boot}\nstopped {stopped}\nsync {sync}\nfirst {first}\n\
             end {end}\n"
        );
        format!("{body}{}\n", check_line(&body))
    }

    /// Replaces it, synced.
    pub(super) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let (beside, path) = (dir.join("head.new"), dir.join(NAME));
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(self.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(StoreError::io("writing", &path))
    }

    /// Takes it away, so that no start goes on with what is there. The best that can be done where
    /// the disk does not take what is written.
    pub(super) fn remove(dir: &Path) {
        let synced = fs::remove_file(dir.join(NAME)).and_then(|()| File::open(dir)?.sync_all());
        if let Err(error) = synced {
            tracing::debug!(%error, "the store's head could not be taken away");
        }
    }
}

/// The text without its check, if that agrees.
fn whole(text: &str) -> Option<&str> {
    let (body, check) = text.split_at_checked(text.rfind("crc ")?)?;
    (check.trim_end() == check_line(body)).then_some(body)
}

fn check_line(body: &str) -> String {
    format!("crc {:08x}", crc32fast::hash(body.as_bytes()))
}

/// The ID of this boot of the machine.
pub(super) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id = id.trim();
    if id.is_empty() { BOOT_UNKNOWN.to_owned() } else { id.to_owned() }
}

/// Whether two boots are proven to be one.
pub(super) fn same_boot(one: &str, other: &str) -> bool {
    one == other && one != BOOT_UNKNOWN
}
