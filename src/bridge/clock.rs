//! The bridge's clock: a steady one for order and durations, and how far the wall's is from it.
//!
//! May not be asked by the core, which is given its `now`. The steady clock begins with the wall's
//! time and never goes back nor jumps, however the wall's is set. It stands still while the machine
//! sleeps, and a machine without a clock of its own learns the time only after its start; so what
//! is shown follows the wall (design, decision 10).

use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::ids::Moment;
use crate::net;

/// A wall that is further than this from what is shown has jumped, in milliseconds. Less is noise,
/// and what a time server slews is in the steady clock too.
const JUMP_MIN_MS: i64 = 2_000;
/// Two clocks that are read within this time are read together.
const READ_WITHIN: Duration = Duration::from_millis(100);

/// The instant now, by the clock that tokio's timers follow: a test can pause it.
#[must_use]
pub(super) fn instant_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Turns instants into moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Instant,
    began_at: Moment,
    ahead_ms: i64,
}

impl Clock {
    /// A clock that begins now, by the wall's time.
    #[must_use]
    pub(super) fn start() -> Self {
        Self::starting(instant_now(), wall())
    }

    const fn starting(began: Instant, began_at: Moment) -> Self {
        Self { began, began_at, ahead_ms: 0 }
    }

    /// The steady moment of this instant.
    #[must_use]
    pub(super) fn at(&self, instant: Instant) -> Moment {
        match instant.checked_duration_since(self.began) {
            Some(after) => self.began_at.plus(millis(after)),
            None => self.began_at.plus(-millis(self.began - instant)),
        }
    }

    /// The steady moment now.
    #[must_use]
    pub(super) fn steady(&self) -> Moment {
        self.at(instant_now())
    }

    /// What is shown as now.
    #[must_use]
    pub(super) fn now(&self) -> Moment {
        self.steady().plus(self.ahead_ms)
    }

    /// How far what is shown is ahead of the steady clock, in milliseconds.
    #[must_use]
    pub(super) const fn ahead_ms(&self) -> i64 {
        self.ahead_ms
    }

    /// The instant of a steady moment, for a timer.
    #[must_use]
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        let after = u64::try_from(moment.since(self.began_at)).unwrap_or(0);
        self.began + Duration::from_millis(after)
    }

    /// Looks at the wall; by how many milliseconds what is shown has jumped, if it has.
    pub(super) fn look(&mut self) -> Option<i64> {
        let (before, wall, after) = (instant_now(), wall(), instant_now());
        // Interrupted in between, it would show a jump that is none: the next look tells.
        (after.duration_since(before) < READ_WITHIN).then(|| self.compare(before, wall))?
    }

    fn compare(&mut self, instant: Instant, wall: Moment) -> Option<i64> {
        let ahead_ms = wall.millis() - self.at(instant).millis();
        let jump = ahead_ms - self.ahead_ms;
        (jump.abs() >= JUMP_MIN_MS).then(|| {
            self.ahead_ms = ahead_ms;
            jump
        })
    }
}

fn wall() -> Moment {
    let since_epoch = net::wall_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::from_millis(millis(since_epoch))
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    /// Both readings, so many milliseconds after the start.
    fn reading(clock: &Clock, steady_ms: u64, wall_ms: i64) -> (Instant, Moment) {
        (clock.began + Duration::from_millis(steady_ms), clock.began_at.plus(wall_ms))
    }

    #[test]
    fn what_is_shown_follows_the_wall_and_the_steady_clock_does_not() {
        let mut clock = Clock::starting(Instant::now(), Moment::from_millis(1_000_000_000_000));
        // The wall, and by how much what is shown jumps: noise, an hour of sleep, noise, back.
        for (steady_ms, wall_ms, jump) in [
            (10_000, 10_000, None),
            (20_000, 21_999, None),
            (30_000, 30_000 + HOUR_MS, Some(HOUR_MS)),
            (40_000, 40_900 + HOUR_MS, None),
            (50_000, 50_000, Some(-HOUR_MS)),
            (60_000, 60_000 - HOUR_MS, Some(-HOUR_MS)),
        ] {
            let (instant, wall) = reading(&clock, steady_ms, wall_ms);
            assert_eq!(clock.compare(instant, wall), jump, "at {steady_ms}");
            let steady = clock.at(instant);
            assert_eq!(steady.since(clock.began_at), i64::try_from(steady_ms).unwrap());
            assert_eq!(clock.instant(steady), instant, "timers do not jump");
            let off_ms = steady.plus(clock.ahead_ms()).millis() - wall.millis();
            assert!(off_ms.abs() < JUMP_MIN_MS, "{off_ms} ms at {steady_ms}");
        }
    }

    #[test]
    fn a_true_clock_shows_no_jump() {
        let mut clock = Clock::start();
        assert_eq!(clock.look(), None);
        assert_eq!(clock.ahead_ms(), 0);
    }
}
