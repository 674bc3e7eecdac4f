//! `forget`: devices of a gateway that the bridge has, or every topic of one that it has not.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tonic::Code;

use super::Bridge;
use super::own::Asker;
use crate::commands::{DeviceFailure, Failure, FailureCode, Outcome};
use crate::fleet::GatewayIndex;
use crate::ids::{DeviceId, GatewayName};
use crate::mqtt::{Message, Retained};

/// The time the broker has to send what it retains of a gateway.
const SCAN_DEADLINE: Duration = Duration::from_secs(10);

/// A gateway that is to be forgotten, and what of it the broker keeps.
#[derive(Debug)]
pub(super) struct ForgetScan {
    gateway: GatewayName,
    asker: Asker,
    is_started: bool,
    topics: BTreeSet<String>,
    device_ids: BTreeSet<DeviceId>,
    deadline: Instant,
}

impl ForgetScan {
    /// When it is given up.
    pub(super) const fn due(&self) -> Instant {
        self.deadline
    }
}

impl Bridge {
    /// Forgets devices of a configured gateway.
    pub(super) fn forget_devices(
        &mut self,
        gateway: GatewayIndex,
        device_ids: &BTreeSet<DeviceId>,
    ) -> Outcome {
        let ids: Vec<DeviceId> = device_ids.iter().copied().collect();
        let mut out = std::mem::take(&mut self.out);
        let kept = self.fleet.forget(gateway, &ids, &mut out);
        self.carry_out(&mut out, None);
        self.out = out;
        if let Some(entry) = self.directory.gateway(gateway) {
            self.publisher.forgotten_on_request(entry, &ids);
        }
        let forgotten: Vec<_> = ids.iter().filter(|id| !kept.contains(id)).collect();
        let message = "it is in the gateway's list, in the configuration, or accepted or \
                       registered by a command; remove it there first";
        let failure = Failure::new(Code::FailedPrecondition, message);
        let device_errors = kept.iter().map(|&id| DeviceFailure::new(id, failure.clone()));
        let device_errors = device_errors.collect();
        Outcome { device_errors, ..Outcome::done(json!({ "device_ids": forgotten })) }
    }

    /// Forgets a gateway that is not configured: what the broker keeps of it is read first.
    pub(super) fn forget_gateway(&mut self, gateway: GatewayName, asker: Asker) {
        if self.forget_scan.is_some() {
            let message = "another gateway is being forgotten; ask again when that is answered";
            let outcome = Outcome::failed(Failure::new(FailureCode::RateLimited, message));
            return self.answer_own(asker, Some(&gateway), outcome, &BTreeSet::new());
        }
        self.forget_scan = Some(ForgetScan {
            gateway,
            asker,
            is_started: false,
            topics: BTreeSet::new(),
            device_ids: BTreeSet::new(),
            deadline: Instant::now() + SCAN_DEADLINE,
        });
    }

    /// Starts the scan once no other is under way, and gives it up at its deadline.
    pub(super) fn wake_forget(&mut self, now: Instant) {
        let Some(forget) = &mut self.forget_scan else { return };
        if forget.deadline <= now {
            return self.forget_timed_out();
        }
        if !forget.is_started && self.retained_scan.is_idle() {
            forget.is_started = true;
            let mut filters = self.publisher.topics().gateway_filters(&forget.gateway);
            filters.push(self.publisher.discovery_filter());
            self.scan(filters.into_iter().map(|filter| (filter, Retained::Many)).collect());
        }
    }

    /// Takes note of a retained message, if it is of the gateway that is to be forgotten.
    pub(super) fn forget_received(&mut self, message: &Message) {
        let Some(forget) = self.forget_scan.as_mut().filter(|it| it.is_started) else { return };
        if !message.retain || message.payload.is_empty() {
            return;
        }
        let owner = self.publisher.topics().owner(&message.topic);
        let owner = owner.filter(|owner| owner.gateway == forget.gateway);
        forget.device_ids.extend(owner.as_ref().and_then(|owner| owner.device_id));
        if owner.is_some() || self.publisher.is_discovery_of(&forget.gateway, &message.topic) {
            forget.topics.insert(message.topic.clone());
        }
    }

    /// All retained messages have been read.
    pub(super) fn forget_scanned(&mut self) {
        if self.forget_scan.as_ref().is_some_and(|it| it.is_started) {
            self.forget_found();
        }
    }

    fn forget_timed_out(&mut self) {
        let Some(ForgetScan { gateway, asker, .. }) = self.forget_scan.take() else { return };
        let message = "what the broker keeps of the gateway could not be read, so nothing is \
                       cleared; permit the bridge to read its own topics in the broker's access \
                       list";
        let outcome = Outcome::failed(Failure::new(Code::FailedPrecondition, message));
        self.answer_own(asker, Some(&gateway), outcome, &BTreeSet::new());
    }

    fn forget_found(&mut self) {
        let Some(forget) = self.forget_scan.take() else { return };
        let ForgetScan { gateway, asker, topics, device_ids, .. } = forget;
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
        self.publisher.clear_on_request(topics, self.persistence.outbox_mut());
        self.answer_own(asker, Some(&gateway), outcome, &device_ids);
    }
}
