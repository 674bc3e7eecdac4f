//! The bridge's clock: a monotonic one for order and durations, and its offset to the wall clock.
//!
//! The monotonic clock starts with the wall clock's time and is never set. It stops while the
//! machine is suspended, and a machine without a battery-backed clock gets the time only after its
//! start; therefore published times follow the wall clock.

use std::time::{Duration, Instant};

use crate::ids::{Moment, SteadyClock};
use crate::net::wall_time;

/// The least jump of the wall clock, in milliseconds. Less is noise, and the steady clock follows
/// what a time server slews.
const JUMP_MIN_MS: i64 = 2_000;
/// Two clocks that are read within this time are read together.
const READ_WITHIN: Duration = Duration::from_millis(100);

/// The instant now, by the clock that tokio's timers follow: a test can pause it.
pub(crate) fn instant_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    steady: SteadyClock,
    /// How far the wall clock is ahead of the steady one, in milliseconds.
    wall_offset_ms: i64,
}

impl Clock {
    /// A clock that starts now, with the wall clock's time.
    pub(crate) fn start() -> Self {
        Self::starting(SteadyClock::new(instant_now(), wall_time()))
    }

    const fn starting(steady: SteadyClock) -> Self {
        Self { steady, wall_offset_ms: 0 }
    }

    pub(crate) const fn steady_clock(&self) -> SteadyClock {
        self.steady
    }

    /// The steady moment now.
    pub(crate) fn steady(&self) -> Moment {
        self.steady.at(instant_now())
    }

    /// The wall clock's time now.
    pub(crate) fn now(&self) -> Moment {
        self.wall(self.steady())
    }

    /// Converts a moment of the steady clock into the wall clock's.
    pub(crate) const fn wall(&self, steady: Moment) -> Moment {
        steady.plus(self.wall_offset_ms)
    }

    /// How far the wall clock is ahead of the steady one, in milliseconds.
    pub(crate) const fn wall_offset_ms(&self) -> i64 {
        self.wall_offset_ms
    }

    /// The instant of a steady moment, for a timer.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        self.steady.instant(moment)
    }

    /// Follows the wall clock; returns by how many milliseconds it was set, if it was.
    pub(crate) fn follow_wall_clock(&mut self) -> Option<i64> {
        let (before, wall, after) = (instant_now(), wall_time(), instant_now());
        // A thread that was interrupted in between would see a jump; the next reading shows it.
        (after.duration_since(before) < READ_WITHIN).then(|| self.compare(before, wall))?
    }

    fn compare(&mut self, instant: Instant, wall: Moment) -> Option<i64> {
        let offset_ms = wall.millis() - self.steady.at(instant).millis();
        let jump = offset_ms - self.wall_offset_ms;
        (jump.abs() >= JUMP_MIN_MS).then(|| {
            self.wall_offset_ms = offset_ms;
            jump
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn published_time_follows_the_wall_clock_and_the_steady_clock_does_not() {
        let (start, started_at) = (Instant::now(), Moment::from_millis(1_000_000_000_000));
        let mut clock = Clock::starting(SteadyClock::new(start, started_at));
        // The wall clock, and by how much published time jumps: noise, an hour of sleep, noise,
        // back.
        for (steady_ms, wall_ms, jump) in [
            (10_000, 10_000, None),
            (20_000, 21_999, None),
            (30_000, 30_000 + HOUR_MS, Some(HOUR_MS)),
            (40_000, 40_900 + HOUR_MS, None),
            (50_000, 50_000, Some(-HOUR_MS)),
            (60_000, 60_000 - HOUR_MS, Some(-HOUR_MS)),
        ] {
            let (instant, wall) =
                (start + Duration::from_millis(steady_ms), started_at.plus(wall_ms));
            assert_eq!(clock.compare(instant, wall), jump, "at {steady_ms}");
            let steady = clock.steady.at(instant);
            assert_eq!(steady.since(started_at), i64::try_from(steady_ms).unwrap());
            assert_eq!(clock.instant(steady), instant, "timers do not jump");
            let off_ms = steady.plus(clock.wall_offset_ms()).millis() - wall.millis();
            assert!(off_ms.abs() < JUMP_MIN_MS, "{off_ms} ms at {steady_ms}");
        }
    }

    #[test]
    fn a_true_clock_has_no_jump() {
        let mut clock = Clock::start();
        assert_eq!(clock.follow_wall_clock(), None);
        assert_eq!(clock.wall_offset_ms(), 0);
    }
}
