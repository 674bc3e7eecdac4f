//! Reads the last events and availability for the pages. A page that cannot read them in time shows
//! why instead.

use std::time::Duration;

use tokio::time::timeout;

use crate::availability::{self, AvailabilityRequest, AvailabilityRow};
use crate::ids::{DeviceId, GatewayName};
use crate::payload::RecordedEvent;
use crate::store::history::{Error, EventFilter, FILE_NAME, Order, Reader};

/// How long a query takes at most, and how long a page waits for it. Events and availability are
/// read together.
pub(crate) const QUERY_DEADLINE: Duration = Duration::from_secs(2);
const READ_DEADLINE: Duration = Duration::from_secs(3);
/// The last events that a page shows.
const EVENTS_MAX: usize = 50;
/// The most bytes of these events.
const EVENTS_BYTES: usize = 1 << 20;

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
    let recorded_to = history.recorded_to();
    let recorded = history.read(move |path| availability::recorded(path, &request, recorded_to));
    Ok(within_deadline(recorded).await?.availability)
}

async fn within_deadline<T>(read: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(READ_DEADLINE, read).await {
        Ok(Ok(recorded)) => Ok(recorded),
        Ok(Err(error)) => Err(error.unreadable()),
        Err(_) => Err(format!("{FILE_NAME} could not be read in time")),
    }
}
