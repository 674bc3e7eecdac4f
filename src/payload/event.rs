//! Events: their subjects, the names of their types, those of gateways and of the bridge as JSON
//! (docs/topics.md), and what is shown of one that the history has.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use strum::VariantNames as _;

use super::seconds::optional;
use super::{BridgeEventKind, BridgeInfo};
use crate::fleet::{EventType, GatewayEvent};
use crate::ids::{DeviceId, GatewayName, Moment, nearest};

/// The type of the event of a requested change.
pub const COMMAND_EVENT: &str = "command";
/// Characters of an unknown type that are quoted.
const QUOTED_MAX: usize = 60;

/// What an event is about. Events of one subject keep their order; different subjects have none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// The bridge itself.
    Bridge,
    /// A gateway.
    Gateway(GatewayName),
    /// A device.
    Device(GatewayName, DeviceId),
}

impl Subject {
    /// The gateway, if it is about one or its device.
    pub const fn gateway(&self) -> Option<&GatewayName> {
        match self {
            Self::Bridge => None,
            Self::Gateway(gateway) | Self::Device(gateway, _) => Some(gateway),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("the bridge"),
            Self::Gateway(gateway) => write!(f, "gateway {gateway}"),
            Self::Device(gateway, device_id) => {
                write!(f, "device {device_id} of gateway {gateway}")
            }
        }
    }
}

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

/// What is shown of an event that the history has.
#[derive(Debug, Deserialize)]
pub(crate) struct RecordedEvent {
    pub(crate) event_type: String,
    pub(crate) received_at: Moment,
    /// `None` for an event of the bridge.
    pub(crate) gateway: Option<String>,
    pub(crate) device_id: Option<DeviceId>,
    /// The device's; `None` for an event of a gateway or of the bridge.
    pub(crate) name: Option<String>,
    status: Option<String>,
    previous: Option<String>,
    /// How long the previous state had lasted.
    #[serde(default, rename = "duration_s", deserialize_with = "optional::deserialize")]
    pub(crate) duration_ms: Option<i64>,
    what: Option<String>,
    count: Option<u64>,
    command: Option<String>,
    result: Option<String>,
}

impl RecordedEvent {
    /// The statuses before and after, or what the event is about.
    pub(crate) fn detail(&self) -> String {
        let count = self.count.map(|count| match (&self.what, self.event_type.as_str()) {
            (Some(what), _) => format!("{count} of {what}"),
            (None, "corrected") => format!("{count} differences found"),
            (None, _) => format!("{count} events"),
        });
        let parts = [
            self.previous.as_ref().map(|previous| format!("{previous} →")),
            self.status.clone(),
            count,
            self.command.clone(),
            self.result.clone(),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_devices_gateways_and_commands_have_their_details() {
        for (recorded, device, detail) in [
            (
                r#""event_type":"disconnected","device_id":7,"name":"Door",
                   "previous":"tls_connected","status":"disconnected","duration_s":1.5"#,
                Some("Door"),
                "tls_connected → disconnected",
            ),
            (
                r#""event_type":"stranger","device_id":7,"status":"tcp_connected""#,
                None,
                "tcp_connected",
            ),
            (r#""event_type":"corrected","count":3"#, None, "3 differences found"),
            (r#""event_type":"restored","what":"slaves","count":2"#, None, "2 of slaves"),
            (
                r#""event_type":"command","command":"ssl/enable","device_ids":[7],"result":"ok""#,
                None,
                "ssl/enable ok",
            ),
            (r#""event_type":"events_lost","count":5,"reason":"outbox_full""#, None, "5 events"),
            (r#""event_type":"reachable""#, None, ""),
        ] {
            let event = format!(
                r#"{{"gateway":"lobby","received_at":"2026-11-23T11:00:00.120Z",{recorded}}}"#
            );
            let event: RecordedEvent = serde_json::from_str(&event).unwrap();
            assert_eq!((event.name.as_deref(), event.detail().as_str()), (device, detail));
            assert_eq!(event.received_at.millis() % 1_000, 120);
            assert_eq!(event.duration_ms, device.map(|_| 1_500));
        }
    }
}
