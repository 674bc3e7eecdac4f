//! What the web server asks, answered from the loop.
//!
//! May not wait: whoever asked may have gone meanwhile.

use tokio::time::Instant;

use super::Bridge;
use crate::fleet::{DeviceMeasures, GatewayIndex};
use crate::http::{DEVICES_AT_ONCE, Query};
use crate::ids::DeviceId;
use crate::metrics::GatewayMeasures;

impl Bridge {
    pub(super) fn answer_query(&mut self, query: Query) {
        // Whoever asked may have gone meanwhile.
        match query {
            Query::Alive(answer) => _ = answer.send(()),
            Query::Ready(answer) => _ = answer.send(self.not_ready()),
            Query::Page(wanted, answer) => _ = answer.send(self.page(&wanted)),
            Query::Changes(answer) => _ = answer.send(self.changes()),
            Query::Gateway(gateway, answer) => _ = answer.send(self.measures(gateway)),
            Query::Devices(gateway, after, answer) => {
                _ = answer.send(self.devices(gateway, after));
            }
        }
    }

    pub(super) fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.connection.is_none() {
            let fault = &self.broker_fault;
            reasons.push(format!("the broker is not connected: {fault}"));
        }
        reasons.extend(self.rivals.reason(Instant::now()));
        let refused = self.publisher.states_refused();
        if refused > 0 {
            reasons.push(format!(
                "the broker refuses {refused} retained states ({}); allow the bridge to publish \
                 below its base topic",
                self.broker_refusal
            ));
        }
        let unfit = self.publisher.states_unfit();
        if unfit > 0 {
            reasons.push(format!(
                "the states of {unfit} devices are too large for the broker, so their topics are \
                 empty; raise its maximum packet size"
            ));
        }
        reasons.extend(self.keeper.fault().map(|fault| format!("the store: {fault}")));
        for gateway in self.fleet.gateways() {
            let Some(entry) = self.directory.gateway(gateway) else { continue };
            if !self.fleet.gateway_is_decided(gateway) {
                reasons.push(format!("gateway {}: its list has not been read yet", entry.name));
            }
        }
        reasons
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
