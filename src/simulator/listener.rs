//! The listener: a port that can be closed and opened again. A gateway uses TLS 1.2 and nothing
//! else, with ALPN `h2`; there is no plaintext port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::certs::Identity;
use super::gate::{ConnectionGates, GatedStream};
use super::ping_guard::PingGuard;
use crate::net::{self, TcpListener, TcpStream};

/// Connections that may be in their TLS handshake at once; more wait in the kernel.
const HANDSHAKES_MAX: usize = 1_024;
/// Connections ready for the server that it has not taken yet; more wait in their handshake.
pub(crate) const READY_MAX: usize = 128;
/// A client that does not finish its handshake is dropped after this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(120);
/// The pause after a failed bind or accept.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read a certificate or key")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("cannot use a certificate")]
    Use(#[from] rustls::Error),
    #[error("cannot check clients' certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// TLS as of a gateway; with `client_root_pem` a client certificate is required.
pub(crate) fn tls(
    identity: &Identity,
    client_root_pem: Option<&str>,
) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS12])?;
    let builder = match client_root_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
    let mut config = builder.with_single_cert(certificates?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A connection that is ready for the server.
pub(crate) type ReadyConnection = io::Result<PingGuard<TlsStream<GatedStream>>>;

/// Accepts connections on one port while it is to be open.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) tls: TlsAcceptor,
    pub(crate) gates: Arc<ConnectionGates>,
    /// Whether the port is to be open.
    pub(crate) port_wanted: watch::Receiver<bool>,
    /// Whether the port is open.
    pub(crate) port_is_open: watch::Sender<bool>,
    pub(crate) enforces_pings: bool,
    pub(crate) ready: mpsc::Sender<ReadyConnection>,
}

impl Listener {
    /// Accepts from `socket`, and each time the port is opened again from a new one. Returns when
    /// the simulation has ended.
    pub(crate) async fn run(self, socket: TcpListener) {
        let mut wanted = self.port_wanted.clone();
        let mut socket = Some(socket);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            if !*wanted.borrow_and_update() {
                socket = None;
                self.port_is_open.send_replace(false);
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let Some(listening) = &socket else {
                match net::listen(self.address) {
                    Ok(bound) => {
                        socket = Some(bound);
                        self.port_is_open.send_replace(true);
                    }
                    Err(error) => {
                        tracing::warn!(address = %self.address, %error, "cannot listen; retrying");
                        tokio::time::sleep(RETRY_INTERVAL).await;
                    }
                }
                continue;
            };
            tokio::select! {
                accepted = accept(listening, &handshakes) => match accepted {
                    Some((stream, permit)) => self.start_handshake(stream, permit),
                    None => return,
                },
                changed = wanted.changed() => if changed.is_err() { return },
            }
        }
    }

    fn start_handshake(&self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        // Without this, small status messages would wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        let handshake = self.tls.accept(self.gates.guard(stream));
        let (ready, enforces_pings) = (self.ready.clone(), self.enforces_pings);
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => {
                    // Fails when the server has ended.
                    let _ = ready.send(Ok(PingGuard::new(stream, enforces_pings))).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake timed out"),
            }
            drop(permit);
        });
    }
}

async fn accept(
    socket: &TcpListener,
    handshakes: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    loop {
        let permit = handshakes.clone().acquire_owned().await.ok()?;
        match socket.accept().await {
            Ok((stream, _)) => return Some((stream, permit)),
            // Out of file descriptors, or a client that is gone already.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; retrying");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
}
