//! Errors of the store.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::net::{NO_HANDLES_REMEDY, no_handles_left};

const OTHER_REMEDY: &str = "give the directory and everything in it to the user of the service \
                            (chown -R USER DIR), free space on its disk, or set another state_dir";

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
    /// What to do if the store cannot be started, to end a sentence.
    pub(crate) fn remedy(&self) -> &'static str {
        let Self::Io { cause, .. } = self else { return OTHER_REMEDY };
        match cause.kind() {
            _ if no_handles_left(cause) => NO_HANDLES_REMEDY,
            // EAGAIN or ENOMEM of a thread.
            ErrorKind::WouldBlock | ErrorKind::OutOfMemory => {
                "raise this program's limits of threads and memory (TasksMax= and LimitAS= under \
                 systemd, ulimit -u and -v)"
            }
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
                "a file is where a folder has to be, or something else where a file has to be: \
                 move it away, or set another state_dir"
            }
            _ => OTHER_REMEDY,
        }
    }

    /// For `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { doing, path: path.to_owned(), cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_that_of_the_error() {
        let remedy = |errno| {
            let cause = io::Error::from_raw_os_error(errno);
            StoreError::io("opening", Path::new("/state/lock"))(cause).remedy()
        };
        // As on Linux.
        for (errno, part) in [
            (24, "LimitNOFILE="),
            (11, "TasksMax="),
            (12, "LimitAS="),
            (13, "chown -R USER DIR"),
            (17, "move it away"),
            (20, "move it away"),
            (21, "move it away"),
            (28, "free space"),
        ] {
            assert!(remedy(errno).contains(part), "{errno}: {}", remedy(errno));
        }
    }
}
