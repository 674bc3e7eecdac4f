//! The limits on a gateway's commands: how many of a class run and how many wait, and the rate of
//! requests. A command beyond them is refused at once, so that no queue grows while a gateway
//! hangs.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;

use super::failure::{Failure, FailureCode};
use crate::ids::CommandClass;

/// The slots for one gateway's commands. All clones share them.
#[derive(Clone, Debug)]
pub struct CommandSlots {
    changes: ClassSlots,
    reads: ClassSlots,
    searches: ClassSlots,
}

/// The slots of one class.
#[derive(Clone, Debug)]
struct ClassSlots {
    running: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    slots_max: usize,
    plural: &'static str,
}

/// A command's place among those that run or wait.
#[derive(Debug)]
pub struct Slot {
    /// The place in the queue, until the command may run.
    queue: PollSemaphore,
    running: Option<OwnedSemaphorePermit>,
    slot: OwnedSemaphorePermit,
}

/// A command's permission to run, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    _slot: OwnedSemaphorePermit,
    _running: Option<OwnedSemaphorePermit>,
}

impl ClassSlots {
    /// `slots_max`: running and waiting.
    fn new(running_max: usize, slots_max: usize, plural: &'static str) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { running: semaphore(running_max), slots: semaphore(slots_max), slots_max, plural }
    }
}

impl Default for CommandSlots {
    fn default() -> Self {
        Self {
            // A gateway takes one change at a time.
            changes: ClassSlots::new(1, 32, "changes"),
            reads: ClassSlots::new(8, 32, "commands without change"),
            // More searches of one subnet at once would find no more. One that waits behind many
            // others is answered when its requester has given up.
            searches: ClassSlots::new(2, 6, "searches"),
        }
    }
}

impl CommandSlots {
    fn class(&self, class: CommandClass) -> &ClassSlots {
        match class {
            CommandClass::Change => &self.changes,
            CommandClass::Read => &self.reads,
            CommandClass::Search => &self.searches,
        }
    }

    /// Takes a slot for a command.
    ///
    /// # Errors
    /// When all slots of the class are taken.
    pub fn acquire(&self, class: CommandClass) -> Result<Slot, Failure> {
        let ClassSlots { running, slots, slots_max, plural } = self.class(class);
        let slot = slots.clone().try_acquire_owned().map_err(|_| {
            let message = format!(
                "{slots_max} {plural} of this gateway run or wait already; send the request again \
                 after one is answered"
            );
            Failure::new(FailureCode::RateLimited, message)
        })?;
        Ok(Slot::queued(running.clone(), slot))
    }
}

impl Slot {
    /// Enters the queue at once: tasks start in any order, and commands run in that of arrival.
    fn queued(running: Arc<Semaphore>, slot: OwnedSemaphorePermit) -> Self {
        let mut queue = PollSemaphore::new(running);
        let running = acquired(&mut queue).now_or_never().flatten();
        Self { queue, running, slot }
    }

    /// Waits until the command may run, in the order of the slots.
    pub async fn permit(mut self) -> Permit {
        if self.running.is_none() {
            self.running = acquired(&mut self.queue).await;
        }
        Permit { _slot: self.slot, _running: self.running }
    }
}

/// The first poll enters the queue, whatever the task has done before. The semaphores are never
/// closed; if one were, the command would run beside the others.
fn acquired(
    queue: &mut PollSemaphore,
) -> impl Future<Output = Option<OwnedSemaphorePermit>> + use<'_> {
    unconstrained(poll_fn(|cx| queue.poll_acquire(cx)))
}

/// Allows `count` requests in `per`, all at once if need be.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    count: f64,
    per: Duration,
    tokens: f64,
    updated: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(count: u32, per: Duration, now: Instant) -> Self {
        Self { count: f64::from(count), per, tokens: f64::from(count), updated: now }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        let refilled = self.tokens + elapsed * self.count / self.per.as_secs_f64();
        self.tokens = refilled.min(self.count);
        let is_taken = self.tokens >= 1.0;
        if is_taken {
            self.tokens -= 1.0;
        }
        is_taken
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
            let count = slots.class(full).slots_max;
            let taken: Vec<_> = (0..count).map(|_| slots.acquire(full).unwrap()).collect();
            for class in CLASSES {
                let refused = slots.acquire(class).err().map(|failure| failure.code);
                assert_eq!(refused, (class == full).then_some(FailureCode::RateLimited));
            }
            drop(taken);
            assert!(slots.acquire(full).is_ok());
        }
    }

    #[test]
    fn a_bucket_allows_its_rate_and_no_more() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(20, Duration::from_secs(1), now);
        let taken = (0..10_000).filter(|_| bucket.take(now)).count();
        assert_eq!(taken, 20);
        assert!(bucket.take(now + Duration::from_millis(51)));
        assert!(!bucket.take(now + Duration::from_millis(52)));
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
