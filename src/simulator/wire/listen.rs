//! The listener: TLS 1.2 on a port that can go away and come back.
//!
//! May not know any service. A gateway speaks TLS 1.2 and nothing else, with ALPN `h2`; there is
//! no plaintext port (wire, section 1).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::valve::{Valves, Wire};
use crate::net::{self, TcpListener, TcpStream};
use crate::simulator::certs::Identity;

/// Connections that may be in their TLS handshake at once; more wait in the kernel.
const HANDSHAKES_MAX: usize = 1_024;
/// Connections ready for the server that it has not taken yet; more wait in their handshake.
const READY_MAX: usize = 128;
/// A client that does not finish its handshake is dropped after this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a port is tried that cannot be had.
const REBIND_INTERVAL: Duration = Duration::from_millis(100);

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key is not PEM.
    #[error("cannot read a certificate or key")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// Certificate and key do not fit, or cannot be used.
    #[error("cannot use a certificate")]
    Use(#[from] rustls::Error),
    /// The root of the clients' certificates cannot be used.
    #[error("cannot check clients' certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// TLS as a gateway speaks it; with `client_root_pem` a client has to show a certificate.
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

/// A connection ready for the server.
pub(crate) struct Connection(TlsStream<Wire>);

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The client's certificate in DER, where the listener asks for one.
    pub(crate) certificate: Option<Arc<[u8]>>,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let certificates = self.0.get_ref().1.peer_certificates();
        let first = certificates.and_then(<[_]>::first);
        Peer { certificate: first.map(|certificate| Arc::from(certificate.as_ref())) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A port that is listened on while `up` says so, handing connections to `ready`.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) tls: TlsAcceptor,
    pub(crate) valves: Arc<Valves>,
    pub(crate) up: watch::Receiver<bool>,
    /// Tells whether the port is listened on just now.
    listening: watch::Sender<bool>,
    pub(crate) ready: mpsc::Sender<io::Result<Connection>>,
    handshakes: Arc<Semaphore>,
}

/// What a listener yields.
pub(crate) struct Connections {
    pub(crate) connections: mpsc::Receiver<io::Result<Connection>>,
    pub(crate) is_listening: watch::Receiver<bool>,
}

impl Listener {
    /// A listener on `address` with the stream of its connections.
    pub(crate) fn new(
        address: SocketAddr,
        tls: TlsAcceptor,
        valves: Arc<Valves>,
        up: watch::Receiver<bool>,
    ) -> (Self, Connections) {
        let (ready, connections) = mpsc::channel(READY_MAX);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let (listening, is_listening) = watch::channel(true);
        let listener = Self { address, tls, valves, up, listening, ready, handshakes };
        (listener, Connections { connections, is_listening })
    }

    /// Accepts from `socket`, and after each time down from a new one on the same port, until
    /// nobody wants connections any more.
    pub(crate) async fn run(self, socket: TcpListener) {
        let mut up = self.up.clone();
        let mut socket = Some(socket);
        loop {
            if !*up.borrow_and_update() {
                socket = None;
                self.listening.send_replace(false);
                if up.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let Some(listening) = &socket else {
                match net::listen(self.address) {
                    Ok(bound) => {
                        socket = Some(bound);
                        self.listening.send_replace(true);
                    }
                    Err(error) => {
                        tracing::warn!(address = %self.address, %error, "port cannot be had yet");
                        tokio::time::sleep(REBIND_INTERVAL).await;
                    }
                }
                continue;
            };
            tokio::select! {
                accepted = self.accept(listening) => match accepted {
                    Some((stream, permit)) => self.shake_hands(stream, permit),
                    None => return,
                },
                changed = up.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn accept(
        &self,
        socket: &TcpListener,
    ) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        loop {
            let permit = self.handshakes.clone().acquire_owned().await.ok()?;
            match socket.accept().await {
                Ok((stream, _)) => return Some((stream, permit)),
                // Out of file descriptors, or a client gone at once: wait and go on.
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(REBIND_INTERVAL).await;
                }
            }
        }
    }

    fn shake_hands(&self, stream: TcpStream, permit: tokio::sync::OwnedSemaphorePermit) {
        // Without this, small status messages would wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        let shaking = self.tls.accept(self.valves.fit(stream));
        let ready = self.ready.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking).await {
                Ok(Ok(stream)) => {
                    // A server that has ended wants no more.
                    let _ = ready.send(Ok(Connection(stream))).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake not finished in time"),
            }
            drop(permit);
        });
    }
}
