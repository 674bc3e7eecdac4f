//! What a message is about: noted while it is in flight, and for sending it again.

use super::outgoing::Kind;
use super::requests::Answer;
use crate::fleet::GatewayIndex;
use crate::homeassistant;
use crate::ids::DeviceId;
use crate::payload::Subject;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sent {
    Event(Subject),
    Device(GatewayIndex, DeviceId),
    /// An empty message for the topic of something that is gone.
    Cleared(String),
    /// An empty message in place of this one, which is refused: its old value is not true.
    Emptied(Box<Self>),
    GatewayState(GatewayIndex),
    GatewayInfo(GatewayIndex),
    BridgeState,
    BridgeInfo,
    Answer(Answer),
    Discovery(homeassistant::Subject),
    Undiscovered(String),
}

impl Sent {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Event(_) => Kind::Event,
            Self::GatewayInfo(_) | Self::BridgeInfo => Kind::Info,
            Self::Device(..)
            | Self::Cleared(_)
            | Self::Emptied(_)
            | Self::GatewayState(_)
            | Self::BridgeState => Kind::State,
            Self::Answer(_) => Kind::Answer,
            Self::Discovery(_) | Self::Undiscovered(_) => Kind::Discovery,
        }
    }

    pub(super) const fn is_state(&self) -> bool {
        matches!(self.kind(), Kind::State)
    }

    pub(super) const fn is_retained(&self) -> bool {
        !matches!(self, Self::Event(_) | Self::Answer(_))
    }

    /// Whether the value that the broker has kept is a lie once a new one is refused.
    pub(super) const fn is_emptied_when_refused(&self) -> bool {
        matches!(self, Self::Device(..) | Self::GatewayState(_) | Self::GatewayInfo(_))
    }
}
