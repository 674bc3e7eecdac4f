//! Reads what the broker retains. Clears topics of devices that are not in the store, and of a
//! gateway that the command `forget` names.
//!
//! Only devices of configured gateways are searched for. Retained topics of other gateways may
//! belong to another bridge: they are cleared if this store has published them, or by `forget`, and
//! not if the gateway's info names another bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tonic::Code;

use super::dispatch::{BridgeRequest, Reply};
use super::session::Filters;
use super::state::State;
use crate::commands::{Failure, FailureCode, Outcome};
use crate::ids::{DeviceId, GatewayName};
use crate::mqtt::{Message, Publisher, RetainHandling};
use crate::payload::Subject;
use crate::store::Key;

/// Devices remembered of a gateway at most; more are not those of one gateway.
const FOUND_MAX: usize = 100_000;
/// Gateways whose infos are subscribed to one by one, which fits into the connection's queue.
const CLEARED_INFOS_MAX: usize = 64;
/// How long the bridge's own `info` is awaited without a retained message.
const SCAN_WAIT: Duration = Duration::from_secs(5);

/// A scan of retained messages. It has read everything when the bridge's own `info` is received,
/// which is published once the subscription is acknowledged: retained messages precede live ones.
#[derive(Debug, Default)]
pub(crate) enum RetainedScan {
    #[default]
    Idle,
    /// The subscription to these filters is sent.
    Subscribing(Vec<String>),
    /// It is acknowledged, and the own `info` is awaited until this time.
    Reading(Vec<String>, Instant),
}

impl RetainedScan {
    /// Whether another scan may start.
    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// The broker has acknowledged a subscription; returns whether it was that of the scan.
    pub(crate) fn subscribed(&mut self, now: Instant, acknowledged: &[String]) -> bool {
        match self {
            Self::Subscribing(filters) if filters == acknowledged => {
                *self = Self::Reading(std::mem::take(filters), now + SCAN_WAIT);
                true
            }
            _ => false,
        }
    }

    /// A message was received; after a retained one others may follow.
    pub(crate) fn message_received(&mut self, now: Instant, retained: bool) {
        if let Self::Reading(_, until) = self
            && retained
        {
            *until = now + SCAN_WAIT;
        }
    }

    /// Ends a scan that reads, and returns its filters: when the bridge's own `info` is received,
    /// or after it was awaited long enough.
    pub(crate) fn end(&mut self) -> Option<Vec<String>> {
        let Self::Reading(filters, _) = self else { return None };
        let filters = std::mem::take(filters);
        *self = Self::Idle;
        Some(filters)
    }

    /// When the scan is given up.
    pub(crate) const fn due(&self) -> Option<Instant> {
        match self {
            Self::Reading(_, until) => Some(*until),
            Self::Idle | Self::Subscribing(_) => None,
        }
    }
}

/// The part of a retained payload that names the bridge that published it.
#[derive(Debug, Deserialize)]
struct PublishedBy {
    bridge: String,
}

/// What was found of devices that are not in the store.
#[derive(Debug, Default)]
pub(crate) struct StaleTopics {
    is_wanted: bool,
    found: BTreeMap<GatewayName, BTreeSet<DeviceId>>,
}

impl StaleTopics {
    /// The store has no record of published topics: the next scan finds them.
    pub(crate) const fn request_scan(&mut self) {
        self.is_wanted = true;
    }

    /// Whether the scan is still to be made.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether something may still be found and cleared.
    pub(crate) fn is_open(&self) -> bool {
        self.is_wanted || !self.found.is_empty()
    }

    /// The filters of the infos of gateways that are unconfigured or forgotten. They remain
    /// subscribed to: another bridge may publish the gateway before its topics are cleared.
    pub(crate) fn cleared_infos(state: &State) -> Filters {
        let topics = state.publisher.topics();
        let cleared = state.publisher.cleared_gateways();
        let cleared = cleared.iter().filter(|it| state.directory.find(it).is_none());
        let filters: Vec<String> = cleared.map(|gateway| topics.gateway_info(gateway)).collect();
        let is_too_many = filters.len() > CLEARED_INFOS_MAX;
        let filters = if is_too_many { vec![topics.gateway_infos()] } else { filters };
        filters.into_iter().map(|filter| (filter, RetainHandling::SendAtSubscribe)).collect()
    }

    /// Takes note of a message, if it is a retained one of a device of this bridge, or the info of
    /// a gateway that is unconfigured or forgotten: until its topics are cleared, its state is
    /// `offline`.
    pub(crate) fn received(&mut self, message: &Message, state: &mut State) {
        let Some(owner) = state.publisher.topics().owner(&message.topic) else { return };
        let is_configured = |gateway| state.directory.find(gateway).is_some();
        let is_ours = |origin: &PublishedBy| origin.bridge == state.directory.info.bridge;
        let origin = || serde_json::from_slice::<PublishedBy>(&message.payload).ok();
        match owner {
            Subject::Device(gateway, device_id)
                if self.is_wanted
                    && message.retain
                    && is_configured(&gateway)
                    && origin().is_some_and(|origin| is_ours(&origin)) =>
            {
                let found = self.found.entry(gateway).or_default();
                if found.len() < FOUND_MAX {
                    found.insert(device_id);
                }
            }
            Subject::Gateway(gateway)
                if state.publisher.cleared_gateways().contains(&gateway)
                    && !is_configured(&gateway) =>
            {
                match origin() {
                    Some(origin) if !is_ours(&origin) => {
                        Self::taken_over(state, &gateway, &origin.bridge);
                    }
                    Some(_) if message.retain => {
                        state.publisher.content.clearing.set_offline(gateway);
                    }
                    Some(_) | None => {}
                }
            }
            _ => {}
        }
    }

    /// Another bridge has a gateway that this one has not any more: nothing of it is cleared.
    fn taken_over(state: &mut State, gateway: &GatewayName, bridge: &str) {
        tracing::info!(%gateway, bridge, "another bridge has the gateway; its topics are kept");
        state.persistence.set(Key::Gateway(gateway.clone()), None);
        let content = &mut state.publisher.content;
        content.clearing.keep(gateway);
        content.discovery.keep(gateway);
    }

    /// All retained messages have been read.
    pub(crate) const fn retained_read(&mut self) {
        self.is_wanted = false;
    }

    /// Clears devices that were found under the name of a gateway that does not have them, once its
    /// devices are known. The store keeps gateways until all their topics are cleared.
    pub(crate) fn clear(&mut self, state: &mut State) {
        if !self.is_wanted && !self.found.is_empty() {
            let live = state.fleet.gateways().filter(|(_, gateway)| gateway.link().is_live());
            for gateway in live.map(|(index, _)| index).collect::<Vec<_>>() {
                let Some(entry) = state.directory.gateway(gateway) else { continue };
                let name = entry.name.clone();
                let mut found = self.found.remove(&name).unwrap_or_default();
                found.retain(|&id| state.fleet.device(gateway, id).is_none());
                if !found.is_empty() {
                    let count = found.len();
                    tracing::info!(gateway = %name, count, "clearing stale devices");
                }
                for device_id in found {
                    state.device_removed(gateway, device_id);
                }
            }
        }
        state.persistence.set(Key::StaleScan, self.is_open().then_some(&[]));
        if state.publisher.content.is_cleared() {
            for gateway in state.publisher.content.discovery.take_cleared_gateways() {
                // Its master may list it again.
                if state.directory.find(&gateway).is_none() {
                    state.persistence.set(Key::Gateway(gateway), None);
                }
            }
        }
    }
}

/// A gateway that is to be forgotten, and what the broker retains of it.
#[derive(Debug)]
pub(crate) struct ForgetRequest {
    gateway: GatewayName,
    request: BridgeRequest,
    is_started: bool,
    /// The other bridge that its info names.
    other_bridge: Option<String>,
    topics: BTreeSet<String>,
    device_ids: BTreeSet<DeviceId>,
}

impl ForgetRequest {
    pub(crate) fn new(gateway: GatewayName, request: BridgeRequest) -> Self {
        Self {
            gateway,
            request,
            is_started: false,
            other_bridge: None,
            topics: BTreeSet::new(),
            device_ids: BTreeSet::new(),
        }
    }

    pub(crate) const fn is_started(&self) -> bool {
        self.is_started
    }

    /// The scan for it begins; returns the filters to read.
    pub(crate) fn start(&mut self, publisher: &Publisher) -> Vec<String> {
        self.is_started = true;
        let mut filters = publisher.topics().gateway_filters(&self.gateway);
        filters.push(publisher.discovery().filter());
        filters
    }

    /// Takes note of a retained message, if it is of this gateway.
    pub(crate) fn received(&mut self, message: &Message, publisher: &Publisher, bridge: &str) {
        if !self.is_started || !message.retain || message.payload.is_empty() {
            return;
        }
        let owner = publisher.topics().owner(&message.topic);
        let owner = owner.filter(|owner| owner.gateway() == Some(&self.gateway));
        if let Some(Subject::Device(_, device_id)) = owner {
            self.device_ids.insert(device_id);
        } else if owner.is_some()
            && let Ok(origin) = serde_json::from_slice::<PublishedBy>(&message.payload)
            && origin.bridge != bridge
        {
            self.other_bridge = Some(origin.bridge);
        }
        if owner.is_some() || publisher.discovery().is_of(&self.gateway, &message.topic) {
            self.topics.insert(message.topic.clone());
        }
    }

    /// The broker has not sent everything in time, or refuses that it is read.
    pub(crate) fn unreadable(self) -> Reply {
        let message = "what the broker keeps of the gateway could not be read, so nothing is \
                       cleared; permit the bridge to read its own topics in the broker's access \
                       list";
        failed(self.request, Failure::new(Code::FailedPrecondition, message))
    }

    /// The connection to the broker has ended meanwhile.
    pub(crate) fn interrupted(self) -> Reply {
        let message = "the connection to the broker ended before everything was read that it keeps \
                       of the gateway, so nothing is cleared; send the request again";
        failed(self.request, Failure::new(Code::Unavailable, message))
    }

    /// The reply to a request while another gateway is being forgotten.
    pub(crate) fn busy(request: BridgeRequest) -> Reply {
        let message =
            "another gateway is being forgotten; repeat the request when that is answered";
        failed(request, Failure::new(FailureCode::RateLimited, message))
    }

    /// All retained messages have been read: they are cleared. Returns the reply.
    pub(crate) fn finish(self, state: &mut State) -> Reply {
        let Self { gateway, request, other_bridge, topics, device_ids, .. } = self;
        if let Some(other) = other_bridge {
            let info = state.publisher.topics().gateway_info(&gateway);
            let message = format!(
                "{info} names the bridge {other}, so nothing is cleared; if that bridge no longer \
                 has the gateway, publish an empty retained message to {info} and repeat the \
                 request"
            );
            return failed(request, Failure::invalid(message));
        }
        let count = topics.len();
        let outcome = if topics.is_empty() {
            let message = format!(
                "this bridge has no gateway {gateway} (its info names those it has), and the \
                 broker keeps nothing of one"
            );
            Outcome::failed(Failure::new(Code::NotFound, message))
        } else {
            Outcome::done(json!({ "device_ids": device_ids, "topics": count }))
        };
        tracing::info!(%gateway, topics = count, "clearing the topics of a gateway");
        state.publisher.content.clearing.clear_at_once(topics);
        request.reply(outcome, device_ids)
    }
}

fn failed(request: BridgeRequest, failure: Failure) -> Reply {
    request.reply(Outcome::failed(failure), BTreeSet::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_is_due_once_no_retained_message_came_for_long() {
        let mut now = Instant::now();
        let filters = ["a", "b"].map(str::to_owned);
        let mut scan = RetainedScan::Subscribing(filters.to_vec());
        assert!(!scan.subscribed(now, &filters[..1]), "another subscription");
        assert_eq!((scan.end(), scan.due()), (None, None));
        assert!(scan.subscribed(now, &filters));
        for _ in 0..5 {
            now += SCAN_WAIT - Duration::from_millis(1);
            assert!(scan.due() > Some(now));
            scan.message_received(now, true);
        }
        now += SCAN_WAIT;
        scan.message_received(now, false);
        assert_eq!(scan.due(), Some(now));
        assert_eq!(scan.end(), Some(filters.to_vec()));
        assert!(scan.is_idle() && scan.due().is_none());
    }
}
