//! One provisioning round: in which steps the missing items of a gateway are added.

use std::collections::BTreeSet;

use super::batches::BatchPlanner;
use super::state::{DesiredItem, DesiredState};
use crate::fleet::{Slaves, Target};
use crate::ids::DeviceId;

/// What is added in one step.
#[derive(Debug)]
pub enum ProvisionStep {
    Filter { accepted: BTreeSet<DeviceId>, allow_all: bool },
    Register(Vec<(DeviceId, Target)>),
    Slaves(Vec<Slaves>),
}

/// The filter first, as it is one call for all devices; then registrations and slaves in batches.
#[derive(Debug, Default)]
pub struct Round {
    filter: bool,
    registrations: BatchPlanner,
    slaves: BatchPlanner,
}

impl Round {
    pub fn start(&mut self, missing: &DesiredState) {
        self.filter = true;
        self.registrations.start(&missing.registered.keys().copied().collect());
        self.slaves.start(&missing.slaves.keys().copied().collect());
    }

    /// The next step for what is missing now; `None` when the round is over.
    pub fn next(&mut self, missing: &DesiredState) -> Option<ProvisionStep> {
        let DesiredState { registered, accepted, allow_all, slaves } = missing;
        if std::mem::take(&mut self.filter) && (*allow_all || !accepted.is_empty()) {
            return Some(ProvisionStep::Filter {
                accepted: accepted.clone(),
                allow_all: *allow_all,
            });
        }
        while let Some(batch) = self.registrations.next() {
            let missing = batch.iter().filter_map(|id| Some((*id, *registered.get(id)?)));
            let batch: Vec<_> = missing.collect();
            if !batch.is_empty() {
                return Some(ProvisionStep::Register(batch));
            }
        }
        while let Some(batch) = self.slaves.next() {
            let batch: Vec<_> = batch.iter().filter_map(|id| slaves.get(id).cloned()).collect();
            if !batch.is_empty() {
                return Some(ProvisionStep::Slaves(batch));
            }
        }
        None
    }

    /// These items were provisioned, or found at the gateway.
    pub fn provisioned(&mut self, items: &BTreeSet<DesiredItem>) {
        let of = |kind: fn(&DesiredItem) -> bool| {
            items.iter().filter(|item| kind(item)).filter_map(|item| item.device_id()).collect()
        };
        self.registrations.accepted(&of(|item| matches!(item, DesiredItem::Registered(_))));
        self.slaves.accepted(&of(|item| matches!(item, DesiredItem::Slaves(_))));
    }

    /// A step with these items failed. `maybe_single`: perhaps because of a single device. Returns
    /// the items that are postponed to the next round.
    pub fn failed(
        &mut self,
        items: BTreeSet<DesiredItem>,
        maybe_single: bool,
    ) -> BTreeSet<DesiredItem> {
        let ids = items.iter().filter_map(|item| item.device_id()).collect();
        match items.first() {
            Some(DesiredItem::Registered(_)) => {
                let postponed = self.registrations.refused(&ids, maybe_single);
                postponed.into_iter().map(DesiredItem::Registered).collect()
            }
            Some(DesiredItem::Slaves(_)) => {
                let postponed = self.slaves.refused(&ids, maybe_single);
                postponed.into_iter().map(DesiredItem::Slaves).collect()
            }
            Some(DesiredItem::Accepted(_) | DesiredItem::AllowAll) | None => items,
        }
    }
}
