//! Availability of one device: how long it was observed, and how long of that it was connected.
//! Time that is not observed is in neither sum.

use crate::ids::Moment;

/// A stopwatch for one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UptimeCounter {
    /// Since when the device is observed with the present value of `connected`.
    running_since: Option<Moment>,
    total: Observed,
    /// The largest sums that were read as counters.
    reported: Observed,
}

/// Two sums read at one moment, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// How long the device was connected while it was observed.
    pub connected_ms: i64,
    /// How long the device was observed.
    pub observed_ms: i64,
}

impl UptimeCounter {
    /// Starts to observe. No effect while already observing.
    pub(crate) fn start(&mut self, at: Moment) {
        self.running_since.get_or_insert(at);
    }

    /// Stops to observe at `until`; `connected` is the value that was observed.
    pub(crate) fn stop(&mut self, until: Moment, connected: Option<bool>) {
        self.total = self.read(until, connected);
        self.running_since = None;
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.running_since.is_some()
    }

    /// The sums at `until`, with the present value of `connected`.
    fn read(&self, until: Moment, connected: Option<bool>) -> Observed {
        let (Some(since), Some(connected)) = (self.running_since, connected) else {
            return self.total;
        };
        let span = until.since(since);
        Observed {
            connected_ms: self.total.connected_ms + if connected { span } else { 0 },
            observed_ms: self.total.observed_ms + span,
        }
    }

    /// The sums at `until` as counters, which never decrease: a scraper takes a decrease for a
    /// restart. Sums that turn out to have been too large, as a change was still queued, stay until
    /// the true ones have reached them.
    pub(crate) fn read_monotonic(&mut self, until: Moment, connected: Option<bool>) -> Observed {
        let read = self.read(until, connected);
        self.reported = Observed {
            connected_ms: self.reported.connected_ms.max(read.connected_ms),
            observed_ms: self.reported.observed_ms.max(read.observed_ms),
        };
        self.reported
    }
}
