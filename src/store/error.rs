//! Why the store cannot be used.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be read, written or synced.
    #[error("{doing} {} failed: {cause}", path.display())]
    Io {
        /// What was being done: "writing".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// Another process uses the directory.
    #[error(
        "state_dir {} is in use by {holder}; stop it, or give this bridge a state_dir of its own",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process.
        holder: String,
    },
    /// A later version of the program has written it.
    #[error(
        "{} was written by a later version of gsdk2mqtt (format {found}; this one knows {known}); \
         install that version again, or move the file's folder away",
        path.display()
    )]
    LaterFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The latest format this build reads.
        known: u32,
    },
    /// An earlier write or sync failed, so the content of the files is uncertain.
    #[error("{0}")]
    Failed(String),
    /// The open file is not the one at its path any more.
    #[error("{} was removed or replaced while it was in use", path.display())]
    Replaced {
        /// Its path.
        path: PathBuf,
    },
    /// A batch is larger than a frame can be.
    #[error("a batch of {0} bytes is larger than the log can hold")]
    TooLarge(usize),
}

impl StoreError {
    /// For `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |cause| Self::Io { doing, path, cause }
    }
}
