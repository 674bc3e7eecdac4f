//! How far a connection is, from the first look at who else is there to the last word.
//!
//! May not send: the publisher asks what the phase allows.

use super::desk::{Desk, GatewayDesk};
use super::outgoing::View;
use super::publisher::Publisher;
use super::sent::Sent;
use crate::fleet::Fleet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No connection: nothing is sent.
    Away,
    /// It is not known yet whether another bridge speaks in our name: only our info is said.
    Looking,
    /// The full state is on its way. `mark`: what it consists of, once every gateway is decided;
    /// `last`: its last message, once that is sent.
    Filling { mark: Option<u64>, last: Option<u64> },
    /// `online` is the bridge's word.
    Online,
    /// A clean stop: `offline` for the gateways, then for the bridge.
    Leaving,
}

impl Publisher {
    /// A new connection, which takes this many unacknowledged messages. Only the bridge's info is
    /// published, when it is asked for, until [`Publisher::looked`].
    pub fn connected(&mut self, window: usize, fleet: &Fleet) {
        self.phase = Phase::Looking;
        self.window = window.max(1);
        self.in_flight.clear();
        self.cleared.set_settled(false);
        self.bridge_info = Desk::default();
        self.discovery.connected(fleet);
    }

    /// Nobody else speaks in our name: all is published again.
    pub fn looked(&mut self, fleet: &Fleet) {
        if self.phase != Phase::Looking {
            return;
        }
        self.phase = Phase::Filling { mark: None, last: None };
        let said = std::mem::take(&mut self.bridge_info);
        self.all_changed(fleet);
        if said.is_said() {
            self.bridge_info = said;
        }
    }

    /// `online` is to be published again, if it is what the bridge says now: `offline`, as of a
    /// late last will, was seen on its topic, or `online` did not come back.
    pub fn state_again(&mut self) {
        if self.phase == Phase::Online {
            self.bridge_state = Some("online");
        }
    }

    /// A clean stop: from now on only `offline` is said, of the gateways, then of the bridge. Of
    /// the bridge alone where another may be there: that one answers to it, but not for its
    /// gateways.
    pub fn leave(&mut self) {
        if self.phase == Phase::Away {
            return;
        }
        let of_gateways = self.phase != Phase::Looking;
        for desk in &mut self.gateways {
            desk.state_dirty = of_gateways;
        }
        self.phase = Phase::Leaving;
        self.bridge_state = Some("offline");
    }

    /// Whether `offline` has been said and acknowledged, or nobody is there to hear it.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.phase == Phase::Away
            || (self.phase == Phase::Leaving
                && self.bridge_state.is_none()
                && !self.in_flight.values().any(|sent| matches!(sent, Sent::BridgeState)))
    }

    /// The session has stood so long that what is gone may be cleared.
    pub fn settled(&mut self) {
        self.cleared.set_settled(true);
        self.discovery.set_settled();
    }

    /// Whether only the bridge's info is published, until no other instance has answered.
    #[must_use]
    pub fn is_checking(&self) -> bool {
        self.phase == Phase::Looking
    }

    /// Whether `online` is the bridge's word.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.phase == Phase::Online
    }

    /// Whether a connection stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase != Phase::Away
    }

    /// The full state is out when all that it consisted of has been sent and answered.
    pub(super) fn see_whether_filled(&mut self, view: &View) {
        let Phase::Filling { mark, last } = &mut self.phase else { return };
        let decided = |gateway| view.fleet.gateway_is_decided(gateway);
        if mark.is_none() && view.fleet.gateways().all(decided) {
            *mark = Some(self.changed.mark());
        }
        let states_out = |desk: &GatewayDesk| !desk.state_dirty;
        if last.is_none()
            && mark.is_some_and(|mark| self.changed.has_passed(mark))
            && self.gateways.iter().all(states_out)
        {
            *last = Some(self.token);
        }
        // A refusal is an answer too, once the topic is emptied: its old value is not true.
        let emptied = |sent: &Sent| matches!(sent, Sent::Emptied(_));
        let answered = |last: u64| {
            let mut in_flight = self.in_flight.iter();
            !in_flight.any(|(&token, sent)| emptied(sent) || (token <= last && sent.is_state()))
        };
        let waits = self.refusals.has_to_empty() || self.isolation.has_states();
        if !waits && last.is_some_and(answered) {
            self.phase = Phase::Online;
            self.bridge_state = Some("online");
            self.requests_wanted = true;
        }
    }
}
