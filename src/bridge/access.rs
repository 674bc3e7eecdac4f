//! Calls to one gateway in parallel with its stream: the client of the current link, and the slots
//! that all callers share.

use tokio::sync::watch;

use crate::commands::{CommandSlots, Failure, FailureCode, Slot};
use crate::gsdk::{GatewayClient, Link};
use crate::ids::CommandClass;
use crate::payload::LinkFacts;

/// The access to one gateway. All clones share the slots.
#[derive(Clone, Debug)]
pub(crate) struct GatewayAccess {
    clients: watch::Receiver<Option<GatewayClient>>,
    slots: CommandSlots,
}

impl GatewayAccess {
    pub(crate) fn new(link: &Link) -> Self {
        Self { clients: link.clients(), slots: CommandSlots::default() }
    }

    /// The client, while there is a link.
    pub(crate) fn client(&self) -> Option<GatewayClient> {
        self.clients.borrow().clone()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.clients.borrow().is_some()
    }

    /// A slot for a command, if there is one and a link; `facts` have the reason where there is no
    /// link.
    pub(crate) fn acquire(
        &self,
        class: CommandClass,
        facts: Option<&LinkFacts>,
    ) -> Result<Slot, Failure> {
        if self.is_connected() {
            return self.slots.acquire(class);
        }
        let error = facts.and_then(|facts| facts.last_error.as_ref());
        let reason = error.map(|error| format!(" ({})", error.message)).unwrap_or_default();
        let message = format!("there is no link to the gateway now; try again later{reason}");
        Err(Failure::new(FailureCode::GatewayUnavailable, message))
    }
}
