//! The bridge as a service manager runs it: notifications, signals and the journal.

mod heartbeat;
mod journal;
mod signals;

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::time::timeout;

/// A socket in place of the service manager's, for `NOTIFY_SOCKET`.
pub(crate) struct Manager(UnixDatagram);

impl Manager {
    pub(crate) fn bind(path: &Path) -> Self {
        Self(UnixDatagram::bind(path).unwrap())
    }

    /// The next notification, if there is one within this time.
    pub(crate) async fn notified(&self, within: Duration) -> Option<String> {
        let mut datagram = [0; 256];
        let length = timeout(within, self.0.recv(&mut datagram)).await.ok()?.unwrap();
        Some(String::from_utf8_lossy(&datagram[..length]).trim_end().to_owned())
    }

    /// Waits until this is notified.
    pub(crate) async fn sees(&self, state: &str) {
        crate::harness::patiently(state, async {
            while self.notified(Duration::from_secs(60)).await.is_none_or(|seen| seen != state) {}
        })
        .await;
    }
}
