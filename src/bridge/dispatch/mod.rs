//! The command dispatcher: checks each request from the broker, runs it in a task beside the loop,
//! and makes its reply. It never waits, so no request delays an event.

mod admission;
mod exchange;
mod finished;
mod gateway;
mod history;
mod reply;
mod task;

use std::collections::BTreeSet;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::commands::{
    BridgeCommand, Command, Failure, Outcome, Refused, Replay, ReplayCache, ReplayKey, Response,
    Slot, TokenBucket, Warning, transaction_of,
};
use crate::config::{self, Config};
use crate::fleet::GatewayIndex;
use crate::gsdk::Link;
use crate::ids::{CommandName, DeviceId, GatewayName};
use crate::mqtt;
use crate::payload::{Intent, to_bytes};
use admission::{Admission, command_name};
use finished::Started;
use gateway::GatewayCommands;
use history::HistoryQueries;
use reply::{AnswerLimits, Requester};
use task::{TaskContext, stopping};

pub(crate) use exchange::{Completed, Requested, View};
pub(crate) use finished::Finished;
pub(crate) use reply::{BridgeRequester, Reply};
pub(crate) use task::TaskMessage;

/// Messages of tasks that wait for the loop. When full, the tasks wait, not the loop.
const MESSAGES_MAX: usize = 1_024;

/// Receives requests and the messages of their tasks, and returns replies.
#[derive(Debug)]
pub(crate) struct CommandDispatcher {
    admission: Admission,
    bridge_bucket: TokenBucket,
    gateways: Vec<GatewayCommands>,
    replay_cache: ReplayCache<Requester>,
    history: HistoryQueries,
    limits: AnswerLimits,
    tasks: TaskContext,
    messages: mpsc::Receiver<TaskMessage>,
    /// Commands that run or wait.
    running: usize,
    /// Changes that may start once the iteration is persisted.
    pending_starts: Vec<oneshot::Sender<()>>,
}

impl CommandDispatcher {
    pub(crate) fn new(config: &Config, links: &[Link]) -> Self {
        let admission = Admission::new(config);
        let bucket = admission.bucket(Instant::now());
        let gateway = |((name, gateway), link): ((&GatewayName, &config::Gateway), &Link)| {
            GatewayCommands::new(name.clone(), gateway, link, bucket.clone())
        };
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        Self {
            gateways: config.gateways.iter().zip(links).map(gateway).collect(),
            admission,
            bridge_bucket: bucket,
            replay_cache: ReplayCache::default(),
            history: HistoryQueries::new(&config.state_dir, config.time_zone.clone()),
            limits: AnswerLimits::new(config.mqtt.max_answer_bytes),
            tasks: TaskContext { messages: sender, stop: watch::Sender::new(false) },
            messages,
            running: 0,
            pending_starts: Vec::new(),
        }
    }

    /// The next message of a task; may be cancelled.
    pub(crate) async fn next(&mut self) -> Option<TaskMessage> {
        self.messages.recv().await
    }

    /// A new connection, with the packet size that its broker has announced, if it has.
    pub(crate) fn broker_announced(&mut self, packet_size: Option<u32>) {
        self.limits.announced(packet_size);
    }

    /// The gateways whose requests are subscribed to; `None` if no command is permitted.
    pub(crate) fn request_owners(&self) -> Option<impl Iterator<Item = &GatewayName>> {
        let names = self.gateways.iter().map(GatewayCommands::name);
        self.admission.permits_any().then_some(names)
    }

    pub(crate) fn response_prefix(&self) -> &str {
        self.admission.response_prefix()
    }

    /// A slot among the changes of a gateway, for the bridge itself.
    pub(crate) fn change_slot(&self, gateway: GatewayIndex) -> Option<Slot> {
        self.gateways.get(gateway.0)?.change_slot()
    }

    /// The changes with steps that are running.
    pub(crate) fn intents(&self) -> impl Iterator<Item = (&GatewayName, &Intent)> {
        self.gateways.iter().filter_map(GatewayCommands::intent)
    }

    /// The intents of this iteration are persisted: their changes may start.
    pub(crate) fn persisted(&mut self) {
        for start in self.pending_starts.drain(..) {
            // A task that was cancelled does not start.
            _ = start.send(());
        }
    }

    /// Stops: no command starts any more, and those that run end soon.
    pub(crate) fn stop(&self) {
        self.tasks.stop.send_replace(true);
    }

    /// Whether commands run or wait.
    pub(crate) const fn is_running(&self) -> bool {
        self.running > 0
    }

    /// Starts the command of a request, or replies why not.
    pub(crate) fn request(
        &mut self,
        request: &mqtt::Request,
        view: View<'_>,
        replies: &mut Vec<Reply>,
    ) -> Requested {
        let is_owner = |gateway: &GatewayCommands| gateway.name().as_str() == request.owner;
        let gateway = self.gateways.iter().position(is_owner).map(GatewayIndex);
        if gateway.is_none() && request.owner != view.directory.bridge {
            // Not subscribed to; another bridge may have this gateway.
            return Requested::Nothing;
        }
        if self.admission.clears_retained(request) {
            let (gateway, command) = (&request.owner, &request.command);
            tracing::debug!(gateway, command, "empty message ignored: not a request");
            return Requested::Nothing;
        }
        self.accept(gateway, request, view, replies).unwrap_or_else(|refused| {
            let requester = Requester::new(request);
            replies.push(self.refuse(&request.command, refused, requester, view.closes_from));
            Requested::Nothing
        })
    }

    fn accept(
        &mut self,
        gateway: Option<GatewayIndex>,
        request: &mqtt::Request,
        view: View<'_>,
        replies: &mut Vec<Reply>,
    ) -> Result<Requested, Refused> {
        let commands = gateway.and_then(|gateway| self.gateways.get_mut(gateway.0));
        let bucket = commands.map_or(&mut self.bridge_bucket, GatewayCommands::bucket);
        self.admission.admit(request, bucket)?;
        let refused = |failure| Refused { transaction: transaction_of(&request.payload), failure };
        let name = command_name(&request.command, gateway.is_some()).map_err(refused)?;
        self.admission.permit(name).map_err(refused)?;
        let requester = Requester::new(request);
        match gateway {
            _ if name == CommandName::History => {
                let commands = gateway.and_then(|gateway| self.gateways.get(gateway.0));
                let name = commands.map(|commands| commands.name().clone());
                let size_max = self.limits.get(view.closes_from).size_max();
                let query = self.history.read(request, requester, name, view.now, size_max)?;
                tokio::spawn(query.run(self.tasks.clone()));
                self.running += 1;
                Ok(Requested::Nothing)
            }
            None => {
                let typed = BridgeCommand::read_request(name, &request.payload)?;
                let (command, requester) = BridgeRequester::new(typed, requester);
                Ok(Requested::Bridge(command, Box::new(requester)))
            }
            Some(gateway) => {
                let typed = Command::read_request(name, &request.payload)?;
                if let Some(commands) = self.gateways.get(gateway.0) {
                    commands.check_declared(&typed)?;
                }
                let started = Started {
                    gateway,
                    request: typed,
                    payload: request.payload.clone(),
                    requester,
                };
                let is_change = self.start(started, view, replies);
                Ok(if is_change { Requested::Change(gateway) } else { Requested::Nothing })
            }
        }
    }

    /// Starts a command, unless the request is a repeat: that needs neither a link nor a slot.
    /// Returns whether a change has started.
    fn start(&mut self, started: Started, view: View<'_>, replies: &mut Vec<Reply>) -> bool {
        let Started { gateway, request, payload, requester } = started;
        let Some(commands) = self.gateways.get(gateway.0) else { return false };
        let (clients, now) = (commands.clients(), Instant::now());
        let key = ReplayKey::new(commands.name(), &request, &payload);
        let (requester, failure) = match self.replay_cache.look_up(now, key.as_ref(), requester) {
            Replay::Waiting => return false,
            Replay::Answered(response, requester) => {
                replies.push(self.limits.reply(&response, requester, view.closes_from));
                return false;
            }
            Replay::Refused(failure, requester) => (requester, failure),
            Replay::New(requester) => match self.acquire(gateway, request.name, now, key, view) {
                Ok(slot) => {
                    let is_change = request.name.changes();
                    let started = Started { gateway, request, payload, requester };
                    tokio::spawn(task::run(started, slot, clients, self.tasks.clone()));
                    self.running += 1;
                    return is_change;
                }
                Err(failure) => (requester, failure),
            },
        };
        let refused = Refused { transaction: request.transaction, failure };
        replies.push(self.refuse(request.name.as_str(), refused, requester, view.closes_from));
        false
    }

    /// Acquires a slot and an entry in the replay cache.
    fn acquire(
        &mut self,
        gateway: GatewayIndex,
        name: CommandName,
        now: Instant,
        key: Option<ReplayKey>,
        view: View<'_>,
    ) -> Result<Slot, Failure> {
        if *self.tasks.stop.borrow() {
            return Err(stopping());
        }
        let facts = view.link_facts.get(gateway.0);
        let commands = self.gateways.get(gateway.0);
        let slot = commands.map(|commands| commands.acquire_slot(name.class(), facts));
        let slot = slot.unwrap_or_else(|| Err(gateway::unavailable(None)))?;
        key.map_or(Ok(()), |key| self.replay_cache.insert(now, key))?;
        Ok(slot)
    }

    /// A change with steps is about to start, or has done some: returns its gateway and its intent,
    /// which has to be stored.
    pub(crate) fn set_intent(
        &mut self,
        gateway: GatewayIndex,
        intent: Intent,
        start: Option<oneshot::Sender<()>>,
    ) -> Option<(&GatewayName, &Intent)> {
        self.pending_starts.extend(start);
        Some(self.gateways.get_mut(gateway.0)?.set_intent(intent))
    }

    /// A history query has ended.
    pub(crate) fn history_read(
        &mut self,
        response: &Response,
        requester: Requester,
        closes_from: Option<usize>,
    ) -> Reply {
        self.running = self.running.saturating_sub(1);
        self.limits.reply(response, requester, closes_from)
    }

    /// A command has ended: replies to its request and to the repeats that wait for it.
    pub(crate) fn finished(
        &mut self,
        finished: Finished,
        warnings: Vec<Warning>,
        view: View<'_>,
        replies: &mut Vec<Reply>,
    ) -> Completed {
        self.running = self.running.saturating_sub(1);
        let gateway = finished.gateway();
        let (Some(commands), Some(entry)) =
            (self.gateways.get_mut(gateway.0), view.directory.gateway(gateway))
        else {
            return Completed::default();
        };
        let mut completed = Completed::default();
        if finished.ends_intent() {
            commands.clear_intent();
            completed.intent_ended = Some(entry.name.clone());
        }
        let was_run = finished.was_run();
        completed.list_wanted = finished.is_change() && was_run;
        let (started, mut response) = finished.respond(entry, warnings, view);
        let Started { request, payload, requester, .. } = started;
        let waiters = ReplayKey::new(&entry.name, &request, &payload).map(|key| {
            let stored = was_run.then(|| (&response, to_bytes(&response).len()));
            self.replay_cache.finish(&key, stored)
        });
        replies.push(self.limits.reply(&response, requester, view.closes_from));
        response.replayed = true;
        for requester in waiters.into_iter().flatten() {
            if was_run {
                replies.push(self.limits.reply(&response, requester, view.closes_from));
            } else {
                // What kept the first from running, such as its expiry, was its own.
                let (request, payload) = (request.clone(), payload.clone());
                let again = Started { gateway, request, payload, requester };
                completed.change_started |= self.start(again, view, replies);
            }
        }
        completed
    }

    /// The reply to a request that is not run.
    fn refuse(
        &self,
        command: &str,
        refused: Refused,
        requester: Requester,
        closes_from: Option<usize>,
    ) -> Reply {
        self.limits.reply(&reply::refusal(command, refused, &requester), requester, closes_from)
    }

    /// The reply to a command of the bridge itself, which named these devices.
    pub(crate) fn bridge_reply(
        &self,
        requester: BridgeRequester,
        gateway: Option<&GatewayName>,
        outcome: Outcome,
        device_ids: &BTreeSet<DeviceId>,
        closes_from: Option<usize>,
    ) -> Reply {
        let (response, requester) = requester.response(gateway, outcome, device_ids);
        self.limits.reply(&response, requester, closes_from)
    }
}

#[cfg(test)]
mod tests;
