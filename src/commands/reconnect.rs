//! Connects devices again that were connected by `connect`, in parallel. A gateway tries only once,
//! and a device that restarts its network needs several attempts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::calls::Calls;
use super::failure::{Failure, FailureCode};
use super::step::StepName;
use super::steps::StepRunner;
use crate::fleet::Target;
use crate::gsdk::Error;
use crate::ids::DeviceId;

/// Between two attempts at a device.
const PAUSE: Duration = Duration::from_millis(500);
/// For one attempt: a gateway waits 10 s for a device.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);
/// No attempt starts with less time left: its outcome would be unknown.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);
/// Attempts at a time.
const CONCURRENT_MAX: usize = 32;

/// The attempts in progress; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Reconnector(JoinSet<(DeviceId, Target, Result<(), Failure>)>);

impl Reconnector {
    pub(crate) fn start(
        calls: &Calls,
        targets: impl Iterator<Item = (DeviceId, Target)>,
        end: Instant,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(CONCURRENT_MAX));
        let mut tasks = JoinSet::new();
        for (id, target) in targets {
            let (calls, permits) = (calls.clone(), permits.clone());
            tasks.spawn(async move { (id, target, connect(&calls, target, end, &permits).await) });
        }
        Self(tasks)
    }

    /// Waits until each device is connected, or its time is over.
    pub(crate) async fn finish(mut self, runner: &mut StepRunner<'_>) {
        while let Some(ended) = self.0.join_next().await {
            match ended {
                Ok((id, Target { ip, port, ssl }, result)) => {
                    let state = format!(
                        "SSL was changed at the device, and it is not connected: give \
                         {{\"ip\":\"{ip}\",\"port\":{port},\"ssl\":{ssl}}} to connect"
                    );
                    let result = result.map(|()| None);
                    runner.finish_step(StepName::Connected, &[id].into(), result, &state);
                }
                // The panic is handled as one of the command.
                Err(error) => {
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    }
}

async fn connect(
    calls: &Calls,
    target: Target,
    end: Instant,
    permits: &Semaphore,
) -> Result<(), Failure> {
    let message = "there was no time left to connect it again";
    let mut failure = Failure::new(FailureCode::Timeout, message);
    loop {
        // The semaphore is never closed; if it were, all attempts would run at once.
        let permit = permits.acquire().await.ok();
        if Instant::now() >= end {
            return Err(failure);
        }
        let Err(error) = calls.with_cap(end, ATTEMPT_MAX).connect(target).await else {
            return Ok(());
        };
        drop(permit);
        // A broken link is not restored within the command.
        let is_over = matches!(error, Error::Broken { .. });
        failure = error.into();
        if is_over || Instant::now() + PAUSE + ATTEMPT_MIN > end {
            return Err(failure);
        }
        sleep(PAUSE).await;
    }
}
