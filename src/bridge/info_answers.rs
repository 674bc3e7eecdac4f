//! When an `info` of another publisher is answered with the own one.

use std::time::Duration;

use tokio::time::Instant;

/// The least time between two answers. It leaves a newcomer time to receive the next one.
pub(crate) const ANSWER_INTERVAL: Duration = Duration::from_millis(500);
/// The same if the publisher has just been answered: two bridges that are both online answer each
/// other without end, and must not flood the broker.
pub(crate) const REPEATED_ANSWER_INTERVAL: Duration = Duration::from_secs(10);

/// The answers on one session.
#[derive(Debug, Default)]
pub(crate) struct InfoAnswers {
    last: Option<Answered>,
    /// When an `info` is answered that came too soon after the last answer.
    next_at: Option<Instant>,
}

#[derive(Debug)]
struct Answered {
    /// The publisher of the last `info`; `None` if it is no bridge.
    publisher: Option<String>,
    /// When an `info` was last answered.
    at: Instant,
}

impl InfoAnswers {
    /// Whether the `info` of this publisher, which has just been received, is answered now;
    /// otherwise it is answered later.
    pub(crate) fn is_due_for(&mut self, now: Instant, publisher: Option<String>) -> bool {
        if let Some(last) = &mut self.last
            && now < last.at + ANSWER_INTERVAL
        {
            let is_repeated = last.publisher == publisher;
            let wait = if is_repeated { REPEATED_ANSWER_INTERVAL } else { ANSWER_INTERVAL };
            let due = last.at + wait;
            self.next_at = Some(self.next_at.map_or(due, |at| at.min(due)));
            last.publisher = publisher;
            return false;
        }
        self.last = Some(Answered { publisher, at: now });
        true
    }

    /// Whether the own `info` is to be published now, as an answer that was postponed; true once.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.next_at.take_if(|at| *at <= now).is_some();
        if is_due && let Some(last) = &mut self.last {
            last.at = now;
        }
        is_due
    }

    /// When a postponed answer is due.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.next_at
    }
}
