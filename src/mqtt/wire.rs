//! Reads and writes packets of MQTT 3.1.1 and 5 with the codec of the MQTT library. The packets of
//! version 5 stand for both; what version 3.1.1 does not have is omitted on the wire.

use std::fmt::Display;

use bytes::BytesMut;
use rumqttc_v4::mqttbytes::{Error as Error311, v4};
use rumqttc_v5::mqttbytes::Error as Error5;
use rumqttc_v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectAuth, Disconnect, DisconnectReasonCode, LastWill, Packet, PubAck,
    PubComp, PubRec, PubRel, Publish, SubAck, Subscribe, SubscribeFilter, SubscribeReasonCode,
    UnsubAck, Unsubscribe,
};

use crate::config::MqttVersion;

/// Takes the next packet; `None` while it is incomplete.
///
/// # Errors
/// When the bytes are no packet, or one that is larger than `size_max`.
pub fn read(
    protocol: MqttVersion,
    bytes: &mut BytesMut,
    size_max: u32,
) -> Result<Option<Packet>, String> {
    match protocol {
        MqttVersion::V5 => match Packet::read(bytes, Some(size_max)) {
            Ok(packet) => Ok(Some(packet)),
            Err(Error5::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        },
        MqttVersion::V311 => match v4::Packet::read(bytes, size_max as usize) {
            Ok(packet) => from_v311(packet).map(Some),
            Err(Error311::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Adds a packet to these bytes.
///
/// # Errors
/// When it is larger than `size_max`.
pub fn write(
    protocol: MqttVersion,
    packet: Packet,
    size_max: Option<u32>,
    out: &mut BytesMut,
) -> Result<(), String> {
    fn written(result: Result<usize, impl Display>) -> Result<(), String> {
        result.map(drop).map_err(|error| error.to_string())
    }
    match protocol {
        MqttVersion::V5 => written(packet.write(out, size_max)),
        MqttVersion::V311 => {
            let size_max = size_max.map_or(usize::MAX, |size| size as usize);
            to_v311(packet).map_or(Ok(()), |packet| written(packet.write(out, size_max)))
        }
    }
}

fn from_v311(packet: v4::Packet) -> Result<Packet, String> {
    Ok(match packet {
        v4::Packet::Connect(it) => {
            let connect = Connect {
                keep_alive: it.keep_alive,
                client_id: it.client_id,
                clean_start: it.clean_session,
                properties: None,
            };
            let will = it.last_will.map(|will| LastWill {
                topic: will.topic.into(),
                message: will.message,
                qos: will.qos,
                retain: will.retain,
                properties: None,
            });
            Packet::Connect(connect, will, ConnectAuth::None)
        }
        v4::Packet::Publish(it) => {
            let v4::Publish { dup, qos, retain, topic, pkid, payload } = it;
            Packet::Publish(Publish { dup, qos, retain, topic, pkid, payload, properties: None })
        }
        v4::Packet::PubAck(it) => Packet::PubAck(PubAck::new(it.pkid, None)),
        v4::Packet::PubRec(it) => Packet::PubRec(PubRec::new(it.pkid, None)),
        v4::Packet::PubRel(it) => Packet::PubRel(PubRel::new(it.pkid, None)),
        v4::Packet::PubComp(it) => Packet::PubComp(PubComp::new(it.pkid, None)),
        v4::Packet::Subscribe(it) => {
            let filter = |it: v4::SubscribeFilter| SubscribeFilter::new(it.path, it.qos);
            let filters = it.filters.into_iter().map(filter).collect();
            Packet::Subscribe(Subscribe { pkid: it.pkid, filters, properties: None })
        }
        v4::Packet::Unsubscribe(it) => {
            let (pkid, filters) = (it.pkid, it.topics);
            Packet::Unsubscribe(Unsubscribe { pkid, filters, properties: None })
        }
        v4::Packet::PingReq => Packet::PingReq,
        v4::Packet::Disconnect => {
            Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection))
        }
        other => return Err(format!("an unexpected {:?}", other.packet_type())),
    })
}

/// `None` for a packet that MQTT 3.1.1 does not have.
fn to_v311(packet: Packet) -> Option<v4::Packet> {
    Some(match packet {
        Packet::Connect(Connect { keep_alive, client_id, clean_start, .. }, will, auth) => {
            let last_will = will.map(|will| v4::LastWill {
                topic: String::from_utf8_lossy(&will.topic).into_owned(),
                message: will.message,
                qos: will.qos,
                retain: will.retain,
            });
            let auth = match auth {
                ConnectAuth::UsernamePassword { username, password } => {
                    v4::ConnectAuth::UsernamePassword { username, password }
                }
                ConnectAuth::Username { username } => v4::ConnectAuth::Username { username },
                // MQTT 3.1.1 has no password without a user name.
                ConnectAuth::Password { .. } | ConnectAuth::None => v4::ConnectAuth::None,
            };
            let clean_session = clean_start;
            let connect = v4::Connect { keep_alive, client_id, clean_session, last_will, auth };
            v4::Packet::Connect(connect)
        }
        Packet::ConnAck(ConnAck { session_present, .. }) => {
            v4::Packet::ConnAck(v4::ConnAck::new(v4::ConnectReturnCode::Success, session_present))
        }
        Packet::Publish(Publish { dup, qos, retain, topic, pkid, payload, .. }) => {
            v4::Packet::Publish(v4::Publish { dup, qos, retain, topic, pkid, payload })
        }
        Packet::PubAck(it) => v4::Packet::PubAck(v4::PubAck::new(it.pkid)),
        Packet::PubRec(it) => v4::Packet::PubRec(v4::PubRec::new(it.pkid)),
        Packet::PubComp(it) => v4::Packet::PubComp(v4::PubComp::new(it.pkid)),
        Packet::Subscribe(Subscribe { pkid, filters, .. }) => {
            let filter = |it: SubscribeFilter| v4::SubscribeFilter::new(it.path, it.qos);
            let filters = filters.into_iter().map(filter).collect();
            v4::Packet::Subscribe(v4::Subscribe { pkid, filters })
        }
        Packet::SubAck(SubAck { pkid, return_codes, .. }) => {
            let code = |code| match code {
                SubscribeReasonCode::Success(qos) => v4::SubscribeReasonCode::Success(qos),
                _ => v4::SubscribeReasonCode::Failure,
            };
            let codes = return_codes.into_iter().map(code).collect();
            v4::Packet::SubAck(v4::SubAck::new(pkid, codes))
        }
        Packet::Unsubscribe(Unsubscribe { pkid, filters: topics, .. }) => {
            v4::Packet::Unsubscribe(v4::Unsubscribe { pkid, topics })
        }
        Packet::UnsubAck(UnsubAck { pkid, .. }) => v4::Packet::UnsubAck(v4::UnsubAck::new(pkid)),
        Packet::PingResp => v4::Packet::PingResp,
        _ => return None,
    })
}
