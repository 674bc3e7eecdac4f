//! Logs each distinct failure of a gateway's link once between two successful connections.

use super::error::LinkError;
use super::rpc::ApiVersion;
use crate::ids::GatewayName;

/// Distinct errors that are logged between two connections.
const ERRORS_MAX: usize = 16;

#[derive(Clone, Debug, Default)]
pub(crate) struct FailureLog {
    errors: Vec<String>,
    repeats: u64,
}

impl FailureLog {
    pub(crate) fn attempt_failed(&mut self, gateway: &GatewayName, error: &LinkError) {
        if self.is_new(error) {
            let code = error.code.as_str();
            tracing::warn!(%gateway, code, %error, "cannot connect to the gateway; retrying");
        }
    }

    pub(crate) fn disconnected(&mut self, gateway: &GatewayName, error: &LinkError) {
        if self.is_new(error) {
            let code = error.code.as_str();
            tracing::warn!(%gateway, code, %error, "disconnected from the gateway; retrying");
        }
    }

    pub(crate) fn connected(&mut self, gateway: &GatewayName, version: ApiVersion) {
        let Self { errors, repeats } = std::mem::take(self);
        let (package, failures) = (version.package(), repeats + errors.len() as u64);
        tracing::info!(%gateway, package, failures, "connected to the gateway");
    }

    /// Errors that differ only in numbers, such as seconds of silence, are the same.
    fn is_new(&mut self, error: &LinkError) -> bool {
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
        let mut log = FailureLog::default();
        assert!(log.is_new(&error("silent for 15 s")));
        assert!(!log.is_new(&error("silent for 16 s")));
        assert!(log.is_new(&error("refused")));
        log.connected(&"lobby".parse().unwrap(), ApiVersion::V1_5);
        assert!(log.is_new(&error("refused")));
    }
}
