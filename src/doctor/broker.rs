//! The broker: does it take us in, what does it grant, does its access list let us do our work.
//!
//! It publishes to topics of answers to which no request belongs, and to one beside discovery that
//! Home Assistant does not read. Nothing retained is left behind.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::Finding;
use crate::config::Config;
use crate::mqtt::session::spawn;
use crate::mqtt::{
    Connected, Connection, Event, FILTERS_PER_PACKET, Protocol, Publish, Refusal, Retained,
    Session, Settings, Topics,
};

/// How long it may take to take us in: longer than each of the session's own deadlines.
const CONNECT: Duration = Duration::from_secs(25);
/// How long it may take for each answer after that.
const ANSWER: Duration = Duration::from_secs(5);
/// What is published: no broker refuses it for its form.
pub(super) const PROBE: &[u8] = b"{}";
/// Smaller packets than this do not hold the list of a gateway with some hundred devices.
const PACKET_SMALL: u32 = 64 * 1024;
/// The token of the retained message, above those of the others.
const RETAINED_TOKEN: u64 = 1 << 32;
/// What our infos and states need at the least.
const PACKET_MIN: u32 = 4 * 1024;

pub(super) async fn examine(config: &Config, bridge: Settings) -> Vec<Finding> {
    let topics = Topics::new(&config.mqtt.base_topic, &config.bridge_name);
    let tried = topics.response(&config.bridge_name, "check");
    let mut settings = bridge;
    // Another one than the bridge's: a running bridge is not to be thrown out.
    settings.client_id += &format!("_check_{}", std::process::id());
    settings.will.topic.clone_from(&tried);
    settings.will.payload = Bytes::from_static(PROBE);
    settings.will.retain = false;
    let (broker, protocol) = (settings.url(), settings.protocol);
    let mut session = spawn(settings);
    let connected = match connected(&mut session).await {
        Ok(connected) => connected,
        Err(reason) => return vec![Finding::fail(format!("broker: {reason}")).about("mqtt.url")],
    };
    let version = match protocol {
        Protocol::V5 => "5",
        Protocol::V311 => "3.1.1",
    };
    let mut findings = vec![Finding::ok(format!("broker {broker}: takes us in (MQTT {version})"))];
    findings.extend(connected.certificate.as_ref().map(|shown| {
        let remedy = "give the broker a new certificate before it ends";
        super::certificate("broker", shown, remedy).about("mqtt.url")
    }));
    let retain_available = connected.retain_available;
    findings.extend(granted(&connected, protocol));
    let mut connection = connected.connection;
    findings.extend(subscribes(config, &topics, &mut session, &mut connection).await);
    findings.extend(publishes(config, &topics, protocol, &mut session, &mut connection).await);
    if retain_available {
        // Last, as a broker that keeps none may close the connection.
        let found = super::retained::examine(&tried, RETAINED_TOKEN, &mut session, &mut connection);
        findings.push(found.await);
    }
    connection.disconnect();
    // Past the deadline it is dropped, and the broker publishes the will, which has no subscribers.
    _ = timeout(ANSWER, async { while session.next().await.is_some() {} }).await;
    findings
}

async fn connected(session: &mut Session) -> Result<Connected, String> {
    let first = timeout(CONNECT, async {
        loop {
            match session.next().await {
                Some(Event::Connected(connected)) => return Ok(connected),
                Some(Event::Unreachable { reason, .. } | Event::Disconnected { reason, .. }) => {
                    return Err(reason);
                }
                Some(_) => {}
                None => return Err("the session has ended".to_owned()),
            }
        }
    });
    first.await.unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT.as_secs())))
}

fn granted(connected: &Connected, protocol: Protocol) -> Vec<Finding> {
    let retain = (!connected.retain_available).then(|| {
        Finding::fail(
            "broker: keeps no retained messages, so nobody sees states; allow them in the \
             broker's configuration (mosquitto: retain_available true)",
        )
    });
    let packet = match (connected.announced_packet_size(), protocol) {
        (None, Protocol::V5) => Finding::ok("broker: announces no limit to the size of a packet"),
        (None, Protocol::V311) => Finding::note(
            "broker: MQTT 3.1.1 does not tell how large a packet may be; answers to requests are \
             bounded by mqtt.max_answer",
        ),
        (Some(size), _) if size < PACKET_MIN => Finding::fail(format!(
            "broker: takes packets of {size} bytes at most, too little for states and infos; \
             raise the limit to 1 MiB (mosquitto: max_packet_size)"
        )),
        (Some(size), _) if size < PACKET_SMALL => Finding::warn(format!(
            "broker: takes packets of {size} bytes at most; answers that list many devices do not \
             fit, raise the limit to 1 MiB (mosquitto: max_packet_size)"
        )),
        (Some(size), _) => Finding::ok(format!("broker: takes packets up to {size} bytes")),
    };
    retain.into_iter().chain([packet]).map(|finding| finding.about("mqtt.url")).collect()
}

/// Subscribes to what the bridge subscribes to. What comes in is not looked at.
async fn subscribes(
    config: &Config,
    topics: &Topics,
    session: &mut Session,
    connection: &mut Connection,
) -> Vec<Finding> {
    let mut filters = topics.own().to_vec();
    if !config.commands.allow.is_empty() {
        filters.extend(topics.request_filters(config.gateways.keys()));
    }
    if config.home_assistant.enabled {
        filters.push(config.home_assistant.status_topic.clone());
    }
    let mut findings = Vec::new();
    for packet in filters.chunks(FILTERS_PER_PACKET) {
        let wanted = packet.iter().map(|filter| (filter.clone(), Retained::Skipped)).collect();
        if let Err(error) = connection.subscribe(wanted) {
            findings.push(Finding::fail(format!("broker: {error}")).about("mqtt.url"));
            break;
        }
        match timeout(ANSWER, subscribed(session)).await {
            Ok(Ok(refused)) => findings.extend(
                refused.iter().map(|(it, why)| not_permitted("subscribe to", it, why.as_str())),
            ),
            Ok(Err(reason)) => {
                findings.push(not_permitted("subscribe to", &packet.join(", "), &reason));
            }
            Err(_) => {
                findings.push(not_permitted("subscribe to", &packet.join(", "), "no answer"));
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(format!("broker: takes our subscriptions ({})", filters.len())));
    }
    findings
}

/// The broker's answer to a subscription: what it refused.
async fn subscribed(session: &mut Session) -> Result<Vec<(String, Refusal)>, String> {
    loop {
        match session.next().await {
            Some(Event::Subscribed { refused, .. }) => return Ok(refused),
            Some(Event::Disconnected { reason, .. }) => return Err(reason),
            Some(_) => {}
            None => return Err("the session has ended".to_owned()),
        }
    }
}

/// Publishes below every level of topics that the bridge writes to.
async fn publishes(
    config: &Config,
    topics: &Topics,
    protocol: Protocol,
    session: &mut Session,
    connection: &mut Connection,
) -> Vec<Finding> {
    let gateways = config.gateways.keys().map(|name| topics.response(name.as_str(), "check"));
    let mut tried = vec![topics.response(&config.bridge_name, "check")];
    tried.extend(gateways);
    if !config.commands.allow.is_empty() && protocol == Protocol::V5 {
        tried.push(format!("{}check", config.commands.response_prefix));
    }
    let mut findings = Vec::new();
    for (token, topic) in (0u64..).zip(&tried) {
        if let Err(reason) = publishes_to(topic, PROBE, token, session, connection).await {
            findings.push(not_permitted("publish to", topic, &reason));
        }
    }
    if config.home_assistant.enabled {
        let (prefix, bridge) = (&config.home_assistant.discovery_prefix, &config.bridge_name);
        let beside = format!("{prefix}/device/gsdk_{bridge}_check/check");
        let token = tried.len() as u64;
        // Home Assistant logs a message about what it does not know on a topic that ends in config.
        // So that is tried only where an access list may permit no other.
        if publishes_to(&beside, PROBE, token, session, connection).await.is_ok() {
            tried.push(beside);
        } else {
            let topic = format!("{prefix}/device/gsdk_{bridge}_check/config");
            let done = publishes_to(&topic, b"", token + 1, session, connection).await;
            findings.extend(done.err().map(|reason| not_permitted("publish to", &topic, &reason)));
            tried.push(topic);
        }
    }
    match (findings.is_empty(), protocol) {
        (true, Protocol::V5) => findings
            .push(Finding::ok(format!("broker: lets us publish (tried at {})", tried.join(", ")))),
        (true, Protocol::V311) => findings.push(Finding::note(
            "broker: takes what we publish, but MQTT 3.1.1 does not tell whether it passes it on; \
             whether the access list permits it is seen with mqtt.protocol = \"5\"",
        )),
        (false, _) => {}
    }
    findings
}

async fn publishes_to(
    topic: &str,
    payload: &'static [u8],
    token: u64,
    session: &mut Session,
    connection: &mut Connection,
) -> Result<(), String> {
    let payload = Bytes::from_static(payload);
    let publish = Publish { topic: topic.to_owned(), payload, ..Publish::default() };
    connection.publish(token, publish).map_err(|error| error.to_string())?;
    acknowledged(session, token).await.map_err(|failure| failure.to_string())
}

/// Why a publish was not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishFailure {
    #[error("{0}")]
    Refused(Refusal),
    #[error("{0}")]
    Unanswered(String),
}

impl PublishFailure {
    /// Whether the access list does not permit it.
    pub(super) fn is_of_access(&self) -> bool {
        matches!(self, Self::Refused(refusal) if *refusal == Refusal::NOT_AUTHORIZED)
    }
}

/// Waits for the broker's answer to a publish.
pub(super) async fn acknowledged(session: &mut Session, token: u64) -> Result<(), PublishFailure> {
    let answered = timeout(ANSWER, answer(session, token)).await;
    answered.unwrap_or_else(|_| Err(PublishFailure::Unanswered("no answer".to_owned())))
}

async fn answer(session: &mut Session, token: u64) -> Result<(), PublishFailure> {
    loop {
        match session.next().await {
            Some(Event::Acked { acks, .. }) => {
                if let Some(ack) = acks.iter().find(|ack| ack.token == token) {
                    return ack.result.map_err(PublishFailure::Refused);
                }
            }
            Some(Event::Disconnected { reason, .. }) => {
                return Err(PublishFailure::Unanswered(reason));
            }
            Some(_) => {}
            None => return Err(PublishFailure::Unanswered("the session has ended".to_owned())),
        }
    }
}

pub(super) fn not_permitted(what: &str, topic: &str, why: &str) -> Finding {
    Finding::fail(format!(
        "broker: we may not {what} {topic} ({why}); permit it to the bridge's user in the broker's \
         access list, as deploy/mosquitto/acl does"
    ))
    .about("mqtt.username")
}
