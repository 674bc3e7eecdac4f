//! A command's access to its gateway: the client, and the command's deadline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::failure::{Failure, FailureCode};
use super::step::Progress;
use crate::gsdk::GatewayClient;
use crate::ids::DeviceId;

/// The shortest deadline of a call, so that a call at the end of a wait fails by the gateway's
/// silence.
const CALL_DEADLINE_MIN: Duration = Duration::from_millis(1);

/// For a read that verifies a change, beyond the command's own deadline.
const VERIFY_DEADLINE: Duration = Duration::from_secs(5);

/// The calls of one command, within its deadline.
#[derive(Clone, Debug)]
pub struct Calls {
    client: GatewayClient,
    deadline: Option<Instant>,
    /// The command's devices that the bridge registers again wherever the gateway lacks them.
    kept: BTreeSet<DeviceId>,
    /// Whether a call that changes something was made.
    has_changed: Arc<AtomicBool>,
    /// Receives the progress of a change after each step.
    progress: Option<watch::Sender<Progress>>,
}

impl Calls {
    /// Without a deadline, each call has its own.
    pub fn new(client: GatewayClient, deadline: Option<Instant>) -> Self {
        let (kept, has_changed) = (BTreeSet::new(), Arc::default());
        Self { client, deadline, kept, has_changed, progress: None }
    }

    #[must_use]
    pub fn keeping(self, kept: BTreeSet<DeviceId>) -> Self {
        Self { kept, ..self }
    }

    pub(crate) const fn kept(&self) -> &BTreeSet<DeviceId> {
        &self.kept
    }

    #[must_use]
    pub fn reporting_to(self, progress: watch::Sender<Progress>) -> Self {
        Self { progress: Some(progress), ..self }
    }

    pub(crate) fn report(&self, progress: &Progress) {
        if let Some(report) = &self.progress {
            report.send_replace(progress.clone());
        }
    }

    /// The client for the next call, which only reads.
    pub(crate) fn client(&self) -> Result<GatewayClient, Failure> {
        let Some(deadline) = self.deadline else { return Ok(self.client.clone()) };
        if deadline.duration_since(Instant::now()) < CALL_DEADLINE_MIN {
            let message = "the command's timeout_s ran out between two of its steps; raise it";
            return Err(Failure::new(FailureCode::Timeout, message));
        }
        Ok(self.client.with_deadline(deadline))
    }

    /// The client for the next call, which changes something.
    pub(crate) fn changing(&self) -> Result<GatewayClient, Failure> {
        let client = self.client()?;
        self.has_changed.store(true, Ordering::Relaxed);
        Ok(client)
    }

    /// Whether a call that changes something was made.
    pub(crate) fn has_changed(&self) -> bool {
        self.has_changed.load(Ordering::Relaxed)
    }

    /// The client for one read, also after the command's deadline: what has become of a change.
    pub(crate) fn verifying(&self) -> GatewayClient {
        self.client.with_deadline(Instant::now() + VERIFY_DEADLINE)
    }

    /// The client for a call of at most `cap`, within a wait until `end`.
    pub(crate) fn with_cap(&self, end: Instant, cap: Duration) -> GatewayClient {
        let now = Instant::now();
        self.client.with_deadline(end.max(now + CALL_DEADLINE_MIN).min(now + cap))
    }

    /// The end of a wait of this length: the command's deadline if that is sooner.
    pub(crate) fn deadline(&self, wait: Duration) -> Instant {
        let end = Instant::now() + wait;
        self.deadline.map_or(end, |deadline| deadline.min(end))
    }
}
