//! The metrics (contract, section 5): the bridge's own in a registry, the fleet's from a snapshot.
//!
//! May not touch brokers or gateways, nor hold up the loop: it is given copies, and the text is
//! written elsewhere. A registry that held ten series for each of 100,000 devices would build a
//! million objects a scrape; so the fleet's series are written as text, one family after the other.

mod bridge;
mod devices;
mod gateways;
mod store;
mod text;

pub use bridge::Metrics;
pub use devices::{Column, DeviceGroup, Values, info_head, info_text};
pub use gateways::{GatewayMeasures, gateways_text};
pub use store::StoreMetrics;
