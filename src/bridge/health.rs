//! The bridge's health: whether it is ready, and why it is degraded.

use tokio::time::Instant;

use super::Bridge;
use crate::mqtt::Rejection;
use crate::net::is_file_missing;
use crate::payload::{Degraded, DegradedReason, Health};

/// Missing files that `/readyz` names at once.
const FILES_NAMED_MAX: usize = 10;

impl Bridge {
    /// The answer of `/readyz`.
    pub(crate) fn current_health(&self) -> Health {
        let reasons = self.not_ready();
        let degraded = DegradedReason::ALL.into_iter().filter_map(|reason| {
            let message = self.degraded(reason)?;
            Some(Degraded { reason, message })
        });
        Health { ready: reasons.is_empty(), reasons, degraded: degraded.collect() }
    }

    /// All reasons why the bridge is not ready or degraded.
    pub(crate) fn problems(&self) -> Vec<String> {
        let Health { mut reasons, degraded, .. } = self.current_health();
        reasons.extend(degraded.into_iter().map(|it| it.message));
        reasons
    }

    /// Logs reasons that have begun or ended, and updates the metrics.
    pub(crate) fn show_degraded(&mut self) {
        for reason in DegradedReason::ALL {
            let message = self.degraded(reason);
            if !self.metrics.set_degraded(reason, message.is_some()) {
                continue;
            }
            match message {
                Some(problem) => tracing::warn!(reason = reason.as_str(), problem, "degraded"),
                None => tracing::info!(reason = reason.as_str(), "no longer degraded"),
            }
        }
    }

    /// Why the bridge is degraded for this reason, and what to do; `None` where it is not.
    fn degraded(&self, reason: DegradedReason) -> Option<String> {
        match reason {
            DegradedReason::MessagesRefused => refused(self.publisher.refused(false)),
            DegradedReason::RetainedNotKept => self.broker.loses_retained().then(|| {
                "the broker keeps no retained messages, so clients that subscribe later do \
                     not see states; allow them in its configuration"
                    .to_owned()
            }),
            DegradedReason::DiscoveryRefused => refused(self.publisher.refused(true))
                .map(|refused| format!("discovery for Home Assistant: {refused}")),
            DegradedReason::StoreInMemory => {
                self.persistence.fault().map(|fault| format!("the store: {fault}"))
            }
            DegradedReason::HistoryNotWritten => {
                let fault = self.persistence.history().fault.as_ref();
                fault.map(|it| format!("the history: {it}; events are published all the same"))
            }
            DegradedReason::AnotherInstance => self.broker.duplicates.fault(Instant::now()),
            DegradedReason::FileMissing => self.files_missing(),
        }
    }

    /// Files that connections wait for, with what to do.
    fn files_missing(&self) -> Option<String> {
        let errors = self.site.facts.iter().filter_map(|facts| facts.last_error.as_ref());
        let of_gateways = errors.filter(|error| is_file_missing(&error.code));
        let all: Vec<&str> = of_gateways
            .map(|error| error.message.as_str())
            .chain(self.broker.file_missing())
            .take(FILES_NAMED_MAX)
            .collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Why the bridge is not ready (contract, section 5); empty when it is.
    fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(fault) = self.broker.fault() {
            reasons.push(format!("the broker is not connected: {fault}"));
        } else {
            if !self.broker.own_state.is_seen() {
                reasons.push(format!(
                    "\"online\" has not come back from {} yet; if this lasts, permit the bridge's \
                     user to publish and to read its own topics in the broker's access list, as \
                     deploy/mosquitto/acl does",
                    self.publisher.topics().bridge_state()
                ));
            }
            if self.dispatcher.request_owners().is_some() {
                reasons.extend(self.broker.requests.fault());
            }
        }
        for gateway in self.site.fleet.gateways() {
            let Some(entry) = self.site.directory.gateway(gateway) else { continue };
            if !self.site.fleet.gateway_is_decided(gateway) {
                reasons.push(format!("gateway {}: its list has not been read yet", entry.name));
            }
        }
        reasons
    }
}

/// The messages that the broker refuses, why, and what to do; `None` where it refuses none.
fn refused<'a>(mut topics: impl Iterator<Item = (&'a str, Rejection)>) -> Option<String> {
    let (topic, rejection) = topics.next()?;
    let (more, remedy) = (topics.count(), rejection.remedy());
    let more = if more > 0 { format!(" and {more} or more others") } else { String::new() };
    Some(format!("the broker refuses {topic} ({rejection}){more}; {remedy}"))
}
