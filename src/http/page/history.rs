//! Reads the last events and availability for the pages. A page that cannot read them in time shows
//! why instead.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use crate::availability::{self, AvailabilityRequest, AvailabilityRow};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::seconds::optional;
use crate::store::history::{Error, EventFilter, FILE_NAME, Order, Reader};

/// How long a query takes at most, and how long a page waits for it. Events and availability are
/// read together.
pub(crate) const QUERY_DEADLINE: Duration = Duration::from_secs(2);
const READ_DEADLINE: Duration = Duration::from_secs(3);
/// The last events that a page shows.
const EVENTS_MAX: usize = 50;
/// The most bytes of these events.
const EVENTS_BYTES: usize = 1 << 20;

/// What is shown of an event of a device or gateway.
#[derive(Debug, Deserialize)]
pub(crate) struct RecordedEvent {
    pub(crate) event_type: String,
    pub(crate) received_at: Moment,
    pub(crate) gateway: String,
    device_id: Option<DeviceId>,
    /// The device's; `None` for an event of the gateway.
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

/// The last events of these gateways, or of one of their devices, the newest first.
pub(crate) async fn last_events(
    history: &Reader,
    gateways: Vec<GatewayName>,
    device_id: Option<DeviceId>,
) -> Result<Vec<RecordedEvent>, String> {
    if gateways.is_empty() {
        return Ok(Vec::new());
    }
    let filter = EventFilter {
        gateways,
        device_ids: device_id.into_iter().collect(),
        order: Order::NewestFirst,
        limit: EVENTS_MAX,
        max_bytes: EVENTS_BYTES,
        deadline: QUERY_DEADLINE,
        ..EventFilter::default()
    };
    let page = within_deadline(history.query(filter)).await?;
    Ok(page.events.iter().filter_map(|event| serde_json::from_str(event.get()).ok()).collect())
}

/// The ID of the newest event.
pub(crate) async fn newest_id(history: &Reader) -> Result<u64, String> {
    within_deadline(history.newest_id()).await
}

pub(crate) async fn availability(
    history: &Reader,
    request: AvailabilityRequest,
) -> Result<Vec<AvailabilityRow>, String> {
    let recorded = history.read(move |path| availability::recorded(path, &request));
    Ok(within_deadline(recorded).await?.availability)
}

async fn within_deadline<T>(read: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(READ_DEADLINE, read).await {
        Ok(Ok(recorded)) => Ok(recorded),
        Ok(Err(error)) => Err(format!("{FILE_NAME} cannot be read now: {}", error.with_cause())),
        Err(_) => Err(format!("{FILE_NAME} could not be read in time")),
    }
}

impl RecordedEvent {
    /// The statuses before and after, or what the gateway's event is about.
    pub(crate) fn detail(&self) -> String {
        let unnamed = self.device_id.filter(|_| self.name.is_none());
        let count = self.count.map(|count| match &self.what {
            Some(what) => format!("{count} of {what}"),
            None => format!("{count} differences found"),
        });
        let parts = [
            unnamed.map(|device_id| format!("device {device_id}:")),
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
                "device 7: tcp_connected",
            ),
            (r#""event_type":"corrected","count":3"#, None, "3 differences found"),
            (r#""event_type":"restored","what":"slaves","count":2"#, None, "2 of slaves"),
            (
                r#""event_type":"command","command":"ssl/enable","device_ids":[7],"result":"ok""#,
                None,
                "ssl/enable ok",
            ),
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
        let of_the_bridge = r#"{"event_type":"chain_reset","received_at":"2026-11-23T11:00:00Z"}"#;
        assert!(serde_json::from_str::<RecordedEvent>(of_the_bridge).is_err());
    }
}
