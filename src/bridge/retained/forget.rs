//! A gateway that is not configured and is to be forgotten: what the broker retains of it is read,
//! then cleared.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tonic::Code;

use crate::bridge::dispatch::BridgeRequester;
use crate::commands::{Failure, Outcome};
use crate::ids::{DeviceId, GatewayName};
use crate::mqtt::{Message, Publisher};

/// The time the broker has to send what it retains of a gateway.
const SCAN_DEADLINE: Duration = Duration::from_secs(10);

/// A gateway that is to be forgotten, and what the broker retains of it.
#[derive(Debug)]
pub(crate) struct ForgetScan {
    gateway: GatewayName,
    requester: BridgeRequester,
    deadline: Instant,
    is_started: bool,
    topics: BTreeSet<String>,
    device_ids: BTreeSet<DeviceId>,
}

/// The answer to `forget`, and what is to be cleared.
#[derive(Debug)]
pub(crate) struct Forgotten {
    pub(crate) gateway: GatewayName,
    pub(crate) requester: BridgeRequester,
    pub(crate) outcome: Outcome,
    pub(crate) device_ids: BTreeSet<DeviceId>,
    pub(crate) topics: BTreeSet<String>,
}

impl ForgetScan {
    pub(crate) fn new(gateway: GatewayName, requester: BridgeRequester, now: Instant) -> Self {
        Self {
            gateway,
            requester,
            deadline: now + SCAN_DEADLINE,
            is_started: false,
            topics: BTreeSet::new(),
            device_ids: BTreeSet::new(),
        }
    }

    /// When it is given up.
    pub(crate) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether its scan is under way.
    pub(crate) const fn is_started(&self) -> bool {
        self.is_started
    }

    /// Its scan begins; returns the filters to read.
    pub(crate) fn start(&mut self, publisher: &Publisher) -> Vec<String> {
        self.is_started = true;
        let mut filters = publisher.topics().gateway_filters(&self.gateway);
        filters.push(publisher.discovery().filter());
        filters
    }

    /// Takes note of a retained message, if it is of this gateway.
    pub(crate) fn received(&mut self, message: &Message, publisher: &Publisher) {
        if !self.is_started || !message.retain || message.payload.is_empty() {
            return;
        }
        let owner = publisher.topics().owner(&message.topic);
        let owner = owner.filter(|owner| owner.gateway == self.gateway);
        self.device_ids.extend(owner.as_ref().and_then(|owner| owner.device_id));
        if owner.is_some() || publisher.discovery().is_of(&self.gateway, &message.topic) {
            self.topics.insert(message.topic.clone());
        }
    }

    /// The broker has not sent everything in time.
    pub(crate) fn timed_out(self) -> Forgotten {
        let message = "what the broker keeps of the gateway could not be read, so nothing is \
                       cleared; permit the bridge to read its own topics in the broker's access \
                       list";
        self.refused(Outcome::failed(Failure::new(Code::FailedPrecondition, message)))
    }

    /// It is answered without forgetting anything.
    pub(crate) fn refused(self, outcome: Outcome) -> Forgotten {
        let Self { gateway, requester, .. } = self;
        let (device_ids, topics) = (BTreeSet::new(), BTreeSet::new());
        Forgotten { gateway, requester, outcome, device_ids, topics }
    }

    /// All retained messages have been read.
    pub(crate) fn finish(self) -> Forgotten {
        let Self { gateway, requester, topics, device_ids, .. } = self;
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
        tracing::info!(%gateway, topics = count, "clearing a gateway that is to be forgotten");
        Forgotten { gateway, requester, outcome, device_ids, topics }
    }
}
