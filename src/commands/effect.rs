//! What a command changed at its gateway that a restart of the gateway would lose. Only effects
//! that the gateway confirmed are recorded.

use std::collections::BTreeSet;

use crate::gsdk::{AcceptFilter, Slaves, Target};
use crate::ids::DeviceId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Registered(Vec<(DeviceId, Target)>),
    Unregistered(BTreeSet<DeviceId>),
    /// Added to the accept filter.
    Accepted(BTreeSet<DeviceId>),
    /// Removed from the accept filter.
    Unaccepted(BTreeSet<DeviceId>),
    AllowAll(bool),
    /// The accept filter was replaced.
    Filter(AcceptFilter),
    Slaves(Vec<Slaves>),
}

impl Effect {
    /// Whether it has to be provisioned again after a restart of the gateway.
    pub fn adds(&self) -> bool {
        match self {
            Self::Registered(_) | Self::Accepted(_) | Self::AllowAll(true) | Self::Slaves(_) => {
                true
            }
            Self::Filter(filter) => filter.allow_all || !filter.device_ids.is_empty(),
            Self::Unregistered(_) | Self::Unaccepted(_) | Self::AllowAll(false) => false,
        }
    }
}
