//! What the integration tests start and wait for.
//!
//! May not assert anything about the bridge.

pub(crate) mod mosquitto;
pub(crate) mod subscriber;

use std::time::Duration;

/// How long any condition may take before its test fails. Long, as machines may be busy; a test
/// that passes does not wait for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits `work`, and fails the test with `what` when that takes too long.
pub(crate) async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}
