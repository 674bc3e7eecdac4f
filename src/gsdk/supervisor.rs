//! The task of a link, to a gateway or to a master: connects, and connects again after a delay,
//! until it is stopped.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::channel::KeepAlive;
use super::connection::{Connector, GrpcConnection};
use super::disconnect::Disconnect;
use super::error::{Error, ErrorCode, LinkError};
use crate::net::{Backoff, FailureLog};
use crate::task::catch_panic;

/// What a link to a gateway and one to a master do differently.
pub(crate) trait Supervised: Send + Sync + 'static {
    /// Connects and reads until the link ends.
    fn attempt(
        &self,
        state: &mut AttemptState,
    ) -> impl Future<Output = Result<Infallible, Disconnect>> + Send;

    /// Reports that the link is down, or that an attempt failed (no `last_activity`); false if the
    /// receiver is gone.
    fn ended(
        &self,
        error: &LinkError,
        last_activity: Option<Instant>,
    ) -> impl Future<Output = bool> + Send;
}

/// What attempts leave to the next one.
pub(crate) struct AttemptState {
    /// With what was learned about the other side.
    pub(crate) connector: Connector,
    failures: FailureLog,
    /// Whether the log shows the link as up.
    is_logged_up: bool,
    /// Since when the link is up, and its connection.
    up: Option<(Instant, Arc<GrpcConnection>)>,
}

impl AttemptState {
    /// The link is up, with the services of `package`.
    pub(crate) fn connected(&mut self, connection: &Arc<GrpcConnection>, package: &'static str) {
        self.up = Some((Instant::now(), connection.clone()));
        if !std::mem::replace(&mut self.is_logged_up, true) {
            let failures = self.failures.failures();
            let (gateway, master, noun) = self.connector.options.peer.log_names();
            tracing::info!(gateway, master, package, failures, "connected to the {noun}");
        }
    }

    /// The link has ended: when something last came, and how long it was up, if it was.
    fn take_uptime(&mut self) -> Option<(Instant, Duration)> {
        let (since, connection) = self.up.take()?;
        let last_activity = connection.activity().last_activity();
        Some((last_activity, last_activity.saturating_duration_since(since)))
    }
}

/// Starts the task. It ends when `stop` becomes true, or when its sender or the receiver of the
/// reports is gone.
pub(crate) fn start(
    link: impl Supervised,
    connector: Connector,
    mut stop: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let failures = FailureLog::default();
    let state = AttemptState { connector, failures, is_logged_up: false, up: None };
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = run(link, state) => {}
        }
    })
}

/// Runs until the receiver of the reports is gone.
async fn run(link: impl Supervised, mut state: AttemptState) {
    let retry = state.connector.options.timing.retry;
    let mut backoff = Backoff::new(retry);
    loop {
        let disconnect = attempt(&link, &mut state).await;
        let (last_activity, lasted) = state.take_uptime().unzip();
        if lasted.is_some_and(|lasted| lasted >= retry.stable) {
            state.failures.reset();
        }
        let error = disconnect.error();
        let (gateway, master, noun) = state.connector.options.peer.log_names();
        let retry_at_once =
            disconnect.pings_rejected() && state.connector.keep_alive == KeepAlive::Pings;
        if retry_at_once {
            state.connector.keep_alive = KeepAlive::Calls;
            tracing::info!(gateway, master, "{noun} rejects HTTP/2 pings; keep-alive by calls");
        } else if state.failures.count(&error.message).is_due && error.code != ErrorCode::Internal {
            // A panic is logged where it was caught.
            state.is_logged_up = false;
            let (code, failures) = (error.code.as_str(), state.failures.failures());
            let what = if lasted.is_some() { "disconnected from" } else { "cannot connect to" };
            tracing::warn!(gateway, master, code, failures, %error, "{what} the {noun}; retrying");
        }
        if !link.ended(error, last_activity).await {
            return;
        }
        if !retry_at_once {
            sleep(backoff.next(disconnect.is_absence(lasted), lasted)).await;
        }
    }
}

/// Makes an attempt. A panic ends the link, not the task.
async fn attempt(link: &impl Supervised, state: &mut AttemptState) -> Disconnect {
    let Err(disconnect) = catch_panic(link.attempt(state)).await.unwrap_or_else(|panic| {
        let peer = &state.connector.options.peer;
        let (gateway, master, noun) = peer.log_names();
        tracing::error!(gateway, master, panic, "internal error: {noun} task panicked");
        Err(Disconnect::from_panic(peer, &panic))
    });
    disconnect
}

/// Keep-alive for a link to a gateway or master that rejects HTTP/2 pings: makes a light call, with
/// this deadline, whenever nothing has come for an interval. Ends when the other side does not
/// answer; never where pings do this.
pub(crate) async fn keep_alive_by_calls<T, Answer>(
    connection: &GrpcConnection,
    call: impl Fn(Duration) -> Answer,
) -> Disconnect
where
    Answer: Future<Output = Result<T, Error>>,
{
    if connection.keep_alive() == KeepAlive::Pings {
        return std::future::pending().await;
    }
    let timing = connection.options().timing;
    loop {
        let idle = connection.activity().idle_for();
        if idle < timing.keep_alive_interval {
            sleep(timing.keep_alive_interval - idle).await;
            continue;
        }
        match call(timing.keep_alive_timeout).await {
            // Any answer shows that the other side is alive, even an error.
            Ok(_) | Err(Error::Status { .. }) => {}
            Err(Error::Deadline { .. }) => {
                if connection.activity().idle_for() >= timing.keep_alive_timeout {
                    return Disconnect::from_timeout(connection);
                }
            }
            Err(error) => return Disconnect::from_call(connection, error),
        }
    }
}
