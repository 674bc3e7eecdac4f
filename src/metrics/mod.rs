//! The metrics (docs/metrics.md): the bridge's own in a registry, those of gateways and devices
//! as text that is written directly from copies. A registry with eleven series for each of 100,000
//! devices would build a million objects a scrape (docs/decisions/0002-metrics.md).

mod bridge;
mod delivery;
mod devices;
mod gateways;
#[cfg(target_os = "linux")]
mod process;
mod text;

pub use bridge::Metrics;
pub use delivery::{MqttMetrics, StoreMetrics};
pub use devices::{CountsRow, Row, SecondsRow, Series, StateRow, info_head, info_text};
pub use gateways::{GatewayMeasures, MasterMeasures, gateways_text, masters_text};
