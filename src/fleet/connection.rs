//! The connection of one device: its status, and the value of `connected` that follows from it.

use super::event::Source;
use super::remembered::{Known, RetrySet};
use super::status::Status;
use crate::ids::Moment;

/// What is known of a device's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    /// No status has been seen.
    Unseen,
    /// The device is connected, or is not.
    Known {
        known: Known,
        /// When the value began, by the core's `now`; `None` if it was not observed from then on
        /// without a gap.
        observed_since: Option<Moment>,
        /// Reported since the value began.
        retries: RetrySet,
    },
    /// The status does not show whether the device is connected: its code is unknown to this build,
    /// or it is from before the device was forgotten.
    Undetermined { status: Status, last: Option<Known> },
}

impl ConnectionState {
    /// The state that an earlier process left; nothing of it has been observed since.
    pub(crate) fn restore(status: Option<Status>, known: Option<Known>, retries: RetrySet) -> Self {
        let Some(status) = status else { return Self::Unseen };
        match known {
            Some(known) if status.connected() == Some(known.connected) => {
                Self::Known { known: Known { status, ..known }, observed_since: None, retries }
            }
            last => Self::Undetermined { status, last },
        }
    }

    /// The state after a first status whose beginning was not seen.
    pub(crate) fn first_seen(wall_time: Moment, status: Status) -> Self {
        match status.connected() {
            Some(connected) => {
                let known = Known { connected, since: wall_time, exact: false, status };
                let retries = RetrySet::default().with(status);
                Self::Known { known, observed_since: None, retries }
            }
            None => Self::Undetermined { status, last: None },
        }
    }

    /// The status of the last event, or the first one seen.
    pub(crate) const fn status(&self) -> Option<Status> {
        match self {
            Self::Unseen => None,
            Self::Known { known, .. } => Some(known.status),
            Self::Undetermined { status, .. } => Some(*status),
        }
    }

    pub(crate) const fn connected(&self) -> Option<bool> {
        match self {
            Self::Known { known, .. } => Some(known.connected),
            Self::Unseen | Self::Undetermined { .. } => None,
        }
    }

    /// The last known value of `connected`.
    pub(crate) const fn known(&self) -> Option<Known> {
        match self {
            Self::Unseen => None,
            Self::Known { known, .. } => Some(*known),
            Self::Undetermined { last, .. } => *last,
        }
    }

    pub(crate) fn retries(&self) -> RetrySet {
        match self {
            Self::Known { retries, .. } => *retries,
            Self::Unseen | Self::Undetermined { .. } => RetrySet::default(),
        }
    }

    /// How long the present value lasted until `at`, if it was observed from its beginning.
    pub(crate) fn observed_ms(&self, at: Moment) -> Option<i64> {
        match self {
            Self::Known { observed_since, .. } => observed_since.map(|since| at.since(since)),
            Self::Unseen | Self::Undetermined { .. } => None,
        }
    }

    pub(crate) fn is_repeat(&self, status: Status) -> bool {
        self.status() == Some(status) || self.retries().contains(status)
    }

    /// Whether a list agrees; `None`: the device is missing from the list.
    pub(crate) fn matches_list(&self, listed: Option<Status>) -> bool {
        match listed {
            Some(status) => self.is_repeat(status),
            None => self.status().and_then(Status::connected) == Some(false),
        }
    }

    /// Whether a list is the first to show whether the device is connected.
    pub(crate) fn is_determined_by_list(&self) -> bool {
        match self {
            Self::Unseen => true,
            Self::Undetermined { status, .. } => status.connected().is_some(),
            Self::Known { .. } => false,
        }
    }

    /// Changes to a new status. `is_gapless`: all time since the last change was observed.
    pub(crate) fn change(
        &mut self,
        at: Moment,
        wall_time: Moment,
        status: Status,
        source: Source,
        is_gapless: bool,
    ) {
        let Some(connected) = status.connected() else {
            *self = Self::Undetermined { status, last: self.known() };
            return;
        };
        let is_seen = source == Source::Stream;
        *self = match *self {
            Self::Known { known, observed_since, retries } if known.connected == connected => {
                let observed_since = observed_since.filter(|_| is_seen && is_gapless);
                let known = Known { status, ..known };
                Self::Known { known, observed_since, retries: retries.with(status) }
            }
            Self::Undetermined { last: Some(known), .. } if known.connected == connected => {
                let (known, retries) = (Known { status, ..known }, RetrySet::default());
                Self::Known { known, observed_since: None, retries: retries.with(status) }
            }
            Self::Unseen | Self::Known { .. } | Self::Undetermined { .. } => {
                // A failed attempt does not show when the device lost its connection.
                let shows_start =
                    connected || status == Status::Disconnected || self.known().is_some();
                let exact = is_seen && shows_start;
                let known = Known { connected, since: wall_time, exact, status };
                let observed_since = exact.then_some(at);
                Self::Known { known, observed_since, retries: RetrySet::default().with(status) }
            }
        };
    }

    /// From here on, the value is no longer observed.
    pub(crate) const fn stop_observing(&mut self) {
        if let Self::Known { observed_since, .. } = self {
            *observed_since = None;
        }
    }
}
