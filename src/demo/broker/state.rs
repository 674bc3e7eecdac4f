//! Clients, subscriptions and retained messages: which message goes to whom. No I/O.

use std::collections::BTreeMap;

use rumqttc_v5::mqttbytes::v5::{
    LastWill, LastWillProperties, Publish, PublishProperties, RetainForwardRule, SubscribeFilter,
    SubscribeReasonCode, UnsubAckReason,
};
use rumqttc_v5::mqttbytes::{QoS, matches, valid_filter, valid_topic};
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for a client; one that is slower is disconnected.
const WAITING_MAX: usize = 100_000;

/// The message as a subscription has it.
fn for_subscription(message: &Publish, filter: &SubscribeFilter, retain: bool) -> Publish {
    let qos = if message.qos as u8 > filter.qos as u8 { filter.qos } else { message.qos };
    Publish { qos, retain, ..message.clone() }
}

#[derive(Debug)]
struct BrokerClient {
    connection: u64,
    filters: Vec<SubscribeFilter>,
    will: Option<LastWill>,
    messages: mpsc::Sender<Publish>,
    /// Dropped with the client, which its connection notices.
    _removed: oneshot::Sender<()>,
}

/// What the broker remembers. A session ends with its connection.
#[derive(Debug, Default)]
pub(crate) struct BrokerState {
    clients: BTreeMap<String, BrokerClient>,
    retained: BTreeMap<String, Publish>,
    connections: u64,
}

impl BrokerState {
    /// Adds a client; ends the connection of another with its ID. Returns the connection's number,
    /// the client's messages, and what ends when the client is removed.
    pub(crate) fn connect(
        &mut self,
        client_id: &str,
        will: Option<LastWill>,
    ) -> (u64, mpsc::Receiver<Publish>, oneshot::Receiver<()>) {
        self.remove(client_id);
        self.connections += 1;
        let (messages, received) = mpsc::channel(WAITING_MAX);
        let (_removed, removed) = oneshot::channel();
        let (connection, filters) = (self.connections, Vec::new());
        let client = BrokerClient { connection, filters, will, messages, _removed };
        self.clients.insert(client_id.to_owned(), client);
        (connection, received, removed)
    }

    /// Whether a client with this ID is connected.
    pub(crate) fn has(&self, client_id: &str) -> bool {
        self.clients.contains_key(client_id)
    }

    /// Ends a connection, unless another has taken over its client ID. The last will is published
    /// unless the client has sent DISCONNECT.
    pub(crate) fn disconnect(&mut self, client_id: &str, connection: u64, has_disconnected: bool) {
        let client = self.clients.get_mut(client_id);
        if let Some(client) = client.filter(|client| client.connection == connection) {
            if has_disconnected {
                client.will = None;
            }
            self.remove(client_id);
        }
    }

    fn remove(&mut self, client_id: &str) {
        let client = self.clients.remove(client_id);
        if let Some(will) = client.and_then(|client| client.will)
            && let Err(error) = self.publish(client_id, published(will))
        {
            tracing::debug!(error, client_id, "the demo's broker omits a last will");
        }
    }

    /// Passes a message to its subscribers, and retains it when it says so.
    pub(crate) fn publish(&mut self, client_id: &str, mut message: Publish) -> Result<(), String> {
        let topic = std::str::from_utf8(&message.topic).map_err(|error| error.to_string())?;
        if topic.is_empty() || !valid_topic(topic) {
            return Err(format!("no topic to publish to: {topic:?}"));
        }
        let topic = topic.to_owned();
        (message.dup, message.pkid) = (false, 0);
        match (message.retain, message.payload.is_empty()) {
            (true, true) => _ = self.retained.remove(&topic),
            (true, false) => _ = self.retained.insert(topic.clone(), message.clone()),
            (false, _) => (),
        }
        let mut too_slow = Vec::new();
        for (id, client) in &self.clients {
            let fits = |it: &&SubscribeFilter| {
                matches(&topic, &it.path) && !(it.nolocal && id == client_id)
            };
            // With overlapping subscriptions it is sent once, with the highest QoS.
            let filter = client.filters.iter().filter(fits).max_by_key(|it| it.qos as u8);
            let Some(filter) = filter else { continue };
            let retain = message.retain && filter.preserve_retain;
            let message = for_subscription(&message, filter, retain);
            if client.messages.try_send(message).is_err() {
                too_slow.push(id.clone());
            }
        }
        for client_id in too_slow {
            tracing::warn!(client_id, "the demo's broker disconnects a client that is too slow");
            self.remove(&client_id);
        }
        Ok(())
    }

    /// Adds a subscription, and sends the retained messages that it asks for.
    pub(crate) fn subscribe(
        &mut self,
        client_id: &str,
        mut filter: SubscribeFilter,
    ) -> SubscribeReasonCode {
        if filter.path.starts_with("$share/") {
            return SubscribeReasonCode::SharedSubscriptionsNotSupported;
        }
        let Some(client) = self.clients.get_mut(client_id) else {
            return SubscribeReasonCode::Unspecified;
        };
        if !valid_filter(&filter.path) {
            return SubscribeReasonCode::TopicFilterInvalid;
        }
        if filter.qos == QoS::ExactlyOnce {
            filter.qos = QoS::AtLeastOnce;
        }
        let before = client.filters.iter().position(|it| it.path == filter.path);
        let sends_retained = match filter.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => true,
            RetainForwardRule::OnNewSubscribe => before.is_none(),
            RetainForwardRule::Never => false,
        };
        for (topic, message) in self.retained.iter().filter(|_| sends_retained) {
            if matches(topic, &filter.path) {
                // Full only when the client is too slow, which the next message finds out.
                _ = client.messages.try_send(for_subscription(message, &filter, true));
            }
        }
        let granted = SubscribeReasonCode::Success(filter.qos);
        match before {
            Some(at) => client.filters[at] = filter,
            None => client.filters.push(filter),
        }
        granted
    }

    pub(crate) fn unsubscribe(&mut self, client_id: &str, path: &str) -> UnsubAckReason {
        let Some(client) = self.clients.get_mut(client_id) else {
            return UnsubAckReason::UnspecifiedError;
        };
        let before = client.filters.len();
        client.filters.retain(|filter| filter.path != path);
        match client.filters.len() < before {
            true => UnsubAckReason::Success,
            false => UnsubAckReason::NoSubscriptionExisted,
        }
    }
}

/// The message that a last will is. Its delay does not apply: the session ends with the connection.
fn published(will: LastWill) -> Publish {
    let LastWill { topic, message: payload, qos, retain, properties } = will;
    let properties = properties.map(|properties| {
        let LastWillProperties {
            delay_interval: _,
            payload_format_indicator,
            message_expiry_interval,
            content_type,
            response_topic,
            correlation_data,
            user_properties,
        } = properties;
        PublishProperties {
            payload_format_indicator,
            message_expiry_interval,
            content_type,
            response_topic,
            correlation_data,
            user_properties,
            ..PublishProperties::default()
        }
    });
    Publish { qos, retain, topic, payload, properties, ..Publish::default() }
}
