//! How long to wait before the broker is tried again.
//!
//! May not touch a clock nor sleep: it only says how long.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// What the waits between attempts are made of.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first wait; each further one is twice as long.
    pub first: Duration,
    /// The longest wait while nothing answers at the broker's address.
    pub absent_max: Duration,
    /// The longest wait otherwise.
    pub max: Duration,
    /// The wait after another client took the session over.
    pub taken_over: Duration,
    /// A connection that lasted this long was a good one: the waits begin anew after it.
    pub stable: Duration,
}

impl Default for Retry {
    /// An address at which nothing answers costs nobody anything: it is asked every few seconds,
    /// so that a broker that starts again is noticed at once. A broker that answers and refuses, or
    /// drops us again, does work for each attempt: there the waits grow to half a minute.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            absent_max: Duration::from_secs(5),
            max: Duration::from_secs(30),
            taken_over: Duration::from_secs(60),
            stable: Duration::from_secs(60),
        }
    }
}

/// What kind of end a connection, or an attempt at one, had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing answered at the address.
    Absent,
    /// The broker refused or dropped us.
    Dropped,
    /// Another client uses our client ID.
    TakenOver,
}

/// The series of waits, from one good connection to the next.
#[derive(Debug)]
pub(super) struct Schedule {
    retry: Retry,
    waits: ExponentialBackoff,
}

impl Schedule {
    pub(super) fn new(retry: Retry) -> Self {
        Self { retry, waits: series(retry) }
    }

    /// The wait after this ending. `lasted` is how long the connection stood, if it ever did.
    pub(super) fn wait(&mut self, ending: Ending, lasted: Option<Duration>) -> Duration {
        if lasted.is_some_and(|lasted| lasted >= self.retry.stable) {
            self.waits = series(self.retry);
        }
        let whole = self.waits.next().unwrap_or(self.retry.max);
        match ending {
            Ending::Absent => jittered(whole.min(self.retry.absent_max)),
            Ending::Dropped => jittered(whole),
            // Two bridges that both jitter downwards would only meet sooner.
            Ending::TakenOver => self.retry.taken_over,
        }
    }
}

fn series(retry: Retry) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(retry.first)
        .with_max_delay(retry.max)
        .without_max_times()
        .build()
}

/// Between half of `whole` and all of it: backon's own jitter would go beyond the ceiling.
fn jittered(whole: Duration) -> Duration {
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_grow_to_the_ceiling_and_never_beyond() {
        let mut schedule = Schedule::new(Retry::default());
        let mut ceiling = secs(1);
        for _ in 0..50 {
            let wait = schedule.wait(Ending::Dropped, None);
            assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?} of {ceiling:?}");
            ceiling = (ceiling * 2).min(secs(30));
        }
    }

    #[test]
    fn an_address_where_nothing_answers_is_asked_every_few_seconds() {
        let mut schedule = Schedule::new(Retry::default());
        for _ in 0..50 {
            assert!(schedule.wait(Ending::Absent, None) <= secs(5));
        }
    }

    #[test]
    fn only_a_connection_that_lasted_a_minute_begins_the_waits_anew() {
        let mut schedule = Schedule::new(Retry::default());
        for _ in 0..10 {
            schedule.wait(Ending::Dropped, None);
        }
        assert!(schedule.wait(Ending::Dropped, Some(secs(59))) >= secs(15));
        assert!(schedule.wait(Ending::Dropped, Some(secs(60))) <= secs(1));
    }

    #[test]
    fn a_session_taken_over_waits_a_minute() {
        let mut schedule = Schedule::new(Retry::default());
        assert_eq!(schedule.wait(Ending::TakenOver, Some(secs(3600))), secs(60));
    }
}
