//! What is to be said of one gateway or of the bridge, and when it was last said.
//!
//! May not know topics or values: the publisher does.

use bytes::Bytes;

use crate::ids::Moment;

/// A gateway's state and info.
#[derive(Clone, Debug, Default)]
pub(super) struct GatewayDesk {
    /// `online` or `offline` is to be said.
    pub(super) state_dirty: bool,
    /// Device states that changed before it, and go out before `online`.
    pub(super) mark: u64,
    pub(super) info: Desk,
}

impl GatewayDesk {
    pub(super) fn state_changed(&mut self, mark: u64) {
        self.state_dirty = true;
        self.mark = mark;
        self.info.dirty = true;
    }
}

/// An info: on change, not too often, and not twice the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk {
    pub(super) dirty: bool,
    said: Option<(Moment, Bytes)>,
}

impl Desk {
    /// It has to be said again, be it the same.
    pub(super) fn forget(&mut self) {
        self.dirty = true;
        self.said = None;
    }

    pub(super) const fn is_said(&self) -> bool {
        self.said.is_some()
    }

    /// When it may be said next.
    pub(super) fn next_at(&self, interval_ms: i64) -> Moment {
        self.said.as_ref().map_or(Moment::from_millis(0), |(at, _)| at.plus(interval_ms))
    }

    pub(super) fn is_due(&self, now: Moment, interval_ms: i64) -> bool {
        self.dirty && self.next_at(interval_ms) <= now
    }

    /// The payload, unless it is what was said last.
    pub(super) fn take(&mut self, now: Moment, payload: Bytes) -> Option<Bytes> {
        self.dirty = false;
        if self.said.as_ref().is_some_and(|(_, said)| *said == payload) {
            return None;
        }
        self.said = Some((now, payload.clone()));
        Some(payload)
    }
}
