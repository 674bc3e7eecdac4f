//! Checks the broker: connection, limits, and whether its access list permits what the bridge does.
//! Test messages use response topics of no request, and a topic next to discovery that Home
//! Assistant does not read. No retained message remains.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::Finding;
use super::probe::{self, PAYLOAD, Probe};
use crate::config::{Config, MqttVersion};
use crate::mqtt::session::spawn;
use crate::mqtt::{BrokerConnection, FILTERS_PER_PACKET, SessionSettings};
use crate::topics::Topics;

/// Smaller packets cannot hold the list of a gateway with some hundred devices.
const PACKET_SMALL: u32 = 64 * 1024;
/// Smaller packets cannot hold infos and states.
const PACKET_MIN: u32 = 4 * 1024;
/// When the test of retained messages is repeated, at most.
const RETRY_WITHIN: Duration = Duration::from_secs(1);

/// `settings` are the bridge's own.
pub(crate) async fn examine(config: &Config, mut settings: SessionSettings) -> Vec<Finding> {
    let topics = Topics::new(&config.mqtt.base_topic, &config.bridge_name);
    let topic = topics.response(&config.bridge_name, "check");
    // A running bridge must not lose its session, nor must a will be published in its name.
    settings.mqtt.client_id += &format!("_check_{}", std::process::id());
    settings.will.topic.clone_from(&topic);
    settings.will.payload = PAYLOAD;
    settings.will.retain = false;
    let (broker, protocol) = (settings.mqtt.broker.clone(), settings.mqtt.protocol);
    let mut session = spawn(settings);
    let connected = match probe::connected(&mut session).await {
        Ok(connected) => connected,
        Err(reason) => return vec![Finding::fail(format!("broker: {reason}")).about("mqtt.url")],
    };
    let version = protocol.as_str();
    let mut findings =
        vec![Finding::ok(format!("broker {broker}: accepts the connection (MQTT {version})"))];
    findings.extend(connected.certificate.as_ref().map(|certificate| {
        let remedy = "give the broker a new certificate before it expires";
        super::certificate("broker", certificate, remedy).about("mqtt.url")
    }));
    findings.extend(granted(&connected.connection, protocol));
    let retain_available = connected.connection.retain_available();
    let mut probe = Probe::new(session, connected.connection);
    findings.extend(subscriptions(config, &topics, &mut probe).await);
    findings.extend(publishing(config, &topics, protocol, &mut probe).await);
    if retain_available {
        // Last, as a broker that keeps none may close the connection.
        findings.push(retained(&topic, &mut probe).await);
    }
    probe.disconnect().await;
    findings
}

fn granted(connection: &BrokerConnection, protocol: MqttVersion) -> Vec<Finding> {
    let retain = (!connection.retain_available()).then(|| {
        Finding::fail(
            "broker: keeps no retained messages, so that clients see no states; allow them in the \
             broker's configuration (mosquitto: retain_available true)",
        )
    });
    let packet = match (connection.announced_packet_size(), protocol) {
        (None, MqttVersion::V5) => {
            Finding::ok("broker: announces no limit to the size of a packet")
        }
        (None, MqttVersion::V311) => Finding::note(
            "broker: MQTT 3.1.1 has no packet limit to announce; answers to requests are \
             bounded by mqtt.max_answer",
        ),
        (Some(size), _) if size < PACKET_MIN => Finding::fail(format!(
            "broker: accepts packets of {size} bytes at most, too little for states and infos; \
             raise the limit to 1 MiB (mosquitto: max_packet_size)"
        )),
        (Some(size), _) if size < PACKET_SMALL => Finding::warn(format!(
            "broker: accepts packets of {size} bytes at most; answers that list many devices do \
             not fit, raise the limit to 1 MiB (mosquitto: max_packet_size)"
        )),
        (Some(size), _) => Finding::ok(format!("broker: accepts packets up to {size} bytes")),
    };
    retain.into_iter().chain([packet]).map(|finding| finding.about("mqtt.url")).collect()
}

/// Subscribes to the bridge's topics.
async fn subscriptions(config: &Config, topics: &Topics, probe: &mut Probe) -> Vec<Finding> {
    let mut filters = topics.own().to_vec();
    if !config.commands.allow.is_empty() {
        filters.extend(topics.request_filters(config.gateways.keys()));
    }
    if config.home_assistant.enabled {
        filters.push(config.home_assistant.status_topic.clone());
    }
    let mut findings = Vec::new();
    for packet in filters.chunks(FILTERS_PER_PACKET) {
        match probe.subscribe(packet).await {
            Ok(refused) => findings.extend(
                refused
                    .iter()
                    .map(|(filter, reason)| not_permitted("subscribe to", filter, reason.as_str())),
            ),
            Err(reason) => {
                findings.push(not_permitted("subscribe to", &packet.join(", "), &reason));
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(format!("broker: permits subscribing ({})", filters.len())));
    }
    findings
}

/// Publishes below every level of topics to which the bridge publishes.
async fn publishing(
    config: &Config,
    topics: &Topics,
    protocol: MqttVersion,
    probe: &mut Probe,
) -> Vec<Finding> {
    let mut tried = vec![topics.response(&config.bridge_name, "check")];
    tried.extend(config.gateways.keys().map(|name| topics.response(name.as_str(), "check")));
    if !config.commands.allow.is_empty() && protocol == MqttVersion::V5 {
        tried.push(format!("{}check", config.commands.response_prefix));
    }
    let mut findings = Vec::new();
    for topic in &tried {
        if let Err(error) = probe.publish(topic, PAYLOAD).await {
            findings.push(not_permitted("publish to", topic, &error.to_string()));
        }
    }
    if config.home_assistant.enabled {
        let (topic, result) = discovery(config, probe).await;
        findings.extend(result.err().map(|error| not_permitted("publish to", &topic, &error)));
        tried.push(topic);
    }
    match (findings.is_empty(), protocol) {
        (true, MqttVersion::V5) => findings
            .push(Finding::ok(format!("broker: permits publishing (tried {})", tried.join(", ")))),
        (true, MqttVersion::V311) => findings.push(Finding::note(
            "broker: accepts what is published, but MQTT 3.1.1 does not report whether it is \
             passed on; whether the access list permits it is seen with mqtt.protocol = \"5\"",
        )),
        (false, _) => {}
    }
    findings
}

/// Publishes a discovery message. Home Assistant logs an unknown message on a topic that ends in
/// `config`, so that one is tried only where the access list permits no other.
async fn discovery(config: &Config, probe: &mut Probe) -> (String, Result<(), String>) {
    let (prefix, bridge) = (&config.home_assistant.discovery_prefix, &config.bridge_name);
    let node = format!("{prefix}/device/gsdk_{bridge}_check");
    let beside = format!("{node}/check");
    if probe.publish(&beside, PAYLOAD).await.is_ok() {
        return (beside, Ok(()));
    }
    let topic = format!("{node}/config");
    let result = probe.publish(&topic, Bytes::new()).await;
    (topic, result.map_err(|error| error.to_string()))
}

/// Publishes a retained message, reads it back by topic and by wildcard, and clears it. Twice if it
/// was not received: another check at the same time may have replaced or cleared it.
async fn retained(topic: &str, probe: &mut Probe) -> Finding {
    match probe.retain(topic).await {
        Ok(()) => {}
        Err(error) if error.is_unauthorized() => {
            return not_permitted("publish a retained message to", topic, &error.to_string());
        }
        Err(error) => {
            return Finding::fail(format!(
                "broker: did not accept a retained message ({error}); allow retained messages in \
                 the broker's configuration (mosquitto: retain_available true)"
            ))
            .about("mqtt.url");
        }
    }
    let level = topic.rsplit_once('/').map_or(topic, |(above, _)| above);
    let wildcard = format!("{level}/+");
    let mut found = (false, false);
    for is_second in [false, true] {
        if is_second {
            // Checks that began together must not collide again.
            sleep(RETRY_WITHIN.mul_f64(fastrand::f64())).await;
            if probe.retain(topic).await.is_err() {
                break;
            }
        }
        found.0 |= probe.read_retained(topic, topic).await;
        found.1 |= probe.read_retained(&wildcard, topic).await;
        if found.1 {
            break;
        }
    }
    // If this fails, the message expires.
    _ = probe.clear(topic).await;
    let (exact, wildcard) = found;
    retained_finding(topic, exact, wildcard).about("mqtt.url")
}

fn retained_finding(topic: &str, exact: bool, wildcard: bool) -> Finding {
    match (exact, wildcard) {
        (_, true) => Finding::ok("broker: keeps retained messages (one was read back by wildcard)"),
        (true, false) => Finding::warn(
            "broker: keeps retained messages for exact topics only, as RabbitMQ does: clients that \
             subscribe with a wildcard, as Home Assistant does, see no state until it changes; use \
             a broker that keeps them for wildcards too",
        ),
        (false, false) => Finding::fail(format!(
            "broker: a retained message was not received again from {topic}: the broker keeps none \
             (mosquitto: retain_available true), or its access list does not let the bridge's user \
             read its own topics"
        )),
    }
}

fn not_permitted(action: &str, topic: &str, reason: &str) -> Finding {
    Finding::fail(format!(
        "broker: the bridge may not {action} {topic} ({reason}); permit it to the bridge's user in \
         the broker's access list, as deploy/mosquitto/acl does"
    ))
    .about("mqtt.username")
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_broker_that_keeps_messages_for_exact_topics_only_is_a_warning() {
        let level = |exact, wildcard| retained_finding("gsdk/check", exact, wildcard).level;
        assert_eq!(level(true, true), Level::Ok);
        assert_eq!(level(true, false), Level::Warn);
        assert_eq!(level(false, false), Level::Fail);
    }
}
