//! The one loop: it waits, lets the core step, and carries out what the core wants.
//!
//! It owns all state, so there is no lock: the gateways' tasks, the broker's session and the web
//! server talk to it over bounded channels. A full queue of observations makes the gateway's task
//! drop its stream, never wait.

mod broker;
mod carry;
mod clock;
mod command_route;
mod dispatch;
mod duplicates;
mod gateway_provisioner;
mod health;
mod iteration;
mod log_state;
mod losses;
mod own_state;
mod persistence;
mod provision;
mod provisioner;
mod queries;
mod request_subscription;
mod retained;
mod route;
mod status_page;
mod storing;
mod wiring;

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::fleet::{Fleet, GatewayIndex, Output};
use crate::gsdk::{Link, LinkReport};
use crate::http::Query;
use crate::metrics::Metrics;
use crate::mqtt::Publisher;
use crate::payload::{BridgeInfo, Directory, LinkFacts};
use crate::task::Heartbeat;
use broker::Broker;
use clock::Clock;
use dispatch::CommandDispatcher;
use losses::Losses;
use persistence::Persistence;
use provisioner::Provisioner;
use request_subscription::RequestSubscription;
use retained::RetainedTopics;
use status_page::StatusPage;

pub use wiring::{StartError, broker_settings, gateway_entry, gateway_options};

/// Observations taken up in one turn: enough that a burst pays for few wake-ups.
const OBSERVATIONS_TAKEN_MAX: usize = 1_024;
/// How long a clean stop waits for the outbox to drain, and for commands to end and be answered.
const DRAIN_DEADLINE: Duration = Duration::from_millis(2_000);
/// How long it then waits for the broker to take `offline`.
const GOODBYE_DEADLINE: Duration = Duration::from_millis(1_000);
/// How long it then waits for the session to end, and for the web server to have said what it has
/// begun to. All three leave the store a second of the 5 s.
const DISCONNECT_DEADLINE: Duration = Duration::from_millis(1_000);

/// The bridge, with everything it owns.
#[derive(Debug)]
pub struct Bridge {
    clock: Clock,
    heartbeat: Heartbeat,
    fleet: Fleet,
    persistence: Persistence,
    publisher: Publisher,
    directory: Directory,
    info: BridgeInfo,
    metrics: Metrics,
    links: Vec<Link>,
    facts: Vec<LinkFacts>,
    observations: mpsc::Receiver<(GatewayIndex, LinkReport)>,
    /// Keeps the queue open when the last gateway's task has ended.
    _observe: mpsc::Sender<(GatewayIndex, LinkReport)>,
    stop_links: watch::Sender<bool>,
    web: JoinHandle<()>,
    broker: Broker,
    retained: RetainedTopics,
    provisioner: Provisioner,
    queries: mpsc::Receiver<Query>,
    dispatcher: CommandDispatcher,
    request_subscription: RequestSubscription,
    losses: Losses,
    status_page: StatusPage,
    /// Counts the events of bridge and gateways in this run.
    numbered: u64,
    republish_every: Option<Duration>,
    republish_at: Option<Instant>,
    out: Vec<Output>,
    batch: Vec<(GatewayIndex, LinkReport)>,
}

impl Bridge {
    /// The heartbeat of [`Bridge::run`].
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Runs until `shutdown` is done; then says `offline`, flushes, and ends within 5 s.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                () = self.turn() => {}
            }
        }
        self.stop().await;
    }

    /// Waits for one thing, takes up what is ready with it, and publishes what follows.
    ///
    /// May be given up while waiting without losing anything.
    async fn turn(&mut self) {
        self.heartbeat.beat();
        let due = self.due();
        let due_or_never = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.observations.recv_many(&mut self.batch, OBSERVATIONS_TAKEN_MAX) => {
                self.take_up_observations();
            }
            () = self.broker.wait() => self.broker_events(),
            Some(result) = self.provisioner.next_result() => self.provisioned(result),
            Some(query) = self.queries.recv() => self.answer_query(query),
            Some(message) = self.dispatcher.next() => self.task_message(message),
            () = due_or_never => {}
        }
        self.wake();
        self.publish();
        self.subscribe_requests();
        self.show_degraded();
    }

    async fn stop(&mut self) {
        tracing::info!("stopping");
        self.dispatcher.stop();
        self.stop_links.send_replace(true);
        self.turn_until(DRAIN_DEADLINE, |bridge| {
            let told = bridge.persistence.outbox().is_empty() && !bridge.publisher.has_answers();
            !bridge.dispatcher.is_running() && (told || !bridge.broker.is_connected())
        })
        .await;
        self.publisher.shut_down();
        self.publish();
        self.turn_until(GOODBYE_DEADLINE, |bridge| bridge.publisher.is_shut_down()).await;
        let disconnected = self.broker.disconnect(DISCONNECT_DEADLINE);
        // A client that does not read is not waited for.
        let web = timeout(DISCONNECT_DEADLINE, self.answer_web());
        let (_, ()) = tokio::join!(web, disconnected);
        self.queries.close();
        self.stop_storing();
    }

    /// Answers the web server until it has ended, so that a stop cuts no scrape off.
    async fn answer_web(&mut self) {
        loop {
            tokio::select! {
                // It ended, or it died: both are its end.
                _ = &mut self.web => return,
                Some(query) = self.queries.recv() => self.answer_query(query),
            }
        }
    }

    async fn turn_until(&mut self, deadline: Duration, done: impl Fn(&Self) -> bool) {
        let turns = async {
            while !done(self) {
                self.turn().await;
            }
        };
        // Past the deadline the stop goes on: it has to end in time whatever the broker does.
        _ = timeout(deadline, turns).await;
    }
}
