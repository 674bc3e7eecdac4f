//! Availability: how long a device was observed, and how long of that it was connected.
//!
//! May not know why time is not observed; its callers start and stop it. Time outside is in
//! neither sum, so their ratio is the availability of the observed time.

use crate::ids::Moment;

/// A stopwatch for one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seconds {
    from: Option<Moment>,
    read: Observed,
    shown: Observed,
}

/// Two sums read at one instant, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Of the observed time, how much the device was connected.
    pub connected_ms: i64,
    /// How long the device was observed at all.
    pub observed_ms: i64,
}

impl Seconds {
    /// Observation begins; nothing happens while it is on.
    pub(super) fn start(&mut self, at: Moment) {
        self.from.get_or_insert(at);
    }

    /// Observation ends at `until`, having been on with this value of `connected`.
    pub(super) fn stop(&mut self, until: Moment, connected: Option<bool>) {
        self.read = self.read(until, connected);
        self.from = None;
    }

    /// The sums at `until`, with the present value of `connected`.
    pub(super) fn read(&self, until: Moment, connected: Option<bool>) -> Observed {
        let (Some(from), Some(connected)) = (self.from, connected) else { return self.read };
        let span = until.since(from);
        Observed {
            connected_ms: self.read.connected_ms + if connected { span } else { 0 },
            observed_ms: self.read.observed_ms + span,
        }
    }

    /// The sums at `until`, for whoever counts on them: never less than was shown before. What was
    /// shown may have been too much (a gateway turns out to have been silent for a while, a change
    /// was still in a queue); a counter then stands still until the truth has caught up, since one
    /// that runs backwards counts for a restart.
    pub(super) fn show(&mut self, until: Moment, connected: Option<bool>) -> Observed {
        let read = self.read(until, connected);
        self.shown = Observed {
            connected_ms: self.shown.connected_ms.max(read.connected_ms),
            observed_ms: self.shown.observed_ms.max(read.observed_ms),
        };
        self.shown
    }
}
