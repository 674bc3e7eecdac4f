//! The bridge's own info and events as JSON (contract, section 1).
//!
//! May not decide anything: its callers say what is so.

use serde::Serialize;

use super::{Directory, time};
use crate::ids::{GatewayName, Moment};

/// `<base>/<bridge>/info`, retained.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    #[serde(serialize_with = "time::moment")]
    pub started_at: Moment,
    /// The topics' base.
    pub base_topic: String,
    /// The names of its gateways.
    pub gateways: Vec<GatewayName>,
    /// What `commands.allow` allows.
    pub commands_allowed: Vec<String>,
    /// How the outbox stands.
    pub outbox: OutboxInfo,
}

/// How the outbox stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutboxInfo {
    /// Events not yet acknowledged by the broker.
    pub pending: usize,
    /// Events dropped since the process began, because the outbox was full.
    pub dropped: u64,
}

/// `<base>/<bridge>/event/<type>`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BridgeEvent<'a> {
    event_type: &'static str,
    event_id: String,
    bridge: &'a str,
    #[serde(flatten)]
    kind: &'a BridgeEventKind,
    #[serde(serialize_with = "time::moment")]
    timestamp: Moment,
    #[serde(serialize_with = "time::moment")]
    received_at: Moment,
}

/// What happened to the bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum BridgeEventKind {
    /// A full outbox dropped its oldest events.
    EventsLost {
        /// How many events.
        count: u64,
        /// Of how many devices.
        devices: u64,
        /// Why.
        reason: String,
    },
    /// A new chain has begun.
    ChainReset {
        /// The chain that has ended; `None` where it is not known.
        from: Option<String>,
        /// The chain that has begun.
        to: String,
        /// Why.
        reason: String,
    },
    /// The store takes nothing: the bridge goes on in memory.
    StoreFailed {
        /// Why.
        reason: String,
    },
}

impl BridgeEventKind {
    /// Its name, as in topics and payloads.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::EventsLost { .. } => "events_lost",
            Self::ChainReset { .. } => "chain_reset",
            Self::StoreFailed { .. } => "store_failed",
        }
    }
}

impl<'a> BridgeEvent<'a> {
    /// The event, the `number`-th of the bridge in this run.
    #[must_use]
    pub fn new(
        directory: &'a Directory,
        number: u64,
        at: Moment,
        kind: &'a BridgeEventKind,
    ) -> Self {
        Self {
            event_type: kind.name(),
            event_id: format!("{}-{}-{number}", directory.instance_id, directory.bridge),
            bridge: &directory.bridge,
            kind,
            timestamp: at,
            received_at: at,
        }
    }
}
