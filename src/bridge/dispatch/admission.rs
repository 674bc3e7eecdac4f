//! Checks that precede the fields of a request: the rate, its form, and the configuration.

use std::collections::BTreeMap;

use crate::commands::{Failure, FailureCode, RefusedRequest, TokenBucket, transaction_of};
use crate::config::{self, Config, MqttVersion};
use crate::fleet::GatewayIndex;
use crate::ids::{CommandName, CommandScope};
use crate::mqtt;

#[derive(Debug)]
pub(crate) struct Admission {
    settings: config::Commands,
    is_v311: bool,
    /// Limits the requests to each gateway; `None`: to the bridge itself.
    rates: BTreeMap<Option<GatewayIndex>, TokenBucket>,
}

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        let (settings, is_v311) =
            (config.commands.clone(), config.mqtt.protocol == MqttVersion::V311);
        let changing: Vec<&str> = settings.allow.changing().collect();
        if !changing.is_empty() {
            tracing::warn!(
                commands = changing.join(" "),
                "commands.allow permits changes by every client that can publish requests; \
                 restrict the clients with the broker's access list"
            );
        }
        if is_v311 && !settings.allow.is_empty() {
            tracing::info!(
                "MQTT 3.1.1 has no response topics and no message expiry; responses are published \
                 below response/"
            );
        }
        Self { settings, is_v311, rates: BTreeMap::new() }
    }

    pub(crate) fn response_prefix(&self) -> &str {
        &self.settings.response_prefix
    }

    /// Whether a message clears a retained request. With MQTT 3.1.1 that is not known.
    pub(crate) fn clears_retained(&self, request: &mqtt::ReceivedRequest) -> bool {
        request.payload.is_empty() && (request.retain || self.is_v311)
    }

    /// Admits a request of any command; `gateway` is `None` for one to the bridge itself. The rate
    /// comes first, so that it limits refusals too.
    pub(crate) fn admit(
        &mut self,
        request: &mqtt::ReceivedRequest,
        gateway: Option<GatewayIndex>,
    ) -> Result<(), RefusedRequest> {
        let (size_max, rate) = (self.settings.max_payload_bytes, self.settings.rate);
        let (is_too_large, received) =
            (request.payload.len() > size_max, request.requester.received);
        let new_bucket = || TokenBucket::new(rate.count.get(), rate.per, received);
        let bucket = self.rates.entry(gateway).or_insert_with(new_bucket);
        let failure = if !bucket.take(received) {
            let (count, per_s) = (rate.count, rate.per.as_secs());
            let message = format!(
                "more than {count} requests in {per_s} s (commands.rate); send fewer, or raise it"
            );
            Failure::new(FailureCode::RateLimited, message)
        } else if request.retain {
            Failure::invalid(
                "the request is retained, so the broker sends it at each subscription; publish it \
                 without retain, and clear this one with an empty retained message",
            )
        } else if request.response_topic_rejected {
            Failure::invalid(format!(
                "answers go only to response topics of at most 256 bytes that begin {:?} \
                 (commands.response_prefix); give such a topic, or none and read this topic",
                self.settings.response_prefix
            ))
        } else if is_too_large {
            let size = request.payload.len();
            let message = format!(
                "the request has {size} bytes, more than commands.max_payload ({size_max}); name \
                 fewer devices"
            );
            Failure::new(FailureCode::TooLarge, message)
        } else {
            return Ok(());
        };
        // One that is too large is not parsed.
        let transaction = (!is_too_large).then(|| transaction_of(&request.payload)).flatten();
        Err(RefusedRequest { transaction, failure })
    }

    /// Whether `commands.allow` names a command.
    pub(crate) fn permit(&self, command: CommandName) -> Result<(), Failure> {
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
}

/// The command that a gateway, or the bridge itself, has under this name.
pub(crate) fn command_name(text: &str, of_gateway: bool) -> Result<CommandName, Failure> {
    let other = if of_gateway { CommandScope::Bridge } else { CommandScope::Gateway };
    let is_known = |name: &CommandName| name.scope() != other;
    text.parse().ok().filter(is_known).ok_or_else(|| {
        let names = CommandName::ALL.iter().copied().filter(is_known);
        let names: Vec<_> = names.map(CommandName::as_str).collect();
        let message = if of_gateway {
            format!("there is no such command; there are {}", names.join(", "))
        } else {
            format!(
                "the bridge itself runs {}; request all other commands of a gateway, on its own \
                 request topic",
                names.join(", ")
            )
        };
        Failure::new(FailureCode::UnknownCommand, message)
    })
}
