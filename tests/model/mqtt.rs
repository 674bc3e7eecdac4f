//! MQTT of the model's broker. The packets of version 5 are used for both versions; what version
//! 3.1.1 does not have is omitted on the wire.

use bytes::{Bytes, BytesMut};
use rumqttc_v4::mqttbytes::v4 as v311;
use rumqttc_v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, Connect, ConnectAuth, ConnectReturnCode, Disconnect,
    DisconnectReasonCode, LastWill, Packet, Publish, Subscribe, SubscribeFilter, Unsubscribe,
};

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    V5,
    V311,
}

impl Protocol {
    /// As the configuration names it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V5 => "5",
            Self::V311 => "3.1.1",
        }
    }

    /// Takes the next packet; `None` while it is not complete.
    pub(crate) fn read(self, bytes: &mut BytesMut) -> Option<Packet> {
        match self {
            Self::V5 => match Packet::read(bytes, None) {
                Ok(packet) => Some(packet),
                Err(rumqttc_v5::mqttbytes::Error::InsufficientBytes(_)) => None,
                Err(error) => panic!("the bridge sent what is no MQTT 5: {error}"),
            },
            Self::V311 => match v311::Packet::read(bytes, usize::MAX) {
                Ok(packet) => Some(from_v311(packet)),
                Err(rumqttc_v4::mqttbytes::Error::InsufficientBytes(_)) => None,
                Err(error) => panic!("the bridge sent what is no MQTT 3.1.1: {error}"),
            },
        }
    }

    pub(crate) fn write(self, packet: Packet, bytes: &mut BytesMut) {
        match self {
            Self::V5 => _ = packet.write(bytes, None).unwrap(),
            Self::V311 => _ = to_v311(packet).write(bytes, usize::MAX).unwrap(),
        }
    }
}

fn from_v311(packet: v311::Packet) -> Packet {
    match packet {
        v311::Packet::Connect(v311::Connect {
            keep_alive,
            client_id,
            clean_session,
            last_will,
            ..
        }) => {
            let connect =
                Connect { keep_alive, client_id, clean_start: clean_session, properties: None };
            let will = last_will.map(|v311::LastWill { topic, message, qos, retain }| LastWill {
                topic: topic.into(),
                message,
                qos,
                retain,
                properties: None,
            });
            Packet::Connect(connect, will, ConnectAuth::None)
        }
        v311::Packet::Publish(v311::Publish { dup, qos, retain, topic, pkid, payload }) => {
            Packet::Publish(Publish { dup, qos, retain, topic, pkid, payload, properties: None })
        }
        v311::Packet::Subscribe(v311::Subscribe { pkid, filters }) => {
            let filter =
                |filter: v311::SubscribeFilter| SubscribeFilter::new(filter.path, filter.qos);
            let filters = filters.into_iter().map(filter).collect();
            Packet::Subscribe(Subscribe { pkid, filters, properties: None })
        }
        v311::Packet::Unsubscribe(v311::Unsubscribe { pkid, topics: filters }) => {
            Packet::Unsubscribe(Unsubscribe { pkid, filters, properties: None })
        }
        v311::Packet::PingReq => Packet::PingReq,
        v311::Packet::Disconnect => {
            Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection))
        }
        other => panic!("the bridge sent {other:?}"),
    }
}

fn to_v311(packet: Packet) -> v311::Packet {
    match packet {
        Packet::ConnAck(ConnAck { session_present, .. }) => {
            let code = v311::ConnectReturnCode::Success;
            v311::Packet::ConnAck(v311::ConnAck::new(code, session_present))
        }
        Packet::Publish(Publish { dup, qos, retain, topic, pkid, payload, .. }) => {
            v311::Packet::Publish(v311::Publish { dup, qos, retain, topic, pkid, payload })
        }
        Packet::PubAck(ack) => v311::Packet::PubAck(v311::PubAck::new(ack.pkid)),
        Packet::SubAck(ack) => {
            let granted =
                v311::SubscribeReasonCode::Success(rumqttc_v4::mqttbytes::QoS::AtMostOnce);
            let codes = vec![granted; ack.return_codes.len()];
            v311::Packet::SubAck(v311::SubAck::new(ack.pkid, codes))
        }
        Packet::UnsubAck(ack) => v311::Packet::UnsubAck(v311::UnsubAck::new(ack.pkid)),
        Packet::PingResp => v311::Packet::PingResp,
        other => panic!("the broker sends no {other:?}"),
    }
}

/// The packet with which the broker accepts a client, with this window.
pub(crate) fn accepted(window: u16) -> Packet {
    let properties = ConnAckProperties {
        session_expiry_interval: None,
        receive_max: Some(window),
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    };
    Packet::ConnAck(ConnAck {
        session_present: false,
        code: ConnectReturnCode::Success,
        properties: Some(properties),
    })
}

/// A message that the broker sends, with QoS 0.
pub(crate) fn outgoing(topic: &str, payload: Bytes, retain: bool) -> Publish {
    let topic = Bytes::copy_from_slice(topic.as_bytes());
    Publish { retain, topic, payload, ..Publish::default() }
}
