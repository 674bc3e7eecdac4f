//! How far a gateway's clock is from the bridge's, estimated from the stream.
//!
//! May not touch any other clock. The wire's timestamps have whole seconds and arrive late by an
//! unknown time, so each says only that the skew is at least timestamp minus arrival, and at most a
//! second more at its best: the greatest of the last minutes is the estimate.

use crate::ids::Moment;

/// How long one of the two windows of samples lasts, in milliseconds.
const WINDOW_MS: i64 = 600_000;

#[derive(Debug, Default)]
pub(super) struct Skew {
    window_began: Option<Moment>,
    before: Option<i64>,
    now: Option<i64>,
}

impl Skew {
    pub(super) fn sample(&mut self, timestamp: Moment, received_at: Moment) {
        let began = *self.window_began.get_or_insert(received_at);
        if received_at.since(began) >= WINDOW_MS {
            self.window_began = Some(received_at);
            self.before = self.now.take();
        }
        let least = timestamp.millis() - received_at.millis();
        self.now = Some(self.now.map_or(least, |now| now.max(least)));
    }

    /// Gateway's clock minus bridge's, in milliseconds, to about half a second.
    pub(super) fn estimate_ms(&self) -> Option<i64> {
        self.before.max(self.now).map(|least| least + 500)
    }
}
