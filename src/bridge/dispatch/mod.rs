//! The command dispatcher: checks each request from the broker, runs it in a separate task, and
//! makes its response. It never waits, so no request delays an event.

mod admission;
mod audit;
mod history;
mod replies;
mod response;
mod task;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::provisioner::Provisioner;
use crate::commands::{
    BridgeCommand, Command, Failure, RefusedRequest, ReplayKey, Slot, transaction_of,
};
use crate::config::Config;
use crate::ids::{CommandName, Moment};
use crate::mqtt;
use crate::payload::LinkFacts;
use crate::store::history::Reader;
use admission::{Admission, command_name};
use history::HistoryQueries;
use replies::Replies;
use task::{StartedCommand, TaskContext, stopping};

pub(crate) use audit::Audit;
pub(crate) use response::{BridgeRequest, Reply};
pub(crate) use task::{Finished, TaskMessage};

/// Messages of tasks that wait for the loop. When full, the tasks wait, not the loop.
const MESSAGES_MAX: usize = 1_024;

/// The gateway that a request is to.
pub(crate) struct RequestedGateway<'a> {
    pub(crate) facts: Option<&'a LinkFacts>,
    pub(crate) provisioner: &'a mut Provisioner,
}

/// Receives requests and the messages of their tasks.
#[derive(Debug)]
pub(crate) struct CommandDispatcher {
    bridge: String,
    admission: Admission,
    history: HistoryQueries,
    tasks: TaskContext,
    messages: mpsc::Receiver<TaskMessage>,
    /// Commands that run or wait.
    running: usize,
    /// Changes that may start once the iteration is persisted.
    pending_starts: Vec<oneshot::Sender<()>>,
    replies: Replies,
}

impl CommandDispatcher {
    pub(crate) fn new(config: &Config, history: Reader) -> Self {
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        Self {
            bridge: config.bridge_name.clone(),
            admission: Admission::new(config),
            history: HistoryQueries::new(&history, config.time_zone.clone()),
            tasks: TaskContext { messages: sender, stop: CancellationToken::new() },
            messages,
            running: 0,
            pending_starts: Vec::new(),
            replies: Replies::default(),
        }
    }

    /// The next message of a task. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<TaskMessage> {
        self.messages.recv().await
    }

    pub(crate) fn response_prefix(&self) -> &str {
        self.admission.response_prefix()
    }

    /// A change may start with [`CommandDispatcher::persisted`].
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
        self.tasks.stop.cancel();
    }

    /// Whether commands run or wait.
    pub(crate) const fn is_running(&self) -> bool {
        self.running > 0
    }

    /// The replies since the last call.
    pub(crate) fn take_replies(&mut self) -> Vec<Reply> {
        self.replies.take()
    }

    /// Starts the command of a request, or replies why not. Returns a request that the loop runs.
    /// `gateway`: the one that it is to, if this bridge has it; `answer_size_max`: the size of the
    /// largest answer that the broker accepts.
    pub(crate) fn request(
        &mut self,
        request: &mqtt::ReceivedRequest,
        gateway: Option<RequestedGateway<'_>>,
        now: Moment,
        answer_size_max: usize,
    ) -> Option<BridgeRequest> {
        let owner = &request.requester.owner;
        if gateway.is_none() && *owner != self.bridge {
            // Not subscribed to; another bridge may have this gateway.
            return None;
        }
        if self.admission.clears_retained(request) {
            let command = &request.command;
            tracing::debug!(gateway = owner, command, "empty message ignored: not a request");
            return None;
        }
        let index = gateway.as_ref().map(|gateway| gateway.provisioner.gateway());
        self.accept(request, gateway, now, answer_size_max).unwrap_or_else(|refused| {
            let mqtt::ReceivedRequest { command, payload, requester, .. } = request;
            self.replies.refuse(index, command, refused, requester.clone(), payload);
            None
        })
    }

    fn accept(
        &mut self,
        request: &mqtt::ReceivedRequest,
        gateway: Option<RequestedGateway<'_>>,
        now: Moment,
        answer_size_max: usize,
    ) -> Result<Option<BridgeRequest>, RefusedRequest> {
        let index = gateway.as_ref().map(|gateway| gateway.provisioner.gateway());
        self.admission.admit(request, index)?;
        let refused =
            |failure| RefusedRequest { transaction: transaction_of(&request.payload), failure };
        let name = command_name(&request.command, gateway.is_some()).map_err(refused)?;
        self.admission.permit(name).map_err(refused)?;
        if name == CommandName::History {
            let of = gateway.map(|gateway| gateway.provisioner.gateway_name().clone());
            let query = self.history.read(request, of, now, answer_size_max)?;
            tokio::spawn(query.run(self.tasks.clone()));
            self.running += 1;
            return Ok(None);
        }
        let (requester, payload) = (request.requester.clone(), request.payload.clone());
        let Some(gateway) = gateway else {
            let parsed = BridgeCommand::read_request(name, &payload)?;
            return Ok(Some(BridgeRequest { parsed, requester }));
        };
        let request = Command::read_request(name, &payload)?;
        if let Err(failure) = gateway.provisioner.check(&request.command) {
            return Err(RefusedRequest { transaction: request.transaction, failure });
        }
        let index = gateway.provisioner.gateway();
        let started = StartedCommand { gateway: index, request, payload, requester };
        self.start(started, gateway);
        Ok(None)
    }

    /// Starts a command, unless the request is a repeat: that needs neither a link nor a slot.
    fn start(&mut self, started: StartedCommand, gateway: RequestedGateway<'_>) {
        let key = ReplayKey::new(started.gateway, &started.request, &started.payload);
        let Some(started) = self.replies.repeat(key.as_ref(), started) else { return };
        let name = started.request.name;
        match self.acquire(&gateway, name, key) {
            Ok(slot) => {
                let access = gateway.provisioner.access().clone();
                let kept = gateway.provisioner.kept(&started.request.command);
                tokio::spawn(task::run(started, kept, slot, access, self.tasks.clone()));
                self.running += 1;
                if name.changes() {
                    gateway.provisioner.command_started();
                }
            }
            Err(failure) => self.replies.refuse_command(started, failure),
        }
    }

    /// Acquires a slot and an entry in the replay cache.
    fn acquire(
        &mut self,
        gateway: &RequestedGateway<'_>,
        name: CommandName,
        key: Option<ReplayKey>,
    ) -> Result<Slot, Failure> {
        if self.tasks.stop.is_cancelled() {
            return Err(stopping());
        }
        let slot = gateway.provisioner.access().acquire(name.class(), gateway.facts)?;
        key.map_or(Ok(()), |key| self.replies.insert(key))?;
        Ok(slot)
    }

    /// A history query has ended.
    pub(crate) fn history_read(&mut self, reply: Reply) {
        self.running = self.running.saturating_sub(1);
        self.replies.push(reply);
    }

    /// A command has ended: replies to its request and to the repeats that wait for it, or starts
    /// one of them in its place.
    pub(crate) fn finished(&mut self, finished: Finished, gateway: Option<RequestedGateway<'_>>) {
        self.running = self.running.saturating_sub(1);
        if finished.is_interrupted() && finished.is_change() {
            let owner = &finished.started.requester.owner;
            tracing::warn!(gateway = owner, "change interrupted by a stop; check its devices");
        }
        let repeats = self.replies.ended(finished);
        let Some(RequestedGateway { facts, provisioner }) = gateway else { return };
        for repeat in repeats {
            let provisioner = &mut *provisioner;
            self.start(repeat, RequestedGateway { facts, provisioner });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::Instant;

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
            let history = Reader::new("/nonexistent".into());
            let dispatcher = CommandDispatcher::new(&config, history);
            Self { dispatcher, now: Instant::now() }
        }

        /// Sends a request; returns what the loop has to do, and the results of the replies.
        fn send(
            &mut self,
            topic: &str,
            payload: &str,
            retain: bool,
        ) -> (Option<BridgeRequest>, Vec<&'static str>) {
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
            let requested = self.dispatcher.request(&request, None, now, 1_000_000);
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
            assert!(requested.is_none(), "{topic}: {requested:?}");
            assert_eq!(replies, results, "{topic} {payload}");
        }
    }

    #[tokio::test]
    async fn requests_beyond_the_rate_are_refused_until_it_allows_more() {
        let mut fixture = Fixture::new();
        let send = |fixture: &mut Fixture| fixture.send("bridge/request/republish", "{}", false);
        for _ in 0..3 {
            let (requested, replies) = send(&mut fixture);
            assert_eq!(requested.unwrap().parsed.command, BridgeCommand::Republish);
            assert!(replies.is_empty(), "the loop answers");
        }
        assert_eq!(send(&mut fixture).1, ["rate_limited"]);
        fixture.now += Duration::from_secs(1);
        assert!(send(&mut fixture).0.is_some());
    }

    #[tokio::test]
    async fn a_task_answers_history_and_the_dispatcher_is_then_idle() {
        let mut fixture = Fixture::new();
        let (requested, replies) = fixture.send("bridge/request/history", "{}", false);
        assert!(requested.is_none() && replies.is_empty());
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
