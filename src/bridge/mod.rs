//! The event loop: it waits for one input, passes it to a component, and then stores and publishes
//! the changes.
//!
//! It owns all state: the gateways' tasks, the broker session, the tasks of commands and the web
//! server exchange messages with it over bounded channels.

mod access;
mod broker;
mod clock;
mod confirmations;
mod details;
mod discovered;
mod dispatch;
mod duplicates;
mod event_queue;
mod forget;
mod gateway_inputs;
mod gateways;
mod health;
mod masters;
mod missing_devices;
mod observations;
mod persistence;
mod provision_tasks;
mod provisioner;
mod restore;
mod retained;
mod session;
mod settings;
mod state;
mod web;
mod wiring;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, Sleep, timeout};

use crate::commands::{BridgeCommand, Outcome, device_states};
use crate::fleet::GatewayIndex;
use crate::http::{LoopClient, LoopQuery};
use crate::mqtt::{self, SessionEvent};
use crate::payload::to_bytes;
use crate::store::Key;
use crate::task::Heartbeat;
use broker::Broker;
use dispatch::{BridgeRequest, CommandDispatcher, Finished, RequestedGateway, TaskMessage};
use forget::forget;
use gateway_inputs::GatewayInput;
use gateways::Gateways;
use health::{health, show_degraded};
use state::State;
use web::Web;

pub(crate) use settings::desired;
pub use settings::{broker_settings, gateway_entry, gateway_target, master_options};
pub use wiring::{StartError, start};

/// How long a clean stop waits for the outbox to drain, and for commands to end and be answered.
const DRAIN_DEADLINE: Duration = Duration::from_millis(2_000);
/// How long it then waits for the broker to take `offline`.
const GOODBYE_DEADLINE: Duration = Duration::from_millis(1_000);
/// How long it then waits for the session to end, and for the web server to finish its answers. All
/// three leave the store a second of the 5 s.
const DISCONNECT_DEADLINE: Duration = Duration::from_millis(1_000);

/// The bridge, with everything it owns. The components use the state, and not each other.
#[derive(Debug)]
pub struct Bridge {
    heartbeat: Heartbeat,
    client: LoopClient,
    state: State,
    gateways: Gateways,
    broker: Broker,
    dispatcher: CommandDispatcher,
    web: Web,
    /// Ends when something is due, or earlier.
    alarm: Pin<Box<Sleep>>,
}

/// What the loop waits for.
enum Input {
    Gateways(GatewayInput),
    Broker(Vec<SessionEvent>),
    Web(LoopQuery),
    Task(TaskMessage),
    Due,
}

impl Bridge {
    /// The heartbeat of [`Bridge::run`].
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Queries [`Bridge::run`] for gateways and devices.
    pub fn client(&self) -> LoopClient {
        self.client.clone()
    }

    /// Runs until `shutdown` is done; then publishes `offline`, flushes, and ends within 5 s.
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
        self.notice_interruption();
        self.heartbeat.beat();
        let due = self.due();
        // It is not postponed with each input: setting a timer can cost a system call.
        if due < self.alarm.deadline() || self.alarm.is_elapsed() {
            self.alarm.as_mut().reset(due);
        }
        let input = tokio::select! {
            input = self.gateways.next() => Input::Gateways(input),
            events = self.broker.session.events() => Input::Broker(events),
            Some(query) = self.web.query() => Input::Web(query),
            Some(message) = self.dispatcher.next() => Input::Task(message),
            () = &mut self.alarm => Input::Due,
        };
        self.notice_interruption();
        match input {
            Input::Gateways(input) => self.gateways.apply(&mut self.state, input),
            Input::Broker(events) => events.into_iter().for_each(|event| self.broker_event(event)),
            Input::Web(query) => self.answer_query(query),
            Input::Task(message) => self.task_message(message),
            Input::Due => {}
        }
        self.settle();
        // A scrape asks many times, and would wait for two inputs each time.
        if let Some(query) = self.web.waiting_query() {
            self.answer_query(query);
        }
    }

    /// Notices that the loop did not run, as in a paused container. What comes from the gateways
    /// then is late, and some may be lost.
    fn notice_interruption(&mut self) {
        if let Some(until) = self.heartbeat.stopped_at() {
            // One interruption is noticed once.
            self.heartbeat.beat();
            self.state.interrupted(until);
        }
    }

    /// When the next iteration is due although no input arrives.
    fn due(&self) -> Instant {
        let due = [self.state.due(), self.gateways.due(), self.broker.due()];
        due.into_iter().flatten().fold(self.heartbeat.next_due(), Instant::min)
    }

    /// Ends an iteration: does what is due, stores what has changed, and only then publishes it.
    fn settle(&mut self) {
        let now = Instant::now();
        self.state.wake(now);
        self.gateways.wake(&mut self.state, now);
        self.broker.wake(&mut self.state, now);
        for gateway in self.state.list_requests.drain(..) {
            self.gateways.list_now(gateway);
        }
        self.state.persist();
        self.dispatcher.persisted();
        self.broker.session.publish(&mut self.state);
        self.broker.subscribe_requests(&self.state, self.gateways.take_changed());
        show_degraded(&self.state, &self.broker, &self.web);
    }

    async fn stop(&mut self) {
        tracing::info!("stopping");
        self.notice_interruption();
        self.dispatcher.stop();
        self.gateways.stop();
        self.iterate_until(DRAIN_DEADLINE, |bridge| {
            let outbox = bridge.state.persistence.events.outbox();
            let is_drained = outbox.is_empty() && !bridge.state.publisher.has_answers();
            !bridge.dispatcher.is_running() && (is_drained || !bridge.broker.session.is_connected())
        })
        .await;
        let State { clock, fleet, publisher, .. } = &mut self.state;
        publisher.shut_down(clock.now(), fleet);
        self.state.persist();
        self.broker.session.publish(&mut self.state);
        self.iterate_until(GOODBYE_DEADLINE, |bridge| bridge.state.publisher.is_shut_down()).await;
        if !self.state.publisher.offline_is_accepted() {
            self.broker.session.abort();
        }
        let disconnected = self.broker.session.disconnect(DISCONNECT_DEADLINE);
        // A client that does not read is not waited for.
        let web = timeout(DISCONNECT_DEADLINE, self.answer_web());
        let (_, ()) = tokio::join!(web, disconnected);
        self.web.close();
        self.state.stop();
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

    /// Answers the web server until it has ended, so that a stop cuts no scrape off.
    async fn answer_web(&mut self) {
        while let Some(query) = self.web.query_or_end().await {
            self.answer_query(query);
        }
    }

    fn answer_query(&mut self, query: LoopQuery) {
        let health = |state: &State| health(state, &self.broker, &self.web);
        let mqtt_connected = self.broker.session.is_connected();
        web::answer(query, &mut self.state, &self.gateways, mqtt_connected, health);
    }

    fn broker_event(&mut self, event: SessionEvent) {
        let Some(message) = self.broker.handle(&mut self.state, event) else { return };
        let (topics, prefix) = (self.state.publisher.topics(), self.dispatcher.response_prefix());
        let Some(request) = mqtt::ReceivedRequest::of(topics, prefix, &message) else { return };
        let gateway = self.state.directory.find_str(&request.requester.owner);
        let Self { state, gateways, dispatcher, .. } = self;
        let gateway = gateway.and_then(|at| requested_gateway(state, gateways, at));
        let answer_size_max = self.broker.session.answer_limit().size_max();
        let request = dispatcher.request(&request, gateway, state.clock.now(), answer_size_max);
        self.send_replies();
        if let Some(request) = request {
            self.bridge_request(request);
        }
    }

    /// Handles what the task of a command reports.
    fn task_message(&mut self, message: TaskMessage) {
        match message {
            TaskMessage::Intent { gateway, intent, progress, start } => {
                if let Some(entry) = self.state.directory.gateway(gateway) {
                    let key = Key::Intent(entry.name.clone());
                    self.state.persistence.set(key, Some(&to_bytes(&intent)));
                }
                if let Some(provisioner) = self.gateways.provisioner(gateway) {
                    provisioner.command_progress(&mut self.state, *progress);
                }
                self.dispatcher.start_when_persisted(start);
            }
            TaskMessage::History(reply) => self.dispatcher.history_read(*reply),
            TaskMessage::Finished(finished) => self.command_finished(*finished),
        }
        self.send_replies();
    }

    fn command_finished(&mut self, mut finished: Finished) {
        let Self { state, gateways, dispatcher, .. } = self;
        let (gateway, is_change) = (finished.started.gateway, finished.is_change());
        // It may have been forgotten meanwhile.
        if let Some(entry) = state.directory.gateway(gateway) {
            if finished.ends_intent() {
                state.persistence.set(Key::Intent(entry.name.clone()), None);
            }
            finished.outcome.render_devices(|rows| {
                let known = |id| state.fleet.device(gateway, id);
                device_states(&state.directory.info, entry, rows, state.clock.now(), known)
            });
        }
        if is_change {
            if !state.persistence.is_durable() {
                finished.outcome.warn_not_remembered("the bridge's store is in memory only");
            }
            let effects = std::mem::take(&mut finished.outcome.effects);
            if let Some(provisioner) = gateways.provisioner(gateway) {
                let warnings = provisioner.command_finished(state, finished.was_run, effects);
                finished.outcome.warnings.extend(warnings);
            }
            if finished.was_run {
                state.request_list(gateway);
            }
        } else if finished.outcome.is_not_found() {
            // A master may not list the gateway any more.
            state.request_list(gateway);
        }
        dispatcher.finished(finished, requested_gateway(state, gateways, gateway));
    }

    /// Runs a command of the bridge itself.
    fn bridge_request(&mut self, request: BridgeRequest) {
        match request.parsed.command.clone() {
            BridgeCommand::Republish => {
                tracing::info!(command = "republish", "bridge command executed");
                let State { publisher, fleet, .. } = &mut self.state;
                publisher.all_changed(fleet);
                publisher.content.discovery.publish_again(fleet);
                let reply = request.reply(Outcome::done(json!({})), BTreeSet::new());
                self.broker.session.reply(&mut self.state, &reply);
            }
            BridgeCommand::Forget { gateway, device_ids } => {
                let Self { state, gateways, broker, .. } = self;
                match forget(state, gateways, &gateway, device_ids.as_ref()) {
                    Some(outcome) => {
                        let reply = request.reply(outcome, device_ids.unwrap_or_default());
                        broker.session.reply(state, &reply);
                    }
                    None => broker.forget(state, gateway, request),
                }
            }
        }
    }

    fn send_replies(&mut self) {
        for reply in self.dispatcher.take_replies() {
            self.broker.session.reply(&mut self.state, &reply);
        }
    }
}

/// What the dispatcher needs of a gateway, also of one that was forgotten meanwhile.
fn requested_gateway<'a>(
    state: &'a State,
    gateways: &'a mut Gateways,
    index: GatewayIndex,
) -> Option<RequestedGateway<'a>> {
    let provisioner = gateways.provisioner(index)?;
    Some(RequestedGateway { facts: state.facts.get(index.0), provisioner })
}
