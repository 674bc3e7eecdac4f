//! What is wrong with a configuration, and where each setting comes from.
//!
//! May not decide what is wrong. No text here ever holds the value of a secret.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody made it.
    Default,
    /// In the file, at this line (the first is 1).
    File {
        /// The file as it was named.
        path: Arc<Path>,
        /// The line; 0 for the file as a whole.
        line: usize,
    },
    /// In this environment variable.
    Variable(String),
    /// With this flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "command line {flag}"),
        }
    }
}

/// One mistake: where, which key, and what to change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where it was made.
    pub origin: Origin,
    /// The key; empty where the file itself is the matter.
    pub key: String,
    /// What is wrong and what to write instead.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.key.as_str()) {
            (Origin::Default, key) => write!(f, "{key}: {}", self.text),
            (origin, "") => write!(f, "{origin}: {}", self.text),
            (origin, key) => write!(f, "{origin}: {key}: {}", self.text),
        }
    }
}

/// Everything that is wrong with a configuration; one line a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    mistakes: Vec<Mistake>,
}

impl Error {
    /// The mistakes, in the order of their places.
    pub(super) fn new(mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort();
        mistakes.dedup();
        Self { mistakes }
    }

    /// Every mistake, file first and by line, then environment, then command line.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
