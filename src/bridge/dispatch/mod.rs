//! The command dispatcher: checks each request from the broker, runs it in a separate task, and
//! makes its response. It never waits, so no request delays an event.

mod admission;
mod audit;
mod history;
mod response;
mod task;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::access::GatewayAccess;
use crate::commands::{
    BridgeCommand, Command, Declared, DeclaredAs, Failure, RefusedRequest, Replay, ReplayCache,
    ReplayKey, Response, Slot, transaction_of,
};
use crate::config::{Config, ConnectConfig, GatewayConfig};
use crate::fleet::GatewayIndex;
use crate::ids::{CommandName, GatewayName, Moment};
use crate::mqtt::{self, Requester};
use crate::payload::{LinkFacts, to_bytes};
use admission::{Admission, RequestLimits, command_name};
use audit::AuditTarget;
use history::HistoryQueries;
use response::{refusal, respond};
use task::{StartedCommand, TaskContext, stopping};

pub(crate) use audit::Audit;
pub(crate) use response::{BridgeRequest, Reply};
pub(crate) use task::{Finished, TaskMessage};

/// Messages of tasks that wait for the loop. When full, the tasks wait, not the loop.
const MESSAGES_MAX: usize = 1_024;

/// What the dispatcher reads of the loop's other parts.
#[derive(Clone, Copy)]
pub(crate) struct DispatchView<'a> {
    pub(crate) link_facts: &'a [LinkFacts],
    pub(crate) now: Moment,
    /// The size of the largest answer that the broker accepts.
    pub(crate) answer_size_max: usize,
}

/// What the loop has to do for a request, beside sending the replies.
#[derive(Debug)]
pub(crate) enum Requested {
    Nothing,
    /// A change has started at this gateway.
    Change(GatewayIndex),
    /// The loop runs this.
    Bridge(Box<BridgeRequest>),
}

/// Receives requests and the messages of their tasks.
#[derive(Debug)]
pub(crate) struct CommandDispatcher {
    bridge: String,
    admission: Admission,
    bridge_limits: RequestLimits,
    gateways: Vec<GatewayCommands>,
    replay_cache: ReplayCache<Requester>,
    history: HistoryQueries,
    tasks: TaskContext,
    messages: mpsc::Receiver<TaskMessage>,
    /// Commands that run or wait.
    running: usize,
    /// Changes that may start once the iteration is persisted.
    pending_starts: Vec<oneshot::Sender<()>>,
    /// Replies that the loop has not taken yet.
    replies: Vec<Reply>,
}

/// The commands of one gateway.
#[derive(Debug)]
struct GatewayCommands {
    name: GatewayName,
    declared: Declared,
    access: GatewayAccess,
    limits: RequestLimits,
    /// Requests to a forgotten gateway are not answered.
    is_forgotten: bool,
}

impl CommandDispatcher {
    pub(crate) fn new(config: &Config) -> Self {
        let admission = Admission::new(config);
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        Self {
            bridge: config.bridge_name.clone(),
            gateways: Vec::new(),
            bridge_limits: admission.limits(),
            admission,
            replay_cache: ReplayCache::default(),
            history: HistoryQueries::new(&config.state_dir, config.time_zone.clone()),
            tasks: TaskContext { messages: sender, stop: watch::Sender::new(false) },
            messages,
            running: 0,
            pending_starts: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// Adds a gateway, the next by its index; without a configuration, if it is discovered.
    pub(crate) fn add_gateway(
        &mut self,
        name: GatewayName,
        gateway: Option<&GatewayConfig>,
        access: GatewayAccess,
    ) {
        let declared = gateway.map(declared).unwrap_or_default();
        let (limits, is_forgotten) = (self.admission.limits(), false);
        self.gateways.push(GatewayCommands { name, declared, access, limits, is_forgotten });
    }

    /// A gateway is forgotten, or exists again.
    pub(crate) fn set_forgotten(&mut self, name: &GatewayName, is_forgotten: bool) {
        let mut gateways = self.gateways.iter_mut();
        if let Some(gateway) = gateways.find(|gateway| gateway.name == *name) {
            gateway.is_forgotten = is_forgotten;
        }
    }

    /// The next message of a task. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<TaskMessage> {
        self.messages.recv().await
    }

    /// The gateways whose requests are subscribed to; `None` if no command is permitted.
    pub(crate) fn request_owners(&self) -> Option<impl Iterator<Item = &GatewayName>> {
        let gateways = self.gateways.iter().filter(|gateway| !gateway.is_forgotten);
        let names = gateways.map(|gateway| &gateway.name);
        self.admission.permits_any().then_some(names)
    }

    pub(crate) fn response_prefix(&self) -> &str {
        self.admission.response_prefix()
    }

    /// A change with steps may start with [`CommandDispatcher::persisted`].
    pub(crate) fn start_when_persisted(&mut self, start: Option<oneshot::Sender<()>>) {
        self.pending_starts.extend(start);
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

    /// The replies since the last call.
    pub(crate) fn take_replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.replies)
    }

    /// Starts the command of a request, or replies why not.
    pub(crate) fn request(
        &mut self,
        request: &mqtt::ReceivedRequest,
        view: DispatchView<'_>,
    ) -> Requested {
        let owner = &request.requester.owner;
        let is_owner =
            |gateway: &GatewayCommands| gateway.name.as_str() == owner && !gateway.is_forgotten;
        let gateway = self.gateways.iter().position(is_owner).map(GatewayIndex);
        if gateway.is_none() && *owner != self.bridge {
            // Not subscribed to; another bridge may have this gateway.
            return Requested::Nothing;
        }
        if self.admission.clears_retained(request) {
            let command = &request.command;
            tracing::debug!(gateway = owner, command, "empty message ignored: not a request");
            return Requested::Nothing;
        }
        self.accept(gateway, request, view).unwrap_or_else(|refused| {
            let mqtt::ReceivedRequest { command, payload, requester, .. } = request;
            self.refuse(command, refused, requester.clone(), payload);
            Requested::Nothing
        })
    }

    fn accept(
        &mut self,
        gateway: Option<GatewayIndex>,
        request: &mqtt::ReceivedRequest,
        view: DispatchView<'_>,
    ) -> Result<Requested, RefusedRequest> {
        let mut commands = gateway.and_then(|gateway| self.gateways.get_mut(gateway.0));
        let limits = commands.as_mut().map_or(&mut self.bridge_limits, |it| &mut it.limits);
        self.admission.admit(request, limits)?;
        let refused =
            |failure| RefusedRequest { transaction: transaction_of(&request.payload), failure };
        let name = command_name(&request.command, gateway.is_some()).map_err(refused)?;
        self.admission.permit(name).map_err(refused)?;
        if name == CommandName::History {
            let of = commands.map(|commands| commands.name.clone());
            let query = self.history.read(request, of, view.now, view.answer_size_max)?;
            tokio::spawn(query.run(self.tasks.clone()));
            self.running += 1;
            return Ok(Requested::Nothing);
        }
        let (requester, payload) = (request.requester.clone(), request.payload.clone());
        let (Some(gateway), Some(commands)) = (gateway, commands) else {
            let request = BridgeCommand::read_request(name, &payload)?;
            return Ok(Requested::Bridge(Box::new(BridgeRequest { request, requester })));
        };
        let request = Command::read_request(name, &payload)?;
        if let Err(failure) = commands.declared.check(&commands.name, &request.command) {
            return Err(RefusedRequest { transaction: request.transaction, failure });
        }
        let is_change = self.start(StartedCommand { gateway, request, payload, requester }, view);
        Ok(if is_change { Requested::Change(gateway) } else { Requested::Nothing })
    }

    /// Starts a command, unless the request is a repeat: that needs neither a link nor a slot.
    /// Returns whether a change has started.
    fn start(&mut self, started: StartedCommand, view: DispatchView<'_>) -> bool {
        let StartedCommand { gateway, request, payload, requester } = started;
        let Some(GatewayCommands { name, access, .. }) = self.gateways.get(gateway.0) else {
            return false;
        };
        let (access, now) = (access.clone(), Instant::now());
        let key = ReplayKey::new(name, &request, &payload);
        let (requester, failure) = match self.replay_cache.look_up(now, key.as_ref(), requester) {
            Replay::Waiting => return false,
            Replay::Answered(response, requester) => {
                self.replies.push(Reply { response: *response, requester, audit: None });
                return false;
            }
            Replay::Refused(failure, requester) => (requester, failure),
            Replay::New(requester) => {
                let facts = view.link_facts.get(gateway.0);
                match self.acquire(&access, facts, request.name, now, key) {
                    Ok(slot) => {
                        let is_change = request.name.changes();
                        let started = StartedCommand { gateway, request, payload, requester };
                        tokio::spawn(task::run(started, slot, access, self.tasks.clone()));
                        self.running += 1;
                        return is_change;
                    }
                    Err(failure) => (requester, failure),
                }
            }
        };
        let refused = RefusedRequest { transaction: request.transaction, failure };
        self.refuse(request.name.as_str(), refused, requester, &payload);
        false
    }

    /// Acquires a slot and an entry in the replay cache.
    fn acquire(
        &mut self,
        access: &GatewayAccess,
        facts: Option<&LinkFacts>,
        name: CommandName,
        now: Instant,
        key: Option<ReplayKey>,
    ) -> Result<Slot, Failure> {
        if *self.tasks.stop.borrow() {
            return Err(stopping());
        }
        let slot = access.acquire(name.class(), facts)?;
        key.map_or(Ok(()), |key| self.replay_cache.insert(now, key))?;
        Ok(slot)
    }

    /// A history query has ended.
    pub(crate) fn history_read(&mut self, reply: Reply) {
        self.running = self.running.saturating_sub(1);
        self.replies.push(reply);
    }

    /// A command has ended: replies to its request and to the repeats that wait for it. Returns
    /// whether a repeat has started in its place, and is a change.
    pub(crate) fn finished(&mut self, finished: Finished, view: DispatchView<'_>) -> bool {
        self.running = self.running.saturating_sub(1);
        if finished.is_interrupted() && finished.is_change() {
            let gateway = &finished.started.requester.owner;
            tracing::warn!(gateway, "change interrupted by a stop; check its devices");
        }
        let Finished { started, outcome, was_run } = finished;
        let StartedCommand { gateway, request, payload, requester } = started;
        let Some(GatewayCommands { name, .. }) = self.gateways.get(gateway.0) else {
            return false;
        };
        let response = respond(&request, &requester, Some(name.to_string()), outcome);
        let target = AuditTarget::new(&request.command, Some(&response));
        let audit = Audit::ended(&request, &response, target);
        let waiters = ReplayKey::new(name, &request, &payload).map(|key| {
            let stored = was_run.then(|| (&response, to_bytes(&response).len()));
            self.replay_cache.finish(&key, stored)
        });
        let waiters = waiters.unwrap_or_default();
        if was_run {
            let replayed = |requester| {
                let response = Response { replayed: true, ..response.clone() };
                Reply { response, requester, audit: None }
            };
            let replayed: Vec<Reply> = waiters.into_iter().map(replayed).collect();
            self.replies.push(Reply { response, requester, audit });
            self.replies.extend(replayed);
            return false;
        }
        self.replies.push(Reply { response, requester, audit });
        let mut change_started = false;
        for requester in waiters {
            // What kept the first from running, such as its expiry, was its own.
            let (request, payload) = (request.clone(), payload.clone());
            change_started |=
                self.start(StartedCommand { gateway, request, payload, requester }, view);
        }
        change_started
    }

    /// Replies to a request that is not run.
    fn refuse(
        &mut self,
        command: &str,
        refused: RefusedRequest,
        requester: Requester,
        payload: &[u8],
    ) {
        let response = refusal(command, refused, &requester);
        let is_owner = |gateway: &&mut GatewayCommands| gateway.name.as_str() == requester.owner;
        let (gateway, limits) = match self.gateways.iter_mut().find(is_owner) {
            Some(gateway) => (Some(gateway.name.to_string()), &mut gateway.limits),
            None => (None, &mut self.bridge_limits),
        };
        let is_change = command.parse().is_ok_and(CommandName::changes);
        let audit = (is_change && limits.take_refusal_event())
            .then(|| Audit::refused(gateway, &response, payload));
        self.replies.push(Reply { response, requester, audit: audit.flatten() });
    }
}

/// What the configuration declares of a gateway's devices.
fn declared(gateway: &GatewayConfig) -> Declared {
    let declared = gateway.devices.iter().filter_map(|(&id, device)| match device.connect {
        ConnectConfig::Observe => None,
        ConnectConfig::Async { .. } => Some((id, DeclaredAs::Async)),
        ConnectConfig::Accept => Some((id, DeclaredAs::Accept)),
    });
    Declared(declared.collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::config;
    use crate::mqtt::Message;
    use crate::topics::Topics;

    const CONFIG: &str = r#"
    state_dir = "/nonexistent"
    [mqtt]
    url = "mqtt://127.0.0.1:1"
    [commands]
    allow = ["republish", "history"]
    rate = "3/s"
    [gateways.lobby]
    address = "127.0.0.1:1"
    ca_file = "/nonexistent"
    "#;

    struct Fixture {
        dispatcher: CommandDispatcher,
        now: Instant,
    }

    impl Fixture {
        /// A dispatcher of a bridge whose gateways have no links: requests to the bridge itself.
        fn new() -> Self {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), CONFIG).unwrap();
            let args = config::ConfigArgs {
                config: Some(file.path().into()),
                ..config::ConfigArgs::default()
            };
            let config = config::load(&args, []).unwrap().config;
            let dispatcher = CommandDispatcher::new(&config);
            Self { dispatcher, now: Instant::now() }
        }

        /// Sends a request; returns what the loop has to do, and the results of the replies.
        fn send(
            &mut self,
            topic: &str,
            payload: &str,
            retain: bool,
        ) -> (Requested, Vec<&'static str>) {
            let message = Message {
                topic: format!("gsdk/{topic}"),
                payload: Bytes::copy_from_slice(payload.as_bytes()),
                retain,
                response_topic: None,
                correlation_data: None,
                expires_in: None,
                received: self.now,
            };
            let topics = Topics::new("gsdk", "bridge");
            let request = mqtt::ReceivedRequest::of(&topics, "gsdk-reply/", &message).unwrap();
            let now = Moment::from_millis(0);
            let view = DispatchView { link_facts: &[], now, answer_size_max: 1_000_000 };
            let requested = self.dispatcher.request(&request, view);
            (requested, self.results())
        }

        /// The results of the replies.
        fn results(&mut self) -> Vec<&'static str> {
            self.dispatcher.take_replies().iter().map(|reply| reply.response.label()).collect()
        }
    }

    #[tokio::test]
    async fn a_forbidden_request_gets_one_reply_and_has_no_effect() {
        for (topic, payload, retain, results) in [
            ("bridge/request/republish", "{}", true, &["invalid_request"][..]),
            ("bridge/request/republish", "", true, &[]),
            ("bridge/request/republish", r#"{"a":1}"#, false, &["invalid_request"]),
            ("bridge/request/forget", "{}", false, &["not_permitted"]),
            ("bridge/request/devices", "{}", false, &["unknown_command"]),
            ("annex/request/devices", "{}", false, &[]),
        ] {
            let (requested, replies) = Fixture::new().send(topic, payload, retain);
            assert!(matches!(requested, Requested::Nothing), "{topic}: {requested:?}");
            assert_eq!(replies, results, "{topic} {payload}");
        }
    }

    #[tokio::test]
    async fn requests_beyond_the_rate_are_refused_until_it_allows_more() {
        let mut fixture = Fixture::new();
        let send = |fixture: &mut Fixture| fixture.send("bridge/request/republish", "{}", false);
        for _ in 0..3 {
            let (requested, replies) = send(&mut fixture);
            let Requested::Bridge(bridge) = requested else { panic!("{requested:?}") };
            assert_eq!(bridge.request.command, BridgeCommand::Republish);
            assert!(replies.is_empty(), "the loop answers");
        }
        assert_eq!(send(&mut fixture).1, ["rate_limited"]);
        fixture.now += Duration::from_secs(1);
        assert!(matches!(send(&mut fixture).0, Requested::Bridge(..)));
    }

    #[tokio::test]
    async fn a_task_answers_history_and_the_dispatcher_is_then_idle() {
        let mut fixture = Fixture::new();
        let (requested, replies) = fixture.send("bridge/request/history", "{}", false);
        assert!(matches!(requested, Requested::Nothing) && replies.is_empty());
        assert!(fixture.dispatcher.is_running());
        match fixture.dispatcher.next().await {
            Some(TaskMessage::History(reply)) => {
                assert_eq!(reply.command(), "history");
                fixture.dispatcher.history_read(*reply);
                assert_eq!(fixture.results(), ["unavailable"]);
            }
            other => panic!("{other:?}"),
        }
        assert!(!fixture.dispatcher.is_running());
    }
}
