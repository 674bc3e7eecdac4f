//! Time inside a simulated gateway: how long things take, what is due, what its clock shows.
//!
//! May not read any clock: `now` comes from outside.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

/// Milliseconds since the simulation began.
pub(crate) type Millis = u64;

/// How long things take at a gateway, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// From losing an asynchronous connection, or failing to make it, to the next try. The
    /// gateway's setting `reconnect_interval`, 30 s by default (wire, section 3).
    pub reconnect_interval_ms: u64,
    /// From registering an asynchronous connection to its first try.
    pub first_try_ms: u64,
    /// To connect to a device that answers, or to be refused by one that does not want to.
    pub connect_ms: u64,
    /// To give up on an address where nothing answers.
    pub connect_timeout_ms: u64,
    /// From one try of a device that dials in to its next.
    pub dial_interval_ms: u64,
    /// A dead device is noticed at latest after this long: the gateway's keep-alive, 32 s (wire,
    /// section 3). The moment is drawn by the seed. 0: at once.
    pub keep_alive_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            reconnect_interval_ms: 30_000,
            first_try_ms: 100,
            connect_ms: 50,
            connect_timeout_ms: 3_000,
            dial_interval_ms: 5_000,
            keep_alive_ms: 32_000,
        }
    }
}

impl Timing {
    /// The same behaviour in a hurry: everything within a quarter of a second, dead devices
    /// noticed at once. For tests that would otherwise wait.
    #[must_use]
    pub const fn fast() -> Self {
        Self {
            reconnect_interval_ms: 200,
            first_try_ms: 5,
            connect_ms: 5,
            connect_timeout_ms: 50,
            dial_interval_ms: 100,
            keep_alive_ms: 0,
        }
    }
}

/// What a timer does when it is due. A token that is no longer current makes it do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    /// A synchronous `Connect` comes to its end.
    Attempt(u64),
    /// An asynchronous connection tries, or ends its try.
    Async { id: u32, token: u64 },
    /// A device dials in.
    Dial { id: u32, token: u64 },
    /// The keep-alive finds a silent device dead.
    Dead { id: u32, token: u64 },
}

/// The timers of one gateway, in order of time and then of setting.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Millis, u64, Wake)>>,
    last: u64,
}

impl Timers {
    /// A number never given before, and never 0.
    pub(super) fn token(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn set(&mut self, due: Millis, wake: Wake) {
        let order = self.token();
        self.heap.push(Reverse((due, order, wake)));
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.heap.peek().map(|Reverse((due, ..))| *due)
    }

    pub(super) fn pop(&mut self, now: Millis) -> Option<(Millis, Wake)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((due, _, wake))| (due, wake))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }
}

/// What a gateway's clock shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Unix time in milliseconds when the simulation began.
    pub(crate) start_unix_ms: i64,
    /// How far the clock is ahead (behind, if negative).
    pub(crate) skew_ms: i64,
}

impl Clock {
    /// The clock's Unix time in whole seconds, as the wire carries it.
    pub(crate) fn unix_seconds(self, now: Millis) -> u32 {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let millis = self.start_unix_ms.saturating_add(now).saturating_add(self.skew_ms);
        u32::try_from((millis / 1_000).clamp(0, i64::from(u32::MAX))).unwrap_or(0)
    }
}
