//! Writes what the bridge observed into the history's tables of spans; until then it waits in a
//! bounded queue.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::history::{Database, Error, Observation, Tracker, UnobservedReason};
use crate::ids::Moment;

/// How often the last proven instant is written: a kill makes no more of the observed time count as
/// not observed.
pub(crate) const PROVEN_EVERY: Duration = Duration::from_secs(30);
/// How often old spans are removed.
const TRIM_EVERY: Duration = Duration::from_secs(3_600);
/// How long after the start, or after the wall clock was set, retention by age begins. A clock that
/// is wrong when a machine boots is usually corrected within minutes.
const CLOCK_TRUSTED_AFTER: Duration = Duration::from_secs(3_600);
/// Rows that may wait for a database that cannot be written.
const ROWS_MAX: usize = 1_000_000;

/// Observations that may wait.
const WAITING_MAX: usize = 500_000;

/// Feeds the tracker, and writes its rows.
#[derive(Debug)]
pub(crate) struct SpanWriter {
    tracker: Tracker,
    /// Device and inode of the file that has what the tracker has written.
    attached: Option<(u64, u64)>,
    proven: Option<Instant>,
    trimmed: Option<Instant>,
    /// The start of the process, or the last time that the wall clock was set.
    clock_set: Instant,
}

impl SpanWriter {
    pub(crate) fn new() -> Self {
        let (tracker, clock_set) = (Tracker::new(), Instant::now());
        Self { tracker, attached: None, proven: None, trimmed: None, clock_set }
    }

    /// What was observed by `now`.
    pub(crate) fn observe(&mut self, backlog: &mut Backlog, now: Moment) {
        let (observations, is_incomplete) = backlog.take();
        if is_incomplete {
            self.give_up();
        }
        for observation in observations {
            if matches!(observation, Observation::ClockSet { .. }) {
                self.clock_set = Instant::now();
            }
            self.tracker.apply(observation);
        }
        self.tracker.advance(now);
        if self.tracker.rows().len() > ROWS_MAX {
            self.give_up();
        }
    }

    /// Why availability is not recorded, if the wall clock is earlier than the recorded times.
    pub(crate) fn clock_fault(&self) -> Option<String> {
        self.tracker.is_clock_implausible().then(|| {
            let until = self.tracker.newest().timestamp();
            format!(
                "availability is not recorded until the wall clock is later than {until}; set it \
                 if it is wrong, or, if it was far ahead before, stop the bridge and move \
                 history.db away"
            )
        })
    }

    /// `now`, for retention by age; `None` while the wall clock may still be wrong.
    pub(crate) fn trusted(&self, now: Moment) -> Option<Moment> {
        (self.clock_set.elapsed() >= CLOCK_TRUSTED_AFTER).then_some(now)
    }

    /// The process ends: all is proven up to now with the next [`Self::write`].
    pub(crate) const fn end(&mut self) {
        self.proven = None;
    }

    /// The database could not be written for too long: the time counts as not observed.
    pub(crate) fn give_up(&mut self) {
        self.tracker.detach(UnobservedReason::StoreFailed);
        self.attached = None;
    }

    /// Writes what there is to write, and how far all is proven.
    ///
    /// # Errors
    /// When the database cannot be written: then it is written later.
    pub(crate) fn write(&mut self, database: &mut Database, now: Moment) -> Result<(), Error> {
        if self.attached != Some(database.file()) {
            if self.attached.take().is_some() {
                self.tracker.detach(UnobservedReason::StoreFailed);
            }
            database.spans().attach(&mut self.tracker)?;
            self.attached = Some(database.file());
            self.tracker.advance(now);
        }
        let is_due = |last: Option<Instant>, every| last.is_none_or(|at| at.elapsed() >= every);
        let proves = is_due(self.proven, PROVEN_EVERY) && self.tracker.proven_at().is_some();
        if proves || !self.tracker.rows().is_empty() {
            database.spans().write(&self.tracker, proves)?;
            self.tracker.written();
            if proves {
                self.proven = Some(Instant::now());
            }
        }
        if let Some(now) = self.trusted(now)
            && is_due(self.trimmed, TRIM_EVERY)
        {
            database.spans().trim(now)?;
            self.trimmed = Some(Instant::now());
        }
        Ok(())
    }
}

/// Observations in their order, as long as they are not too many.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    observations: Vec<Observation>,
    is_incomplete: bool,
}

impl Backlog {
    /// Adds these. When too many wait, only the newest of each device stays.
    pub(crate) fn extend(&mut self, observations: Vec<Observation>) {
        self.observations.extend(observations);
        if self.observations.len() > WAITING_MAX {
            self.is_incomplete = true;
            self.keep_newest();
        }
    }

    /// How many wait.
    pub(crate) const fn len(&self) -> usize {
        self.observations.len()
    }

    /// Takes all; also whether some are missing, so that the time counts as not observed.
    pub(crate) fn take(&mut self) -> (Vec<Observation>, bool) {
        let Self { observations, is_incomplete } = std::mem::take(self);
        (observations, is_incomplete)
    }

    fn keep_newest(&mut self) {
        let (mut seen, mut index) = (BTreeSet::new(), self.observations.len());
        self.observations.reverse();
        self.observations.retain(|observation| {
            index -= 1;
            seen.insert(match observation {
                Observation::Device { gateway, device } => {
                    (Some(gateway.clone()), Some(device.device_id), 0)
                }
                Observation::GatewayOnline { gateway, .. }
                | Observation::GatewayLost { gateway, .. } => (Some(gateway.clone()), None, 0),
                Observation::Gateways { .. } | Observation::ClockSet { .. } => (None, None, index),
            })
        });
        self.observations.reverse();
    }
}
