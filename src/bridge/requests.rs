//! The door for requests from the broker: each is checked, run beside the loop, and answered.
//!
//! May not wait: a command runs in a task of its own, in its gateway's pool, and `answers` takes up
//! what comes back. What may not run is answered at once. No request can hold up an event.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::request_subscription::RequestSubscription;
use super::running::{Asked, Begun, Word, finish, stopping};
use super::{Bridge, history};
use crate::commands::{
    AnswerLimit, Command, CommandSlots, Declared, Failure, FailureCode, Refused, Replay,
    ReplayCache, ReplayKey, Request, Slot, TokenBucket, transaction_of,
};
use crate::config::{self, Config, Connect, Protocol};
use crate::fleet::GatewayIndex;
use crate::gsdk::{GatewayClient, Link};
use crate::ids::{CommandClass, CommandName, CommandScope, GatewayName};
use crate::mqtt::{self, Message, Retained};
use crate::payload::Intent;

/// Words of commands on their way to the loop. When full, the commands wait, not the loop.
const WORDS_MAX: usize = 1_024;

/// What the door knows and remembers.
#[derive(Debug)]
pub(super) struct Requests {
    settings: config::Commands,
    /// The limit of answers on this connection.
    answer_limit: AnswerLimit,
    /// `mqtt.max_answer`.
    answer_size_max: usize,
    pub(super) desks: Vec<Desk>,
    pub(super) subscription: RequestSubscription,
    is_v311: bool,
    own: TokenBucket,
    pub(super) replay_cache: ReplayCache<Asked>,
    speak: mpsc::Sender<Word>,
    words: mpsc::Receiver<Word>,
    stop: watch::Sender<bool>,
    /// Commands that run or wait.
    pub(super) under_way: usize,
    /// Changes that may begin once the turn is written down.
    pub(super) may_begin: Vec<oneshot::Sender<()>>,
}

/// One gateway's requests.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) name: GatewayName,
    clients: watch::Receiver<Option<GatewayClient>>,
    pub(super) declared: Declared,
    slots: CommandSlots,
    bucket: TokenBucket,
    /// The change with steps that is under way.
    pub(super) intent: Option<Intent>,
}

impl Requests {
    pub(super) fn new(config: &Config, links: &[Link]) -> Self {
        let settings = config.commands.clone();
        let changing: Vec<&str> = settings.allow.changing().collect();
        if !changing.is_empty() {
            tracing::warn!(
                commands = changing.join(" "),
                "commands.allow lets every client that may publish requests change gateways and \
                 devices; restrict who may with the broker's ACL"
            );
        }
        if config.mqtt.protocol == Protocol::V311 && !settings.allow.is_empty() {
            tracing::info!("MQTT 3.1.1 has no response topics nor expiry: answers go to response/");
        }
        let bucket = TokenBucket::new(settings.rate.count.get(), settings.rate.per, Instant::now());
        let desk = |((name, gateway), link): ((&GatewayName, &config::Gateway), &Link)| Desk {
            name: name.clone(),
            clients: link.clients(),
            declared: declared(gateway),
            slots: CommandSlots::default(),
            bucket: bucket.clone(),
            intent: None,
        };
        let desks = config.gateways.iter().zip(links).map(desk).collect();
        let (speak, words) = mpsc::channel(WORDS_MAX);
        let (own, replay_cache, may_begin) = (bucket.clone(), ReplayCache::default(), Vec::new());
        let answer_size_max = config.mqtt.max_answer_bytes;
        let (under_way, stop) = (0, watch::Sender::new(false));
        Self {
            settings,
            answer_limit: AnswerLimit::Setting(answer_size_max),
            answer_size_max,
            desks,
            subscription: RequestSubscription::default(),
            is_v311: config.mqtt.protocol == Protocol::V311,
            own,
            replay_cache,
            speak,
            words,
            stop,
            under_way,
            may_begin,
        }
    }

    /// A new connection, with the packet size that its broker has announced, if it has.
    pub(super) fn broker_announced(&mut self, packet_size: Option<u32>) {
        let announced = packet_size.and_then(|size| usize::try_from(size).ok());
        let setting = AnswerLimit::Setting(self.answer_size_max);
        self.answer_limit = announced.map_or(setting, AnswerLimit::Announced);
    }

    /// The limit of answers now; `closes_from`: the size from which on the broker has closed the
    /// connection.
    pub(super) fn answer_limit(&self, closes_from: Option<usize>) -> AnswerLimit {
        match closes_from {
            Some(size) if size <= self.answer_limit.size_max() => AnswerLimit::Closes(size),
            _ => self.answer_limit,
        }
    }

    /// The next word of a command; may be given up while waiting.
    pub(super) async fn next(&mut self) -> Option<Word> {
        self.words.recv().await
    }

    /// All that has changed is written down: what waited for that may begin.
    pub(super) fn written_down(&mut self) {
        for may in self.may_begin.drain(..) {
            // One that has been given up meanwhile does not begin.
            _ = may.send(());
        }
    }

    /// A slot among the changes of a gateway, for the bridge itself.
    pub(super) fn change_slot(&self, gateway: GatewayIndex) -> Option<Slot> {
        self.desks.get(gateway.0)?.slots.acquire(CommandClass::Change).ok()
    }

    /// The changes with steps that are under way.
    pub(super) fn intents(&self) -> impl Iterator<Item = (&GatewayName, &Intent)> {
        self.desks.iter().filter_map(|desk| Some((&desk.name, desk.intent.as_ref()?)))
    }

    /// The bridge stops: nothing begins any more, and what is under way soon ends where it is.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Why requests may not arrive; `None` where all is subscribed, or no command is allowed.
    pub(super) fn subscription_fault(&self) -> Option<String> {
        if self.settings.allow.is_empty() { None } else { self.subscription.fault() }
    }

    /// Whether commands run or wait.
    pub(super) const fn are_under_way(&self) -> bool {
        self.under_way > 0
    }

    /// Lets a request in, or says why not. Whoever it is asked of, it passes the rate first.
    fn admit(&mut self, at: Option<usize>, request: &mqtt::Request) -> Result<(), Refused> {
        let desk = at.and_then(|at| self.desks.get_mut(at));
        let bucket = desk.map_or(&mut self.own, |desk| &mut desk.bucket);
        let passes = bucket.take(request.received);
        let failure = if passes { self.unfit(request) } else { Some(self.too_many()) };
        let fits = request.payload.len() <= self.settings.max_payload_bytes;
        failure.map_or(Ok(()), |failure| {
            // One that is too large is not looked into.
            let transaction = fits.then(|| transaction_of(&request.payload)).flatten();
            Err(Refused { transaction, failure })
        })
    }

    /// What forbids a request to whomever, if anything.
    fn unfit(&self, request: &mqtt::Request) -> Option<Failure> {
        let size_max = self.settings.max_payload_bytes;
        if request.retain {
            return Some(Failure::invalid(
                "the request is retained, so the broker would give it again and again; publish it \
                 without retain, and clear this one with an empty retained message",
            ));
        }
        if request.astray {
            return Some(Failure::invalid(format!(
                "answers go only to response topics of at most 256 bytes that begin {:?} \
                 (commands.response_prefix); ask with such a one, or with none and read this topic",
                self.settings.response_prefix
            )));
        }
        (request.payload.len() > size_max).then(|| {
            let size = request.payload.len();
            let message = format!(
                "the request has {size} bytes, more than commands.max_payload ({size_max}); name \
                 fewer devices"
            );
            Failure::new(FailureCode::TooLarge, message)
        })
    }

    fn too_many(&self) -> Failure {
        let rate = self.settings.rate;
        let message = format!(
            "more than {} requests in {} s (commands.rate); send fewer, or raise it",
            rate.count,
            rate.per.as_secs()
        );
        Failure::new(FailureCode::RateLimited, message)
    }

    /// Whether the configuration lets this command run.
    pub(super) fn permit(&self, command: CommandName) -> Result<(), Failure> {
        if self.settings.allow.permits(command) {
            return Ok(());
        }
        let message = format!(
            "the configuration does not permit it; the operator of the bridge can add {:?} to \
             commands.allow",
            command.as_str()
        );
        Err(Failure::new(FailureCode::NotPermitted, message))
    }

    /// The typed request, if it may run.
    fn check(&self, at: usize, request: &mqtt::Request) -> Result<Request, Refused> {
        let refused = |failure| Refused { transaction: transaction_of(&request.payload), failure };
        let name = gateway_command(&request.command).map_err(refused)?;
        self.permit(name).map_err(refused)?;
        let typed = Command::read_request(name, &request.payload)?;
        let Some(desk) = self.desks.get(at) else { return Ok(typed) };
        match desk.declared.check(&desk.name, &typed.command) {
            Ok(()) => Ok(typed),
            Err(failure) => Err(Refused { transaction: typed.transaction, failure }),
        }
    }
}

fn gateway_command(name: &str) -> Result<CommandName, Failure> {
    let is_known = |name: &CommandName| name.scope() != CommandScope::Bridge;
    name.parse().ok().filter(is_known).ok_or_else(|| {
        let names = CommandName::ALL.into_iter().filter(is_known);
        let known: Vec<_> = names.map(CommandName::as_str).collect();
        let message = format!("there is no such command; there are {}", known.join(", "));
        Failure::new(FailureCode::UnknownCommand, message)
    })
}

fn declared(gateway: &config::Gateway) -> Declared {
    use crate::commands::DeclaredAs;
    let devices = gateway.devices.iter().filter_map(|(&id, device)| match device.connect {
        Connect::Observe => None,
        Connect::Async { .. } => Some((id, DeclaredAs::Async)),
        Connect::Accept => Some((id, DeclaredAs::Accept)),
    });
    Declared(devices.collect())
}

impl Bridge {
    /// Subscribes to the requests, once `online` is published.
    pub(super) fn subscribe_requests(&mut self) {
        if self.publisher.take_requests_wanted() && !self.requests.settings.allow.is_empty() {
            let names = self.requests.desks.iter().map(|desk| &desk.name);
            let filters = self.publisher.topics().request_filters(names);
            self.requests.subscription.start(&filters);
        }
        if !self.broker.is_connected() {
            return;
        }
        let Some(filters) = self.requests.subscription.next_packet() else { return };
        self.broker.subscribe(filters.into_iter().map(|it| (it, Retained::Marked)).collect());
    }

    /// Takes up a message, if it is a request.
    pub(super) fn requested(&mut self, message: &Message) {
        let topics = self.publisher.topics();
        let prefix = &self.requests.settings.response_prefix;
        let Some(request) = mqtt::Request::of(topics, prefix, message) else { return };
        let of_the_bridge = topics.is_bridge(&request.owner);
        let desk = |desk: &Desk| desk.name.as_str() == request.owner;
        let at = self.requests.desks.iter().position(desk);
        if at.is_none() && !of_the_bridge {
            // Not subscribed to; another bridge may have this gateway.
            return;
        }
        // It may be one that clears a retained request; MQTT 3.1.1 does not tell.
        if request.payload.is_empty() && (request.retain || self.requests.is_v311) {
            tracing::debug!(topic = message.topic, "empty message ignored: not a request");
            return;
        }
        if let Err(refused) = self.requests.admit(at, &request) {
            return self.refuse(&request, refused);
        }
        if request.command == CommandName::History.as_str() {
            return self.history_requested(at, &request);
        }
        match at {
            Some(at) => match self.requests.check(at, &request) {
                Ok(typed) => {
                    let asked = Asked::of(&request);
                    self.begin(GatewayIndex(at), typed, request.payload, asked);
                }
                Err(refused) => self.refuse(&request, refused),
            },
            None => self.asked_of_the_bridge(&request),
        }
    }

    fn history_requested(&mut self, at: Option<usize>, request: &mqtt::Request) {
        let refused = |failure| Refused { transaction: transaction_of(&request.payload), failure };
        let limit = self.requests.answer_limit(self.publisher.answers_close_from());
        let context = history::Context {
            gateway: at.and_then(|at| self.requests.desks.get(at)).map(|desk| desk.name.clone()),
            now: self.clock.now(),
            packet_size_max: limit.size_max(),
            answers: self.requests.speak.clone(),
            stop: self.requests.stop.subscribe(),
        };
        let permitted = self.requests.permit(CommandName::History).map_err(refused);
        match permitted.and_then(|()| self.history.start(request, context)) {
            Ok(()) => self.requests.under_way += 1,
            Err(refused) => self.refuse(request, refused),
        }
    }

    /// Runs a request that may run, unless its answer is remembered or on its way: for that neither
    /// a link nor a place is needed.
    pub(super) fn begin(
        &mut self,
        gateway: GatewayIndex,
        request: Request,
        payload: Bytes,
        asked: Asked,
    ) {
        let Some(desk) = self.requests.desks.get(gateway.0) else { return };
        let (name, clients, now) = (desk.name.clone(), desk.clients.clone(), Instant::now());
        let key = ReplayKey::new(&name, &request, &payload);
        let replay = self.requests.replay_cache.look_up(now, key.as_ref(), asked);
        let (asked, failure) = match replay {
            Replay::Answered(response, asked) => {
                return self.answer(name.as_str(), &response, asked);
            }
            Replay::Waiting => return,
            Replay::Refused(failure, asked) => (asked, failure),
            Replay::New(asked) => match self.start_request(gateway, request.name, now, key) {
                Err(failure) => (asked, failure),
                Ok(slot) => {
                    if request.command.changes() {
                        self.command_started(gateway);
                    }
                    let begun = Begun { gateway, request, payload, asked };
                    let (speak, stop) =
                        (self.requests.speak.clone(), self.requests.stop.subscribe());
                    self.requests.under_way += 1;
                    tokio::spawn(finish(begun, slot, clients, speak, stop));
                    return;
                }
            },
        };
        let refused = Refused { transaction: request.transaction, failure };
        self.refused(name.as_str(), request.name.as_str(), refused, asked);
    }

    /// Takes a slot for a new request, and its place in the replay cache.
    fn start_request(
        &mut self,
        gateway: GatewayIndex,
        name: CommandName,
        now: Instant,
        key: Option<ReplayKey>,
    ) -> Result<Slot, Failure> {
        let slot = self.acquire_slot(gateway, name)?;
        key.map_or(Ok(()), |key| self.requests.replay_cache.insert(now, key))?;
        Ok(slot)
    }

    /// A slot for a command, if there is one and the gateway is there.
    fn acquire_slot(&self, gateway: GatewayIndex, name: CommandName) -> Result<Slot, Failure> {
        let unavailable = |reason: &str| {
            let message = format!("there is no link to the gateway now; try again later{reason}");
            Failure::new(FailureCode::GatewayUnavailable, message)
        };
        let desk = self.requests.desks.get(gateway.0).ok_or_else(|| unavailable(""))?;
        if *self.requests.stop.borrow() {
            return Err(stopping());
        }
        if desk.clients.borrow().is_none() {
            let error = self.facts.get(gateway.0).and_then(|facts| facts.last_error.as_ref());
            let reason = error.map(|error| format!(" ({})", error.message)).unwrap_or_default();
            return Err(unavailable(&reason));
        }
        desk.slots.acquire(name.class())
    }
}
