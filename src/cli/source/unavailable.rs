//! The error of a source that another attempt may read.

/// The source does not answer now; it may later.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unavailable(pub(crate) String);
