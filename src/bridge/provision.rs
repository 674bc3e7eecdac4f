//! Provisions a gateway's missing items: one step of a round, beside the loop.
//!
//! Each step waits for its own slot among the gateway's changes, so that requests come between.
//! Steps only add: they remove nothing and never narrow the accept filter.

use std::collections::BTreeSet;

use tonic::Code;

use super::batches::BatchPlanner;
use crate::commands::{Calls, Command, Failure, Slot};
use crate::desired::{DesiredItem, Missing, covers};
use crate::fleet::{Slaves, Target};
use crate::gsdk::GatewayClient;
use crate::ids::DeviceId;

/// What is added in one slot.
#[derive(Debug)]
pub(super) enum Step {
    Filter { accepted: BTreeSet<DeviceId>, allow_all: bool },
    Register(Vec<(DeviceId, Target)>),
    Slaves(Vec<Slaves>),
}

/// The result of a step.
#[derive(Debug, Default)]
pub(super) struct Provisioned {
    /// Was missing and is present now.
    pub(super) added: BTreeSet<DesiredItem>,
    /// Turned out to be present.
    pub(super) found: BTreeSet<DesiredItem>,
    /// Could not be added, and why.
    pub(super) failed: Option<(BTreeSet<DesiredItem>, Failure)>,
}

/// The steps of a round: the filter first, as it is one call for all devices; then batches.
#[derive(Debug, Default)]
pub(super) struct Round {
    filter: bool,
    registrations: BatchPlanner,
    slaves: BatchPlanner,
}

impl Round {
    pub(super) fn start(&mut self, missing: &Missing) {
        self.filter = true;
        self.registrations.start(&missing.registered.iter().map(|(id, _)| *id).collect());
        self.slaves.start(&missing.slaves.iter().map(|slaves| slaves.device_id).collect());
    }

    /// The next step for what is missing now; `None` when the round is over.
    pub(super) fn next(&mut self, missing: &Missing) -> Option<Step> {
        let Missing { registered, accepted, allow_all, slaves } = missing;
        if std::mem::take(&mut self.filter) && (*allow_all || !accepted.is_empty()) {
            return Some(Step::Filter { accepted: accepted.clone(), allow_all: *allow_all });
        }
        while let Some(batch) = self.registrations.next() {
            let batch = registered.iter().filter(|(id, _)| batch.contains(id));
            let batch: Vec<_> = batch.copied().collect();
            if !batch.is_empty() {
                return Some(Step::Register(batch));
            }
        }
        while let Some(batch) = self.slaves.next() {
            let batch = slaves.iter().filter(|slaves| batch.contains(&slaves.device_id));
            let batch: Vec<_> = batch.cloned().collect();
            if !batch.is_empty() {
                return Some(Step::Slaves(batch));
            }
        }
        None
    }

    pub(super) fn provisioned(&mut self, items: &BTreeSet<DesiredItem>) {
        let of = |kind: fn(&DesiredItem) -> bool| {
            items.iter().filter(|item| kind(item)).filter_map(|item| item.device_id()).collect()
        };
        self.registrations.accepted(&of(|item| matches!(item, DesiredItem::Registered(_))));
        self.slaves.accepted(&of(|item| matches!(item, DesiredItem::Slaves(_))));
    }

    /// A step failed. Returns the items that are postponed to the next round.
    pub(super) fn failed(
        &mut self,
        items: BTreeSet<DesiredItem>,
        why: &Failure,
    ) -> BTreeSet<DesiredItem> {
        let ids = items.iter().filter_map(|item| item.device_id()).collect();
        let maybe_single = may_concern_single(why);
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

/// Whether the gateway may have refused a call because of one of its devices. Other failures, such
/// as no answer, concern no single device.
fn may_concern_single(why: &Failure) -> bool {
    matches!(
        why.code.grpc(),
        Some(
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Internal
                | Code::Unknown
        )
    )
}

/// Executes one step in its slot.
pub(super) async fn provision(step: Step, client: GatewayClient, slot: Slot) -> Provisioned {
    let _permit = slot.permit().await;
    match step {
        Step::Filter { accepted, allow_all } => accept(&client, accepted, allow_all).await,
        Step::Register(devices) => {
            let items = devices.iter().map(|(id, _)| DesiredItem::Registered(*id)).collect();
            let done = run(&client, Command::AsyncAdd(devices)).await;
            Provisioned::default().finish(items, done)
        }
        Step::Slaves(desired) => set_slaves(&client, desired).await,
    }
}

async fn run(client: &GatewayClient, command: Command) -> Result<(), Failure> {
    let outcome = crate::commands::run(&command, &Calls::new(client.clone(), None)).await;
    outcome.error.map_or(Ok(()), Err)
}

async fn accept(
    client: &GatewayClient,
    accepted: BTreeSet<DeviceId>,
    allow_all: bool,
) -> Provisioned {
    let items = accepted.into_iter().map(DesiredItem::Accepted);
    let all: BTreeSet<DesiredItem> =
        items.chain(allow_all.then_some(DesiredItem::AllowAll)).collect();
    let now = match client.accept_filter().await {
        Ok(now) => now,
        Err(error) => return Provisioned::default().finish(all, Err(error.into())),
    };
    let present = |item: &DesiredItem| match item {
        DesiredItem::AllowAll => now.allow_all,
        DesiredItem::Accepted(id) => now.device_ids.contains(id),
        DesiredItem::Registered(_) | DesiredItem::Slaves(_) => false,
    };
    let (found, missing): (BTreeSet<DesiredItem>, BTreeSet<DesiredItem>) =
        all.into_iter().partition(present);
    let ids: BTreeSet<DeviceId> = missing.iter().filter_map(|item| item.device_id()).collect();
    let done = async {
        if missing.contains(&DesiredItem::AllowAll) {
            run(client, Command::FilterAllowAll(true)).await?;
        }
        if !ids.is_empty() {
            run(client, Command::FilterAdd(ids)).await?;
        }
        Ok(())
    };
    let done = done.await;
    Provisioned { found, ..Provisioned::default() }.finish(missing, done)
}

/// Adds to the slaves of devices; the wire replaces them.
async fn set_slaves(client: &GatewayClient, desired: Vec<Slaves>) -> Provisioned {
    let items =
        |all: &[Slaves]| all.iter().map(|slaves| DesiredItem::Slaves(slaves.device_id)).collect();
    let now = match client.slaves().await {
        Ok(now) => now,
        Err(error) => return Provisioned::default().finish(items(&desired), Err(error.into())),
    };
    let present =
        |desired: &Slaves| now.iter().find(|present| present.device_id == desired.device_id);
    let (found, mut missing): (Vec<_>, Vec<_>) = desired
        .into_iter()
        .partition(|desired| present(desired).is_some_and(|present| covers(present, desired)));
    for slaves in &mut missing {
        if let Some(present) = present(slaves) {
            join(&mut slaves.rs485, &present.rs485);
            join(&mut slaves.wiegand, &present.wiegand);
        }
    }
    let result = Provisioned { found: items(&found), ..Provisioned::default() };
    if missing.is_empty() {
        return result;
    }
    let names = items(&missing);
    result.finish(names, run(client, Command::SlavesSet(missing)).await)
}

fn join(ids: &mut Vec<DeviceId>, more: &[DeviceId]) {
    let new: Vec<DeviceId> = more.iter().copied().filter(|id| !ids.contains(id)).collect();
    ids.extend(new);
}

impl Provisioned {
    fn finish(mut self, items: BTreeSet<DesiredItem>, done: Result<(), Failure>) -> Self {
        match done {
            Ok(()) => self.added.extend(items),
            Err(why) => self.failed = Some((items, why)),
        }
        self
    }
}
