//! Reads and writes packets of MQTT 3.1.1 and 5 with the codec of the MQTT library. The packets of
//! version 5 stand for both; what version 3.1.1 does not have is omitted on the wire.

use bytes::BytesMut;
use rumqttc_v4::mqttbytes::{Error as Error311, v4};
use rumqttc_v5::mqttbytes::Error as Error5;
use rumqttc_v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectAuth, Disconnect, DisconnectReasonCode, LastWill, Packet, PubAck,
    PubComp, PubRec, PubRel, Publish, SubAck, Subscribe, SubscribeFilter, SubscribeReasonCode,
    UnsubAck, Unsubscribe,
};

/// The largest packet that the broker accepts, announced to MQTT 5 clients.
pub(crate) const PACKET_SIZE_MAX_BYTES: u32 = 16 * 1024 * 1024;

/// The version of the protocol, which a client chooses with CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientVersion {
    V311,
    V5,
}

impl ClientVersion {
    /// The version of a connection whose first bytes these are; `None` while CONNECT is incomplete.
    pub(crate) fn detect(bytes: &BytesMut) -> Result<Option<Self>, String> {
        match Packet::read(&mut bytes.clone(), Some(PACKET_SIZE_MAX_BYTES)) {
            Ok(_) => Ok(Some(Self::V5)),
            Err(Error5::InvalidProtocolLevel(4)) => Ok(Some(Self::V311)),
            Err(Error5::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes the next packet; `None` while it is incomplete.
    pub(crate) fn read(self, bytes: &mut BytesMut) -> Result<Option<Packet>, String> {
        match self {
            Self::V5 => match Packet::read(bytes, Some(PACKET_SIZE_MAX_BYTES)) {
                Ok(packet) => Ok(Some(packet)),
                Err(Error5::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(error.to_string()),
            },
            Self::V311 => match v4::Packet::read(bytes, PACKET_SIZE_MAX_BYTES as usize) {
                Ok(packet) => from_v311(packet).map(Some),
                Err(Error311::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(error.to_string()),
            },
        }
    }

    /// Adds a packet, unless it is larger than the client accepts: MQTT 5 has it omitted.
    pub(crate) fn write(self, packet: Packet, max: Option<u32>, out: &mut BytesMut) {
        let result = match self {
            Self::V5 => packet.write(out, max).map(drop).map_err(|error| error.to_string()),
            Self::V311 => match to_v311(packet) {
                Some(packet) => {
                    packet.write(out, usize::MAX).map(drop).map_err(|error| error.to_string())
                }
                None => Ok(()),
            },
        };
        if let Err(error) = result {
            tracing::debug!(error, "the demo's broker omits a packet");
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
        other => return Err(format!("a client sent {:?}", other.packet_type())),
    })
}

/// `None` for a packet that MQTT 3.1.1 does not have.
fn to_v311(packet: Packet) -> Option<v4::Packet> {
    Some(match packet {
        Packet::ConnAck(ConnAck { session_present, .. }) => {
            v4::Packet::ConnAck(v4::ConnAck::new(v4::ConnectReturnCode::Success, session_present))
        }
        Packet::Publish(Publish { dup, qos, retain, topic, pkid, payload, .. }) => {
            v4::Packet::Publish(v4::Publish { dup, qos, retain, topic, pkid, payload })
        }
        Packet::PubAck(it) => v4::Packet::PubAck(v4::PubAck::new(it.pkid)),
        Packet::PubRec(it) => v4::Packet::PubRec(v4::PubRec::new(it.pkid)),
        Packet::PubComp(it) => v4::Packet::PubComp(v4::PubComp::new(it.pkid)),
        Packet::SubAck(SubAck { pkid, return_codes, .. }) => {
            let code = |code| match code {
                SubscribeReasonCode::Success(qos) => v4::SubscribeReasonCode::Success(qos),
                _ => v4::SubscribeReasonCode::Failure,
            };
            let codes = return_codes.into_iter().map(code).collect();
            v4::Packet::SubAck(v4::SubAck::new(pkid, codes))
        }
        Packet::UnsubAck(UnsubAck { pkid, .. }) => v4::Packet::UnsubAck(v4::UnsubAck::new(pkid)),
        Packet::PingResp => v4::Packet::PingResp,
        _ => return None,
    })
}
