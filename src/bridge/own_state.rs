//! The bridge's own `online`, as the broker sends it back: what came back was published.

use std::time::Duration;

use tokio::time::Instant;

/// The time after which `online` is published again if it has not come back: the broker's access
/// list may permit it by then.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// Whether `online` has come back on this connection.
#[derive(Debug, Default)]
pub(crate) struct OwnState {
    is_seen: bool,
    repeat_at: Option<Instant>,
}

impl OwnState {
    /// A message on the bridge's own state topic, while `online` is what the bridge says or not.
    pub(crate) fn received(&mut self, payload: &[u8], retained: bool, is_online: bool) {
        // A retained message may be from an earlier connection.
        if !retained {
            self.is_seen = is_online && payload == b"online";
        }
    }

    /// Whether `online` has come back.
    pub(crate) const fn is_seen(&self) -> bool {
        self.is_seen
    }

    /// Whether `online` is to be published again now.
    pub(crate) fn wake(&mut self, now: Instant, is_online: bool) -> bool {
        if self.is_seen || !is_online {
            self.repeat_at = None;
            return false;
        }
        let repeat_at = *self.repeat_at.get_or_insert(now + REPEAT_AFTER);
        if repeat_at <= now {
            self.repeat_at = Some(now + REPEAT_AFTER);
        }
        repeat_at <= now
    }

    /// When `online` may have to be published again.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.repeat_at
    }
}
