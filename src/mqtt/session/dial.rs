//! What the broker's session dials, and the password it gives: read at each connection.

use std::path::PathBuf;

use secrecy::SecretString;

use super::Settings;
use super::fault::Fault;
use crate::certificate::Certificate;
use crate::ids::HostPort;
use crate::net::{self, DialError, DialTarget, Dialed, Peer, Stream, Tls};

/// Where the password comes from.
#[derive(Clone, Debug)]
pub enum Password {
    /// From the configuration itself.
    Value(SecretString),
    /// From this file, read at each connection.
    File(PathBuf),
}

/// What is known of an open connection, and the password for CONNECT.
pub(super) struct Opened {
    pub(super) target: DialTarget,
    pub(super) certificate: Option<Certificate>,
    /// Whether the broker asked for a client certificate.
    pub(super) certificate_requested: bool,
    pub(super) password: Option<SecretString>,
}

impl Settings {
    /// What to dial.
    fn target(&self) -> DialTarget {
        let tls = |files| Tls { files, server_name: None, alpn: &[] };
        DialTarget {
            peer: Peer::Broker { url: self.url() },
            address: HostPort { host: self.host.clone(), port: self.port },
            tls: self.tls.clone().map(tls),
            deadline: self.limits.connect_deadline,
        }
    }
}

/// Opens a connection to the broker. Without the password that is configured, none is opened.
pub(super) async fn dial(settings: &Settings) -> Result<(Box<dyn Stream>, Opened), Fault> {
    let target = settings.target();
    let password = match &settings.password {
        None => None,
        Some(Password::Value(password)) => Some(password.clone()),
        Some(Password::File(path)) => {
            let read = net::read_secret(path).await;
            Some(read.map_err(|error| DialError::password(&target, path, error))?)
        }
    };
    let Dialed { stream, certificate, certificate_requested, .. } = net::dial(&target).await?;
    Ok((stream, Opened { target, certificate, certificate_requested, password }))
}
