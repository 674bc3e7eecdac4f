//! Why the store cannot be used. May not hold more than a person needs to mend it.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be written, read or synced.
    #[error("{doing} {} failed: {cause}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process has the directory.
    #[error(
        "state_dir {} is in use by {holder}; stop it, or give this bridge a state_dir of its own",
        path.display()
    )]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who has it.
        holder: String,
    },
    /// What was written before could not be synced, so nobody knows what is on the disk.
    #[error("{0}")]
    Sync(String),
    /// It is not the file any more that was opened.
    #[error(
        "{} was removed or replaced while it was in use; what was kept there is known no more",
        path.display()
    )]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// A batch is larger than a frame can be.
    #[error("a batch of {0} bytes is more than the store takes at once")]
    TooLarge(usize),
}

impl StoreError {
    /// For `map_err`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |cause| Self::Io { doing, path, cause }
    }
}
