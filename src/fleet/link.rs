//! A gateway's link and the view of its devices: which transitions are legal, and when the view is
//! lost.
//!
//! A broken link does not end the view: until `unknown_after` has passed since the last sign of
//! life, the devices' states remain and their uptime is not counted. If the list is read in time,
//! that time counts as observed.

use super::event::GatewayIndex;
use super::state::LinkState;
use crate::ids::Moment;

/// The view of a gateway's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GatewayView {
    /// No list has been read since the start.
    Pending { expiry: Expiry },
    /// The list of the present link has been read.
    Current,
    /// The link broke, and the list has not been read since.
    Stale {
        expiry: Expiry,
        /// The last sign of life before the link broke.
        frozen_at: Moment,
    },
    /// The devices' states are unknown.
    Lost {
        /// Up to when they were observed.
        observed_until: Moment,
    },
    /// The gateway was forgotten with all its devices.
    Forgotten,
}

/// When a view that is not current is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expiry {
    at: Moment,
    /// Whether a link has extended it. Only one does, so that links without a list do not last.
    is_extended: bool,
}

/// The link of one gateway.
#[derive(Debug)]
pub(crate) struct LinkTracker {
    unknown_after_ms: i64,
    is_up: bool,
    view: GatewayView,
    state: LinkState,
    /// When `state` began, by the wall clock.
    state_since: Moment,
}

/// The state of the gateway's view while its devices change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ViewContext {
    pub(crate) gateway: GatewayIndex,
    pub(crate) is_live: bool,
    /// The last sign of life, if the link broke and the list has not been read since.
    pub(crate) frozen_at: Option<Moment>,
    /// How far the wall clock is ahead of the core's `now`, in milliseconds.
    pub(crate) wall_offset_ms: i64,
}

impl ViewContext {
    pub(crate) const fn wall_time(&self, at: Moment) -> Moment {
        at.plus(self.wall_offset_ms)
    }

    /// Up to when the devices have been observed by `now`.
    pub(crate) fn observed_until(&self, now: Moment) -> Moment {
        self.frozen_at.unwrap_or(now)
    }
}

impl LinkTracker {
    pub(crate) const fn new(now: Moment, wall_time: Moment, unknown_after_ms: i64) -> Self {
        let expiry = Expiry { at: now.plus(unknown_after_ms), is_extended: false };
        Self {
            unknown_after_ms,
            is_up: false,
            view: GatewayView::Pending { expiry },
            state: LinkState::Connecting,
            state_since: wall_time,
        }
    }

    pub(crate) const fn state(&self) -> LinkState {
        self.state
    }

    pub(crate) const fn state_since(&self) -> Moment {
        self.state_since
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.is_up
    }

    /// Whether the list of the present link has been read.
    pub(crate) fn is_synced(&self) -> bool {
        self.view == GatewayView::Current
    }

    /// Whether the devices' states are known.
    pub(crate) const fn is_live(&self) -> bool {
        matches!(self.view, GatewayView::Current | GatewayView::Stale { .. })
    }

    /// Whether a list was read, or the loss established, since the start.
    pub(crate) const fn is_decided(&self) -> bool {
        !matches!(self.view, GatewayView::Pending { .. })
    }

    pub(crate) const fn is_forgotten(&self) -> bool {
        matches!(self.view, GatewayView::Forgotten)
    }

    /// The last sign of life, if the devices' states are kept although the link broke.
    pub(crate) const fn frozen_at(&self) -> Option<Moment> {
        match self.view {
            GatewayView::Stale { frozen_at, .. } => Some(frozen_at),
            GatewayView::Pending { .. }
            | GatewayView::Current
            | GatewayView::Lost { .. }
            | GatewayView::Forgotten => None,
        }
    }

    /// Up to when the devices of a view that is lost were observed.
    pub(crate) const fn observed_until(&self) -> Option<Moment> {
        match self.view {
            GatewayView::Lost { observed_until } => Some(observed_until),
            GatewayView::Pending { .. }
            | GatewayView::Current
            | GatewayView::Stale { .. }
            | GatewayView::Forgotten => None,
        }
    }

    /// When the view is lost if nothing happens.
    pub(crate) const fn expires_at(&self) -> Option<Moment> {
        match self.view {
            GatewayView::Pending { expiry } | GatewayView::Stale { expiry, .. } => Some(expiry.at),
            GatewayView::Current | GatewayView::Lost { .. } | GatewayView::Forgotten => None,
        }
    }

    /// The link came up, which is a sign of life: time for the list.
    pub(crate) fn up(&mut self, now: Moment) {
        self.is_up = true;
        if let GatewayView::Pending { expiry } | GatewayView::Stale { expiry, .. } = &mut self.view
            && !expiry.is_extended
        {
            let at = expiry.at.max(now.plus(self.unknown_after_ms));
            *expiry = Expiry { at, is_extended: true };
        }
    }

    /// The link broke; nothing came after `last_activity`.
    pub(crate) fn down(&mut self, now: Moment, last_activity: Moment) {
        self.is_up = false;
        if self.view == GatewayView::Current {
            let at = now.max(last_activity.plus(self.unknown_after_ms));
            let expiry = Expiry { at, is_extended: false };
            self.view = GatewayView::Stale { expiry, frozen_at: last_activity };
        }
    }

    /// The gateway's master has no connection to it: no longer waits for the first list.
    pub(crate) const fn absent(&mut self, now: Moment) {
        if let GatewayView::Pending { expiry } = &mut self.view {
            expiry.at = now;
        }
    }

    /// The first list of the link was read; returns whether the view was not current before.
    pub(crate) fn mark_online(&mut self) -> bool {
        let is_returned = !self.is_live();
        self.view = GatewayView::Current;
        is_returned
    }

    /// Loses the view if that is due; returns up to when its devices were observed.
    pub(crate) fn expire_if_due(&mut self, now: Moment, wall_time: Moment) -> Option<Moment> {
        self.expires_at().filter(|at| *at <= now)?;
        let until = self.frozen_at().unwrap_or(now);
        self.view = GatewayView::Lost { observed_until: until };
        (self.state, self.state_since) = (LinkState::Lost, wall_time);
        Some(until)
    }

    /// The gateway is forgotten with all its devices.
    pub(crate) const fn forget(&mut self) {
        self.view = GatewayView::Forgotten;
    }

    /// A forgotten gateway exists again. It counts as lost until its list is read.
    pub(crate) fn recall(&mut self, now: Moment, wall_time: Moment) {
        if self.is_forgotten() {
            self.view = GatewayView::Lost { observed_until: now };
            self.update_state(wall_time);
        }
    }

    /// Updates the state after a transition; returns whether it changed.
    pub(crate) fn update_state(&mut self, wall_time: Moment) -> bool {
        let state = match (&self.view, self.is_up) {
            (GatewayView::Current | GatewayView::Stale { .. }, _) => LinkState::Online,
            (GatewayView::Pending { .. } | GatewayView::Lost { .. }, true) => LinkState::Syncing,
            (GatewayView::Pending { .. }, false) => LinkState::Connecting,
            (GatewayView::Lost { .. }, false) | (GatewayView::Forgotten, _) => LinkState::Lost,
        };
        if state == self.state {
            return false;
        }
        (self.state, self.state_since) = (state, wall_time);
        true
    }
}
