//! Parses packets from the broker, of both versions of MQTT.
//!
//! Reason codes and properties are parsed here, because the library accepts only those that it
//! lists, and a broker may send any. PUBLISH packets are parsed by the library's codec.

use bytes::BytesMut;

use crate::config::MqttVersion;

/// Packet types, as in the upper half of a packet's first byte.
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;
const UNSUBACK: u8 = 11;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;

/// Bits of a PUBLISH's first byte.
const QOS_1: u8 = 0b0010;
const QOS_2: u8 = 0b0100;

/// Properties of MQTT 5, by identifier.
const SERVER_KEEP_ALIVE: u8 = 0x13;
const REASON_STRING: u8 = 0x1F;
const RECEIVE_MAXIMUM: u8 = 0x21;
const MAXIMUM_QOS: u8 = 0x24;
const RETAIN_AVAILABLE: u8 = 0x25;
const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// The largest packet of MQTT.
pub(crate) const PACKET_SIZE_MAX: u32 = 268_435_460;
/// MQTT 3.1.1 has no receive maximum. Few brokers have a limit below this.
const WINDOW_MAX_V311: u16 = 100;

/// A packet from the broker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Connack(Result<Granted, BrokerReason>),
    /// The whole packet.
    Publish(BytesMut),
    /// A PUBLISH that is too large. [`read`] leaves it in the buffer.
    TooLarge(TooLarge),
    Puback {
        packet_id: u16,
        code: u8,
    },
    Suback {
        packet_id: u16,
        codes: Vec<u8>,
    },
    Disconnect(BrokerReason),
    /// It shows only that the broker is alive.
    Other,
}

/// A message that is too large.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) topic: String,
    /// Which is to be acknowledged, unless it is 0.
    pub(crate) packet_id: u16,
    /// Of the whole packet.
    pub(crate) size: usize,
}

/// A reason code, with the broker's own text if it gave any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BrokerReason {
    pub(crate) code: u8,
    pub(crate) text: Option<String>,
}

/// What the broker grants on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Publishes in flight.
    pub(crate) window: u16,
    pub(crate) packet_size_max: u32,
    pub(crate) retain_available: bool,
    pub(crate) qos_1: bool,
    /// In seconds; 0: none is demanded.
    pub(crate) keep_alive: u16,
}

/// Takes the first packet from the buffer; `None` if it is not complete.
///
/// # Errors
/// It does not conform to MQTT, or is larger than `size_max` and no message.
pub(crate) fn read(
    buffer: &mut BytesMut,
    protocol: MqttVersion,
    size_max: u32,
) -> Result<Option<Packet>, String> {
    let Some((&first, rest)) = buffer.split_first() else { return Ok(None) };
    let Some((remaining, len)) = variable_length(rest) else { return Ok(None) };
    let (header, size) = (1 + len, 1 + len + remaining);
    if u32::try_from(size).map_or(true, |size| size > size_max) {
        return match first >> 4 {
            PUBLISH if first & QOS_2 == 0 => {
                Ok(too_large(first, &buffer[header..], size).map(Packet::TooLarge))
            }
            _ => Err(format!("it sent a packet of {size} bytes")),
        };
    }
    if buffer.len() < size {
        return Ok(None);
    }
    let packet = buffer.split_to(size);
    let (kind, body) = (first >> 4, &packet[header..]);
    let read = match kind {
        CONNACK => connack(body, protocol).map(Packet::Connack),
        PUBLISH => return Ok(Some(Packet::Publish(packet))),
        PUBACK => u16_from(body)
            .map(|packet_id| Packet::Puback { packet_id, code: body.get(2).copied().unwrap_or(0) }),
        SUBACK => suback(body, protocol),
        DISCONNECT => Some(Packet::Disconnect(disconnect(body))),
        UNSUBACK | PINGRESP => Some(Packet::Other),
        _ => None,
    };
    read.map(Some).ok_or_else(|| format!("it sent a packet of type {kind} that cannot be read"))
}

/// `None` while its head is not complete.
fn too_large(first: u8, body: &[u8], size: usize) -> Option<TooLarge> {
    let len = usize::from(u16_from(body)?);
    let (topic, rest) = body.get(2..)?.split_at_checked(len)?;
    let packet_id = if first & QOS_1 == 0 { 0 } else { u16_from(rest)? };
    Some(TooLarge { topic: String::from_utf8_lossy(topic).into_owned(), packet_id, size })
}

fn connack(body: &[u8], protocol: MqttVersion) -> Option<Result<Granted, BrokerReason>> {
    let (head, rest) = body.split_at_checked(2)?;
    let mut granted = Granted {
        window: u16::MAX,
        packet_size_max: PACKET_SIZE_MAX,
        retain_available: true,
        qos_1: true,
        keep_alive: 0,
    };
    let mut reason = BrokerReason { code: head[1], text: None };
    if protocol == MqttVersion::V311 {
        granted.window = WINDOW_MAX_V311;
    } else {
        let walked = properties(rest, |identifier, value| match identifier {
            REASON_STRING => reason.text = Some(string(value)),
            RECEIVE_MAXIMUM => granted.window = u16_from(value).unwrap_or(u16::MAX).max(1),
            MAXIMUM_QOS => granted.qos_1 = value != [0],
            RETAIN_AVAILABLE => granted.retain_available = value != [0],
            MAXIMUM_PACKET_SIZE => {
                let size = value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                granted.packet_size_max = size.unwrap_or(PACKET_SIZE_MAX);
            }
            SERVER_KEEP_ALIVE => granted.keep_alive = u16_from(value).unwrap_or(0),
            _ => {}
        });
        // A broker of MQTT 3.1.1 refuses without properties.
        if reason.code == 0 {
            walked?;
        }
    }
    Some(if reason.code == 0 { Ok(granted) } else { Err(reason) })
}

fn suback(body: &[u8], protocol: MqttVersion) -> Option<Packet> {
    let (packet_id, rest) = (u16_from(body)?, body.get(2..)?);
    let codes = match protocol {
        MqttVersion::V5 => properties(rest, |_, _| ())?,
        MqttVersion::V311 => rest,
    };
    Some(Packet::Suback { packet_id, codes: codes.to_vec() })
}

fn disconnect(body: &[u8]) -> BrokerReason {
    let Some((&code, rest)) = body.split_first() else { return BrokerReason::default() };
    let mut text = None;
    // Without properties it is complete.
    _ = properties(rest, |identifier, value| {
        if identifier == REASON_STRING {
            text = Some(string(value));
        }
    });
    BrokerReason { code, text }
}

/// A number of variable length, and how many bytes it has. One longer than four bytes, which MQTT
/// does not allow, ends after four.
fn variable_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 || index == 3 {
            return Some((value, index + 1));
        }
    }
    None
}

/// The first two bytes as a number.
fn u16_from(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.first_chunk()?))
}

/// The text of a property whose value is a string.
fn string(value: &[u8]) -> String {
    String::from_utf8_lossy(value.get(2..).unwrap_or_default()).into_owned()
}

/// Calls `each` with the identifier and the value of each property; gives what follows them all, or
/// `None` where they are malformed. `bytes` begins with their length.
fn properties(bytes: &[u8], mut each: impl FnMut(u8, &[u8])) -> Option<&[u8]> {
    let (len, prefix) = variable_length(bytes)?;
    let (mut rest, after) = bytes.get(prefix..)?.split_at_checked(len)?;
    while let Some((identifier, value)) = rest.split_first() {
        let (value, next) = value.split_at_checked(value_size(*identifier, value)?)?;
        each(*identifier, value);
        rest = next;
    }
    Some(after)
}

/// How many bytes a property's value has (MQTT 5, section 2.2.2.2).
fn value_size(identifier: u8, bytes: &[u8]) -> Option<usize> {
    let string = |at: usize| Some(at + 2 + usize::from(u16_from(bytes.get(at..)?)?));
    match identifier {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2A => Some(1),
        0x13 | 0x21..=0x23 => Some(2),
        0x02 | 0x11 | 0x18 | 0x27 => Some(4),
        0x0B => Some(variable_length(bytes)?.1),
        0x26 => string(string(0)?),
        _ => string(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8], protocol: MqttVersion) -> Vec<Result<Packet, String>> {
        let mut buffer = BytesMut::from(bytes);
        let packets = std::iter::from_fn(|| read(&mut buffer, protocol, 1_000).transpose());
        packets.take(10).collect()
    }

    fn read_one(bytes: &[u8], protocol: MqttVersion) -> Packet {
        read_all(bytes, protocol).remove(0).unwrap()
    }

    #[test]
    fn a_packet_is_read_once_it_is_complete() {
        let bytes = b"\x40\x03\x00\x07\x95\x90\x05\x00\x08\x00\x11\xff\xd0\x00\xe0\x01\xee";
        let expected = [
            Packet::Puback { packet_id: 7, code: 0x95 },
            Packet::Suback { packet_id: 8, codes: vec![0x11, 0xFF] },
            Packet::Other,
            Packet::Disconnect(BrokerReason { code: 0xEE, text: None }),
        ];
        let packets = read_all(bytes, MqttVersion::V5);
        assert_eq!(packets, expected.map(Ok));
        let mut buffer = BytesMut::new();
        let mut count = 0;
        for byte in bytes {
            buffer.extend_from_slice(&[*byte]);
            count += usize::from(read(&mut buffer, MqttVersion::V5, 1_000).unwrap().is_some());
        }
        assert_eq!(count, 4, "in any pieces");
    }

    #[test]
    fn a_connack_grants_or_refuses() {
        let properties = b"\x20\x0e\x00\x00\x0b\x13\x01\x2c\x21\x00\x14\x24\x01\x25\x00\x87";
        assert!(read_all(properties, MqttVersion::V5)[0].is_err(), "a property that is cut");
        let granted = b"\x20\x0d\x00\x00\x0a\x13\x01\x2c\x21\x00\x14\x24\x01\x25\x00";
        let Packet::Connack(Ok(granted)) = read_one(granted, MqttVersion::V5) else { panic!() };
        assert_eq!((granted.window, granted.keep_alive), (20, 300));
        assert!(granted.qos_1 && !granted.retain_available);
        assert_eq!(granted.packet_size_max, PACKET_SIZE_MAX);
        let refused = b"\x20\x08\x00\xff\x05\x1f\x00\x02no";
        let reason = BrokerReason { code: 0xFF, text: Some("no".to_owned()) };
        assert_eq!(read_one(refused, MqttVersion::V5), Packet::Connack(Err(reason)));
        let old = BrokerReason { code: 1, text: None };
        assert_eq!(read_one(b"\x20\x02\x00\x01", MqttVersion::V5), Packet::Connack(Err(old)));
    }

    #[test]
    fn a_message_that_is_too_large_is_known_by_its_head() {
        for (first, packet_id) in [(0x31, 0), (0x32, 7)] {
            let head = [first, 0xFF, 0xFF, 0x01, 0, 3, b't', b'/', b'a', 0, 7];
            let len = if packet_id == 0 { 9 } else { 11 };
            assert!(read_all(&head[..len - 1], MqttVersion::V311).is_empty());
            let too_large = TooLarge { topic: "t/a".to_owned(), packet_id, size: 32_771 };
            let expected = Packet::TooLarge(too_large);
            assert_eq!(read_one(&head[..len], MqttVersion::V311), expected);
        }
    }

    #[test]
    fn a_packet_that_is_too_large_or_of_no_type_is_an_error() {
        assert!(read_all(&[0x40, 0xFF, 0xFF, 0x01], MqttVersion::V5)[0].is_err());
        assert!(read_all(&[0x00, 0x00], MqttVersion::V311)[0].is_err());
    }
}
