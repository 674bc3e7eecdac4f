//! The bridge's clock: the wall's time at the start, and from then on the monotonic one.
//!
//! May not be asked by the core, which is given its `now`. Within a run it never goes back, however
//! the wall's clock is set (design, decision 10).

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::ids::Moment;

/// Turns instants into moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Instant,
    began_at: Moment,
}

impl Clock {
    /// A clock that begins now, by the wall's time.
    #[must_use]
    pub(super) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        Self { began: Instant::now(), began_at: Moment::from_millis(millis) }
    }

    /// The moment of this instant.
    #[must_use]
    pub(super) fn at(&self, instant: Instant) -> Moment {
        let millis =
            |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        match instant.checked_duration_since(self.began) {
            Some(after) => self.began_at.plus(millis(after)),
            None => self.began_at.plus(-millis(self.began - instant)),
        }
    }

    /// The moment now.
    #[must_use]
    pub(super) fn now(&self) -> Moment {
        self.at(Instant::now())
    }

    /// The instant of a moment, for a timer.
    #[must_use]
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        let after = u64::try_from(moment.since(self.began_at)).unwrap_or(0);
        self.began + std::time::Duration::from_millis(after)
    }
}
