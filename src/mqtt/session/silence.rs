//! Notices a broker that has fallen silent, or that does not acknowledge what is published.

use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::Settings;
use super::fault::Fault;

/// Which acknowledgements a broker owes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Overdue {
    /// All of them: it has sent none since.
    All,
    /// The oldest one, although it has sent later ones.
    Skipped,
}

/// Watches for a broker that says nothing any more, or answers pings and acknowledges nothing. The
/// library's own check needs two pings, and only sends them when nothing else goes out.
pub(super) struct Silence {
    limit: Duration,
    alarm: Pin<Box<Sleep>>,
    heard_at: Instant,
    /// Set when something came; the clock is read once for many.
    broken: bool,
}

impl Silence {
    pub(super) fn new(settings: &Settings) -> Self {
        let limit = settings.keep_alive.mul_f64(1.5);
        let now = Instant::now();
        Self { limit, alarm: Box::pin(sleep_until(now + limit)), heard_at: now, broken: false }
    }

    /// Something came from the broker.
    pub(super) const fn heard(&mut self) {
        self.broken = true;
    }

    /// The next event, or the fault that none comes, or no acknowledgement.
    pub(super) async fn watch<T>(
        &mut self,
        next: impl Future<Output = Result<T, Fault>>,
        overdue: Option<(Instant, Overdue)>,
        settings: &Settings,
    ) -> Result<T, Fault> {
        if self.broken {
            self.broken = false;
            self.heard_at = Instant::now();
        }
        let mut next = pin!(next);
        loop {
            tokio::select! {
                biased;
                next = &mut next => return next,
                () = self.alarm.as_mut() => {
                    let (broker, after, now) = (settings.url(), self.limit, Instant::now());
                    let silent_at = self.heard_at + self.limit;
                    let overdue_at = overdue.map(|(since, _)| since + self.limit);
                    if silent_at <= now {
                        return Err(Fault::Silent { broker, after });
                    }
                    if let Some((since, what)) = overdue
                        && since + self.limit <= now
                    {
                        return Err(match what {
                            Overdue::All => Fault::Unacknowledged { broker, after },
                            Overdue::Skipped => Fault::Skipped { broker, after },
                        });
                    }
                    let due = overdue_at.map_or(silent_at, |at| at.min(silent_at));
                    self.alarm.as_mut().reset(due);
                }
            }
        }
    }
}
