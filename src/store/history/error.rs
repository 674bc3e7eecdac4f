//! Errors of writing and reading the history.

use std::path::PathBuf;

use rusqlite::ErrorCode;

use super::FILE_NAME;
use crate::store::error::StoreError;

/// Why the history could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A newer version of this program has written the file.
    #[error(
        "{} was written by a newer version (format {found}, this version reads up to {supported}); \
         install that version again, or move the file away to start an empty history",
        path.display()
    )]
    NewerFormat {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this version reads.
        supported: i64,
    },
    /// Another program has written the file.
    #[error("{} is not a history database of this program; move it away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It was not closed, and cannot be read where nothing can be written.
    #[error(
        "{} cannot be read, as its folder cannot be written and it has a write-ahead log; copy it \
         with the files beside it to another folder, and set that as state_dir",
        path.display()
    )]
    ReadOnlyFolder {
        /// The database.
        path: PathBuf,
    },
    /// A file of the history, or of the log that it follows, could not be used.
    #[error(transparent)]
    File(#[from] StoreError),
    /// A part of the file cannot be read: replace it.
    #[error("the history database is damaged")]
    Damaged(#[source] rusqlite::Error),
    /// An event that was read is no JSON object.
    #[error("the event with id {id} in the history database is not valid JSON")]
    Event {
        /// The event's id.
        id: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The query has ended in a panic.
    #[error("internal error: the history query panicked ({0}); please report this")]
    Panicked(String),
    /// SQLite failed; the transaction was rolled back.
    #[error("the history database failed")]
    Database(#[source] rusqlite::Error),
}

impl Error {
    /// With what caused it, or what to do. The causes of SQLite's own error repeat its text.
    pub fn with_cause(&self) -> String {
        match (self, std::error::Error::source(self)) {
            (Self::File(error @ StoreError::Io { .. }), _) => format!("{self}; {}", error.remedy()),
            (_, Some(cause)) => format!("{self}: {cause}"),
            (_, None) => self.to_string(),
        }
    }

    /// What a client gets whose query failed.
    pub(crate) fn unreadable(&self) -> String {
        format!("{FILE_NAME} cannot be read now: {}", self.with_cause())
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) { Self::Damaged(error) } else { Self::Database(error) }
    }
}

/// Whether SQLite has found damage, as this error or as a cause of it.
pub(crate) fn is_damage(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        let code = cause.downcast_ref().and_then(rusqlite::Error::sqlite_error_code);
        matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_database_that_may_not_be_opened_has_the_remedy_of_the_directory() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Error::from(StoreError::io("opening", Path::new("/state/history.db"))(denied));
        let text = error.with_cause();
        assert!(text.contains("/state/history.db") && text.contains("chown -R USER DIR"), "{text}");
    }
}
