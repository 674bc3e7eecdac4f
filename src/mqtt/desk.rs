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
        self.info.changed_at_once();
    }

    /// When its info may be published next, if it is to be. It follows the gateway's state, so
    /// that the two never contradict each other.
    pub(super) fn info_at(&self, interval_ms: i64) -> Option<Moment> {
        self.info.next_at(interval_ms).filter(|_| !self.state_dirty)
    }
}

/// An info: on change, not too often, and not twice the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk {
    pub(super) dirty: bool,
    /// Something in it changed that does not wait for the interval.
    at_once: bool,
    said: Option<(Moment, Bytes)>,
}

impl Desk {
    /// Something in it changed that is published without waiting for the interval.
    pub(super) const fn changed_at_once(&mut self) {
        self.dirty = true;
        self.at_once = true;
    }

    /// It has to be said again, be it the same.
    pub(super) fn forget(&mut self) {
        self.dirty = true;
        self.said = None;
    }

    pub(super) const fn is_said(&self) -> bool {
        self.said.is_some()
    }

    /// When it may be published next, if it is to be.
    pub(super) fn next_at(&self, interval_ms: i64) -> Option<Moment> {
        let said = self.said.as_ref().filter(|_| !self.at_once);
        let at = said.map_or(Moment::from_millis(0), |(at, _)| at.plus(interval_ms));
        self.dirty.then_some(at)
    }

    /// The payload, unless it is what was said last.
    pub(super) fn take(&mut self, now: Moment, payload: Bytes) -> Option<Bytes> {
        (self.dirty, self.at_once) = (false, false);
        if self.said.as_ref().is_some_and(|(_, said)| *said == payload) {
            return None;
        }
        self.said = Some((now, payload.clone()));
        Some(payload)
    }
}
