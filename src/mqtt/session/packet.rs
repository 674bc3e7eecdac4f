//! The parts of MQTT's packet format that the tap reads: headers, topics, properties.

/// Packet types, as in the upper half of a packet's first byte.
pub(crate) const CONNACK: u8 = 2;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const SUBSCRIBE: u8 = 8;
pub(crate) const SUBACK: u8 = 9;
pub(crate) const UNSUBACK: u8 = 11;
pub(crate) const DISCONNECT: u8 = 14;

/// Properties of MQTT 5, by identifier.
pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(crate) const RESPONSE_INFORMATION: u8 = 0x1A;
pub(crate) const REASON_STRING: u8 = 0x1F;
pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(crate) const MAXIMUM_QOS: u8 = 0x24;
pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// A packet's first bytes: type, flags and remaining length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FixedHeader {
    first: u8,
    /// Bytes of the header itself.
    pub(crate) len: usize,
    remaining: usize,
}

impl FixedHeader {
    /// `None` where the header is not complete.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first()?;
        let (remaining, len) = variable_length(rest)?;
        Some(Self { first: *first, len: 1 + len, remaining })
    }

    pub(crate) const fn kind(self) -> u8 {
        self.first >> 4
    }

    /// Bytes of the whole packet.
    pub(crate) const fn size(self) -> usize {
        self.len + self.remaining
    }

    /// Topic and packet identifier of a PUBLISH with QoS 1 or 2; `None` if they are incomplete.
    pub(crate) fn publish(self, packet: &[u8]) -> Option<(&[u8], u16)> {
        let (topic, rest) = prefixed(packet.get(self.len..)?)?;
        Some((topic, u16_at(rest, 0)?))
    }

    pub(crate) const fn has_packet_identifier(self) -> bool {
        self.first & 0b0110 != 0
    }
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

/// The two bytes at `at` as a number.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

/// The first four bytes as a number.
pub(crate) fn u32_from(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

/// A string with its length before it, and what follows.
fn prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(u16_at(bytes, 0)?);
    bytes.get(2..)?.split_at_checked(len)
}

/// Calls `each` with the identifier and the value of each property; gives what follows them all, or
/// `None` where they are malformed. `bytes` begins with their length.
pub(crate) fn properties(
    bytes: &mut [u8],
    mut each: impl FnMut(&mut u8, &mut [u8]),
) -> Option<&mut [u8]> {
    let (len, prefix) = variable_length(bytes)?;
    let (mut rest, after) = bytes.get_mut(prefix..)?.split_at_mut_checked(len)?;
    while let Some((identifier, value)) = std::mem::take(&mut rest).split_first_mut() {
        let size = value_size(*identifier, value)?;
        let (value, next) = value.split_at_mut_checked(size)?;
        each(identifier, value);
        rest = next;
    }
    Some(after)
}

/// How many bytes a property's value has (MQTT 5, section 2.2.2.2).
fn value_size(identifier: u8, bytes: &[u8]) -> Option<usize> {
    let string = |at: usize| Some(at + 2 + usize::from(u16_at(bytes, at)?));
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

    #[test]
    fn a_header_is_read_once_it_is_complete() {
        assert_eq!(FixedHeader::read(&[0x40]), None);
        assert_eq!(FixedHeader::read(&[0x32, 0x80]), None);
        let header = FixedHeader::read(&[0x32, 0x80, 0x01]).unwrap();
        assert_eq!((header.kind(), header.len, header.size()), (PUBLISH, 3, 131));
        assert!(header.has_packet_identifier());
    }

    #[test]
    fn a_publish_gives_topic_and_identifier() {
        let packet = [0x32, 9, 0, 3, b'a', b'/', b'b', 0, 7, 0, b'x'];
        let header = FixedHeader::read(&packet).unwrap();
        assert_eq!(header.publish(&packet), Some((&b"a/b"[..], 7)));
        assert_eq!(header.publish(&packet[..8]), None);
    }

    #[test]
    fn properties_are_walked_and_malformed_ones_are_noticed() {
        let mut bytes = [12, 0x13, 1, 44, 0x1F, 0, 2, b'h', b'i', 0x24, 1, 0x25, 0, 0x87];
        let mut seen = Vec::new();
        let after = properties(&mut bytes, |identifier, value| {
            seen.push((*identifier, value.to_vec()));
        });
        assert_eq!(after, Some(&mut [0x87][..]));
        let texts = (0x1F, vec![0, 2, b'h', b'i']);
        assert_eq!(seen, [(0x13, vec![1, 44]), texts, (0x24, vec![1]), (0x25, vec![0])]);
        assert_eq!(properties(&mut [3, 0x1F, 0, 9], |_, _| ()), None);
        assert_eq!(properties(&mut [9, 0x24], |_, _| ()), None);
    }
}
