//! Which failures of a gateway's link are logged.

use crate::ids::GatewayName;

use super::observation::LinkError;
use super::package::Package;

/// What the log was told since the last time a link stood. One line a distinct error: the same
/// again is counted, and the count told with the recovery.
#[derive(Debug, Default)]
pub(super) struct Told {
    errors: Vec<String>,
    repeats: u64,
}

/// More distinct errors than this between two links are not told.
const TOLD_LEN_MAX: usize = 16;

impl Told {
    /// Logs a failure, unless it was logged already.
    pub(super) fn failed(&mut self, gateway: &GatewayName, error: &LinkError) {
        if self.is_new(error) {
            tracing::warn!(%gateway, code = error.code, error = %error, "no link to the gateway");
        }
    }

    /// Logs a link that stands.
    pub(super) fn up(&mut self, gateway: &GatewayName, package: Package) {
        let Self { errors, repeats } = std::mem::take(self);
        if errors.is_empty() {
            tracing::info!(%gateway, %package, "linked to the gateway");
        } else {
            let failures = repeats + errors.len() as u64;
            tracing::info!(%gateway, %package, failures, "linked to the gateway again");
        }
    }

    /// Numbers in a text (a clock, seconds of silence) do not make another error of it.
    fn is_new(&mut self, error: &LinkError) -> bool {
        let text: String = error.message.chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.errors.contains(&text) || self.errors.len() >= TOLD_LEN_MAX {
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

    #[test]
    fn the_same_error_is_told_once() {
        let mut told = Told::default();
        assert!(told.is_new(&LinkError::new("a", "silent for 15 s")));
        assert!(!told.is_new(&LinkError::new("a", "silent for 16 s")));
        assert!(told.is_new(&LinkError::new("a", "refused")));
        told.up(&"lobby".parse().unwrap(), Package::Gsdk);
        assert!(told.is_new(&LinkError::new("a", "refused")));
    }
}
