//! Errors of the store.

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
        "{} was written by a later version of gsdk2mqtt (format {found}); install that version \
         again, or move the file's folder away",
        path.display()
    )]
    LaterFormat {
        /// The file with the later format.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// An earlier write or sync failed, so the content of the files is uncertain.
    #[error("{0}")]
    Failed(String),
}

impl StoreError {
    /// For `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { doing, path: path.to_owned(), cause }
    }
}
