//! The desired items of a gateway, declared in the configuration or made by commands (pure): which
//! are missing when a link comes up, and which another client removed while it was up.
//!
//! A restart of a gateway cannot be distinguished from a network interruption, so both are handled
//! alike. Nothing is ever removed from a gateway.

mod batches;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use batches::BatchPlanner;
pub use state::{DesiredItem, DesiredState, ItemKind};

use crate::fleet::{AcceptFilter, ChangedItems, Effect, Listed, SECOND_LOOK_MS, Slaves};
use crate::ids::{DeviceId, Moment};

/// Devices named in one event, which has to fit a broker's largest packet.
const REPORTED_IDS_MAX: usize = 1_000;

/// What was read at one place: at a gateway, or at its master, which stores items.
#[derive(Debug, Default)]
pub struct ReadItems {
    pub registered: Option<BTreeSet<DeviceId>>,
    pub filter: Option<AcceptFilter>,
    pub slaves: Option<Vec<Slaves>>,
}

impl ReadItems {
    /// Whether an item is there, `None` if this was not read. Slaves are if they are at least those
    /// of this state.
    pub(crate) fn has(&self, item: DesiredItem, desired: &DesiredState) -> Option<bool> {
        Some(match item {
            DesiredItem::Registered(id) => self.registered.as_ref()?.contains(&id),
            DesiredItem::Accepted(id) => self.filter.as_ref()?.device_ids.contains(&id),
            DesiredItem::AllowAll => self.filter.as_ref()?.allow_all,
            DesiredItem::Slaves(id) => {
                self.slaves.as_ref()?;
                let pair = self.slaves_of(id).zip(desired.slaves.get(&id));
                pair.is_some_and(|(present, desired)| covers(present, desired))
            }
        })
    }

    pub(crate) fn slaves_of(&self, id: DeviceId) -> Option<&Slaves> {
        self.slaves.iter().flatten().find(|slaves| slaves.device_id == id)
    }
}

/// Compares what one gateway should have with what was seen at it on the present link.
#[derive(Debug)]
pub struct Reconciler {
    declared: DesiredState,
    commanded: DesiredState,
    /// Seen at the gateway on this link, and since when it is absent, if it is.
    seen: BTreeMap<DesiredItem, Option<Moment>>,
    /// Since when the gateway lacks missing items that its master stores, before anything is
    /// provisioned on this link.
    not_given_since: Option<Moment>,
    /// An item is absent, and what the gateway has must be read again to confirm that.
    needs_second_look: bool,
    /// To be provisioned on this link. Commands provision what they make later.
    missing: BTreeSet<DesiredItem>,
    first_list: bool,
    running_commands: usize,
    /// Whether no command has been running since the list was requested.
    undisturbed: bool,
}

impl Reconciler {
    pub fn new(declared: DesiredState) -> Self {
        Self {
            declared,
            commanded: DesiredState::default(),
            seen: BTreeMap::new(),
            not_given_since: None,
            needs_second_look: false,
            missing: BTreeSet::new(),
            first_list: false,
            running_commands: 0,
            undisturbed: false,
        }
    }

    /// Replaces what commands made.
    pub fn set_commanded(&mut self, commanded: DesiredState) {
        self.commanded = commanded;
    }

    pub const fn declared(&self) -> &DesiredState {
        &self.declared
    }

    /// What commands made; to be persisted.
    pub const fn commanded(&self) -> &DesiredState {
        &self.commanded
    }

    /// A link came up: the gateway may have lost everything.
    pub fn link_up(&mut self) {
        self.seen.clear();
        self.missing = self.items().collect();
        self.first_list = true;
        self.not_given_since = None;
    }

    pub const fn list_requested(&mut self) {
        self.undisturbed = self.running_commands == 0;
    }

    /// A command that changes something has started.
    pub const fn command_started(&mut self) {
        self.running_commands += 1;
        self.undisturbed = false;
    }

    /// It has finished, with these effects.
    pub fn command_finished(&mut self, effects: Vec<Effect>) -> BTreeSet<DesiredItem> {
        self.running_commands = self.running_commands.saturating_sub(1);
        self.apply(effects)
    }

    /// Records what a command has done; while it runs, each time all that it has done so far. What
    /// it removed is not missing on this link, nor withdrawn by another client. Returns declared
    /// items that it removed: they are provisioned at the next link.
    pub fn apply(&mut self, effects: Vec<Effect>) -> BTreeSet<DesiredItem> {
        let mut retained_by_config = BTreeSet::new();
        for effect in effects {
            let removed: Vec<DesiredItem> =
                self.items().filter(|item| item.is_removed_by(&effect)).collect();
            for item in removed {
                self.missing.remove(&item);
                self.seen.remove(&item);
                if self.declared.contains(item) {
                    retained_by_config.insert(item);
                }
            }
            self.commanded.apply(effect);
        }
        let Self { declared, commanded, missing, seen, .. } = self;
        missing.retain(|item| declared.contains(*item) || commanded.contains(*item));
        seen.retain(|item, absent_since| {
            // The command may have added it.
            *absent_since = None;
            declared.contains(*item) || commanded.contains(*item)
        });
        retained_by_config
    }

    /// Compares with the device list. Returns whether it is the first of its link, after which
    /// missing items are provisioned, and the items that another client withdrew.
    pub fn listed(&mut self, now: Moment, rows: &[Listed]) -> (bool, BTreeSet<DesiredItem>) {
        let registered = Some(registered(rows));
        let withdrawn = self.read(now, &ReadItems { registered, ..ReadItems::default() });
        (std::mem::take(&mut self.first_list), withdrawn)
    }

    /// The same behind a master. Missing is what it does not store or the gateway lacks; withdrawn
    /// is what it does not store any more.
    pub fn stored_read(
        &mut self,
        now: Moment,
        stored: &ReadItems,
        at_gateway: &ReadItems,
    ) -> (bool, BTreeSet<DesiredItem>) {
        let (is_stored, is_given) = (self.present(stored), self.present(at_gateway));
        let not_given: BTreeSet<DesiredItem> = &(&is_stored - &is_given) & &self.missing;
        let withdrawn = self.read(now, stored);
        self.missing.extend(&not_given);
        if self.first_list && !not_given.is_empty() {
            // A master may give what it stores a moment after the gateway's connection.
            let since = *self.not_given_since.get_or_insert(now);
            if now.since(since) < SECOND_LOOK_MS {
                self.needs_second_look = true;
                return (false, withdrawn);
            }
        }
        (std::mem::take(&mut self.first_list), withdrawn)
    }

    /// The desired items that are there.
    fn present(&self, read: &ReadItems) -> BTreeSet<DesiredItem> {
        self.items().filter(|item| read.has(*item, &self.commanded) == Some(true)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.declared.is_empty() && self.commanded.is_empty()
    }

    /// Whether slaves are desired: only then they have to be read. The configuration declares none.
    pub fn wants_slaves(&self) -> bool {
        !self.commanded.slaves.is_empty()
    }

    /// Whether an absent item needs a second look, since the last call.
    pub fn take_needs_second_look(&mut self) -> bool {
        std::mem::take(&mut self.needs_second_look)
    }

    /// What has to be provisioned on the present link. Where an item is declared and commanded, the
    /// declared one counts.
    pub fn missing(&self) -> DesiredState {
        let mut missing = DesiredState::default();
        for state in [&self.commanded, &self.declared] {
            missing.copy(state, &self.missing);
        }
        missing
    }

    /// These items were provisioned, or found at the gateway.
    pub fn provisioned(&mut self, items: &BTreeSet<DesiredItem>) {
        self.missing.retain(|item| !items.contains(item));
    }

    fn items(&self) -> impl Iterator<Item = DesiredItem> {
        self.declared.items().chain(self.commanded.items())
    }

    /// Compares with what was read. Returns the items that another client withdrew: those that were
    /// seen on this link and are gone, although no command of ours was running. A single answer of
    /// a gateway may be incomplete, so a second look has to agree.
    pub fn read(&mut self, now: Moment, read: &ReadItems) -> BTreeSet<DesiredItem> {
        let mut withdrawn = BTreeSet::new();
        let items: Vec<DesiredItem> = self.items().collect();
        for item in items {
            match read.has(item, &self.commanded) {
                Some(true) => {
                    self.missing.remove(&item);
                    // A running command may remove what was read just before.
                    if self.undisturbed {
                        self.seen.insert(item, None);
                    }
                }
                Some(false) if self.undisturbed => {
                    let Some(absent_since) = self.seen.get_mut(&item) else { continue };
                    if now.since(*absent_since.get_or_insert(now)) < SECOND_LOOK_MS {
                        self.needs_second_look = true;
                        continue;
                    }
                    self.seen.remove(&item);
                    self.commanded.remove(item);
                    withdrawn.insert(item);
                }
                Some(false) | None => {}
            }
        }
        withdrawn
    }
}

/// Groups items as they are reported.
pub fn by_kind(items: BTreeSet<DesiredItem>) -> impl Iterator<Item = ChangedItems> {
    let mut groups: BTreeMap<ItemKind, ChangedItems> = BTreeMap::new();
    for item in items {
        let group = groups.entry(item.kind()).or_default();
        group.what = item.kind().what();
        group.count += 1;
        if group.device_ids.len() < REPORTED_IDS_MAX {
            group.device_ids.extend(item.device_id());
        }
    }
    groups.into_values()
}

/// The registered devices of a list.
pub(crate) fn registered(rows: &[Listed]) -> BTreeSet<DeviceId> {
    rows.iter().filter(|row| row.info.auto_reconnect).map(|row| row.device_id).collect()
}

fn covers(present: &Slaves, desired: &Slaves) -> bool {
    desired.rs485.iter().all(|id| present.rs485.contains(id))
        && desired.wiegand.iter().all(|id| present.wiegand.contains(id))
}
