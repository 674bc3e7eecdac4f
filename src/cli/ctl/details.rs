//! Model, firmware and MAC address of the listed devices: read one after the other, for a short
//! time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::Code;

use crate::fleet::{DeviceDetails, Listed};
use crate::gsdk::GatewayClient;
use crate::ids::DeviceId;

/// How long it may take; devices that have not answered by then are shown without.
const ASK_FOR: Duration = Duration::from_secs(3);

/// Reads the details of the connected devices.
pub(crate) async fn read(
    client: &GatewayClient,
    rows: &[Listed],
    deadline: Option<Instant>,
) -> BTreeMap<DeviceId, DeviceDetails> {
    let mut details = BTreeMap::new();
    let until = Instant::now() + ASK_FOR;
    let until = deadline.map_or(until, |deadline| deadline.min(until));
    let ask = async {
        let connected = rows.iter().filter(|row| row.status.connected() == Some(true));
        for row in connected {
            match client.device_details(row.device_id).await {
                Ok(answer) => _ = details.insert(row.device_id, answer),
                Err(error) if error.grpc_code() == Some(Code::Unimplemented) => return,
                Err(_) => {}
            }
        }
    };
    // What is known by then is shown.
    _ = timeout_at(until, ask).await;
    details
}
