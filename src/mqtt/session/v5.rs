//! MQTT 5: the library's client and its events. Only this file knows the library's types.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use rumqttc_v5::{
    AsyncClient, ClientError as LibraryError, ConnectionError, Event, EventLoop, Incoming,
    IncomingPacketSizeLimit, LastWill, MqttOptions, Outgoing, PublishOptions, PublishProperties,
    QoS, RetainForwardRule, StateError, SubscribeFilter,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::Message;
use super::connection::{Client, ClientError, Publish, RetainHandling};
use super::driver::{MqttEvent, Poller};
use super::fault::Broken;
use super::settings::Settings;
use super::tap::PacketTap;
use crate::net::Stream;

/// Makes a client for this socket; CONNECT is sent when it is first polled.
pub(crate) fn open(
    settings: &Settings,
    password: Option<&SecretString>,
    socket: PacketTap<Box<dyn Stream>>,
) -> (Arc<dyn Client>, EventLoop) {
    let (limits, will) = (settings.limits, &settings.will);
    let mut options =
        MqttOptions::new(settings.client_id.clone(), (settings.host.clone(), settings.port));
    let (topic, payload) = (will.topic.clone(), will.payload.to_vec());
    options
        .set_clean_start(true)
        .set_keep_alive(settings.keep_alive_secs())
        .set_connect_timeout(limits.connack_deadline)
        .set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, will.retain, None))
        .set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(limits.incoming_max))
        .set_outgoing_inflight_upper_limit(limits.window_max)
        .set_max_request_batch(usize::from(limits.window_max));
    let password = password.map(|password| password.expose_secret().as_bytes().to_vec());
    match (&settings.username, password) {
        (Some(user), Some(password)) => _ = options.set_credentials(user.clone(), password),
        (Some(user), None) => _ = options.set_username(user.clone()),
        (None, Some(password)) => _ = options.set_password(password),
        (None, None) => {}
    }
    // A second connection of the same client would send its messages again.
    let once = Mutex::new(Some(socket));
    options.set_socket_connector(move |_, _| {
        let socket = once.lock().ok().and_then(|mut socket| socket.take());
        async move { socket.ok_or_else(|| std::io::Error::other("this client is used up")) }
    });
    let capacity = usize::from(limits.window_max);
    let (client, events) = AsyncClient::builder(options).capacity(capacity).build();
    (Arc::new(client), events)
}

impl Client for AsyncClient {
    fn publish(&self, publish: Publish) -> Result<(), ClientError> {
        let properties = PublishProperties {
            message_expiry_interval: publish.expires_in.map(whole_seconds),
            response_topic: publish.response_topic,
            correlation_data: publish.correlation_data,
            content_type: publish.content_type.map(str::to_owned),
            ..PublishProperties::default()
        };
        let options = PublishOptions::at_least_once().retain(publish.retain).properties(properties);
        self.try_publish(publish.topic, publish.payload, options).map_err(Into::into)
    }

    fn subscribe(&self, filters: &[(String, RetainHandling)]) -> Result<(), ClientError> {
        let filters = filters.iter().map(|(filter, handling)| {
            let many = *handling == RetainHandling::SendManyAtSubscribe;
            let qos = if many { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            let mut filter = SubscribeFilter::new(filter.clone(), qos);
            filter.preserve_retain = *handling == RetainHandling::DoNotSendAsPublished;
            filter.retain_forward_rule = match handling {
                RetainHandling::SendAtSubscribe | RetainHandling::SendManyAtSubscribe => {
                    RetainForwardRule::OnEverySubscribe
                }
                RetainHandling::DoNotSend | RetainHandling::DoNotSendAsPublished => {
                    RetainForwardRule::Never
                }
            };
            filter
        });
        self.try_subscribe_many(filters).map_err(Into::into)
    }

    fn unsubscribe(&self, filters: Vec<String>) {
        // A subscription that stays costs only time.
        _ = self.try_unsubscribe_many(filters);
    }

    fn disconnect(&self, deadline: Duration) {
        // It fails only if the connection has ended.
        drop(self.try_disconnect_with_timeout(deadline));
    }
}

impl From<LibraryError> for ClientError {
    fn from(error: LibraryError) -> Self {
        match error {
            LibraryError::RequestChannelFull(_) => Self::Full,
            LibraryError::InvalidRequest(_) => Self::Invalid,
            _ => Self::Closed,
        }
    }
}

fn whole_seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}

impl Poller for EventLoop {
    async fn next(&mut self) -> Result<MqttEvent, Broken> {
        Ok(self.poll().await?.into())
    }

    fn ready(&mut self) -> Option<MqttEvent> {
        self.state.events.pop_front().map(Into::into)
    }
}

impl From<Event> for MqttEvent {
    fn from(event: Event) -> Self {
        let publish = match event {
            Event::Incoming(Incoming::Publish(publish)) => publish,
            Event::Outgoing(Outgoing::Disconnect) => return Self::Disconnected,
            _ => return Self::Other,
        };
        // The library ends the connection over other topics.
        let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else { return Self::Other };
        let properties = publish.properties.unwrap_or_default();
        let seconds = properties.message_expiry_interval.map(u64::from);
        Self::Message(Message {
            topic,
            payload: publish.payload,
            retain: publish.retain,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            expires_in: seconds.map(Duration::from_secs),
            received: Instant::now(),
        })
    }
}

impl From<ConnectionError> for Broken {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Timeout(_) => Self::ConnackTimeout,
            ConnectionError::Io(error)
            | ConnectionError::MqttState(
                StateError::Io(error) | StateError::Deserialization(rumqttc_v5::Error::Io(error)),
            ) => Self::Io(error),
            ConnectionError::MqttState(StateError::ConnectionAborted) => Self::Closed,
            ConnectionError::MqttState(StateError::AwaitPingResp) => {
                Self::Lost("no answer to a ping")
            }
            other => Self::Protocol(other.to_string()),
        }
    }
}
