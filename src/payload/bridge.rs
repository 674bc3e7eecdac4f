//! The bridge's own info, and the content of its events, as JSON (docs/topics.md); its health in
//! `/readyz` and metrics (docs/troubleshooting.md).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::{IntoStaticStr, VariantArray};

use crate::ids::{DeviceId, GatewayName, Moment};

/// `<base>/<bridge>/info`, retained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BridgeInfo {
    /// `bridge_name` of the configuration.
    pub bridge: String,
    /// A random ID of this run of the process: two at once mean two bridges.
    pub instance_id: String,
    /// The chain that events are numbered in.
    pub chain: String,
    /// The version of the program.
    pub version: &'static str,
    /// The commit it was built from, or `unknown`.
    pub commit: &'static str,
    /// When the process started.
    pub started_at: Moment,
    /// Since when the broker has accepted it.
    pub connected_at: Option<Moment>,
    /// Whether a connection of this process has lasted a minute: such a process comes back after
    /// another one with its client ID has taken over, and others give way to it.
    pub established: bool,
    /// The topics' base.
    pub base_topic: String,
    /// The names of its gateways.
    pub gateways: Vec<GatewayName>,
    /// What `commands.allow` allows.
    pub commands_allowed: Vec<String>,
    /// The state of the outbox.
    pub outbox: OutboxInfo,
}

/// The state of the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutboxInfo {
    /// Events not yet acknowledged by the broker.
    pub pending: usize,
    /// Events dropped since the process began, because the outbox was full.
    pub dropped: u64,
}

/// A change, as it is kept while it is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The command's name.
    pub command: String,
    /// The devices that it named.
    pub device_ids: BTreeSet<DeviceId>,
    /// The requester, as claimed.
    pub requested_by: Option<String>,
    /// The steps known to be done or failed; one more may have started.
    pub steps: Value,
}

/// The name of [`BridgeEventKind::EventsLost`].
pub const EVENTS_LOST: &str = "events_lost";

/// What happened to the bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, IntoStaticStr, strum::VariantNames)]
#[serde(untagged)]
#[strum(serialize_all = "snake_case")]
pub enum BridgeEventKind {
    /// Events will not be delivered.
    EventsLost {
        /// How many events.
        count: u64,
        /// Of how many devices, without those of an earlier report that was dropped.
        devices: u64,
        /// Why.
        reason: String,
    },
    /// A new chain began.
    ChainReset {
        /// The chain that has ended; `None` where it is not known.
        from: Option<String>,
        /// The new chain.
        to: String,
        /// Why.
        reason: String,
    },
    /// A change was under way when an earlier process ended.
    CommandInterrupted {
        /// At which gateway.
        gateway: GatewayName,
        /// Which change.
        #[serde(flatten)]
        intent: Intent,
    },
    /// The link to a master is up.
    MasterReachable {
        /// Which one.
        master: GatewayName,
    },
    /// There was no sign of life of a master for a while: its gateways are lost.
    MasterUnreachable {
        /// Which one.
        master: GatewayName,
        /// Why.
        reason: Option<String>,
    },
    /// The store cannot be written; the bridge continues in memory.
    StoreFailed {
        /// Why.
        reason: String,
    },
}

impl BridgeEventKind {
    /// Its name, as in topics and payloads.
    pub fn name(&self) -> &'static str {
        self.into()
    }
}

/// Something is wrong although the bridge is ready.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum DegradedReason {
    /// The broker refuses events, states or infos.
    MessagesRefused,
    /// The broker does not keep retained messages.
    RetainedNotKept,
    /// The broker refuses discovery for Home Assistant.
    DiscoveryRefused,
    /// The state directory cannot be written, or its disk does not answer.
    StoreInMemory,
    /// The history cannot be written.
    HistoryNotWritten,
    /// Another instance publishes under this bridge's name.
    AnotherInstance,
    /// A file that the configuration names cannot be read.
    FileMissing,
}

impl DegradedReason {
    /// Every reason.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The name in JSON and as a label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One thing that is wrong although the bridge is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Degraded {
    /// Which one.
    pub reason: DegradedReason,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether the bridge does its work.
    pub ready: bool,
    /// Why it does not.
    pub reasons: Vec<String>,
    /// What else is wrong.
    pub degraded: Vec<Degraded>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_troubleshooting_page_has_every_reason() {
        let page = std::fs::read_to_string("docs/troubleshooting.md").unwrap();
        for reason in DegradedReason::ALL.iter().map(|reason| reason.as_str()) {
            assert!(
                page.contains(&format!("`{reason}`")),
                "docs/troubleshooting.md lacks {reason}"
            );
        }
    }
}
