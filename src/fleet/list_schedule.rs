//! When a gateway's device list is read: on a new link, at the audit interval, on request, and soon
//! after a difference, a change or a failure.

use super::list_check::SECOND_LOOK_MS;
use crate::ids::Moment;

/// The least time between two requests, in milliseconds: dialing devices that the gateway does not
/// know must not make the bridge flood it.
const REQUEST_INTERVAL_MIN_MS: i64 = 1_000;
/// How long after a failed list the next one is due, in milliseconds.
const RETRY_MS: i64 = 2_000;

#[derive(Debug)]
pub(crate) struct ListSchedule {
    audit_interval_ms: i64,
    state: ListState,
    /// A list was requested before the next audit is due.
    is_wanted: bool,
    /// When the list is due that has to confirm what another one has shown.
    second_look: Option<Moment>,
    /// Whether the lists since the last audit confirm a change.
    is_confirming: bool,
    last_request: Option<Moment>,
    last_list_at: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListState {
    NoLink,
    Waiting {
        due: Moment,
    },
    /// The core has requested it from the link.
    Requested,
    /// The link has sent the request to the gateway.
    Sent {
        /// The gateway's `stream_seq` at that time.
        stream_seq: u64,
    },
}

impl ListSchedule {
    pub(crate) const fn new(audit_interval_ms: i64) -> Self {
        Self {
            audit_interval_ms,
            state: ListState::NoLink,
            is_wanted: false,
            second_look: None,
            is_confirming: false,
            last_request: None,
            last_list_at: None,
        }
    }

    pub(crate) const fn start(&mut self, now: Moment) {
        self.state = ListState::Waiting { due: now };
        (self.second_look, self.is_confirming) = (None, false);
    }

    pub(crate) const fn stop(&mut self) {
        self.state = ListState::NoLink;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state != ListState::NoLink
    }

    /// Requests a list before the next audit.
    pub(crate) const fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Requests a list that confirms what the gateway has just shown.
    pub(crate) fn want_second_look(&mut self, now: Moment) {
        self.second_look.get_or_insert(now.plus(SECOND_LOOK_MS));
    }

    /// The request was sent to the gateway.
    pub(crate) fn sent(&mut self, stream_seq: u64) {
        if self.is_running() {
            self.state = ListState::Sent { stream_seq };
        }
    }

    pub(crate) fn failed(&mut self, now: Moment) {
        if self.is_running() {
            self.state = ListState::Waiting { due: now.plus(RETRY_MS) };
        }
    }

    /// The `stream_seq` when the list that arrives now was requested; `None` if it was not.
    pub(crate) const fn requested_seq(&self) -> Option<u64> {
        match self.state {
            ListState::Sent { stream_seq } => Some(stream_seq),
            ListState::NoLink | ListState::Waiting { .. } | ListState::Requested => None,
        }
    }

    /// The list was compared; the next one is due as an audit, or earlier to confirm what this one
    /// has shown: a difference that is not applied yet, or a change that the stream had not
    /// reported. A change in a list that confirms another one is not confirmed, so that devices
    /// that change all the time do not have the list read all the time.
    pub(crate) fn finish(
        &mut self,
        now: Moment,
        wall_time: Moment,
        is_suspect: bool,
        has_changed: bool,
    ) {
        let is_to_confirm = has_changed && !self.is_confirming;
        self.is_confirming = is_to_confirm || (self.is_confirming && is_suspect);
        self.last_list_at = Some(wall_time);
        self.state = ListState::Waiting { due: now.plus(self.audit_interval_ms) };
        if is_suspect || is_to_confirm {
            self.want_second_look(now);
        }
    }

    pub(crate) const fn audit_interval_ms(&self) -> i64 {
        self.audit_interval_ms
    }

    pub(crate) const fn last_list_at(&self) -> Option<Moment> {
        self.last_list_at
    }

    /// When the next request is due.
    pub(crate) fn next(&self) -> Option<Moment> {
        let ListState::Waiting { due } = self.state else { return None };
        let due = self.second_look.map_or(due, |at| due.min(at));
        if !self.is_wanted {
            return Some(due);
        }
        let earliest =
            self.last_request.map_or(Moment::default(), |at| at.plus(REQUEST_INTERVAL_MIN_MS));
        Some(due.min(earliest))
    }

    /// Whether the list is to be requested now.
    pub(crate) fn request_if_due(&mut self, now: Moment) -> bool {
        let is_due = self.next().is_some_and(|due| due <= now);
        if is_due {
            self.last_request = Some(now);
            self.is_wanted = false;
            self.second_look = self.second_look.filter(|at| *at > now);
            self.state = ListState::Requested;
        }
        is_due
    }
}
