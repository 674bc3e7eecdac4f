//! Why a broker does not accept a publish or a subscription.

use std::fmt;

/// Why a broker does not accept a publish or a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A reason code of MQTT 5 (section 2.4), 0x80 or above. MQTT 3.1.1 has only 0x80, and only for
    /// subscriptions.
    Code(u8),
    /// The broker closes the connection whenever the message is sent.
    ClosesConnection,
}

impl Refusal {
    /// The broker's access list does not permit it.
    pub const NOT_AUTHORIZED: Self = Self::Code(0x87);
    /// The topic is not one that can be published to.
    pub const TOPIC_INVALID: Self = Self::Code(0x90);
    /// The broker keeps no retained messages.
    pub const RETAIN_NOT_SUPPORTED: Self = Self::Code(0x9A);
    /// The packet is larger than the broker takes.
    pub const PACKET_TOO_LARGE: Self = Self::Code(0x95);

    /// The meaning of a reason code: below 0x80 it is a success.
    pub(crate) const fn from_code(code: u8) -> Result<(), Self> {
        if code < 0x80 { Ok(()) } else { Err(Self::Code(code)) }
    }

    /// Whether sending the same message again cannot succeed: invalid topic name, packet too large,
    /// invalid payload format, or the connection ends.
    pub const fn is_permanent(self) -> bool {
        matches!(self, Self::Code(0x90 | 0x95 | 0x99) | Self::ClosesConnection)
    }

    /// What to change so that the broker accepts it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::ClosesConnection => {
                "see the broker's log: raise its maximum packet size, or permit the topic in its \
                 access list, and restart the bridge"
            }
            Self::NOT_AUTHORIZED => {
                "permit the topic to the bridge's user in the broker's access list, as \
                 deploy/mosquitto/acl does"
            }
            Self::PACKET_TOO_LARGE => "raise the broker's maximum packet size",
            Self::Code(0x97) => "raise the broker's quota for the bridge's user",
            Self::RETAIN_NOT_SUPPORTED => "allow retained messages in the broker's configuration",
            Self::Code(_) => "see the broker's log",
        }
    }

    /// Its name in lower snake case, used as a metric label and in messages. A code that MQTT 5
    /// does not define is `unlisted`.
    pub const fn as_str(self) -> &'static str {
        let Self::Code(code) = self else { return "closes_connection" };
        match code {
            0x80 => "unspecified",
            0x81 => "malformed_packet",
            0x82 => "protocol_error",
            0x83 => "implementation_specific",
            0x84 => "unsupported_protocol_version",
            0x85 => "client_identifier_not_valid",
            0x86 => "bad_user_name_or_password",
            0x87 => "not_authorized",
            0x88 => "server_unavailable",
            0x89 => "server_busy",
            0x8A => "banned",
            0x8B => "server_shutting_down",
            0x8C => "bad_authentication_method",
            0x8D => "keep_alive_timeout",
            0x8E => "session_taken_over",
            0x8F => "topic_filter_invalid",
            0x90 => "topic_invalid",
            0x91 => "packet_id_in_use",
            0x92 => "packet_id_not_found",
            0x93 => "receive_maximum_exceeded",
            0x94 => "topic_alias_invalid",
            0x95 => "packet_too_large",
            0x96 => "message_rate_too_high",
            0x97 => "quota_exceeded",
            0x98 => "administrative_action",
            0x99 => "payload_invalid",
            0x9A => "retain_not_supported",
            0x9B => "qos_not_supported",
            0x9C => "use_another_server",
            0x9D => "server_moved",
            0x9E => "shared_subscriptions_not_supported",
            0x9F => "connection_rate_exceeded",
            0xA0 => "maximum_connect_time",
            0xA1 => "subscription_identifiers_not_supported",
            0xA2 => "wildcard_subscriptions_not_supported",
            _ => "unlisted",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "{} (0x{code:02X})", self.as_str()),
            Self::ClosesConnection => f.write_str("the broker closes the connection over it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_below_0x80_are_a_success() {
        assert_eq!(Refusal::from_code(0x10), Ok(()));
        assert_eq!(Refusal::from_code(0x05), Ok(()));
        let refusal = Refusal::from_code(0x95).unwrap_err();
        assert_eq!(refusal.to_string(), "packet_too_large (0x95)");
    }
}
