//! MQTT 5: the library's client and its events, turned into ours.
//!
//! May not decide anything, and nothing but this file knows the library's MQTT 5 types.

use std::sync::Mutex;
use std::time::Duration;

use rumqttc_v5::{
    AsyncClient, ClientError, ConnectionError, Event as LibraryEvent, EventLoop, Incoming,
    IncomingPacketSizeLimit, LastWill, MqttOptions, Outgoing, Publish as Packet, PublishOptions,
    PublishProperties, QoS, Request, RetainForwardRule, StateError, SubscribeFilter,
};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::connection::{Client as EitherClient, Granted, Publish, Retained, Tried};
use super::dial::Opened;
use super::drive::{MqttEvent, Wire};
use super::fault::Fault;
use super::packet_log::PacketLog;
use super::tap::PacketTap;
use super::words::{QOS_0_ONLY, Words};
use super::{Message, PACKET_SIZE_MAX, Settings};
use crate::net::Stream;

/// The least that a broker has to take: a device's state or event has some 500 bytes.
const PACKET_SIZE_NEEDED: u32 = 512;
/// The window where the broker names none.
const RECEIVE_MAXIMUM_DEFAULT: u16 = u16::MAX;

/// The publishing end.
#[derive(Debug)]
pub(super) struct Client(AsyncClient);

impl Client {
    pub(super) fn publish(&self, publish: Publish) -> Tried {
        let properties = PublishProperties {
            message_expiry_interval: publish.expires_in.map(whole_seconds),
            response_topic: publish.response_topic,
            correlation_data: publish.correlation_data,
            content_type: publish.content_type.map(str::to_owned),
            ..PublishProperties::default()
        };
        let options = PublishOptions::at_least_once().retain(publish.retain).properties(properties);
        tried(self.0.try_publish(publish.topic, publish.payload, options))
    }

    pub(super) fn subscribe(&self, filters: &[(String, Retained)]) -> Tried {
        let filters = filters.iter().map(|(filter, retained)| {
            let qos = if retained.is_acknowledged() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            let mut filter = SubscribeFilter::new(filter.clone(), qos);
            filter.preserve_retain = *retained == Retained::Marked;
            filter.retain_forward_rule = match retained {
                Retained::Marked | Retained::Skipped => RetainForwardRule::Never,
                Retained::Sent | Retained::Many => RetainForwardRule::OnEverySubscribe,
            };
            filter
        });
        tried(self.0.try_subscribe_many(filters))
    }

    pub(super) fn unsubscribe(&self, filters: Vec<String>) {
        // What is not taken back costs only the broker's and our time.
        _ = self.0.try_unsubscribe_many(filters);
    }

    pub(super) fn disconnect(&self, deadline: Duration) {
        // Where it fails there is no connection left to end.
        drop(self.0.try_disconnect_with_timeout(deadline));
    }
}

fn tried(result: Result<(), ClientError>) -> Tried {
    match result {
        Ok(()) => Tried::Queued,
        Err(ClientError::RequestChannelFull(_)) => Tried::Full,
        Err(ClientError::InvalidRequest(request)) => Tried::Invalid(topic_of(*request)),
        Err(_) => Tried::Closed,
    }
}

fn whole_seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}

fn topic_of(request: Request) -> String {
    match request {
        Request::Publish(publish) => String::from_utf8_lossy(&publish.topic).into_owned(),
        _ => String::new(),
    }
}

/// The polling end.
pub(super) struct Poller {
    client: AsyncClient,
    events: EventLoop,
    words: Words,
    window_max: u16,
}

/// Makes a client for this socket; CONNECT is sent when it is first polled.
pub(super) fn open(
    settings: &Settings,
    opened: &Opened,
    socket: PacketTap<Box<dyn Stream>>,
) -> Poller {
    let limits = settings.limits;
    let words = Words::new(settings, opened, socket.log());
    let mut options =
        MqttOptions::new(settings.client_id.clone(), (settings.host.clone(), settings.port));
    let will = &settings.will;
    options
        .set_clean_start(true)
        .set_keep_alive(settings.keep_alive_secs())
        .set_connect_timeout(limits.connack_deadline)
        .set_last_will(LastWill::new(
            will.topic.clone(),
            will.payload.to_vec(),
            QoS::AtLeastOnce,
            will.retain,
            None,
        ))
        .set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(limits.incoming_max))
        .set_outgoing_inflight_upper_limit(limits.window_max)
        .set_max_request_batch(usize::from(limits.window_max));
    match (&settings.username, &opened.password) {
        (Some(user), Some(password)) => {
            let secret = password.expose_secret().as_bytes().to_vec();
            options.set_credentials(user.clone(), secret);
        }
        (Some(user), None) => {
            options.set_username(user.clone());
        }
        (None, Some(password)) => {
            options.set_password(password.expose_secret().as_bytes().to_vec());
        }
        (None, None) => {}
    }
    // The socket serves one connection; the library gets no second one to repeat itself on.
    let once = Mutex::new(Some(socket));
    options.set_socket_connector(move |_, _| {
        let socket = once.lock().ok().and_then(|mut socket| socket.take());
        async move { socket.ok_or_else(|| std::io::Error::other("this client had its connection")) }
    });
    let (client, events) =
        AsyncClient::builder(options).capacity(usize::from(limits.window_max)).build();
    Poller { client, events, words, window_max: limits.window_max }
}

impl Wire for Poller {
    fn client(&self) -> EitherClient {
        EitherClient::V5(Client(self.client.clone()))
    }

    fn log(&self) -> PacketLog {
        self.words.log().clone()
    }

    async fn next(&mut self) -> Result<MqttEvent, Fault> {
        match self.events.poll().await {
            Ok(event) => self.event(event),
            Err(error) => Err(self.fault(error)),
        }
    }

    fn ready(&mut self) -> Option<MqttEvent> {
        let event = self.events.state.events.pop_front()?;
        Some(self.event(event).unwrap_or(MqttEvent::Heard))
    }
}

impl Poller {
    fn event(&mut self, event: LibraryEvent) -> Result<MqttEvent, Fault> {
        Ok(match event {
            LibraryEvent::Outgoing(Outgoing::Publish(packet)) => MqttEvent::Sent(packet),
            LibraryEvent::Outgoing(Outgoing::Subscribe(packet)) => MqttEvent::SubscribeSent(packet),
            LibraryEvent::Outgoing(Outgoing::Disconnect) => MqttEvent::Disconnected,
            LibraryEvent::Outgoing(_) | LibraryEvent::Auth(_) => MqttEvent::Quiet,
            LibraryEvent::Incoming(Incoming::PubAck(ack)) => MqttEvent::Acked(ack.pkid),
            LibraryEvent::Incoming(Incoming::Publish(publish)) => message(publish),
            LibraryEvent::Incoming(Incoming::SubAck(ack)) => MqttEvent::Subscribed(ack.pkid),
            LibraryEvent::Incoming(Incoming::ConnAck(ack)) => {
                let granted = ack.properties.as_ref();
                if granted.and_then(|granted| granted.max_qos) == Some(0) {
                    return Err(self.words.declined(QOS_0_ONLY));
                }
                let window = granted.and_then(|granted| granted.receive_max);
                let size = granted.and_then(|granted| granted.max_packet_size);
                if let Some(size) = size.filter(|size| *size < PACKET_SIZE_NEEDED) {
                    return Err(self.words.packet_limit(size));
                }
                self.words.connected = true;
                let retain = granted.and_then(|granted| granted.retain_available);
                MqttEvent::Connected(Granted {
                    window: window.unwrap_or(RECEIVE_MAXIMUM_DEFAULT).min(self.window_max).max(1),
                    packet_size_max: size.unwrap_or(PACKET_SIZE_MAX),
                    retain_available: retain != Some(0),
                })
            }
            LibraryEvent::Incoming(_) => MqttEvent::Heard,
        })
    }

    fn fault(&self, error: ConnectionError) -> Fault {
        if let Some(fault) = self.words.broker_reason() {
            return fault;
        }
        match error {
            ConnectionError::Timeout(_) => self.words.no_connack(),
            ConnectionError::Io(error) => self.words.io(&error),
            ConnectionError::MqttState(state) => match state {
                StateError::Io(error)
                | StateError::Deserialization(rumqttc_v5::Error::Io(error)) => {
                    self.words.io(&error)
                }
                StateError::ConnectionAborted => self.words.closed(),
                StateError::AwaitPingResp => self.words.lost("no answer to a ping"),
                other => self.words.protocol(&other),
            },
            other => self.words.protocol(&other),
        }
    }
}

fn message(publish: Packet) -> MqttEvent {
    // The library lets no other topic through; were it to, such a message could be for nobody.
    let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else { return MqttEvent::Heard };
    let properties = publish.properties.unwrap_or_default();
    MqttEvent::Message(Message {
        topic,
        payload: publish.payload,
        retain: publish.retain,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data,
        expires_in: properties
            .message_expiry_interval
            .map(|seconds| Duration::from_secs(u64::from(seconds))),
        received: Instant::now(),
    })
}
