//! The bridge's health: whether it is ready, and why it is degraded.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::broker::Broker;
use super::state::State;
use super::web::Web;
use crate::mqtt::MessageKind;
use crate::payload::{Degraded, DegradedReason, Health};

/// Missing files that `/readyz` names at once.
const FILES_NAMED_MAX: usize = 10;

/// The answer of `/readyz`.
pub(crate) fn health(state: &State, broker: &Broker, web: &Web) -> Health {
    let reasons = not_ready(state, broker);
    let degraded = DegradedReason::ALL.iter().filter_map(|&reason| {
        let message = degraded(state, broker, web, reason)?;
        Some(Degraded { reason, message })
    });
    Health { ready: reasons.is_empty(), reasons, degraded: degraded.collect() }
}

/// Logs reasons that began or ended, and updates the metrics.
pub(crate) fn show_degraded(state: &State, broker: &Broker, web: &Web) {
    for &reason in DegradedReason::ALL {
        let message = degraded(state, broker, web, reason);
        if !state.metrics.set_degraded(reason, message.is_some()) {
            continue;
        }
        match message {
            Some(problem) => tracing::warn!(reason = reason.as_str(), problem, "degraded"),
            None => tracing::info!(reason = reason.as_str(), "no longer degraded"),
        }
    }
}

/// Why the bridge is degraded for this reason, and what to do; `None` where it is not.
fn degraded(state: &State, broker: &Broker, web: &Web, reason: DegradedReason) -> Option<String> {
    match reason {
        DegradedReason::MessagesRefused => refused(state, |kind| kind != MessageKind::Discovery),
        DegradedReason::RetainedNotKept => broker.session.retained_not_kept().then(|| {
            "the broker keeps no retained messages, so clients that subscribe later do not see \
             states; allow them in its configuration"
                .to_owned()
        }),
        DegradedReason::DiscoveryRefused => refused(state, |kind| kind == MessageKind::Discovery)
            .map(|refused| format!("discovery for Home Assistant: {refused}")),
        DegradedReason::StoreInMemory => {
            state.persistence.fault().map(|fault| format!("the store: {fault}"))
        }
        DegradedReason::HistoryNotWritten => {
            let fault = state.persistence.history().fault.as_ref();
            fault.map(|it| format!("the history: {it}; events are still published"))
        }
        DegradedReason::AnotherInstance => broker.duplicates.fault(Instant::now()),
        DegradedReason::FileMissing => files_missing(state, broker, web),
    }
}

/// Files that connections and the web server wait for, with what to do.
fn files_missing(state: &State, broker: &Broker, web: &Web) -> Option<String> {
    let of_gateways = state.facts.iter().map(|facts| &facts.last_error);
    let of_masters = state.directory.masters.values().map(|facts| &facts.last_error);
    let of_links = of_gateways.chain(of_masters).flatten();
    let of_links = of_links.filter(|error| error.is_file_missing);
    let of_web = web.file_problems();
    // All gateways behind a master have the same message.
    let all: BTreeSet<&str> = of_links
        .map(|error| error.message.as_str())
        .chain(broker.session.file_missing())
        .chain(of_web.iter().map(String::as_str))
        .collect();
    let named: Vec<&str> = all.into_iter().take(FILES_NAMED_MAX).collect();
    (!named.is_empty()).then(|| named.join("; "))
}

/// Why the bridge is not ready; empty when it is.
fn not_ready(state: &State, broker: &Broker) -> Vec<String> {
    let mut reasons = Vec::new();
    let waiting = state.fleet.gateways().filter(|(_, gateway)| !gateway.link().is_decided());
    let waiting = waiting.filter_map(|(index, _)| state.directory.gateway(index));
    let waiting: Vec<String> = waiting
        .map(|entry| format!("gateway {}: its list has not been read yet", entry.name))
        .collect();
    if let Some(fault) = broker.session.fault() {
        reasons.push(format!("the broker is not connected: {fault}"));
    } else if waiting.is_empty() {
        // Neither is sent before every gateway's state is known.
        if !broker.own_state.is_seen() {
            reasons.push(format!(
                "\"online\" was not received from {} yet; if this persists, permit the \
                 bridge's user to publish and to read its own topics in the broker's access \
                 list, as deploy/mosquitto/acl does",
                state.publisher.topics().bridge_state()
            ));
        }
        reasons.extend(broker.requests.fault());
    }
    reasons.extend(waiting);
    reasons
}

/// The messages of these kinds that the broker refuses, why, and what to do; `None` where it
/// refuses none.
fn refused(state: &State, is_wanted: impl Fn(MessageKind) -> bool) -> Option<String> {
    let mut topics = state.publisher.content.refusals.topics(is_wanted);
    let (topic, refusal) = topics.next()?;
    let (more, remedy) = (topics.count(), refusal.remedy());
    let more = if more > 0 { format!(" and {more} or more others") } else { String::new() };
    Some(format!("the broker refuses {topic} ({refusal}){more}; {remedy}"))
}
