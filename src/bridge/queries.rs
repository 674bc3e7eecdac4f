//! What the web server asks, answered from the loop.
//!
//! May not wait: whoever asked may have gone meanwhile.

use super::Bridge;
use crate::fleet::{DeviceMeasures, GatewayIndex};
use crate::http::{DEVICES_AT_ONCE, Query};
use crate::ids::DeviceId;
use crate::metrics::GatewayMeasures;

impl Bridge {
    pub(super) fn answer_query(&mut self, query: Query) {
        // Whoever asked may have gone meanwhile.
        match query {
            Query::Ready(answer) => _ = answer.send(self.current_health()),
            Query::Page(wanted, answer) => _ = answer.send(self.page(&wanted)),
            Query::Changes(answer) => _ = answer.send(self.changes()),
            Query::Gateway(gateway, answer) => _ = answer.send(self.measures(gateway)),
            Query::Devices(gateway, after, answer) => {
                _ = answer.send(self.devices(gateway, after));
            }
        }
    }

    fn measures(&self, gateway: GatewayIndex) -> Option<GatewayMeasures> {
        Some(GatewayMeasures {
            entry: self.directory.gateway(gateway)?.clone(),
            state: self.fleet.gateway(gateway)?,
            counts: self.fleet.counts(gateway)?.clone(),
            certificate_expires_at: self.facts.get(gateway.0)?.certificate_expires_at,
        })
    }

    fn devices(&mut self, gateway: GatewayIndex, after: Option<DeviceId>) -> Vec<DeviceMeasures> {
        let mut page = Vec::with_capacity(DEVICES_AT_ONCE);
        let measures = self.fleet.measures(gateway, after, self.clock.steady());
        page.extend(measures.take(DEVICES_AT_ONCE));
        page
    }
}
