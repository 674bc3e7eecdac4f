//! One device: its chain of events, what is known of it and since when, its seconds.
//!
//! May not decide whether a list is to be believed (`compare` does) nor when a gateway is lost
//! (`gateway` does). The one thing easily got wrong: a retry is not news. Within one value of
//! `connected`, each status of a retry loop is told once; its repeats leave no trace but a count.

use serde::{Deserialize, Serialize};

use super::event::{EventType, Source};
use super::listed::DeviceInfo;
use super::seconds::Seconds;
use super::status::Status;
use crate::ids::Moment;

/// All that the core remembers of one device.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// In the gateway's list.
    pub(super) managed: bool,
    /// In the configuration.
    pub(super) declared: bool,
    /// Given to the gateway again because of a command.
    pub(super) kept: bool,
    /// For how long the gateway's lists have been seen to lack it while it was not expected, in
    /// milliseconds.
    pub(super) absent_ms: i64,
    pub(super) info: Option<DeviceInfo>,
    /// The status last told, the chain's; `None` until anything is known.
    pub(super) status: Option<Status>,
    /// The last event's number; 0 before the first.
    pub(super) seq: u64,
    /// The last known value of `connected`, and when it began.
    pub(super) known: Option<Known>,
    /// When it began by the core's `now`, from which its duration is counted.
    began: Moment,
    /// Statuses of a retry loop told since `connected` last changed.
    told: Vec<Status>,
    pub(super) seconds: Seconds,
    pub(super) counts: Counts,
    /// When a field of the state last changed.
    pub(super) updated_at: Moment,
    /// The gateway's input at which the stream last spoke of it.
    pub(super) spoke_at: u64,
    /// A difference seen in one list, not yet believed.
    pub(super) suspect: Option<Suspect>,
    /// The number of the last list that held it.
    pub(super) listed_in: u64,
}

/// A known value of `connected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The value.
    pub connected: bool,
    /// When it began, or when the device was first seen.
    pub since: Moment,
    /// Whether its beginning was seen on the stream.
    pub exact: bool,
    /// Whether all of it, from its beginning, was observed; never across a restart.
    #[serde(skip)]
    pub whole: bool,
    /// The status last known within it.
    pub status: Status,
}

/// What of a device outlives the process: its place in the chain and what was last known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The last event's number; 0 before the first.
    pub seq: u64,
    /// The status last told.
    pub status: Option<Status>,
    /// The last known value of `connected`.
    pub known: Option<Known>,
    /// Statuses of a retry loop told since `connected` last changed.
    pub told: Vec<Status>,
    /// In the gateway's list.
    pub managed: bool,
    /// What the list last told of it.
    pub info: Option<DeviceInfo>,
    /// For how long lists lacked it while it was not expected, in milliseconds; only time that was
    /// observed counts.
    pub absent_ms: i64,
    /// It is no more, but for its place in the chain: should it come back, its events go on.
    pub forgotten: bool,
}

/// What a list said against what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    /// The list's status; `None` where the device was missing from it.
    pub(super) listed: Option<Status>,
    /// When that list came.
    pub(super) at: Moment,
    /// What had been heard of the gateway when that list came.
    pub(super) seen_at: u64,
    /// How an event from it would be marked.
    pub(super) source: Source,
}

/// How often, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events `connected`.
    pub connects: u64,
    /// Events `disconnected`.
    pub disconnects: u64,
    /// Statuses `..._cannot_connect` and `..._not_allowed`, repeats among them.
    pub connect_failures: u64,
}

/// A change that was made: what of an event the device itself knows.
pub(super) struct Change {
    pub(super) event_type: EventType,
    pub(super) previous: Option<Status>,
    pub(super) duration_ms: Option<i64>,
}

impl Remembered {
    /// What stays of a device that is forgotten.
    #[must_use]
    pub fn forget(&self) -> Self {
        Self {
            seq: self.seq,
            status: self.status,
            known: None,
            told: Vec::new(),
            managed: false,
            info: None,
            absent_ms: 0,
            forgotten: true,
        }
    }
}

impl Device {
    /// A device that the configuration declares.
    pub(super) fn declared(now: Moment) -> Self {
        Self::new(now, true, false)
    }

    /// A device that the configuration does not declare. `kept`: a command keeps it.
    pub(super) fn undeclared(now: Moment, kept: bool) -> Self {
        Self::new(now, false, kept)
    }

    fn new(now: Moment, declared: bool, kept: bool) -> Self {
        Self {
            managed: false,
            declared,
            kept,
            absent_ms: 0,
            info: None,
            status: None,
            seq: 0,
            known: None,
            began: now,
            told: Vec::new(),
            seconds: Seconds::default(),
            counts: Counts::default(),
            updated_at: now,
            spoke_at: 0,
            suspect: None,
            listed_in: 0,
        }
    }

    /// What is to outlive the process.
    pub(super) fn remember(&self) -> Remembered {
        Remembered {
            seq: self.seq,
            status: self.status,
            known: self.known.map(|known| Known { whole: false, ..known }),
            told: self.told.clone(),
            managed: self.managed,
            info: self.info,
            absent_ms: self.absent_ms,
            forgotten: false,
        }
    }

    /// A device of an earlier process: known, but not observed since.
    pub(super) fn restore(&mut self, remembered: Remembered) {
        let Remembered { seq, status, known, told, managed, info, absent_ms, .. } = remembered;
        self.seq = seq;
        self.status = status;
        self.known = known.map(|known| Known { whole: false, ..known });
        self.told = told;
        self.managed = managed;
        self.info = info;
        self.absent_ms = absent_ms;
    }

    /// The gateway's list has it, or has it no more.
    pub(super) const fn set_managed(&mut self, managed: bool) {
        self.managed = managed;
        self.absent_ms = 0;
    }

    /// Whether it should be connected: it is listed, declared, or kept by a command.
    pub(super) const fn expected(&self) -> bool {
        self.managed || self.declared || self.kept
    }

    /// Starts the seconds at `now` if the device is expected and its `connected` is known.
    pub(super) fn start_observing(&mut self, now: Moment) {
        if self.expected() && self.connected().is_some() {
            self.seconds.start(now);
        }
    }

    /// A first look at a device is a state, not an event.
    pub(super) fn first_seen(&mut self, shown: Moment, status: Status) {
        self.status = Some(status);
        self.known = status.connected().map(|connected| Known {
            connected,
            since: shown,
            exact: false,
            whole: false,
            status,
        });
        self.remember_told(status);
        self.updated_at = shown;
    }

    /// Whether the stream's word of this status is no news.
    pub(super) fn repeats(&self, status: Status) -> bool {
        self.status == Some(status) || self.told.contains(&status)
    }

    /// Whether a list's word agrees with what is known; `None`: missing from the list.
    pub(super) fn agrees(&self, listed: Option<Status>) -> bool {
        match listed {
            Some(status) => self.repeats(status),
            None => self.status.and_then(Status::connected) == Some(false),
        }
    }

    /// Takes a status that is news. `shown`: `at` by the wall's clock. `frozen_at`: the moment to
    /// which the time before was observed, where that is not `at` itself.
    pub(super) fn change(
        &mut self,
        at: Moment,
        shown: Moment,
        status: Status,
        source: Source,
        frozen_at: Option<Moment>,
    ) -> Change {
        let previous = self.status;
        let event_type = EventType::of(previous, status);
        let seen = source == Source::Stream;
        let duration_ms = self
            .known
            .filter(|known| known.whole && seen && frozen_at.is_none())
            .map(|_| at.since(self.began));

        self.seconds.stop(frozen_at.unwrap_or(at), self.connected());
        match status.connected() {
            Some(connected) => {
                if self.know(shown, connected, status, seen, frozen_at.is_some()) {
                    self.began = at;
                }
            }
            None => {
                self.observed_no_more();
                self.told.clear();
            }
        }
        self.seq += 1;
        self.status = Some(status);
        self.suspect = None;
        self.remember_told(status);
        self.count(event_type, status);
        self.updated_at = shown;
        self.start_observing(at);
        Change { event_type, previous, duration_ms }
    }

    /// Whether a new value of `connected` begins.
    fn know(
        &mut self,
        shown: Moment,
        connected: bool,
        status: Status,
        seen: bool,
        gap: bool,
    ) -> bool {
        match &mut self.known {
            Some(known) if known.connected == connected => {
                known.status = status;
                known.whole &= seen && !gap;
                false
            }
            _ => {
                let (since, exact, whole) = (shown, seen, seen);
                self.known = Some(Known { connected, since, exact, whole, status });
                self.told.clear();
                true
            }
        }
    }

    fn remember_told(&mut self, status: Status) {
        if is_retry(status) && !self.told.contains(&status) {
            self.told.push(status);
        }
    }

    fn count(&mut self, event_type: EventType, status: Status) {
        match event_type {
            EventType::Connected => self.counts.connects += 1,
            EventType::Disconnected => self.counts.disconnects += 1,
            EventType::Connecting
            | EventType::ConnectFailed
            | EventType::Refused
            | EventType::StatusChanged => {}
        }
        self.count_failure(status);
    }

    /// Counts a failed attempt, be it news or not.
    pub(super) fn count_failure(&mut self, status: Status) {
        if is_failure(status) {
            self.counts.connect_failures += 1;
        }
    }

    /// The value of `connected` while its gateway's view is live.
    pub(super) fn connected(&self) -> Option<bool> {
        self.status.and_then(Status::connected)
    }

    /// The link broke before the view was live: what the stream began to tell ends here.
    pub(super) fn stop_observing(&mut self, until: Moment) {
        self.seconds.stop(until, self.connected());
        self.observed_no_more();
    }

    /// The view is lost: the time up to `until` was observed, what follows is not.
    pub(super) fn lose(&mut self, shown: Moment, until: Moment) {
        self.stop_observing(until);
        self.suspect = None;
        self.updated_at = shown;
    }

    fn observed_no_more(&mut self) {
        if let Some(known) = &mut self.known {
            known.whole = false;
        }
    }
}

const fn is_retry(status: Status) -> bool {
    matches!(status, Status::TryToConnect) || is_failure(status)
}

const fn is_failure(status: Status) -> bool {
    matches!(
        status,
        Status::TcpCannotConnect
            | Status::TlsCannotConnect
            | Status::TcpNotAllowed
            | Status::TlsNotAllowed
    )
}
