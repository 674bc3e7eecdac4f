//! What a command left at its gateway that a restart of the gateway takes away.
//!
//! May not decide whether it is remembered: who runs the command does. Only what the gateway
//! confirmed is recorded, so that an outcome that nobody knows is not remembered as done.

use std::collections::BTreeSet;

use crate::gsdk::{AcceptFilter, Slaves, Target};
use crate::ids::DeviceId;

/// One thing that was made, or unmade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// These are registered, to be dialled for ever.
    Registered(Vec<(DeviceId, Target)>),
    /// These are registered no more.
    Unregistered(BTreeSet<DeviceId>),
    /// The accept filter has these too.
    LetIn(BTreeSet<DeviceId>),
    /// The accept filter has these no more.
    ShutOut(BTreeSet<DeviceId>),
    /// The accept filter lets everybody in, or does not.
    AllowAll(bool),
    /// The accept filter as a whole.
    Filter(AcceptFilter),
    /// The slaves behind these devices.
    Slaves(Vec<Slaves>),
}

impl Made {
    /// Whether there is something to give again after a restart.
    #[must_use]
    pub fn adds(&self) -> bool {
        match self {
            Self::Registered(_) | Self::LetIn(_) | Self::AllowAll(true) | Self::Slaves(_) => true,
            Self::Filter(filter) => filter.allow_all || !filter.device_ids.is_empty(),
            Self::Unregistered(_) | Self::ShutOut(_) | Self::AllowAll(false) => false,
        }
    }
}
