//! Executes one step of a provisioning round for a gateway's missing items.
//!
//! Each step has its own permit, as each change of the gateway, so that requests run in between.
//! Steps only add: they remove nothing and never restrict the accept filter.

use std::collections::BTreeSet;

use tonic::Code;

use crate::commands::{Calls, Command, Failure};
use crate::desired::{DesiredItem, DesiredState, covers};
use crate::fleet::Slaves;
use crate::gsdk::{Error, GatewayClient};
use crate::ids::DeviceId;

/// The result of a step.
#[derive(Debug, Default)]
pub(crate) struct Provisioned {
    /// Was missing and is present now.
    pub(crate) added: BTreeSet<DesiredItem>,
    /// Turned out to be present.
    pub(crate) found: BTreeSet<DesiredItem>,
    /// Could not be added, and why.
    pub(crate) failed: Option<(BTreeSet<DesiredItem>, Failure)>,
}

/// Whether the gateway may have refused a call because of one of its devices. Other failures, such
/// as no answer, concern no single device.
pub(crate) fn may_concern_single(why: &Failure) -> bool {
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

/// Executes one step, with items of one kind.
pub(crate) async fn provision(step: DesiredState, client: GatewayClient) -> Provisioned {
    let items: BTreeSet<DesiredItem> = step.items().collect();
    if !step.registered.is_empty() {
        let devices = step.registered.into_iter().collect();
        let done = run(&client, Command::AsyncAdd(devices)).await;
        Provisioned::default().finish(items, done)
    } else if !step.slaves.is_empty() {
        set_slaves(&client, step.slaves.into_values().collect()).await
    } else {
        accept(&client, items).await
    }
}

async fn run(client: &GatewayClient, command: Command) -> Result<(), Failure> {
    let outcome = crate::commands::run(&command, &Calls::new(client.clone(), None)).await;
    outcome.error.map_or(Ok(()), Err)
}

async fn accept(client: &GatewayClient, items: BTreeSet<DesiredItem>) -> Provisioned {
    let read = async {
        let now = client.accept_filter().await?;
        let stored = match client.stored() {
            Some(stored) => stored.accept_filter().await?,
            None => now.clone(),
        };
        Ok::<_, Error>([now, stored])
    };
    let filters = match read.await {
        Ok(filters) => filters,
        Err(error) => return Provisioned::default().finish(items, Err(error.into())),
    };
    let present = |item: &DesiredItem| {
        filters.iter().all(|filter| match item {
            DesiredItem::AllowAll => filter.allow_all,
            DesiredItem::Accepted(id) => filter.device_ids.contains(id),
            DesiredItem::Registered(_) | DesiredItem::Slaves(_) => false,
        })
    };
    let (found, missing): (BTreeSet<DesiredItem>, BTreeSet<DesiredItem>) =
        items.into_iter().partition(present);
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
    let read = async {
        let now = client.slaves().await?;
        let stored = match client.stored() {
            Some(stored) => stored.slaves().await?,
            None => now.clone(),
        };
        Ok::<_, Error>((now, stored))
    };
    let (now, stored) = match read.await {
        Ok(read) => read,
        Err(error) => return Provisioned::default().finish(items(&desired), Err(error.into())),
    };
    let of = |all: &[Slaves], desired: &Slaves| {
        all.iter().find(|present| present.device_id == desired.device_id).cloned()
    };
    let has = |all: &[Slaves], desired: &Slaves| {
        of(all, desired).is_some_and(|present| covers(&present, desired))
    };
    let (found, mut missing): (Vec<_>, Vec<_>) =
        desired.into_iter().partition(|it| has(&now, it) && has(&stored, it));
    for slaves in &mut missing {
        for present in [of(&now, slaves), of(&stored, slaves)].into_iter().flatten() {
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
