//! An event as the history has it, read again to be shown.

use serde::Deserialize;

use super::seconds::optional;
use crate::ids::{DeviceId, Moment};

/// What is shown of an event.
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
