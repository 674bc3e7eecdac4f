//! Encodes sent packets and decodes received messages with the codec of the MQTT library. Only this
//! file depends on the library, and only here the two versions of MQTT differ.

use std::fmt::Display;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc_v4::mqttbytes::v4;
use rumqttc_v5::mqttbytes::{QoS, v5};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::connection::{Message, Publish, RetainHandling};
use super::settings::{Protocol, SessionSettings};

/// These packets are the same in both versions, without properties.
pub(crate) const PINGREQ: &[u8] = &[0xC0, 0];
pub(crate) const DISCONNECT: &[u8] = &[0xE0, 0];

/// CONNECT.
pub(crate) fn connect(
    settings: &SessionSettings,
    password: Option<&SecretString>,
    out: &mut BytesMut,
) -> Result<(), String> {
    let (keep_alive, client_id) = (settings.keep_alive_secs(), settings.client_id.clone());
    let (topic, payload) = (settings.will.topic.clone(), settings.will.payload.to_vec());
    let (qos, retain) = (QoS::AtLeastOnce, settings.will.retain);
    let bytes = |password: &SecretString| Bytes::from(password.expose_secret().to_owned());
    let credentials = (settings.username.clone(), password.map(bytes));
    match settings.protocol {
        Protocol::V5 => {
            use v5::ConnectAuth as Auth;
            let will = v5::LastWill::new(topic, payload, qos, retain, None);
            let auth = match credentials {
                (Some(username), Some(password)) => Auth::UsernamePassword { username, password },
                (Some(username), None) => Auth::Username { username },
                (None, Some(password)) => Auth::Password { password },
                (None, None) => Auth::None,
            };
            let mut properties = v5::ConnectProperties::new();
            properties.max_packet_size = Some(settings.limits.incoming_max);
            let properties = Some(properties);
            let connect = v5::Connect { keep_alive, client_id, clean_start: true, properties };
            written(connect.write(&Some(will), &auth, out))
        }
        Protocol::V311 => {
            use v4::ConnectAuth as Auth;
            let last_will = Some(v4::LastWill::new(topic, payload, qos, retain));
            // MQTT 3.1.1 has no password without a user name.
            let auth = match credentials {
                (Some(username), Some(password)) => Auth::UsernamePassword { username, password },
                (Some(username), None) => Auth::Username { username },
                (None, _) => Auth::None,
            };
            let clean_session = true;
            let connect = v4::Connect { keep_alive, client_id, clean_session, last_will, auth };
            written(connect.write(out))
        }
    }
}

/// PUBLISH with QoS 1.
pub(crate) fn publish(
    protocol: Protocol,
    pkid: u16,
    publish: Publish,
    out: &mut BytesMut,
) -> Result<(), String> {
    let (dup, qos, retain) = (false, QoS::AtLeastOnce, publish.retain);
    let (topic, payload) = (publish.topic.into(), publish.payload);
    match protocol {
        Protocol::V5 => {
            let seconds = |span: Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
            let properties = Some(v5::PublishProperties {
                message_expiry_interval: publish.expires_in.map(seconds),
                response_topic: publish.response_topic,
                correlation_data: publish.correlation_data,
                content_type: publish.content_type.map(str::to_owned),
                ..v5::PublishProperties::default()
            });
            let publish = v5::Publish { dup, qos, retain, topic, pkid, payload, properties };
            written(publish.write(out))
        }
        Protocol::V311 => {
            written(v4::Publish { dup, qos, retain, topic, pkid, payload }.write(out))
        }
    }
}

/// PUBACK of a message that was received.
pub(crate) fn puback(pkid: u16, out: &mut BytesMut) {
    let [high, low] = pkid.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, high, low]);
}

/// SUBSCRIBE.
pub(crate) fn subscribe(
    protocol: Protocol,
    pkid: u16,
    filters: &[(String, RetainHandling)],
    out: &mut BytesMut,
) -> Result<(), String> {
    use RetainHandling::{DoNotSend, DoNotSendAsPublished, SendManyAtSubscribe};
    let qos = |handling| match handling {
        SendManyAtSubscribe => QoS::AtMostOnce,
        _ => QoS::AtLeastOnce,
    };
    match protocol {
        Protocol::V5 => {
            let filters = filters.iter().map(|(filter, handling)| {
                let mut filter = v5::SubscribeFilter::new(filter.clone(), qos(*handling));
                filter.preserve_retain = *handling == DoNotSendAsPublished;
                if matches!(handling, DoNotSend | DoNotSendAsPublished) {
                    filter.retain_forward_rule = v5::RetainForwardRule::Never;
                }
                filter
            });
            let (filters, properties) = (filters.collect(), None);
            written(v5::Subscribe { pkid, filters, properties }.write(out))
        }
        Protocol::V311 => {
            let filters = filters
                .iter()
                .map(|(filter, handling)| v4::SubscribeFilter::new(filter.clone(), qos(*handling)));
            written(v4::Subscribe { pkid, filters: filters.collect() }.write(out))
        }
    }
}

/// UNSUBSCRIBE.
pub(crate) fn unsubscribe(
    protocol: Protocol,
    pkid: u16,
    filters: Vec<String>,
    out: &mut BytesMut,
) -> Result<(), String> {
    match protocol {
        Protocol::V5 => written(v5::Unsubscribe { pkid, filters, properties: None }.write(out)),
        Protocol::V311 => written(v4::Unsubscribe { pkid, topics: filters }.write(out)),
    }
}

/// Reads a PUBLISH; gives its packet identifier too, which is to be acknowledged unless it is 0.
pub(crate) fn message(protocol: Protocol, mut packet: BytesMut) -> Result<(Message, u16), String> {
    let (topic, payload, retain, pkid, properties) = match protocol {
        Protocol::V5 => match v5::Packet::read(&mut packet, None).map_err(text)? {
            v5::Packet::Publish(it) if it.qos != QoS::ExactlyOnce => {
                (it.topic, it.payload, it.retain, it.pkid, it.properties.unwrap_or_default())
            }
            _ => return Err(NOT_QOS_1.to_owned()),
        },
        Protocol::V311 => match v4::Packet::read(&mut packet, usize::MAX).map_err(text)? {
            v4::Packet::Publish(it) if it.qos != QoS::ExactlyOnce => {
                (it.topic, it.payload, it.retain, it.pkid, v5::PublishProperties::default())
            }
            _ => return Err(NOT_QOS_1.to_owned()),
        },
    };
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

const NOT_QOS_1: &str = "it sent a message with QoS 2, which was not subscribed to";

fn written(result: Result<usize, impl Display>) -> Result<(), String> {
    result.map(drop).map_err(text)
}

fn text(error: impl Display) -> String {
    error.to_string()
}
