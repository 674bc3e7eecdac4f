//! Answers the web server's questions.

use std::ops::Bound;

use super::Bridge;
use crate::fleet::{DeviceMeasures, GatewayIndex};
use crate::http::{DEVICES_PER_QUERY, Query, Summary};
use crate::ids::DeviceId;
use crate::metrics::GatewayMeasures;

impl Bridge {
    pub(crate) fn answer_query(&mut self, query: Query) {
        // Sending fails where the client has left.
        match query {
            Query::Health(answer) => _ = answer.send(self.current_health()),
            Query::Gateway(gateway, answer) => _ = answer.send(self.measures(gateway)),
            Query::Devices(gateway, after, answer) => {
                _ = answer.send(self.devices(gateway, after));
            }
            Query::Summary(answer) => _ = answer.send(self.summary()),
            Query::Changes(answer) => {
                let now = self.clock.steady();
                _ = answer.send(self.web.page.take_changes(&mut self.site.fleet, now));
            }
        }
    }

    fn measures(&self, gateway: GatewayIndex) -> Option<GatewayMeasures> {
        let state = self.site.fleet.gateway(gateway)?;
        let facts = self.site.facts.get(gateway.0)?;
        let last_error = facts.last_error.as_ref().filter(|_| !state.live);
        Some(GatewayMeasures {
            entry: self.site.directory.gateway(gateway)?.clone(),
            state,
            counts: self.site.fleet.counts(gateway)?.clone(),
            certificate_expires_at: facts.certificate_expires_at,
            last_error: last_error.map(|error| error.message.clone()),
        })
    }

    fn devices(&mut self, gateway: GatewayIndex, after: Option<DeviceId>) -> Vec<DeviceMeasures> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let devices =
            self.site.fleet.measures(gateway, (from, Bound::Unbounded), self.clock.steady());
        devices.take(DEVICES_PER_QUERY).collect()
    }

    fn summary(&self) -> Summary {
        Summary {
            now: self.clock.now(),
            problems: self.problems(),
            pending_events: self.persistence.outbox().len(),
            events: self.web.page.events(&self.site.directory),
        }
    }
}
