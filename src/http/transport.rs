//! The transport of a listener: plain HTTP, or TLS if a certificate is configured.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::socket::{Truncated, WriteTimeout};
use crate::net::Stream;

/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// The transport of one listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transport(Option<watch::Receiver<Option<Arc<ServerConfig>>>>);

impl Transport {
    /// TLS with the newest of these settings; without a receiver there is none.
    pub(crate) const fn new(tls: Option<watch::Receiver<Option<Arc<ServerConfig>>>>) -> Self {
        Self(tls)
    }

    /// Opens the transport on an accepted connection.
    ///
    /// # Errors
    /// The handshake failed, or there is no certificate yet.
    pub(crate) async fn open(
        &self,
        socket: TcpStream,
        truncated: Truncated,
    ) -> io::Result<Box<dyn Stream>> {
        let socket = WriteTimeout::new(socket, truncated);
        let Some(tls) = &self.0 else { return Ok(Box::new(socket)) };
        let config = tls.borrow().clone();
        let config = config.ok_or_else(|| io::Error::other("there is no certificate yet"))?;
        let handshake = TlsAcceptor::from(config).accept(socket);
        Ok(Box::new(timeout(HANDSHAKE_DEADLINE, handshake).await??))
    }
}
