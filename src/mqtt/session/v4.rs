//! MQTT 3.1.1: the library's client and its events, turned into ours.
//!
//! May not decide anything, and nothing but this file knows the library's MQTT 3.1.1 types.

use std::sync::Mutex;
use std::time::Duration;

use rumqttc_v4::{
    AsyncClient, ClientError, ConnectionError, Event as LibraryEvent, EventLoop, Incoming,
    LastWill, MqttOptions, Outgoing, Publish as Packet, PublishOptions, QoS, Request, StateError,
    SubscribeFilter,
};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::connection::{Client as EitherClient, Granted, Publish, Retained, Tried};
use super::dial::Opened;
use super::drive::{MqttEvent, Wire};
use super::fault::Fault;
use super::packet_log::PacketLog;
use super::tap::PacketTap;
use super::words::Words;
use super::{Message, PACKET_SIZE_MAX, Settings};
use crate::net::Stream;

/// MQTT 3.1.1 has no receive maximum; brokers' own limits are rarely below this.
const WINDOW_MAX: u16 = 100;

/// The publishing end.
#[derive(Debug)]
pub(super) struct Client(AsyncClient);

impl Client {
    pub(super) fn publish(&self, publish: Publish) -> Tried {
        let options = PublishOptions::at_least_once().retain(publish.retain);
        tried(self.0.try_publish(publish.topic, publish.payload, options))
    }

    pub(super) fn subscribe(&self, filters: &[(String, Retained)]) -> Tried {
        let filters = filters.iter().map(|(filter, retained)| {
            let qos = if retained.is_acknowledged() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            SubscribeFilter::new(filter.clone(), qos)
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
    window: u16,
}

/// Makes a client for this socket; CONNECT is sent when it is first polled.
pub(super) fn open(
    settings: &Settings,
    opened: &Opened,
    socket: PacketTap<Box<dyn Stream>>,
) -> Poller {
    let limits = settings.limits;
    let window = limits.window_max.min(WINDOW_MAX);
    let words = Words::new(settings, opened, socket.log());
    let mut options =
        MqttOptions::new(settings.client_id.clone(), (settings.host.clone(), settings.port));
    let will = &settings.will;
    let incoming_max = usize::try_from(limits.incoming_max_v311).unwrap_or(usize::MAX);
    let outgoing_max = usize::try_from(PACKET_SIZE_MAX).unwrap_or(usize::MAX);
    options
        .set_clean_session(true)
        .set_keep_alive(settings.keep_alive_secs())
        .set_last_will(LastWill::new(
            will.topic.clone(),
            will.payload.to_vec(),
            QoS::AtLeastOnce,
            will.retain,
        ))
        .set_max_packet_size(incoming_max, outgoing_max)
        .set_inflight(window)
        .set_max_request_batch(usize::from(window));
    // MQTT 3.1.1 has no password without a user name.
    if let Some(user) = &settings.username {
        match &opened.password {
            Some(password) => {
                let secret = password.expose_secret().as_bytes().to_vec();
                options.set_credentials(user.clone(), secret);
            }
            None => {
                options.set_username(user.clone());
            }
        }
    }
    // The socket serves one connection; the library gets no second one to repeat itself on.
    let once = Mutex::new(Some(socket));
    options.set_socket_connector(move |_, _| {
        let socket = once.lock().ok().and_then(|mut socket| socket.take());
        async move { socket.ok_or_else(|| std::io::Error::other("this client had its connection")) }
    });
    let capacity = usize::from(limits.window_max);
    let (client, mut events) = AsyncClient::builder(options).capacity(capacity).build();
    let mut network = events.network_options();
    network.set_connection_timeout(limits.connack_deadline.as_secs());
    events.set_network_options(network);
    Poller { client, events, words, window }
}

impl Wire for Poller {
    fn client(&self) -> EitherClient {
        EitherClient::V4(Client(self.client.clone()))
    }

    fn log(&self) -> PacketLog {
        self.words.log().clone()
    }

    async fn next(&mut self) -> Result<MqttEvent, Fault> {
        match self.events.poll().await {
            Ok(event) => Ok(self.event(event)),
            Err(error) => Err(self.fault(error)),
        }
    }

    fn ready(&mut self) -> Option<MqttEvent> {
        let event = self.events.state.events.pop_front()?;
        Some(self.event(event))
    }
}

impl Poller {
    fn event(&mut self, event: LibraryEvent) -> MqttEvent {
        match event {
            LibraryEvent::Outgoing(Outgoing::Publish(packet)) => MqttEvent::Sent(packet),
            LibraryEvent::Outgoing(Outgoing::Subscribe(packet)) => MqttEvent::SubscribeSent(packet),
            LibraryEvent::Outgoing(Outgoing::Disconnect) => MqttEvent::Disconnected,
            LibraryEvent::Outgoing(_) => MqttEvent::Quiet,
            LibraryEvent::Incoming(Incoming::PubAck(ack)) => MqttEvent::Acked(ack.pkid),
            LibraryEvent::Incoming(Incoming::Publish(publish)) => message(&publish),
            LibraryEvent::Incoming(Incoming::SubAck(ack)) => MqttEvent::Subscribed(ack.pkid),
            LibraryEvent::Incoming(Incoming::ConnAck(_)) => {
                self.words.connected = true;
                MqttEvent::Connected(Granted {
                    window: self.window.max(1),
                    packet_size_max: PACKET_SIZE_MAX,
                    retain_available: true,
                })
            }
            LibraryEvent::Incoming(_) => MqttEvent::Heard,
        }
    }

    fn fault(&self, error: ConnectionError) -> Fault {
        if let Some(fault) = self.words.broker_reason() {
            return fault;
        }
        match error {
            ConnectionError::NetworkTimeout => self.words.no_connack(),
            ConnectionError::FlushTimeout => self.words.lost("the broker takes nothing more"),
            ConnectionError::Io(error) => self.words.io(&error),
            ConnectionError::MqttState(state) => match state {
                StateError::Io(error)
                | StateError::Deserialization(rumqttc_v4::Error::Io(error)) => {
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

fn message(publish: &Packet) -> MqttEvent {
    // The library lets no other topic through; were it to, such a message could be for nobody.
    let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else { return MqttEvent::Heard };
    MqttEvent::Message(Message {
        topic,
        payload: publish.payload.clone(),
        retain: publish.retain,
        response_topic: None,
        correlation_data: None,
        expires_in: None,
        received: Instant::now(),
    })
}
