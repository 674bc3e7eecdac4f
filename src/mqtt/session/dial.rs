//! Opens the socket to the broker, and reads the password at each connection.

use secrecy::SecretString;

use super::fault::Fault;
use super::settings::{Password, Settings};
use crate::certificate::Certificate;
use crate::net::{self, DialError, DialTarget, Dialed, Peer, Stream, Tls};

/// An open socket, and the password for CONNECT.
pub(crate) struct Opened {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) target: DialTarget,
    /// The broker's, with TLS.
    pub(crate) certificate: Option<Certificate>,
    /// Whether the broker asked for a client certificate.
    pub(crate) certificate_requested: bool,
    pub(crate) password: Option<SecretString>,
}

/// Opens a connection to the broker, but not without the password that is configured.
pub(crate) async fn dial(settings: &Settings) -> Result<Opened, Fault> {
    let tls = |files| Tls { files, server_name: None, alpn: &[] };
    let target = DialTarget {
        peer: Peer::Broker { url: settings.url() },
        address: settings.address(),
        tls: settings.tls.clone().map(tls),
        deadline: settings.limits.connect_deadline,
    };
    let password = match &settings.password {
        None => None,
        Some(Password::Value(password)) => Some(password.clone()),
        Some(Password::File(path)) => {
            let read = net::read_secret(path).await;
            Some(read.map_err(|error| DialError::password(&target, path, error))?)
        }
    };
    let Dialed { stream, certificate, certificate_requested, .. } = net::dial(&target).await?;
    Ok(Opened { stream, target, certificate, certificate_requested, password })
}
