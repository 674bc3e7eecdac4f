//! What the bridge knows: its gateways with their devices and names, and itself.

use crate::fleet::{Fleet, Output};
use crate::mqtt::View;
use crate::payload::{BridgeInfo, Directory, LinkFacts};

/// What the bridge knows.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) fleet: Fleet,
    pub(crate) directory: Directory,
    /// By gateway.
    pub(crate) facts: Vec<LinkFacts>,
    /// The bridge's own `info`.
    pub(crate) info: BridgeInfo,
    /// Events of the bridge and of gateways in this run.
    pub(crate) events: u64,
    /// Outputs of the core that are not applied yet.
    pub(crate) outputs: Vec<Output>,
}

impl Site {
    /// What is published.
    pub(crate) fn view(&self) -> View<'_> {
        let Self { fleet, directory, facts, info, .. } = self;
        View { fleet, directory, links: facts, bridge: info }
    }
}
