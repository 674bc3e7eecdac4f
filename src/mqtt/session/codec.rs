//! Encodes the packets that a session sends, and decodes the messages that it receives.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc_v5::mqttbytes::QoS;
use rumqttc_v5::mqttbytes::v5::{self, ConnectAuth, Packet, RetainForwardRule};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::connection::{ConnectionCommand, Message, Publish, RetainHandling};
use super::settings::SessionSettings;
use crate::config::MqttVersion;
use crate::mqtt::wire;

/// These packets are the same in both versions, without properties.
pub(crate) const PINGREQ: &[u8] = &[0xC0, 0];
pub(crate) const DISCONNECT: &[u8] = &[0xE0, 0];

/// CONNECT.
pub(crate) fn connect(
    settings: &SessionSettings,
    password: Option<&SecretString>,
    out: &mut BytesMut,
) -> Result<(), String> {
    let (topic, payload) = (settings.will.topic.clone(), settings.will.payload.to_vec());
    let will = v5::LastWill::new(topic, payload, QoS::AtLeastOnce, settings.will.retain, None);
    let bytes = |password: &SecretString| Bytes::from(password.expose_secret().to_owned());
    let auth = match (settings.mqtt.username.clone(), password.map(bytes)) {
        (Some(username), Some(password)) => ConnectAuth::UsernamePassword { username, password },
        (Some(username), None) => ConnectAuth::Username { username },
        (None, Some(password)) => ConnectAuth::Password { password },
        (None, None) => ConnectAuth::None,
    };
    let mut properties = v5::ConnectProperties::new();
    properties.max_packet_size = Some(settings.limits.incoming_max);
    let connect = v5::Connect {
        keep_alive: settings.keep_alive_secs(),
        client_id: settings.mqtt.client_id.clone(),
        clean_start: true,
        properties: Some(properties),
    };
    wire::write(settings.mqtt.protocol, Packet::Connect(connect, Some(will), auth), None, out)
}

/// The packet of a command.
pub(crate) fn command(
    protocol: MqttVersion,
    packet_id: u16,
    command: ConnectionCommand,
    out: &mut BytesMut,
) -> Result<(), String> {
    match command {
        ConnectionCommand::Publish { publish: it, .. } => publish(protocol, packet_id, it, out),
        ConnectionCommand::Subscribe(filters) => subscribe(protocol, packet_id, &filters, out),
        ConnectionCommand::Unsubscribe(filters) => unsubscribe(protocol, packet_id, filters, out),
    }
}

/// PUBLISH with QoS 1.
fn publish(
    protocol: MqttVersion,
    packet_id: u16,
    publish: Publish,
    out: &mut BytesMut,
) -> Result<(), String> {
    let seconds = |span: Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
    let properties = (protocol == MqttVersion::V5).then(|| v5::PublishProperties {
        message_expiry_interval: publish.expires_in.map(seconds),
        response_topic: publish.response_topic,
        correlation_data: publish.correlation_data,
        content_type: publish.content_type.map(str::to_owned),
        ..v5::PublishProperties::default()
    });
    let publish = v5::Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: publish.retain,
        topic: publish.topic.into(),
        pkid: packet_id,
        payload: publish.payload,
        properties,
    };
    wire::write(protocol, Packet::Publish(publish), None, out)
}

/// PUBACK of a message that was received.
pub(crate) fn puback(packet_id: u16, out: &mut BytesMut) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, high, low]);
}

/// SUBSCRIBE.
fn subscribe(
    protocol: MqttVersion,
    packet_id: u16,
    filters: &[(String, RetainHandling)],
    out: &mut BytesMut,
) -> Result<(), String> {
    use RetainHandling::{DoNotSend, DoNotSendAsPublished, SendManyAtSubscribe};
    let filters = filters.iter().map(|(filter, handling)| {
        let qos = match handling {
            SendManyAtSubscribe => QoS::AtMostOnce,
            _ => QoS::AtLeastOnce,
        };
        let mut filter = v5::SubscribeFilter::new(filter.clone(), qos);
        filter.preserve_retain = *handling == DoNotSendAsPublished;
        if matches!(handling, DoNotSend | DoNotSendAsPublished) {
            filter.retain_forward_rule = RetainForwardRule::Never;
        }
        filter
    });
    let subscribe = v5::Subscribe { pkid: packet_id, filters: filters.collect(), properties: None };
    wire::write(protocol, Packet::Subscribe(subscribe), None, out)
}

/// UNSUBSCRIBE.
fn unsubscribe(
    protocol: MqttVersion,
    packet_id: u16,
    filters: Vec<String>,
    out: &mut BytesMut,
) -> Result<(), String> {
    let unsubscribe = v5::Unsubscribe { pkid: packet_id, filters, properties: None };
    wire::write(protocol, Packet::Unsubscribe(unsubscribe), None, out)
}

/// Reads a PUBLISH; gives its packet identifier too, which is to be acknowledged unless it is 0.
pub(crate) fn message(
    protocol: MqttVersion,
    mut packet: BytesMut,
) -> Result<(Message, u16), String> {
    let publish = match wire::read(protocol, &mut packet, u32::MAX)? {
        Some(Packet::Publish(publish)) if publish.qos != QoS::ExactlyOnce => publish,
        _ => return Err("it sent a message with QoS 2, which was not subscribed to".to_owned()),
    };
    let v5::Publish { topic, payload, retain, pkid, properties, .. } = publish;
    let properties = properties.unwrap_or_default();
    let expires_in = properties.message_expiry_interval;
    let message = Message {
        topic: String::from_utf8_lossy(&topic).into_owned(),
        payload,
        retain,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data,
        expires_in: expires_in.map(|seconds| Duration::from_secs(seconds.into())),
        received: Instant::now(),
    };
    Ok((message, pkid))
}
