//! The events of gateways and of the bridge as JSON (docs/topics.md), and the names of all types.

use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use strum::VariantNames as _;

use super::{BridgeEventKind, BridgeInfo};
use crate::fleet::{EventType, GatewayEvent};
use crate::ids::{Moment, nearest};

/// The type of the event of a requested change.
pub const COMMAND_EVENT: &str = "command";
/// Characters of an unknown type that are quoted.
const QUOTED_MAX: usize = 60;

/// The type of an event of a device, of a gateway or of the bridge, as filters have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTypeName(&'static str);

/// A text that is no event type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{quoted:?} is not an event type; {remedy}")]
pub struct EventTypeNameError {
    quoted: String,
    remedy: String,
}

impl EventTypeName {
    /// The name in topics and payloads.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// The names of all types.
    pub fn all() -> Vec<&'static str> {
        let commands: &[&str] = &[COMMAND_EVENT];
        [EventType::VARIANTS, GatewayEvent::VARIANTS, commands, BridgeEventKind::VARIANTS].concat()
    }
}

impl FromStr for EventTypeName {
    type Err = EventTypeNameError;

    /// Reads it in any case.
    fn from_str(text: &str) -> Result<Self, EventTypeNameError> {
        let all = Self::all();
        let found = all.iter().copied().find(|name| name.eq_ignore_ascii_case(text));
        found.map(Self).ok_or_else(|| {
            let quoted: String = text.chars().take(QUOTED_MAX).collect();
            let remedy = nearest(&quoted, &all).map_or_else(
                || format!("the event types are {}", all.join(", ")),
                |near| format!("did you mean {near:?}?"),
            );
            EventTypeNameError { quoted, remedy }
        })
    }
}

impl<'de> Deserialize<'de> for EventTypeName {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        String::deserialize(source)?.parse().map_err(D::Error::custom)
    }
}

/// `<base>/<owner>/event/<type>`, where the owner is a gateway or the bridge itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventPayload<'a, C> {
    event_type: &'static str,
    event_id: String,
    bridge: &'a str,
    #[serde(flatten)]
    content: C,
    timestamp: Moment,
    received_at: Moment,
}

impl<'a, C: Serialize> EventPayload<'a, C> {
    /// The event, the `number`-th of the bridge and its gateways in this run.
    pub fn new(
        bridge: &'a BridgeInfo,
        owner: &str,
        number: u64,
        at: Moment,
        event_type: &'static str,
        content: C,
    ) -> Self {
        Self {
            event_type,
            event_id: format!("{}-{owner}-{number}", bridge.instance_id),
            bridge: &bridge.bridge,
            content,
            timestamp: at,
            received_at: at,
        }
    }
}
