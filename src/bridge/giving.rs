//! Gives a gateway what it is to have and has not: one round, beside the loop.
//!
//! May not take anything away, nor narrow a filter. What cannot be given is told, and holds up
//! nothing else.

use std::collections::BTreeSet;

use crate::commands::{Calls, Command, Outcome, Place};
use crate::desired::{Missing, Wish, covers};
use crate::gateway::{GatewayClient, Slaves, Target};
use crate::ids::DeviceId;

/// Registrations in one call.
const LOT: usize = 100;

/// What came of a round.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// What was missing and is there now.
    pub(super) added: BTreeSet<Wish>,
    /// What turned out to be there.
    pub(super) found: BTreeSet<Wish>,
    /// What could not be given, and why.
    pub(super) failed: Vec<(BTreeSet<Wish>, String)>,
}

/// One round; changes of the gateway take turns.
pub(super) async fn give(missing: Missing, client: GatewayClient, place: Place) -> Round {
    let _turn = place.turn().await;
    let mut round = Round::default();
    register(&client, &missing.registered, &mut round).await;
    let Missing { accepted, allow_all, slaves, .. } = missing;
    accept(&client, accepted, allow_all, &mut round).await;
    set_slaves(&client, slaves, &mut round).await;
    round
}

async fn run(client: &GatewayClient, command: Command) -> Result<(), String> {
    let outcome: Outcome = crate::commands::run(&command, &Calls::new(client.clone(), None)).await;
    outcome.error.map_or(Ok(()), |error| Err(error.to_string()))
}

/// Registers in lots; a lot that fails is tried one by one, so that one device that cannot be
/// registered holds up no other.
async fn register(client: &GatewayClient, missing: &[(DeviceId, Target)], round: &mut Round) {
    for lot in missing.chunks(LOT) {
        let wishes = lot.iter().map(|(id, _)| Wish::Registered(*id));
        if run(client, Command::AsyncAdd(lot.to_vec())).await.is_ok() {
            round.added.extend(wishes);
            continue;
        }
        for (one, wish) in lot.iter().zip(wishes) {
            let done = run(client, Command::AsyncAdd(vec![*one])).await;
            round.ended([wish].into(), done);
        }
    }
}

async fn accept(
    client: &GatewayClient,
    accepted: BTreeSet<DeviceId>,
    allow_all: bool,
    round: &mut Round,
) {
    if accepted.is_empty() && !allow_all {
        return;
    }
    let wishes = accepted.iter().copied().map(Wish::Accepted);
    let all: BTreeSet<Wish> = wishes.chain(allow_all.then_some(Wish::AllowAll)).collect();
    let now = match client.accept_filter().await {
        Ok(now) => now,
        Err(error) => return round.failed.push((all, error.to_string())),
    };
    let there = |wish: &Wish| match wish {
        Wish::AllowAll => now.allow_all,
        Wish::Accepted(id) => now.device_ids.contains(id),
        Wish::Registered(_) | Wish::Slaves(_) => false,
    };
    let (found, missing): (BTreeSet<Wish>, BTreeSet<Wish>) = all.into_iter().partition(there);
    round.found.extend(found);
    if missing.is_empty() {
        return;
    }
    let ids: BTreeSet<DeviceId> = missing.iter().filter_map(|wish| wish.device_id()).collect();
    if missing.contains(&Wish::AllowAll) {
        let done = run(client, Command::FilterAllowAll(true)).await;
        round.ended([Wish::AllowAll].into(), done);
    }
    if !ids.is_empty() {
        let done = run(client, Command::FilterAdd(ids.clone())).await;
        round.ended(ids.into_iter().map(Wish::Accepted).collect(), done);
    }
}

/// Adds to the slaves that a device has; the wire replaces them.
async fn set_slaves(client: &GatewayClient, wished: Vec<Slaves>, round: &mut Round) {
    if wished.is_empty() {
        return;
    }
    let now = match client.slaves().await {
        Ok(now) => now,
        Err(error) => {
            let all = wished.iter().map(|slaves| Wish::Slaves(slaves.device_id)).collect();
            return round.failed.push((all, error.to_string()));
        }
    };
    for mut slaves in wished {
        let wish = Wish::Slaves(slaves.device_id);
        if let Some(there) = now.iter().find(|there| there.device_id == slaves.device_id) {
            if covers(there, &slaves) {
                round.found.insert(wish);
                continue;
            }
            join(&mut slaves.rs485, &there.rs485);
            join(&mut slaves.wiegand, &there.wiegand);
        }
        let done = run(client, Command::SlavesSet(vec![slaves])).await;
        round.ended([wish].into(), done);
    }
}

fn join(ids: &mut Vec<DeviceId>, more: &[DeviceId]) {
    let new: Vec<DeviceId> = more.iter().copied().filter(|id| !ids.contains(id)).collect();
    ids.extend(new);
}

impl Round {
    fn ended(&mut self, wishes: BTreeSet<Wish>, done: Result<(), String>) {
        match done {
            Ok(()) => self.added.extend(wishes),
            Err(why) => self.failed.push((wishes, why)),
        }
    }
}
