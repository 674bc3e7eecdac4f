//! The door for requests from the broker: each is checked, run beside the loop, and answered.
//!
//! May not wait: a command runs in a task of its own, in its gateway's pool, and comes back as
//! `Finished`. What may not run is answered at once. No request can hold up an event.

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Bridge;
use super::running::{Asked, Begun, Finished, audit, finish};
use crate::commands::{
    Bucket, Declared, Failure, Memory, Name, Outcome, Place, Pool, Recalled, Refused, Request,
    Response, code, device_states, transaction_of,
};
use crate::config::{self, Config, Connect, Protocol};
use crate::fleet::{GatewayIndex, Input};
use crate::gateway::{GatewayClient, Link};
use crate::ids::GatewayName;
use crate::mqtt::{self, Message, ReplyTo};
use crate::payload::to_bytes;

/// Commands that ended and wait for the loop. When full, those who ended wait, not the loop.
const FINISHED_MAX: usize = 1_024;

/// What the door knows and remembers.
#[derive(Debug)]
pub(super) struct Requests {
    settings: config::Commands,
    desks: Vec<Desk>,
    pub(super) own: Bucket,
    memory: Memory<Asked>,
    finished: mpsc::Sender<Finished>,
    finishing: mpsc::Receiver<Finished>,
}

/// One gateway's requests.
#[derive(Debug)]
struct Desk {
    name: GatewayName,
    clients: watch::Receiver<Option<GatewayClient>>,
    declared: Declared,
    pool: Pool,
    bucket: Bucket,
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
        let bucket = Bucket::new(settings.rate.count.get(), settings.rate.per, Instant::now());
        let desk = |((name, gateway), link): ((&GatewayName, &config::Gateway), &Link)| Desk {
            name: name.clone(),
            clients: link.clients(),
            declared: declared(gateway),
            pool: Pool::default(),
            bucket: bucket.clone(),
        };
        let desks = config.gateways.iter().zip(links).map(desk).collect();
        let (finished, finishing) = mpsc::channel(FINISHED_MAX);
        let memory = Memory::default();
        Self { settings, desks, own: bucket.clone(), memory, finished, finishing }
    }

    /// The next command that ended; may be given up while waiting.
    pub(super) async fn next(&mut self) -> Option<Finished> {
        self.finishing.recv().await
    }

    /// What forbids a request to whomever, if anything.
    pub(super) fn unfit(&self, request: &mqtt::Request) -> Option<Failure> {
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
            Failure::new(code::TOO_LARGE, message)
        })
    }

    pub(super) fn too_many(&self) -> Failure {
        let rate = self.settings.rate;
        let message = format!(
            "more than {} requests in {} s (commands.rate); send fewer, or raise it",
            rate.count,
            rate.per.as_secs()
        );
        Failure::new(code::RATE_LIMITED, message)
    }

    /// The typed request, if it may run.
    fn check(&mut self, at: usize, request: &mqtt::Request) -> Result<Request, Refused> {
        let refused = |failure| Refused { transaction: None, failure };
        if let Some(failure) = self.unfit(request) {
            return Err(refused(failure));
        }
        let with_transaction = |failure| {
            let transaction = transaction_of(&request.payload);
            Refused { transaction, failure }
        };
        let too_many = self.too_many();
        let Some(desk) = self.desks.get_mut(at) else { return Err(refused(too_many)) };
        if !desk.bucket.take(request.received) {
            return Err(with_transaction(too_many));
        }
        let name: Name = request.command.parse().map_err(|()| {
            let known: Vec<_> = Name::ALL.iter().map(|name| name.as_str()).collect();
            let message = format!("there is no such command; there are {}", known.join(", "));
            with_transaction(Failure::new(code::UNKNOWN_COMMAND, message))
        })?;
        if !self.settings.allow.permits(name.as_str()) {
            let message = format!(
                "the configuration does not permit it; whoever runs the bridge can add {:?} to \
                 commands.allow",
                name.as_str()
            );
            return Err(with_transaction(Failure::new(code::NOT_PERMITTED, message)));
        }
        let typed = Request::read(name, &request.payload)?;
        match desk.declared.check(&desk.name, &typed.command) {
            Ok(()) => Ok(typed),
            Err(failure) => Err(Refused { transaction: typed.transaction, failure }),
        }
    }
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
    /// Subscribes to the requests, once `online` is the bridge's word.
    pub(super) fn subscribe_requests(&mut self) {
        if !self.publisher.take_requests_wanted() || self.requests.settings.allow.is_empty() {
            return;
        }
        let Some(connection) = &mut self.connection else { return };
        let names = self.requests.desks.iter().map(|desk| &desk.name);
        let filters = self.publisher.topics().request_filters(names);
        if let Err(error) = connection.subscribe(filters) {
            tracing::warn!("{error}");
        }
    }

    /// Takes up a message, if it is a request.
    pub(super) fn requested(&mut self, message: &Message) {
        let topics = self.publisher.topics();
        let prefix = &self.requests.settings.response_prefix;
        let Some(request) = mqtt::Request::of(topics, prefix, message) else { return };
        if topics.is_bridge(&request.owner) {
            return self.asked_of_the_bridge(request);
        }
        let desk = |desk: &Desk| desk.name.as_str() == request.owner;
        let Some(at) = self.requests.desks.iter().position(desk) else { return };
        match self.requests.check(at, &request) {
            Ok(typed) => self.begin(at, typed, request),
            Err(refused) => self.refuse(&request.owner.clone(), refused, request),
        }
    }

    fn begin(&mut self, at: usize, typed: Request, request: mqtt::Request) {
        let gateway = GatewayIndex(at);
        let transaction = typed.transaction.clone();
        let failure = match self.way_to(gateway, typed.name) {
            Ok(place) => return self.run_or_recall(gateway, place, typed, request),
            Err(failure) => failure,
        };
        self.refuse(&request.owner.clone(), Refused { transaction, failure }, request);
    }

    /// A place in the gateway's pool, if there is one and the gateway is there.
    fn way_to(&self, gateway: GatewayIndex, name: Name) -> Result<Place, Failure> {
        let unavailable = |reason: &str| {
            let message = format!("there is no link to the gateway now; try again later{reason}");
            Failure::new(code::GATEWAY_UNAVAILABLE, message)
        };
        let desk = self.requests.desks.get(gateway.0).ok_or_else(|| unavailable(""))?;
        if desk.clients.borrow().is_none() {
            let error = self.facts.get(gateway.0).and_then(|facts| facts.last_error.as_ref());
            let reason = error.map(|error| format!(" ({})", error.message)).unwrap_or_default();
            return Err(unavailable(&reason));
        }
        desk.pool.enter(name.changes())
    }

    fn run_or_recall(
        &mut self,
        gateway: GatewayIndex,
        place: Place,
        typed: Request,
        request: mqtt::Request,
    ) {
        let Some(desk) = self.requests.desks.get(gateway.0) else { return };
        let (name, clients) = (desk.name.clone(), desk.clients.clone());
        let mqtt::Request { payload, expires_at, received, reply_to, .. } = request;
        let asked = Asked { reply_to, received };
        let memory = &mut self.requests.memory;
        match memory.recall(Instant::now(), &name, &typed, &payload, asked) {
            Recalled::New(asked) => {
                let begun = Begun { gateway, request: typed, payload, expires_at, asked };
                tokio::spawn(finish(begun, place, clients, self.requests.finished.clone()));
            }
            Recalled::Answered(response, asked) => self.answer(name.as_str(), &response, asked),
            Recalled::Waits => {}
            Recalled::Full(asked) => {
                let message = "the same request is under way, and many wait for its answer already";
                let failure = Failure::new(code::RATE_LIMITED, message);
                let command = typed.name.as_str();
                let response = refusal(command, &name, typed.transaction, failure);
                self.answer(name.as_str(), &response, asked);
            }
        }
    }

    /// A command has ended: its gateway is looked at, and whoever asked is answered.
    pub(super) fn finished(&mut self, finished: Finished) {
        let Finished { begun, mut outcome, ran } = finished;
        let Begun { gateway, request, payload, asked, .. } = begun;
        let now = self.clock.now();
        let Some(entry) = self.directory.gateway(gateway).cloned() else { return };
        if ran && let Some(desk) = self.requests.desks.get(gateway.0) {
            outcome.warnings.extend(desk.declared.warnings(&entry.name, &request.command));
        }
        let response = Response::new(
            request.name.as_str(),
            Some(entry.name.to_string()),
            request.transaction.clone(),
            outcome,
            asked.received.elapsed(),
            |rows| {
                let known = |device_id| self.fleet.device(gateway, device_id);
                device_states(&self.directory, &entry, rows, now, known)
            },
        );
        if request.name.changes() {
            audit(&entry.name, &request, &response);
            if ran {
                self.step(gateway, Input::ListWanted, std::time::Instant::now());
            }
        }
        let memory = &mut self.requests.memory;
        let waiting = memory.answered(&entry.name, &request, &payload, &response, ran);
        self.answer(entry.name.as_str(), &response, asked);
        let replayed = Response { replayed: ran, ..response };
        for asked in waiting {
            self.answer(entry.name.as_str(), &replayed, asked);
        }
    }

    pub(super) fn refuse(&mut self, owner: &str, refused: Refused, request: mqtt::Request) {
        let Refused { transaction, failure } = refused;
        let (command, gateway) = (&request.command, owner);
        if failure.code == code::RATE_LIMITED {
            tracing::debug!(gateway, command, code = failure.code, "a request was refused");
        } else {
            let reason = failure.message.as_str();
            tracing::info!(gateway, command, code = failure.code, reason, "a request was refused");
        }
        let outcome = Outcome::failed(failure);
        let (command, owner_name) = (command.as_str(), Some(owner.to_owned()));
        let took = request.received.elapsed();
        let response =
            Response::new(command, owner_name, transaction, outcome, took, |_| Value::Null);
        let asked = Asked { reply_to: request.reply_to, received: request.received };
        self.answer(owner, &response, asked);
    }

    fn answer(&mut self, owner: &str, response: &Response, asked: Asked) {
        self.answer_to(owner, response, asked.reply_to);
    }

    /// Counts a request and hands its answer to the publisher.
    pub(super) fn answer_to(&mut self, owner: &str, response: &Response, reply_to: ReplyTo) {
        let known = response.command.parse::<Name>().map_or("unknown", Name::as_str);
        self.metrics.command(owner, known, response.word());
        if !self.publisher.answer(reply_to.answer(to_bytes(response))) {
            self.metrics.publish_failed("answers_full");
        }
    }
}

fn refusal(
    command: &str,
    gateway: &GatewayName,
    transaction: Option<Value>,
    failure: Failure,
) -> Response {
    let (gateway, outcome) = (Some(gateway.to_string()), Outcome::failed(failure));
    Response::new(command, gateway, transaction, outcome, std::time::Duration::ZERO, |_| {
        Value::Null
    })
}
