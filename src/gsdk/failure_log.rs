//! Which failures of a link are logged: each distinct one once between two successful connections.

use super::error::LinkError;

/// Distinct errors that are logged between two connections.
const ERRORS_MAX: usize = 16;

#[derive(Clone, Debug, Default)]
pub(crate) struct LinkFailureLog {
    errors: Vec<String>,
    repeats: u64,
}

impl LinkFailureLog {
    /// The link is up; returns how many failures there were before.
    pub(crate) fn connected(&mut self) -> u64 {
        let Self { errors, repeats } = std::mem::take(self);
        repeats + errors.len() as u64
    }

    /// Whether an error is to be logged. Errors that differ only in numbers, such as seconds of
    /// silence, are the same.
    pub(crate) fn is_new(&mut self, error: &LinkError) -> bool {
        let text: String = error.message.chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.errors.contains(&text) || self.errors.len() >= ERRORS_MAX {
            self.repeats += 1;
            return false;
        }
        self.errors.push(text);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gsdk::ErrorCode;

    #[test]
    fn the_same_error_is_logged_once_until_the_link_is_up() {
        let error = |message: &str| LinkError::new(ErrorCode::NoSignOfLife, message);
        let mut log = LinkFailureLog::default();
        assert!(log.is_new(&error("silent for 15 s")));
        assert!(!log.is_new(&error("silent for 16 s")));
        assert!(log.is_new(&error("refused")));
        assert_eq!(log.connected(), 3);
        assert!(log.is_new(&error("refused")));
    }
}
