//! The settings of a session: the broker, the credentials, limits and deadlines.

use std::time::Duration;

use bytes::Bytes;

use crate::config::{Mqtt, MqttVersion};
use crate::net::BackoffPolicy;

/// The last will: published by the broker, with QoS 1, when the connection is lost.
#[derive(Clone, Debug)]
pub struct Will {
    pub topic: String,
    pub payload: Bytes,
    pub retain: bool,
}

/// The limits of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Publishes in flight, whatever the broker allows.
    pub window_max: u16,
    /// The largest incoming packet, in bytes (MQTT 5, whose brokers withhold larger ones): twice
    /// the largest request that can be permitted, so that a request beyond it is answered.
    pub incoming_max: u32,
    /// The same for MQTT 3.1.1, whose brokers know of no such limit: a larger message is ignored.
    pub incoming_max_v311: u32,
    /// For DNS, TCP, TLS and WebSocket together.
    pub connect_deadline: Duration,
    /// For the CONNACK.
    pub connack_deadline: Duration,
    /// For the acknowledgements that are awaited before DISCONNECT.
    pub disconnect_deadline: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            window_max: 1000,
            incoming_max: 2 * 1024 * 1024,
            incoming_max_v311: 16 * 1024 * 1024,
            connect_deadline: Duration::from_secs(10),
            connack_deadline: Duration::from_secs(10),
            disconnect_deadline: Duration::from_secs(2),
        }
    }
}

/// The settings of a session.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The broker, how to connect to it, and the login.
    pub mqtt: Mqtt,
    pub will: Will,
    /// A ping is sent after this long without another packet. After one and a half of it without a
    /// packet from the broker, or without an acknowledgement that it owes, the connection is lost.
    pub keep_alive: Duration,
    pub limits: SessionLimits,
    /// The waits between attempts.
    pub retry: BackoffPolicy,
}

impl SessionSettings {
    /// The keep-alive of CONNECT, in seconds.
    pub(crate) fn keep_alive_secs(&self) -> u16 {
        u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX)
    }

    /// The time between pings; `server`: the keep-alive that the broker demands, 0: none.
    pub(crate) fn ping_interval(&self, server: u16) -> Duration {
        match server {
            0 => self.keep_alive,
            seconds => self.keep_alive.min(Duration::from_secs(seconds.into())),
        }
    }

    /// The time without a packet, or an acknowledgement, after which the connection is given up.
    pub(crate) fn silence_max(&self) -> Duration {
        self.keep_alive.mul_f64(1.5)
    }

    /// The largest packet of the broker that is read.
    pub(crate) const fn incoming_max(&self) -> u32 {
        match self.mqtt.protocol {
            MqttVersion::V5 => self.limits.incoming_max,
            MqttVersion::V311 => self.limits.incoming_max_v311,
        }
    }
}
