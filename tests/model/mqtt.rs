//! Packets of the model's broker.

use bytes::Bytes;
use rumqttc_v5::mqttbytes::v5::{ConnAck, ConnAckProperties, ConnectReturnCode, Packet, Publish};

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
