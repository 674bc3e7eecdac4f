//! Time inside a simulated gateway: durations and timers.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

/// Milliseconds since the simulation began.
pub(crate) type Millis = u64;

/// A device dials in within this long of being switched on or of its gateway's start.
const FIRST_DIAL_MS: u64 = 1_000;

/// How long things take at a gateway, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayTiming {
    /// From losing an asynchronous connection, or failing to make it, to the next try. The
    /// gateway's setting `reconnect_interval`, 30 s by default.
    pub reconnect_interval_ms: u64,
    /// From registering an asynchronous connection to its first try.
    pub first_try_ms: u64,
    /// To connect to a device that answers, or to be refused by one.
    pub connect_ms: u64,
    /// Timeout of an address without an answer.
    pub connect_timeout_ms: u64,
    /// From one try of a device that dials in to its next.
    pub dial_interval_ms: u64,
    /// A dead device is detected at the latest after this time: the gateway's keep-alive, 32 s. The
    /// moment is drawn by the seed. 0: at once.
    pub keep_alive_ms: u64,
    /// The shortest and the longest time that a device needs to answer a search.
    pub search_min_ms: u64,
    pub search_max_ms: u64,
}

impl Default for GatewayTiming {
    fn default() -> Self {
        Self {
            reconnect_interval_ms: 30_000,
            first_try_ms: 100,
            connect_ms: 50,
            connect_timeout_ms: 3_000,
            dial_interval_ms: 5_000,
            keep_alive_ms: 32_000,
            search_min_ms: 300,
            search_max_ms: 1_500,
        }
    }
}

impl GatewayTiming {
    /// The same behaviour with short delays: everything within a quarter of a second, dead devices
    /// are detected at once. For tests that would otherwise wait.
    pub const fn fast() -> Self {
        Self {
            reconnect_interval_ms: 200,
            first_try_ms: 5,
            connect_ms: 5,
            connect_timeout_ms: 50,
            dial_interval_ms: 100,
            keep_alive_ms: 0,
            search_min_ms: 0,
            search_max_ms: 0,
        }
    }

    /// How long it takes to find out what is at an address.
    pub(crate) fn dial_ms(&self, is_answered: bool) -> u64 {
        if is_answered { self.connect_ms } else { self.connect_timeout_ms }
    }

    /// The longest time to a device's first try to dial in.
    pub(crate) fn first_dial_ms(&self) -> u64 {
        FIRST_DIAL_MS.min(self.dial_interval_ms)
    }

    /// How long a device needs to answer a search: the same each time for the same seed.
    pub(crate) fn search_ms(&self, seed: u64) -> u64 {
        let longest = self.search_max_ms.max(self.search_min_ms);
        fastrand::Rng::with_seed(seed).u64(self.search_min_ms..=longest)
    }
}

/// What becomes due at a gateway. Each has one timer at most: setting it again moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// An asynchronous connection starts a try, or ends it.
    Async(u32),
    /// A device dials in.
    DialIn(u32),
    /// The keep-alive notices that a device no longer responds.
    KeepAlive(u32),
}

/// The timers of one gateway, ordered by time and then by the order in which they were set.
#[derive(Debug)]
pub(crate) struct Timers {
    queue: BTreeSet<(Millis, u64, Timer)>,
    due: HashMap<Timer, (Millis, u64)>,
    last_number: u64,
    /// For moments that are drawn.
    rng: fastrand::Rng,
}

impl Timers {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { queue: BTreeSet::new(), due: HashMap::new(), last_number: 0, rng }
    }

    pub(crate) fn set(&mut self, timer: Timer, due: Millis) {
        self.cancel(timer);
        self.last_number += 1;
        let number = self.last_number;
        self.due.insert(timer, (due, number));
        self.queue.insert((due, number, timer));
    }

    /// Sets a timer to a random moment within so many milliseconds.
    pub(crate) fn set_within(&mut self, timer: Timer, now: Millis, limit: u64) {
        let delay = self.rng.u64(0..=limit);
        self.set(timer, now + delay);
    }

    pub(crate) fn cancel(&mut self, timer: Timer) {
        if let Some((due, number)) = self.due.remove(&timer) {
            self.queue.remove(&(due, number, timer));
        }
    }

    pub(crate) fn next(&self) -> Option<Millis> {
        self.queue.first().map(|(due, ..)| *due)
    }

    /// Removes and returns the first timer that is due at `now`.
    pub(crate) fn pop(&mut self, now: Millis) -> Option<(Millis, Timer)> {
        let &(due, _, timer) = self.queue.first().filter(|(due, ..)| *due <= now)?;
        self.cancel(timer);
        Some((due, timer))
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.due.clear();
    }
}
