//! The limits on a gateway's commands: how many of a class run and how many wait. A command beyond
//! them is refused at once, so that no queue grows while a gateway hangs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::{Failure, FailureCode};
use crate::ids::CommandClass;

/// The limits of one class.
struct ClassLimits {
    running_max: usize,
    /// Running and waiting.
    slots_max: usize,
    plural: &'static str,
}

const fn limits(class: CommandClass) -> ClassLimits {
    let (running_max, slots_max, plural) = match class {
        // A gateway takes one change at a time.
        CommandClass::Change => (1, 32, "changes"),
        CommandClass::Read => (8, 32, "commands without change"),
        // More searches of one subnet at once would find no more. One that waits behind many
        // others is answered when its requester has given up.
        CommandClass::Search => (2, 6, "searches"),
    };
    ClassLimits { running_max, slots_max, plural }
}

/// The slots for one gateway's commands. All clones share them.
#[derive(Clone, Debug)]
pub struct CommandSlots {
    changes: ClassSlots,
    reads: ClassSlots,
    searches: ClassSlots,
}

#[derive(Clone, Debug)]
struct ClassSlots {
    slots: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// A command's place among those that run or wait.
#[derive(Debug)]
pub struct Slot {
    running: Arc<Semaphore>,
    slot: OwnedSemaphorePermit,
}

/// A command's permission to run, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    _slot: OwnedSemaphorePermit,
    _running: Option<OwnedSemaphorePermit>,
}

impl Default for CommandSlots {
    fn default() -> Self {
        let queue = |class| {
            let ClassLimits { running_max, slots_max, .. } = limits(class);
            let slots = Arc::new(Semaphore::new(slots_max));
            ClassSlots { slots, running: Arc::new(Semaphore::new(running_max)) }
        };
        Self {
            changes: queue(CommandClass::Change),
            reads: queue(CommandClass::Read),
            searches: queue(CommandClass::Search),
        }
    }
}

impl CommandSlots {
    /// Takes a slot for a command.
    ///
    /// # Errors
    /// When all slots of the class are taken.
    pub fn acquire(&self, class: CommandClass) -> Result<Slot, Failure> {
        let queue = match class {
            CommandClass::Change => &self.changes,
            CommandClass::Read => &self.reads,
            CommandClass::Search => &self.searches,
        };
        let slot = queue.slots.clone().try_acquire_owned().map_err(|_| {
            let ClassLimits { slots_max, plural, .. } = limits(class);
            let message = format!(
                "{slots_max} {plural} of this gateway run or wait already; send the request again \
                 after one is answered"
            );
            Failure::new(FailureCode::RateLimited, message)
        })?;
        Ok(Slot { running: queue.running.clone(), slot })
    }
}

impl Slot {
    /// Waits until the command may run, in the order of the slots.
    pub async fn permit(self) -> Permit {
        // The semaphores are never closed; if one were, the command would run beside the others.
        let running = self.running.acquire_owned().await.ok();
        Permit { _slot: self.slot, _running: running }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [CommandClass; 3] =
        [CommandClass::Change, CommandClass::Read, CommandClass::Search];

    #[tokio::test]
    async fn changes_run_one_at_a_time_and_reads_beside_them() {
        let slots = CommandSlots::default();
        let first = slots.acquire(CommandClass::Change).unwrap().permit().await;
        let mut second = std::pin::pin!(slots.acquire(CommandClass::Change).unwrap().permit());
        let beside = slots.acquire(CommandClass::Read).unwrap().permit().await;
        assert!(poll_once(second.as_mut()).await.is_none());
        drop(first);
        assert!(poll_once(second.as_mut()).await.is_some());
        drop(beside);
    }

    #[tokio::test]
    async fn no_class_takes_the_slots_of_another() {
        for full in CLASSES {
            let slots = CommandSlots::default();
            let taken: Vec<_> =
                (0..limits(full).slots_max).map(|_| slots.acquire(full).unwrap()).collect();
            for class in CLASSES {
                let refused = slots.acquire(class).err().map(|failure| failure.code);
                assert_eq!(refused, (class == full).then_some(FailureCode::RateLimited));
            }
            drop(taken);
            assert!(slots.acquire(full).is_ok());
        }
    }

    /// The output of a future that is ready.
    async fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }
}
