//! What a provisioner does beside the loop: adding the items of a step, and reading what the list
//! does not show.
//!
//! Each step has its own permit, as each change of the gateway, so that requests run in between.
//! Steps only add: they remove nothing and never restrict the accept filter.

use std::collections::BTreeSet;

use tokio::sync::mpsc;
use tonic::Code;

use super::access::GatewayAccess;
use crate::commands::{Calls, Command, Failure, Permit};
use crate::desired::{DesiredItem, DesiredState, ReadItems};
use crate::fleet::{GatewayIndex, Slaves};
use crate::gsdk::{Error, GatewayClient, StoredItems};
use crate::ids::{CommandClass, DeviceId};
use crate::task::log_panic;

/// The result of a task.
#[derive(Debug)]
pub(crate) struct TaskResult {
    pub(crate) gateway: GatewayIndex,
    /// The number of the link on which the task ran.
    link: u64,
    done: TaskDone,
}

#[derive(Debug)]
pub(crate) enum TaskDone {
    /// A step with these items may start.
    Permit(Vec<DesiredItem>, Permit),
    Step(Provisioned),
    Read(ReadItems),
    Stored(Box<BehindMasterItems>),
}

/// What a gateway's master stores for it, and what it has itself.
#[derive(Debug, Default)]
pub(crate) struct BehindMasterItems {
    pub(crate) stored: ReadItems,
    pub(crate) at_gateway: ReadItems,
}

/// Starts tasks, and recognises their results.
#[derive(Debug)]
pub(crate) struct ProvisionTasks {
    gateway: GatewayIndex,
    access: GatewayAccess,
    /// Counts the links: a result of an earlier link is ignored.
    link: u64,
    results: mpsc::Sender<TaskResult>,
}

impl ProvisionTasks {
    pub(crate) const fn new(
        gateway: GatewayIndex,
        access: GatewayAccess,
        results: mpsc::Sender<TaskResult>,
    ) -> Self {
        Self { gateway, access, link: 0, results }
    }

    pub(crate) const fn link_up(&mut self) {
        self.link += 1;
    }

    pub(crate) const fn access(&self) -> &GatewayAccess {
        &self.access
    }

    /// The result, unless it is of an earlier link.
    pub(crate) fn current(&self, result: TaskResult) -> Option<TaskDone> {
        (result.link == self.link).then_some(result.done)
    }

    /// Waits for the permit of a step with these items, if there are a link and a slot for it;
    /// returns whether it does.
    pub(crate) fn wait_for_permit(&self, items: Vec<DesiredItem>) -> bool {
        let Ok(slot) = self.access.acquire(CommandClass::Change, None) else { return false };
        self.spawn(async move { Some(TaskDone::Permit(items, slot.permit().await)) });
        true
    }

    /// Starts a step, if there is a link; returns whether it has started.
    pub(crate) fn start_step(&self, step: DesiredState, permit: Permit) -> bool {
        let Some(client) = self.access.client() else { return false };
        self.spawn(async move {
            let provisioned = log_panic(provision(step, client)).await;
            drop(permit);
            Some(TaskDone::Step(provisioned.unwrap_or_default()))
        });
        true
    }

    pub(crate) fn read_slaves(&self) {
        let Some(client) = self.access.client() else { return };
        self.spawn(async move {
            // Slaves that cannot be read are no failure of the link.
            let slaves = Some(client.slaves().await.ok()?);
            Some(TaskDone::Read(ReadItems { slaves, ..ReadItems::default() }))
        });
    }

    /// Reads what the gateway's master stores for it, and what the gateway has besides these
    /// registrations, which its list has shown.
    pub(crate) fn read_stored(
        &self,
        client: GatewayClient,
        at_master: StoredItems,
        registered: BTreeSet<DeviceId>,
        wants_slaves: bool,
    ) {
        let read = async move {
            let stored = ReadItems {
                registered: Some(at_master.registered().await?),
                filter: Some(at_master.accept_filter().await?),
                slaves: Some(at_master.slaves().await?),
            };
            // What cannot be read counts as what is stored.
            let filter = client.accept_filter().await.ok().or_else(|| stored.filter.clone());
            let slaves = match wants_slaves {
                true => client.slaves().await.ok().or_else(|| stored.slaves.clone()),
                false => None,
            };
            let at_gateway = ReadItems { registered: Some(registered), filter, slaves };
            Ok::<_, Error>(Box::new(BehindMasterItems { stored, at_gateway }))
        };
        self.spawn(async move {
            // It is read again after the next list.
            let read = read.await.inspect_err(|error| {
                tracing::debug!(%error, "cannot read what is stored and what the gateway has");
            });
            read.ok().map(TaskDone::Stored)
        });
    }

    fn spawn(&self, task: impl Future<Output = Option<TaskDone>> + Send + 'static) {
        let (gateway, link, results) = (self.gateway, self.link, self.results.clone());
        tokio::spawn(async move {
            if let Some(done) = task.await {
                // The receiver is gone when the process ends.
                _ = results.send(TaskResult { gateway, link, done }).await;
            }
        });
    }
}

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
    let places = match read(&client, &step).await {
        Ok(places) => places,
        Err(error) => return Provisioned::default().finish(items, Err(error.into())),
    };
    let has = |place: &ReadItems, item| place.has(item, &step) == Some(true);
    let is_present = |item: &DesiredItem| places.iter().all(|place| has(place, *item));
    let (found, missing): (BTreeSet<DesiredItem>, BTreeSet<DesiredItem>) =
        items.into_iter().partition(is_present);
    let done = add(&client, step.only(&missing), &places).await;
    Provisioned { found, ..Provisioned::default() }.finish(missing, done)
}

/// Reads what the gateway has of this kind, and what its master stores; registrations only have to
/// be added.
async fn read(client: &GatewayClient, step: &DesiredState) -> Result<Vec<ReadItems>, Error> {
    if !step.registered.is_empty() {
        return Ok(vec![ReadItems::default()]);
    }
    let wants_slaves = !step.slaves.is_empty();
    let slaves = |slaves| ReadItems { slaves: Some(slaves), ..ReadItems::default() };
    let filter = |filter| ReadItems { filter: Some(filter), ..ReadItems::default() };
    let mut places = vec![match wants_slaves {
        true => slaves(client.slaves().await?),
        false => filter(client.accept_filter().await?),
    }];
    if let Some(stored) = client.stored() {
        places.push(match wants_slaves {
            true => slaves(stored.slaves().await?),
            false => filter(stored.accept_filter().await?),
        });
    }
    Ok(places)
}

/// Adds missing items. The slaves of a device are added to those at all places, as the wire
/// replaces them.
async fn add(
    client: &GatewayClient,
    missing: DesiredState,
    places: &[ReadItems],
) -> Result<(), Failure> {
    let DesiredState { registered, accepted, allow_all, slaves } = missing;
    if !registered.is_empty() {
        run(client, Command::AsyncAdd(registered.into_iter().collect())).await?;
    }
    if allow_all {
        run(client, Command::FilterAllowAll(true)).await?;
    }
    if !accepted.is_empty() {
        run(client, Command::FilterAdd(accepted)).await?;
    }
    let mut slaves: Vec<Slaves> = slaves.into_values().collect();
    for slaves in &mut slaves {
        for present in places.iter().filter_map(|place| place.slaves_of(slaves.device_id)) {
            join(&mut slaves.rs485, &present.rs485);
            join(&mut slaves.wiegand, &present.wiegand);
        }
    }
    if !slaves.is_empty() {
        run(client, Command::SlavesSet(slaves)).await?;
    }
    Ok(())
}

async fn run(client: &GatewayClient, command: Command) -> Result<(), Failure> {
    let outcome = crate::commands::run(&command, &Calls::new(client.clone(), None)).await;
    outcome.error.map_or(Ok(()), Err)
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
