//! What a gateway is to have: declared by the configuration, or made by commands. Pure.
//!
//! May not call a gateway: it says what is missing when a link begins, and what another client took
//! away while it stood. It never asks for anything to be taken away. A restart of a gateway cannot
//! be told from a cut, so nothing here tries to (contract, section 7).

#[cfg(test)]
mod tests;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};

pub use wishes::Wishes;

use crate::commands::Made;
use crate::fleet::Listed;
use crate::gsdk::{AcceptFilter, Slaves, Target};
use crate::ids::DeviceId;

/// One thing that a gateway is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// This device is registered, to be dialled for ever.
    Registered(DeviceId),
    /// The accept filter lets this device in.
    Accepted(DeviceId),
    /// The accept filter lets all in.
    AllowAll,
    /// This device has its slaves.
    Slaves(DeviceId),
}

impl Wish {
    /// What kind of thing it is, as in the events `restored` and `withdrawn`.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Registered(_) => "async_connections",
            Self::Accepted(_) | Self::AllowAll => "accept_filter",
            Self::Slaves(_) => "slaves",
        }
    }

    /// The device it is about, if it is about one.
    #[must_use]
    pub const fn device_id(self) -> Option<DeviceId> {
        match self {
            Self::Registered(id) | Self::Accepted(id) | Self::Slaves(id) => Some(id),
            Self::AllowAll => None,
        }
    }
}

/// What a link still owes its gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// To be registered.
    pub registered: Vec<(DeviceId, Target)>,
    /// To be let in.
    pub accepted: BTreeSet<DeviceId>,
    /// To let all in.
    pub allow_all: bool,
    /// To be set.
    pub slaves: Vec<Slaves>,
}

impl Missing {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a change of ours came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Whether the wishes of commands are others than before.
    pub changed: bool,
    /// What it took away though the configuration declares it: given again at the next link.
    pub kept: BTreeSet<Wish>,
}

/// What one gateway is to have, and how that stands on the present link.
#[derive(Debug)]
pub struct Desired {
    declared: Wishes,
    commanded: Wishes,
    /// Seen at the gateway on this link.
    seen: BTreeSet<Wish>,
    /// What this link has yet to give. Wishes made later were given by their commands.
    owed: BTreeSet<Wish>,
    first_list: bool,
    changes: usize,
    /// No change of ours has been under way since the list was asked for.
    undisturbed: bool,
}

impl Desired {
    /// With what the configuration declares.
    #[must_use]
    pub fn new(declared: Wishes) -> Self {
        Self {
            declared,
            commanded: Wishes::default(),
            seen: BTreeSet::new(),
            owed: BTreeSet::new(),
            first_list: false,
            changes: 0,
            undisturbed: false,
        }
    }

    /// Takes up what the commands of earlier runs made. What this one's commands made stands.
    pub fn restore(&mut self, earlier: Wishes) {
        let Wishes { registered, accepted, allow_all, slaves } = earlier;
        let ours = &mut self.commanded;
        for (id, target) in registered {
            ours.registered.entry(id).or_insert(target);
        }
        for (id, of_device) in slaves {
            ours.slaves.entry(id).or_insert(of_device);
        }
        ours.accepted.extend(accepted);
        ours.allow_all |= allow_all;
    }

    /// What commands made, to be kept.
    #[must_use]
    pub const fn commanded(&self) -> &Wishes {
        &self.commanded
    }

    /// The devices that are given again because of a command.
    pub fn kept(&self) -> impl Iterator<Item = DeviceId> {
        let Wishes { registered, accepted, .. } = &self.commanded;
        registered.keys().chain(accepted).copied()
    }

    /// A new link: nothing of what was there is certain any more.
    pub fn link_up(&mut self) {
        self.seen.clear();
        self.owed = self.all().collect();
        self.first_list = true;
    }

    /// The gateway's list is being asked for.
    pub const fn list_asked(&mut self) {
        self.undisturbed = self.changes == 0;
    }

    /// A command that changes something has been taken on.
    pub const fn change_begins(&mut self) {
        self.changes += 1;
        self.undisturbed = false;
    }

    /// It has ended, and made this. What it took away is not missing on this link, nor did another
    /// client take it.
    pub fn change_ends(&mut self, made: Vec<Made>) -> Ended {
        self.changes = self.changes.saturating_sub(1);
        let before = self.commanded.clone();
        let mut kept = BTreeSet::new();
        for made in made {
            for wish in self.all().filter(|wish| wishes::takes(&made, *wish)).collect::<Vec<_>>() {
                self.owed.remove(&wish);
                self.seen.remove(&wish);
                if self.declared.has(wish) {
                    kept.insert(wish);
                }
            }
            self.commanded.take(made);
        }
        let Self { declared, commanded, owed, seen, .. } = self;
        owed.retain(|wish| declared.has(*wish) || commanded.has(*wish));
        seen.retain(|wish| declared.has(*wish) || commanded.has(*wish));
        Ended { changed: *commanded != before, kept }
    }

    /// The list has come. Returns whether it is the first of its link, after which what is missing
    /// is to be given, and what was withdrawn.
    pub fn listed(&mut self, rows: &[Listed]) -> (bool, BTreeSet<Wish>) {
        let registered = rows.iter().filter(|row| row.info.auto_reconnect);
        let there: BTreeSet<Wish> = registered.map(|row| Wish::Registered(row.device_id)).collect();
        let withdrawn = self.compare(|wish| match wish {
            Wish::Registered(_) => Some(there.contains(&wish)),
            Wish::Accepted(_) | Wish::AllowAll | Wish::Slaves(_) => None,
        });
        (std::mem::take(&mut self.first_list), withdrawn)
    }

    /// The accept filter was read. Returns what was withdrawn.
    pub fn filter_read(&mut self, filter: &AcceptFilter) -> BTreeSet<Wish> {
        self.compare(|wish| match wish {
            Wish::Accepted(id) => Some(filter.device_ids.contains(&id)),
            Wish::AllowAll => Some(filter.allow_all),
            Wish::Registered(_) | Wish::Slaves(_) => None,
        })
    }

    /// Whether slaves are wished for: only then they have to be read.
    #[must_use]
    pub fn wants_slaves(&self) -> bool {
        !self.declared.slaves.is_empty() || !self.commanded.slaves.is_empty()
    }

    /// The slaves were read. Returns what was withdrawn.
    pub fn slaves_read(&mut self, slaves: &[Slaves]) -> BTreeSet<Wish> {
        let wished = |slaves: &&Slaves| {
            let wished = self.commanded.slaves.get(&slaves.device_id);
            wished.is_some_and(|wished| covers(slaves, wished))
        };
        let there: BTreeSet<Wish> =
            slaves.iter().filter(wished).map(|slaves| Wish::Slaves(slaves.device_id)).collect();
        self.compare(|wish| match wish {
            Wish::Slaves(_) => Some(there.contains(&wish)),
            Wish::Registered(_) | Wish::Accepted(_) | Wish::AllowAll => None,
        })
    }

    /// What this link has yet to give.
    #[must_use]
    pub fn missing(&self) -> Missing {
        let mut missing = Missing::default();
        for &wish in &self.owed {
            match wish {
                Wish::Registered(id) => {
                    let declared = self.declared.registered.get(&id);
                    let target = declared.or_else(|| self.commanded.registered.get(&id));
                    missing.registered.extend(target.map(|target| (id, *target)));
                }
                Wish::Accepted(id) => _ = missing.accepted.insert(id),
                Wish::AllowAll => missing.allow_all = true,
                Wish::Slaves(id) => missing.slaves.extend(self.commanded.slaves.get(&id).cloned()),
            }
        }
        missing
    }

    /// These were given, or found to be there.
    pub fn given(&mut self, wishes: &BTreeSet<Wish>) {
        self.owed.retain(|wish| !wishes.contains(wish));
    }

    fn all(&self) -> impl Iterator<Item = Wish> {
        self.declared.all().chain(self.commanded.all())
    }

    /// Takes in which wishes are there; `None` for those that nothing is said of. Withdrawn is what
    /// was seen on this link and is not there any more, though no change of ours was under way.
    fn compare(&mut self, there: impl Fn(Wish) -> Option<bool>) -> BTreeSet<Wish> {
        let mut withdrawn = BTreeSet::new();
        let all: Vec<Wish> = self.all().collect();
        for wish in all {
            match there(wish) {
                Some(true) => {
                    self.owed.remove(&wish);
                    // What a change of ours takes away may have been read just before.
                    if self.undisturbed {
                        self.seen.insert(wish);
                    }
                }
                Some(false) if self.undisturbed && self.seen.remove(&wish) => {
                    self.commanded.drop(wish);
                    withdrawn.insert(wish);
                }
                Some(false) | None => {}
            }
        }
        withdrawn
    }
}

/// Wishes by what they are, as they are told.
#[must_use]
pub fn by_kind(wishes: BTreeSet<Wish>) -> BTreeMap<&'static str, BTreeSet<Wish>> {
    let mut groups: BTreeMap<&'static str, BTreeSet<Wish>> = BTreeMap::new();
    for wish in wishes {
        groups.entry(wish.what()).or_default().insert(wish);
    }
    groups
}

/// Whether all the slaves wished for are there.
pub(crate) fn covers(there: &Slaves, wished: &Slaves) -> bool {
    wished.rs485.iter().all(|id| there.rs485.contains(id))
        && wished.wiegand.iter().all(|id| there.wiegand.contains(id))
}
