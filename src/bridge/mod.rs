//! The event loop: it waits for one input, lets the core step, and routes what follows.
//!
//! It owns all state, so there is no lock: the gateways' tasks, the broker's session and the web
//! server talk to it over bounded channels. When the queue of reports is full, the gateway's task
//! closes its stream and does not wait.

mod broker;
mod carry;
mod clock;
mod command_route;
mod dispatch;
mod duplicates;
mod gateway_provisioner;
mod health;
mod iteration;
mod links;
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
mod site;
mod status_page;
mod storing;
mod web;
mod wiring;

use std::time::Duration;

use tokio::time::{sleep_until, timeout};

use crate::metrics::Metrics;
use crate::mqtt::Publisher;
use crate::task::Heartbeat;
use broker::Broker;
use clock::Clock;
use dispatch::CommandDispatcher;
use links::Links;
use losses::Losses;
use persistence::Persistence;
use provisioner::Provisioner;
use retained::RetainedTopics;
use site::Site;
use web::Web;

pub use wiring::{StartError, broker_settings, gateway_entry, gateway_options};

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
    site: Site,
    links: Links,
    persistence: Persistence,
    losses: Losses,
    publisher: Publisher,
    broker: Broker,
    retained: RetainedTopics,
    provisioner: Provisioner,
    dispatcher: CommandDispatcher,
    web: Web,
    metrics: Metrics,
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
                () = self.iterate() => {}
            }
        }
        self.stop().await;
    }

    /// Waits for one input, handles it, and publishes what follows. Cancel safe.
    async fn iterate(&mut self) {
        self.heartbeat.beat();
        let due = self.due();
        let due_or_never = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.links.wait() => self.link_reports(),
            () = self.broker.wait() => self.broker_events(),
            Some(result) = self.provisioner.next_result() => self.provisioned(result),
            Some(query) = self.web.query() => self.answer_query(query),
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
        self.links.stop();
        self.iterate_until(DRAIN_DEADLINE, |bridge| {
            let told = bridge.persistence.outbox().is_empty() && !bridge.publisher.has_answers();
            !bridge.dispatcher.is_running() && (told || !bridge.broker.is_connected())
        })
        .await;
        self.publisher.shut_down();
        self.publish();
        self.iterate_until(GOODBYE_DEADLINE, |bridge| bridge.publisher.is_shut_down()).await;
        let disconnected = self.broker.disconnect(DISCONNECT_DEADLINE);
        // A client that does not read is not waited for.
        let web = timeout(DISCONNECT_DEADLINE, self.answer_web());
        let (_, ()) = tokio::join!(web, disconnected);
        self.web.close();
        self.stop_storing();
    }

    /// Answers the web server until it has ended, so that a stop cuts no scrape off.
    async fn answer_web(&mut self) {
        while let Some(query) = self.web.query_or_end().await {
            self.answer_query(query);
        }
    }

    async fn iterate_until(&mut self, deadline: Duration, done: impl Fn(&Self) -> bool) {
        let iterations = async {
            while !done(self) {
                self.iterate().await;
            }
        };
        // After the deadline the stop continues: it has to end in time whatever the broker does.
        _ = timeout(deadline, iterations).await;
    }
}
