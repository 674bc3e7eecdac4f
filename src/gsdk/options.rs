//! The options of the task of a gateway or master: address, trusted CA, timeouts.

use std::time::Duration;

use crate::ids::HostPort;
use crate::net::{BackoffPolicy, DialTarget, Peer, Tls, TlsFiles};

/// The default size of the gateway's queue of status changes.
pub const QUEUE_SIZE_DEFAULT: i32 = 65_536;

/// A device gateway or a master.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Which one it is in messages.
    pub peer: Peer,
    pub address: HostPort,
    /// The `ca.crt` of its private CA; for a master also the tenant's certificate with its key.
    pub files: TlsFiles,
    /// The name that the gateway's certificate must contain, if not the address's host.
    pub server_name: Option<String>,
    /// Entries of the gateway's queue for this subscription; it discards changes beyond them.
    pub queue_size: i32,
    pub timing: LinkTiming,
}

impl GatewayOptions {
    pub(crate) fn target(&self) -> DialTarget {
        DialTarget {
            peer: self.peer.clone(),
            address: self.address.clone(),
            tls: Some(Tls {
                files: self.files.clone(),
                server_name: self.server_name.clone(),
                alpn: vec!["h2".to_owned()],
            }),
            websocket_path: None,
            deadline: self.timing.dial,
        }
    }
}

/// The deadlines and intervals of a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkTiming {
    /// For DNS, TCP and TLS together.
    pub dial: Duration,
    /// How long a subscription may stay without a response before it is probed. Go and Python
    /// servers respond to a subscription only with its first message.
    pub subscribe_grace: Duration,
    /// The connection is probed when nothing was received for this long.
    pub keep_alive_interval: Duration,
    /// The link is lost when a probe is not answered for this long.
    pub keep_alive_timeout: Duration,
    /// The delays between attempts.
    pub retry: BackoffPolicy,
}

impl Default for LinkTiming {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            subscribe_grace: Duration::from_millis(300),
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(5),
            retry: BackoffPolicy::default(),
        }
    }
}
