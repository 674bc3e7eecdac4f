//! What a gateway's task must be told: where the gateway is, whom to trust, how long to wait.
//!
//! May not read the configuration file: `config/` fills these in.

use std::path::PathBuf;
use std::time::Duration;

use crate::ids::{GatewayName, HostPort};
use crate::net::{BackoffPolicy, GATEWAY_PORT, Peer, Target, Tls, TlsFiles};

/// The port of a device gateway's gRPC service, where an address names none.
pub const PORT_DEFAULT: u16 = GATEWAY_PORT;

/// The entries asked for in the gateway's queue of status changes, where nothing is configured.
pub const QUEUE_SIZE_DEFAULT: i32 = 65_536;

/// Everything a gateway's task needs to know of its gateway.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Its name in topics, metrics and messages.
    pub name: GatewayName,
    /// Where it listens.
    pub address: HostPort,
    /// The certificate of the private CA that signed its certificate (PEM), its `ca.crt`.
    pub ca_file: PathBuf,
    /// The name its certificate must hold, where that is not the address's host.
    pub server_name: Option<String>,
    /// Entries of the queue the gateway keeps for this subscription; it discards beyond them.
    pub queue_size: i32,
    /// How long to wait for what.
    pub timing: Timing,
}

impl GatewayOptions {
    /// What to dial. Device gateways ask for no client certificate.
    pub(super) fn target(&self) -> Target {
        let files = TlsFiles { ca_file: Some(self.ca_file.clone()), ..TlsFiles::default() };
        Target {
            peer: Peer::Gateway(self.name.clone()),
            address: self.address.clone(),
            tls: Some(Tls { files, server_name: self.server_name.clone(), alpn: &["h2"] }),
            deadline: self.timing.dial,
        }
    }
}

/// How long a gateway's task waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For the name server, TCP and TLS together.
    pub dial: Duration,
    /// How long a subscription may stay unanswered before it is looked at more closely. Go and
    /// Python servers answer a subscription only with its first message, so silence says nothing.
    pub subscribe_grace: Duration,
    /// Nothing received for this long: ask for a sign of life.
    pub keep_alive_interval: Duration,
    /// Asked, and nothing received for this long: the link is lost.
    pub keep_alive_timeout: Duration,
    /// The waits between attempts.
    pub retry: BackoffPolicy,
}

impl Default for Timing {
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
