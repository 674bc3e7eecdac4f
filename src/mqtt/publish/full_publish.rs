//! How far a connection is: from the check for another instance to the last `offline`.

use super::in_flight::InFlight;
use super::message::{Kind, MessageId};
use super::states::States;
use crate::fleet::Fleet;

/// What may be sent.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Nothing.
    Disconnected,
    /// Only the bridge's info: another instance of this bridge may be online.
    CheckingDuplicates,
    /// Everything but `online`, answers and discovery.
    FullPublish(FullPublish),
    Online,
    /// Only `offline`: of the gateways, then of the bridge.
    ShuttingDown,
}

/// The full publish that follows each CONNACK: all states have to be acknowledged before the bridge
/// is `online`.
#[derive(Debug, Default)]
pub(crate) struct FullPublish {
    /// The position in the order of device states, once every gateway is online or lost.
    device_states: Option<u64>,
    /// The token after the last message, once that is sent.
    end: Option<u64>,
}

impl FullPublish {
    /// Whether the broker has answered all of it.
    pub(crate) fn is_complete(
        &mut self,
        fleet: &Fleet,
        states: &States,
        in_flight: &InFlight,
    ) -> bool {
        if self.device_states.is_none()
            && fleet.gateways().all(|gateway| fleet.gateway_is_decided(gateway))
        {
            self.device_states = Some(states.position());
        }
        if self.end.is_none()
            && self.device_states.is_some_and(|position| states.are_sent_up_to(position))
        {
            self.end = Some(in_flight.next_token());
        }
        // A refusal is an answer too, but then the outdated value has to be removed as well.
        let is_awaited = |(token, id): (u64, &MessageId), end| {
            matches!(id, MessageId::Empty(_)) || (token < end && id.kind() == Kind::State)
        };
        self.end.is_some_and(|end| !in_flight.iter().any(|message| is_awaited(message, end)))
    }
}
