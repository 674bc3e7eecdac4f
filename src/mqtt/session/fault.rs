//! What can be wrong between us and the broker, in words that say what to change.
//!
//! May not hold a secret: every variant is made of names, addresses and causes.

use std::time::Duration;

use crate::net::DialError;

/// Why there is no connection to the broker, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection came about.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A deadline passed.
    #[error(
        "{broker} did not answer within {} s while {doing}; check that mqtt.url names an MQTT \
         broker and that no firewall swallows packets",
        .after.as_secs()
    )]
    Deadline {
        /// The broker's URL.
        broker: String,
        /// What was being done.
        doing: &'static str,
        /// How long it was given.
        after: Duration,
    },
    /// No answer to a CONNECT of MQTT 5.
    #[error(
        "{broker} did not answer within {} s while answering CONNECT; check that mqtt.url names an \
         MQTT broker, and if the broker knows only MQTT 3.1.1, set mqtt.protocol = \"3.1.1\"",
        .after.as_secs()
    )]
    NoConnack {
        /// The broker's URL.
        broker: String,
        /// How long it was given.
        after: Duration,
    },
    /// We spoke plainly to a TLS port.
    #[error("{broker} speaks TLS; write mqtts:// in mqtt.url")]
    TlsExpected {
        /// The broker's URL as configured.
        broker: String,
    },
    /// User name or password are wrong, or this user may not connect.
    #[error(
        "broker {broker} refused the user name or password{said}; check mqtt.username and \
         mqtt.password_file"
    )]
    Credentials {
        /// The broker's URL.
        broker: String,
        /// The broker's own words, behind a colon; may be empty.
        said: String,
    },
    /// The broker does not take this client ID.
    #[error(
        "broker {broker} refused the client ID {client_id:?}{said}; set another mqtt.client_id"
    )]
    ClientId {
        /// The broker's URL.
        broker: String,
        /// The client ID we gave.
        client_id: String,
        /// The broker's own words, behind a colon; may be empty.
        said: String,
    },
    /// The same of MQTT 3.1.1, where some brokers say so of a keep-alive above their limit.
    #[error(
        "broker {broker} refused the client ID {client_id:?}; set another mqtt.client_id, or raise \
         the broker's longest keep-alive to {keep_alive} s (mosquitto: max_keepalive)"
    )]
    ClientIdOrKeepAlive {
        /// The broker's URL.
        broker: String,
        /// The client ID we gave.
        client_id: String,
        /// Our keep-alive in seconds.
        keep_alive: u16,
    },
    /// No state or event fits into the packets that the broker takes.
    #[error(
        "broker {broker} takes packets of at most {size} bytes, and states and events are larger; \
         raise its limit (mosquitto: max_packet_size)"
    )]
    PacketLimit {
        /// The broker's URL.
        broker: String,
        /// Its limit in bytes.
        size: u32,
    },
    /// An acknowledgement does not belong to what was sent.
    #[error(
        "{broker} acknowledged packet {packet}, under which another message was sent than noted; \
         the connection is closed so that no message is lost. Please report this"
    )]
    AckMismatch {
        /// The broker's URL.
        broker: String,
        /// The packet identifier.
        packet: u16,
    },
    /// The broker does not speak this version.
    #[error("broker {broker} does not speak MQTT {ours}; set mqtt.protocol = \"{other}\"")]
    Version {
        /// The broker's URL.
        broker: String,
        /// The version we spoke.
        ours: &'static str,
        /// The version to try.
        other: &'static str,
    },
    /// The broker refused for another reason.
    #[error("broker {broker} refused the connection ({code}); see the broker's log")]
    Declined {
        /// The broker's URL.
        broker: String,
        /// Its reason.
        code: String,
    },
    /// The connection was closed before the broker had answered.
    #[error("{broker} closed the connection without an answer; {hint}, and see the broker's log")]
    ClosedEarly {
        /// The broker's URL.
        broker: String,
        /// What may be wrong.
        hint: &'static str,
    },
    /// Another client uses our client ID.
    #[error(
        "another client took over the session: two programs use the client ID {client_id:?} on \
         {broker}; give each bridge its own bridge_name or mqtt.client_id"
    )]
    TakenOver {
        /// The broker's URL.
        broker: String,
        /// The client ID that both use.
        client_id: String,
    },
    /// The broker ended the connection and said why.
    #[error("broker {broker} ended the connection ({code})")]
    Ended {
        /// The broker's URL.
        broker: String,
        /// Its reason.
        code: String,
    },
    /// The broker closed the connection and said nothing.
    #[error("broker {broker} closed the connection; see its log")]
    Closed {
        /// The broker's URL.
        broker: String,
    },
    /// It did so again and again, right after it had accepted us.
    #[error(
        "broker {broker} accepted the connection {times} times and closed it soon after, as \
         brokers do when another program uses the same client ID {client_id:?}; give each bridge \
         its own bridge_name or mqtt.client_id, and see the broker's log"
    )]
    ClosedAgain {
        /// The broker's URL.
        broker: String,
        /// The client ID that somebody else may use.
        client_id: String,
        /// How many times in a row.
        times: u32,
    },
    /// The connection was reset: brokers do so too when they close it over a packet that they have
    /// not read to its end.
    #[error("the connection to {broker} was reset ({why}); see the broker's log")]
    Reset {
        /// The broker's URL.
        broker: String,
        /// What the network said.
        why: String,
    },
    /// It did so before it had acknowledged what was sent, again and again.
    #[error(
        "broker {broker} closed the connection {times} times before it had acknowledged what was \
         sent; it may refuse one of the messages (access list, size limit, quota), or another \
         program uses the client ID {client_id:?}: see the broker's log"
    )]
    ClosedOnMessage {
        /// The broker's URL.
        broker: String,
        /// The client ID that another program may use.
        client_id: String,
        /// How many times in a row.
        times: u32,
    },
    /// The connection broke.
    #[error("the connection to {broker} was lost ({why})")]
    Lost {
        /// The broker's URL.
        broker: String,
        /// What the network said.
        why: String,
    },
    /// The broker fell silent.
    #[error("{broker} said nothing for {} s, not even to a ping", .after.as_secs())]
    Silent {
        /// The broker's URL.
        broker: String,
        /// How long it was silent.
        after: Duration,
    },
    /// The broker takes what is published and acknowledges none of it.
    #[error(
        "{broker} has acknowledged nothing for {} s although it takes what is published; see its \
         log, and whether its disk or its cluster hangs",
        .after.as_secs()
    )]
    Unacknowledged {
        /// The broker's URL.
        broker: String,
        /// How long nothing was acknowledged.
        after: Duration,
    },
    /// The broker acknowledges what is published, but left one message out.
    #[error(
        "{broker} has not acknowledged a message for {} s although it acknowledged later ones; it \
         is sent again on a new connection. See the broker's log",
        .after.as_secs()
    )]
    Skipped {
        /// The broker's URL.
        broker: String,
        /// How long ago it was passed over.
        after: Duration,
    },
    /// What the broker sent is not MQTT as agreed.
    #[error("{broker} does not keep to MQTT {version} ({why}); check that mqtt.url names a broker")]
    Protocol {
        /// The broker's URL.
        broker: String,
        /// The version spoken.
        version: &'static str,
        /// What was wrong.
        why: String,
    },
}

impl Fault {
    /// Whether another client uses our client ID.
    #[must_use]
    pub fn taken_over(&self) -> bool {
        matches!(self, Self::TakenOver { .. })
    }

    /// Whether the broker closed the connection, with a DISCONNECT, without one or by a reset.
    pub(super) fn closed_by_broker(&self) -> bool {
        matches!(
            self,
            Self::Closed { .. }
                | Self::Reset { .. }
                | Self::ClosedAgain { .. }
                | Self::ClosedOnMessage { .. }
                | Self::Ended { .. }
        )
    }

    /// Whether a file that the configuration names is missing or cannot be read.
    #[must_use]
    pub fn file_missing(&self) -> bool {
        matches!(self, Self::Dial(error) if error.code().is_file_unreadable())
    }

    /// Whether trying again costs the broker nothing.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Dial(error) if error.is_absence())
    }
}
