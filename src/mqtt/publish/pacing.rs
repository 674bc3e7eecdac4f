//! When the next message of discovery may be sent.

use crate::homeassistant::Described;
use crate::ids::Moment;

/// Between two messages, in milliseconds. Home Assistant needs tens of milliseconds for a new
/// device, and brokers drop what a slow subscriber does not read.
const PACE_MS: i64 = 50;
/// Unacknowledged messages, so that they do not fill a small window.
const IN_FLIGHT_MAX: usize = 4;
/// Between parents and children, in milliseconds: Home Assistant sets up platforms concurrently,
/// and reports a device whose parent is unknown to it.
const GENERATION_GAP_MS: i64 = 2_000;

#[derive(Debug, Default)]
pub(crate) struct Pacing {
    next_at: Moment,
    /// The generation of the last message, until the gap after it has passed.
    generation: Option<u8>,
    in_flight: usize,
}

impl Pacing {
    /// When the next message may be sent; `None`: once another is acknowledged.
    pub(crate) fn next_at(&self) -> Option<Moment> {
        (self.in_flight < IN_FLIGHT_MAX).then_some(self.next_at)
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Whether a message about this subject has to wait, as its parents were sent just now.
    pub(crate) fn starts_gap(&mut self, now: Moment, subject: Described) -> bool {
        let starts = self.generation.is_some_and(|last| last < generation(subject));
        if starts {
            self.generation = None;
            self.next_at = now.plus(GENERATION_GAP_MS);
        }
        starts
    }

    /// A message is sent; `subject`: what it describes, unless it removes something.
    pub(crate) fn sent(&mut self, now: Moment, subject: Option<Described>) {
        self.generation = subject.map(generation).or(self.generation);
        self.next_at = now.plus(PACE_MS);
        self.in_flight += 1;
    }

    /// The broker has accepted or refused a message.
    pub(crate) const fn acknowledged(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

/// Parents are of an earlier generation than their children.
const fn generation(subject: Described) -> u8 {
    match subject {
        Described::Bridge => 0,
        Described::Gateway(_) => 1,
        Described::Device(..) => 2,
    }
}
