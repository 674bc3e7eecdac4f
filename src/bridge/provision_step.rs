//! Executes one step of a provisioning round for a gateway's missing items.
//!
//! Each step has its own permit, as each change of the gateway, so that requests run in between.
//! Steps only add: they remove nothing and never restrict the accept filter.

use std::collections::BTreeSet;

use tonic::Code;

use crate::commands::{Calls, Command, Failure};
use crate::desired::{DesiredItem, DesiredState, ReadItems};
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
