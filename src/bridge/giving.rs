//! Gives a gateway what it is to have and has not: one step of a round, beside the loop.
//!
//! May not take anything away, nor narrow a filter. Each step takes its own turn among the
//! gateway's changes, so that requests come between; what cannot be given is told, and holds up
//! nothing else.

use std::collections::BTreeSet;

use super::lots::Lots;
use crate::commands::{Calls, Command, Failure, Outcome, Place};
use crate::desired::{Missing, Wish, covers};
use crate::gsdk::{GatewayClient, Slaves, Target};
use crate::ids::DeviceId;

/// One step: what is given in one turn.
#[derive(Debug)]
pub(super) enum Step {
    /// The filter lets these in, or all.
    Filter { accepted: BTreeSet<DeviceId>, allow_all: bool },
    /// These are registered.
    Register(Vec<(DeviceId, Target)>),
    /// These have their slaves.
    Slaves(Vec<Slaves>),
}

/// What came of a step.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// What was missing and is there now.
    pub(super) added: BTreeSet<Wish>,
    /// What turned out to be there.
    pub(super) found: BTreeSet<Wish>,
    /// What could not be given, and why.
    pub(super) failed: Option<(BTreeSet<Wish>, Failure)>,
}

/// The steps of a round: the filter first, as it is one call for all; then lots.
#[derive(Debug, Default)]
pub(super) struct Round {
    filter: bool,
    registrations: Lots,
    slaves: Lots,
}

impl Round {
    /// A round begins.
    pub(super) fn begin(&mut self, missing: &Missing) {
        self.filter = true;
        self.registrations.begin(&missing.registered.iter().map(|(id, _)| *id).collect());
        self.slaves.begin(&missing.slaves.iter().map(|slaves| slaves.device_id).collect());
    }

    /// The next step, of what is missing now; none when the round is over.
    pub(super) fn next(&mut self, missing: &Missing) -> Option<Step> {
        let Missing { registered, accepted, allow_all, slaves } = missing;
        if std::mem::take(&mut self.filter) && (*allow_all || !accepted.is_empty()) {
            return Some(Step::Filter { accepted: accepted.clone(), allow_all: *allow_all });
        }
        while let Some(lot) = self.registrations.next() {
            let lot = registered.iter().filter(|(id, _)| lot.contains(id));
            let lot: Vec<_> = lot.copied().collect();
            if !lot.is_empty() {
                return Some(Step::Register(lot));
            }
        }
        while let Some(lot) = self.slaves.next() {
            let lot = slaves.iter().filter(|slaves| lot.contains(&slaves.device_id));
            let lot: Vec<_> = lot.cloned().collect();
            if !lot.is_empty() {
                return Some(Step::Slaves(lot));
            }
        }
        None
    }

    /// These were given.
    pub(super) fn given(&mut self, wishes: &BTreeSet<Wish>) {
        let of = |kind: fn(&Wish) -> bool| {
            wishes.iter().filter(|wish| kind(wish)).filter_map(|wish| wish.device_id()).collect()
        };
        self.registrations.given(&of(|wish| matches!(wish, Wish::Registered(_))));
        self.slaves.given(&of(|wish| matches!(wish, Wish::Slaves(_))));
    }

    /// These could not be given. Gives those that have to wait for the next round.
    pub(super) fn failed(&mut self, wishes: BTreeSet<Wish>, why: &Failure) -> BTreeSet<Wish> {
        let ids = wishes.iter().filter_map(|wish| wish.device_id()).collect();
        let maybe_one = maybe_of_one(why);
        match wishes.first() {
            Some(Wish::Registered(_)) => {
                let waiting = self.registrations.refused(&ids, maybe_one);
                waiting.into_iter().map(Wish::Registered).collect()
            }
            Some(Wish::Slaves(_)) => {
                let waiting = self.slaves.refused(&ids, maybe_one);
                waiting.into_iter().map(Wish::Slaves).collect()
            }
            Some(Wish::Accepted(_) | Wish::AllowAll) | None => wishes,
        }
    }
}

/// Whether the gateway may have refused a call because of one of the devices in it. All else, as
/// that it is not there or did not answer, is nobody's fault in particular.
fn maybe_of_one(why: &Failure) -> bool {
    matches!(
        why.code,
        "invalid_argument"
            | "not_found"
            | "already_exists"
            | "failed_precondition"
            | "out_of_range"
            | "resource_exhausted"
            | "aborted"
            | "internal"
            | "unknown"
    )
}

/// Does one step; changes of the gateway take turns.
pub(super) async fn give(step: Step, client: GatewayClient, place: Place) -> Given {
    let _turn = place.turn().await;
    match step {
        Step::Filter { accepted, allow_all } => accept(&client, accepted, allow_all).await,
        Step::Register(devices) => {
            let wishes = devices.iter().map(|(id, _)| Wish::Registered(*id)).collect();
            let done = run(&client, Command::AsyncAdd(devices)).await;
            Given::default().ended(wishes, done)
        }
        Step::Slaves(wished) => set_slaves(&client, wished).await,
    }
}

async fn run(client: &GatewayClient, command: Command) -> Result<(), Failure> {
    let outcome: Outcome = crate::commands::run(&command, &Calls::new(client.clone(), None)).await;
    outcome.error.map_or(Ok(()), Err)
}

async fn accept(client: &GatewayClient, accepted: BTreeSet<DeviceId>, allow_all: bool) -> Given {
    let wishes = accepted.into_iter().map(Wish::Accepted);
    let all: BTreeSet<Wish> = wishes.chain(allow_all.then_some(Wish::AllowAll)).collect();
    let now = match client.accept_filter().await {
        Ok(now) => now,
        Err(error) => return Given::default().ended(all, Err(error.into())),
    };
    let there = |wish: &Wish| match wish {
        Wish::AllowAll => now.allow_all,
        Wish::Accepted(id) => now.device_ids.contains(id),
        Wish::Registered(_) | Wish::Slaves(_) => false,
    };
    let (found, missing): (BTreeSet<Wish>, BTreeSet<Wish>) = all.into_iter().partition(there);
    let ids: BTreeSet<DeviceId> = missing.iter().filter_map(|wish| wish.device_id()).collect();
    let done = async {
        if missing.contains(&Wish::AllowAll) {
            run(client, Command::FilterAllowAll(true)).await?;
        }
        if !ids.is_empty() {
            run(client, Command::FilterAdd(ids)).await?;
        }
        Ok(())
    };
    let done = done.await;
    Given { found, ..Given::default() }.ended(missing, done)
}

/// Adds to the slaves that devices have; the wire replaces them.
async fn set_slaves(client: &GatewayClient, wished: Vec<Slaves>) -> Given {
    let wishes = |all: &[Slaves]| all.iter().map(|slaves| Wish::Slaves(slaves.device_id)).collect();
    let now = match client.slaves().await {
        Ok(now) => now,
        Err(error) => return Given::default().ended(wishes(&wished), Err(error.into())),
    };
    let there = |wished: &Slaves| now.iter().find(|there| there.device_id == wished.device_id);
    let (found, mut missing): (Vec<_>, Vec<_>) = wished
        .into_iter()
        .partition(|wished| there(wished).is_some_and(|there| covers(there, wished)));
    for slaves in &mut missing {
        if let Some(there) = there(slaves) {
            join(&mut slaves.rs485, &there.rs485);
            join(&mut slaves.wiegand, &there.wiegand);
        }
    }
    let given = Given { found: wishes(&found), ..Given::default() };
    if missing.is_empty() {
        return given;
    }
    let names = wishes(&missing);
    given.ended(names, run(client, Command::SlavesSet(missing)).await)
}

fn join(ids: &mut Vec<DeviceId>, more: &[DeviceId]) {
    let new: Vec<DeviceId> = more.iter().copied().filter(|id| !ids.contains(id)).collect();
    ids.extend(new);
}

impl Given {
    fn ended(mut self, wishes: BTreeSet<Wish>, done: Result<(), Failure>) -> Self {
        match done {
            Ok(()) => self.added.extend(wishes),
            Err(why) => self.failed = Some((wishes, why)),
        }
        self
    }
}
