//! A command's way to its gateway: the client, and how long the command may still take.
//!
//! May not decide what is called.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::failure::{Failure, code};
use crate::gsdk::GatewayClient;

/// What a call is given at least, so that a late one fails at the gateway's silence, not here.
const LEAST: Duration = Duration::from_millis(1);

/// The calls of one command.
#[derive(Clone, Debug)]
pub struct Calls {
    client: GatewayClient,
    until: Option<Instant>,
    /// Told of the steps of a change, as far as they are done.
    steps: Option<watch::Sender<Value>>,
}

impl Calls {
    /// Over this client, until then; each call has its own deadline where there is no such moment.
    #[must_use]
    pub const fn new(client: GatewayClient, until: Option<Instant>) -> Self {
        Self { client, until, steps: None }
    }

    /// Tells the steps of a change while they are done.
    #[must_use]
    pub fn telling(self, steps: watch::Sender<Value>) -> Self {
        Self { steps: Some(steps), ..self }
    }

    /// So far these steps are done.
    pub(super) fn tell(&self, steps: &impl serde::Serialize) {
        if let (Some(told), Ok(steps)) = (&self.steps, serde_json::to_value(steps)) {
            told.send_replace(steps);
        }
    }

    /// The client for the next call.
    pub(super) fn next(&self) -> Result<GatewayClient, Failure> {
        let Some(until) = self.until else { return Ok(self.client.clone()) };
        let left = until.saturating_duration_since(Instant::now());
        if left < LEAST {
            return Err(Failure::new(
                code::TIMEOUT,
                "the command's timeout_s ran out between two of its steps; raise it",
            ));
        }
        Ok(self.client.with_deadline(left))
    }

    /// The client beyond the command's own time, to see what became of it.
    pub(super) const fn beyond(&self) -> &GatewayClient {
        &self.client
    }

    /// The client for a call of a wait that ends then; `most` is for the call alone.
    pub(super) fn within(&self, end: Instant, most: Duration) -> GatewayClient {
        let left = end.saturating_duration_since(Instant::now()).max(LEAST);
        self.client.with_deadline(left.min(most))
    }

    /// The end of a wait of this length, or the command's own where that is sooner.
    pub(super) fn end_of(&self, wait: Duration) -> Instant {
        let end = Instant::now() + wait;
        self.until.map_or(end, |until| until.min(end))
    }
}
