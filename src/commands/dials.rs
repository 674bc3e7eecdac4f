//! Devices that were connected by `connect` are dialled again after a change, all at once.
//!
//! May not go on beyond its end, which is one for all of them. A gateway only ever tries once, and
//! a device that restarts its network needs some tries.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::calls::Calls;
use super::failure::{Failure, code};
use super::work::Work;
use crate::gsdk::{Error, Target};
use crate::ids::DeviceId;

/// Between two attempts at a device.
const PAUSE: Duration = Duration::from_millis(500);
/// For one attempt: a gateway waits 10 s for a device (wire, section 3).
const ATTEMPT_MAX: Duration = Duration::from_secs(20);
/// No further attempt begins that has less than this: nobody would know what became of it.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);
/// Attempts at a time.
const AT_ONCE: usize = 32;

/// The dialling under way; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Dials(JoinSet<(DeviceId, Target, Result<(), Failure>)>);

impl Dials {
    /// Begins to dial these.
    pub(super) fn begin(
        calls: &Calls,
        targets: impl Iterator<Item = (DeviceId, Target)>,
        end: Instant,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut dials = JoinSet::new();
        for (id, target) in targets {
            let (calls, turns) = (calls.clone(), turns.clone());
            dials.spawn(async move { (id, target, dial(&calls, target, end, &turns).await) });
        }
        Self(dials)
    }

    /// Waits until each is connected, or has taken too long.
    pub(super) async fn end(mut self, work: &mut Work<'_>) {
        while let Some(dialled) = self.0.join_next().await {
            match dialled {
                Ok((id, Target { ip, port, ssl }, connected)) => {
                    let state = format!(
                        "SSL was changed at the device, and it is not connected: give \
                         {{\"ip\":\"{ip}\",\"port\":{port},\"ssl\":{ssl}}} to connect"
                    );
                    work.outcome("connected", &[id].into(), connected, &state);
                }
                // A mistake in this program: as if it had happened here.
                Err(died) => {
                    if let Ok(panic) = died.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    }
}

async fn dial(
    calls: &Calls,
    target: Target,
    end: Instant,
    turns: &Semaphore,
) -> Result<(), Failure> {
    let mut why = Failure::new(code::TIMEOUT, "there was no time left to dial it again");
    loop {
        // It is never closed; were it, all would dial at once.
        let turn = turns.acquire().await.ok();
        if Instant::now() >= end {
            return Err(why);
        }
        let Err(error) = calls.within(end, ATTEMPT_MAX).connect(target).await else {
            return Ok(());
        };
        drop(turn);
        // A link that broke does not come back.
        let is_over = matches!(error, Error::Broken { .. });
        why = error.into();
        if is_over || Instant::now() + PAUSE + ATTEMPT_MIN > end {
            return Err(why);
        }
        sleep(PAUSE).await;
    }
}
