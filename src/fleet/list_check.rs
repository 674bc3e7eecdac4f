//! Decides whether a difference between a list and the known state of a device is applied.
//!
//! List and stream have no common order, so the order of the core's inputs decides: the request of
//! a list passes through the same queue as the stream.

use super::connection::ConnectionState;
use super::event::Source;
use super::status::Status;
use crate::ids::Moment;

/// How long after a difference the second look is due, in milliseconds.
pub(crate) const SECOND_LOOK_MS: i64 = 2_000;

/// What one device's comparisons depend on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ListCheck {
    /// The gateway's `stream_seq` at the device's last status from the stream.
    last_stream_seq: u64,
    /// A difference in one list, not applied yet.
    suspect: Option<Suspect>,
}

/// A difference between a list and what is known.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    /// The list's status; `None` if the device was missing from it.
    listed: Option<Status>,
    /// When that list came.
    at: Moment,
    /// The gateway's `stream_seq` at that time.
    stream_seq: u64,
    /// The source of the event that it may become.
    source: Source,
}

/// A list that is compared with what is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListContext {
    pub(crate) now: Moment,
    /// Whether it is the first of its link.
    pub(crate) is_first: bool,
    /// The gateway's `stream_seq` when the list was requested.
    pub(crate) requested_seq: u64,
    /// The gateway's `stream_seq` now.
    pub(crate) stream_seq: u64,
}

/// The result of comparing a device with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// The list agrees, or its difference is not applied yet.
    Unchanged,
    /// The list is the first to show whether the device is connected; its status is no change.
    FirstSeen(Status),
    /// The list's status is a change.
    Changed(Status, Source),
}

impl ListCheck {
    pub(crate) const fn set_last_stream_seq(&mut self, stream_seq: u64) {
        self.last_stream_seq = stream_seq;
    }

    /// Whether an unbelieved difference needs a second list.
    pub(crate) const fn is_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    /// Drops an unbelieved difference.
    pub(crate) const fn clear(&mut self) {
        self.suspect = None;
    }

    /// Compares a device with its status in a list, `None` if it is missing from it.
    ///
    /// A difference is applied at once in the first list of a link, or if the known status is from
    /// before the device was forgotten, and the stream has not mentioned the device since that list
    /// was requested; any other when a second list shows it again and the stream was silent about
    /// the device in between.
    pub(crate) fn compare(
        &mut self,
        known: &ConnectionState,
        listed: Option<Status>,
        list: &ListContext,
    ) -> Comparison {
        let status = listed.unwrap_or(Status::Disconnected);
        let Some(known_status) = known.status() else { return Comparison::FirstSeen(status) };
        if known.matches_list(listed) {
            self.suspect = None;
            let is_first = known.is_determined_by_list();
            return if is_first {
                Comparison::FirstSeen(known_status)
            } else {
                Comparison::Unchanged
            };
        }
        let is_silent_since = |stream_seq: u64| self.last_stream_seq <= stream_seq;
        let source = if list.is_first { Source::Resync } else { Source::Audit };
        let is_believed_at_once = list.is_first || known.is_determined_by_list();
        if is_believed_at_once && is_silent_since(list.requested_seq) {
            return Comparison::Changed(status, source);
        }
        let before =
            self.suspect.filter(|it| it.listed == listed && is_silent_since(it.stream_seq));
        let Some(before) = before else {
            let (at, stream_seq) = (list.now, list.stream_seq);
            self.suspect = Some(Suspect { listed, at, stream_seq, source });
            return Comparison::Unchanged;
        };
        if list.now.since(before.at) < SECOND_LOOK_MS {
            return Comparison::Unchanged;
        }
        Comparison::Changed(status, before.source)
    }
}
