//! A link that stands: reads the stream and the lists, and hands them on in their order.
//!
//! May not wait for room in the queue: without it the link is given up.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::fleet::{GatewayIndex, Listed};
use crate::proto::connect::StatusChange;

use super::channel::KeepAlive;
use super::client::{GatewayClient, Refusal};
use super::convert;
use super::error::{Error, is_transport};
use super::link::Observations;
use super::lost::Lost;
use super::observation::{LinkError, Observation};
use super::package::Package;
use super::subscription::{BATCH_LEN_MAX, StreamEnd, Subscription, light_call};
use super::types::AcceptFilter;

/// A call that has been made.
type Asked<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// Its answer; waits for ever where none was made.
async fn answered<T>(asked: &mut Option<Asked<T>>) -> Result<T, Error> {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}

/// A link that stands.
pub(super) struct Live<'a> {
    pub(super) index: GatewayIndex,
    pub(super) queue: &'a Observations,
    pub(super) list_now: &'a Notify,
    pub(super) client: &'a GatewayClient,
    pub(super) package: Package,
    pub(super) keep_alive: KeepAlive,
}

impl Live<'_> {
    /// Reads until the link is lost.
    pub(super) async fn read_on(&self, mut subscription: Subscription) -> Lost {
        match self.read(&mut subscription).await {
            Err(lost) => lost,
            Ok(end) => Lost::by_stream(self.client, end),
        }
    }

    async fn read(&self, subscription: &mut Subscription) -> Result<StreamEnd, Lost> {
        let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
        let mut listing: Option<Asked<Vec<Listed>>> = None;
        let mut filtering: Option<Asked<AcceptFilter>> = None;
        let keep_alive = self.keep_alive_by_calls();
        tokio::pin!(keep_alive);
        loop {
            let idle = listing.is_none();
            tokio::select! {
                end = subscription.read(&mut batch) => {
                    let full = batch.len() >= BATCH_LEN_MAX;
                    self.hand_on_changes(&mut batch)?;
                    if let Some(end) = end {
                        return Ok(end);
                    }
                    if full {
                        // A stream that is always ready is not to starve the other tasks.
                        tokio::task::yield_now().await;
                    }
                }
                outcome = answered(&mut listing) => {
                    listing = None;
                    if outcome.is_ok() && filtering.is_none() {
                        let client = self.client.clone();
                        filtering = Some(Box::pin(async move { client.accept_filter().await }));
                    }
                    // What the stream told before the list came stands before it in the queue too.
                    let end = subscription.read_ready(&mut batch).await;
                    self.hand_on_changes(&mut batch)?;
                    let broken = self.hand_on_list(outcome)?;
                    if let Some(end) = end {
                        return Ok(end);
                    }
                    // A stopping server (GOAWAY) may leave the stream open and take no more calls.
                    if let Some(lost) = broken {
                        return Err(lost);
                    }
                }
                outcome = answered(&mut filtering) => {
                    filtering = None;
                    // Beside the list it is a courtesy: one that cannot be had is no news.
                    if let Ok(filter) = outcome {
                        self.hand_on(Observation::AcceptFilter(Box::new(filter)))?;
                    }
                }
                () = self.list_now.notified(), if idle => {
                    self.hand_on(Observation::ListAsked)?;
                    let client = self.client.clone();
                    listing = Some(Box::pin(async move { client.device_list().await }));
                }
                lost = &mut keep_alive => return Err(lost),
            }
        }
    }

    /// Hands on the outcome of a list; gives the loss where the connection is of no use any more.
    fn hand_on_list(&self, outcome: Result<Vec<Listed>, Error>) -> Result<Option<Lost>, Lost> {
        match outcome {
            Ok(rows) => self.hand_on(Observation::List(rows)).map(|()| None),
            Err(error) => {
                self.hand_on(Observation::ListFailed(LinkError::from(&error)))?;
                let broken = matches!(error, Error::Broken { .. });
                Ok(broken.then(|| Lost::by(&error)))
            }
        }
    }

    fn hand_on(&self, observation: Observation) -> Result<(), Lost> {
        let handed = self.queue.try_send((self.index, observation));
        handed.map_err(|_| Lost::by_overflow(&self.client.options().name))
    }

    fn hand_on_changes(&self, batch: &mut Vec<StatusChange>) -> Result<(), Lost> {
        let received = Instant::now().into_std();
        for change in batch.drain(..) {
            match convert::status_change(change) {
                None => self.client.warn_of_id_0("SubscribeStatus", 1),
                Some((device_id, status, timestamp_s)) => {
                    self.hand_on(Observation::Status { device_id, status, timestamp_s, received })?;
                }
            }
        }
        Ok(())
    }

    /// Asks for a sign of life where HTTP/2 pings are not wanted; ends when none comes.
    async fn keep_alive_by_calls(&self) -> Lost {
        if self.keep_alive == KeepAlive::Pings {
            return std::future::pending().await;
        }
        let timing = self.client.options().timing;
        let client = self.client.with_deadline(timing.keep_alive_timeout);
        loop {
            let silence = client.activity().idle_for();
            if silence < timing.keep_alive_interval {
                sleep(timing.keep_alive_interval - silence).await;
                continue;
            }
            match light_call(&client, self.package).await {
                // Any answer is a sign of life, an error too.
                Ok(()) | Err(Refusal::NotADeviceGateway) => {}
                Err(Refusal::Answer(status)) if is_transport(&status) => {
                    return Lost::by_stream(&client, Err(status));
                }
                Err(Refusal::Answer(_)) => {}
                Err(Refusal::Deadline(_)) => {
                    if client.activity().idle_for() >= timing.keep_alive_timeout {
                        return Lost::by_silence(&client);
                    }
                }
            }
        }
    }
}
