//! The commands of one gateway: its slots, its rate, and the change with steps that runs.

use tokio::sync::watch;

use crate::commands::{
    CommandSlots, Declared, DeclaredAs, Failure, FailureCode, Refused, Request, Slot, TokenBucket,
};
use crate::config::{self, Connect};
use crate::gsdk::{GatewayClient, Link};
use crate::ids::{CommandClass, GatewayName};
use crate::payload::{Intent, LinkFacts};

#[derive(Debug)]
pub(crate) struct GatewayCommands {
    name: GatewayName,
    clients: watch::Receiver<Option<GatewayClient>>,
    declared: Declared,
    slots: CommandSlots,
    bucket: TokenBucket,
    intent: Option<Intent>,
}

impl GatewayCommands {
    pub(crate) fn new(
        name: GatewayName,
        gateway: &config::Gateway,
        link: &Link,
        bucket: TokenBucket,
    ) -> Self {
        let declared = gateway.devices.iter().filter_map(|(&id, device)| match device.connect {
            Connect::Observe => None,
            Connect::Async { .. } => Some((id, DeclaredAs::Async)),
            Connect::Accept => Some((id, DeclaredAs::Accept)),
        });
        Self {
            name,
            clients: link.clients(),
            declared: Declared(declared.collect()),
            slots: CommandSlots::default(),
            bucket,
            intent: None,
        }
    }

    pub(crate) const fn name(&self) -> &GatewayName {
        &self.name
    }

    /// The client of the link, while there is one.
    pub(crate) fn clients(&self) -> watch::Receiver<Option<GatewayClient>> {
        self.clients.clone()
    }

    pub(crate) const fn bucket(&mut self) -> &mut TokenBucket {
        &mut self.bucket
    }

    pub(crate) fn check_declared(&self, request: &Request) -> Result<(), Refused> {
        let transaction = request.transaction.clone();
        let refused = |failure| Refused { transaction, failure };
        self.declared.check(&self.name, &request.command).map_err(refused)
    }

    /// A slot among the changes, for the bridge itself.
    pub(crate) fn change_slot(&self) -> Option<Slot> {
        self.slots.acquire(CommandClass::Change).ok()
    }

    /// A slot for a command, if there is one and a link.
    pub(crate) fn acquire_slot(
        &self,
        class: CommandClass,
        facts: Option<&LinkFacts>,
    ) -> Result<Slot, Failure> {
        if self.clients.borrow().is_none() {
            return Err(unavailable(facts));
        }
        self.slots.acquire(class)
    }

    /// The change with steps that runs.
    pub(crate) fn intent(&self) -> Option<(&GatewayName, &Intent)> {
        Some((&self.name, self.intent.as_ref()?))
    }

    pub(crate) fn set_intent(&mut self, intent: Intent) -> (&GatewayName, &Intent) {
        (&self.name, self.intent.insert(intent))
    }

    pub(crate) fn clear_intent(&mut self) {
        self.intent = None;
    }
}

/// There is no link; its last error is the reason.
pub(crate) fn unavailable(facts: Option<&LinkFacts>) -> Failure {
    let error = facts.and_then(|facts| facts.last_error.as_ref());
    let reason = error.map(|error| format!(" ({})", error.message)).unwrap_or_default();
    let message = format!("there is no link to the gateway now; try again later{reason}");
    Failure::new(FailureCode::GatewayUnavailable, message)
}
