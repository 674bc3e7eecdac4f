//! The reason codes with which a broker refuses a publish or a subscription.

use std::fmt;

/// Why a broker refused a publish or a subscription: a reason code of MQTT 5 (section 2.4), 0x80 or
/// above. MQTT 3.1.1 has only 0x80, and only for subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal(u8);

impl Refusal {
    /// The broker's access list does not permit it.
    pub const NOT_AUTHORIZED: Self = Self(0x87);
    /// The topic is not one that can be published to.
    pub const TOPIC_INVALID: Self = Self(0x90);
    /// The broker keeps no retained messages.
    pub const RETAIN_NOT_SUPPORTED: Self = Self(0x9A);
    /// More publishes are unacknowledged than the broker allows.
    pub const RECEIVE_MAXIMUM_EXCEEDED: Self = Self(0x93);
    /// The packet is larger than the broker takes.
    pub const PACKET_TOO_LARGE: Self = Self(0x95);

    /// The meaning of a reason code: below 0x80 it is a success.
    pub(crate) const fn from_code(code: u8) -> Result<(), Self> {
        if code < 0x80 { Ok(()) } else { Err(Self(code)) }
    }

    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Whether sending the same message again cannot succeed: invalid topic name, packet too large,
    /// invalid payload format.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        matches!(self.0, 0x90 | 0x95 | 0x99)
    }

    /// The code's name in lower snake case, used as a metric label and in messages. A code that
    /// MQTT 5 does not define is `unlisted`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.0 {
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
        write!(f, "{} (0x{:02X})", self.as_str(), self.0)
    }
}

/// Why a message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The broker has refused it, or is known to refuse it.
    Refused(Refusal),
    /// The broker closes the connection whenever it is sent.
    ClosesConnection,
}

impl Rejection {
    /// The metric label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.as_str(),
            Self::ClosesConnection => "closes_connection",
        }
    }

    /// Whether sending the same message again cannot succeed.
    pub(crate) const fn is_permanent(self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_permanent(),
            Self::ClosesConnection => true,
        }
    }

    /// Whether the broker keeps no retained messages.
    pub(crate) fn is_retain_not_supported(self) -> bool {
        self == Self::Refused(Refusal::RETAIN_NOT_SUPPORTED)
    }

    /// What to change so that the broker accepts it.
    pub(crate) const fn remedy(self) -> &'static str {
        match self {
            Self::ClosesConnection => {
                "see the broker's log: raise its maximum packet size, or permit the topic in its \
                 access list, and restart the bridge"
            }
            Self::Refused(refusal) => match refusal.code() {
                0x87 => {
                    "permit the topic to the bridge's user in the broker's access list, as \
                     deploy/mosquitto/acl does"
                }
                0x95 => "raise the broker's maximum packet size",
                0x97 => "raise the broker's quota for the bridge's user",
                0x9A => "allow retained messages in the broker's configuration",
                _ => "see the broker's log",
            },
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
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
