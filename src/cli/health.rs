//! `gsdk2mqtt health`: reads `/healthz` of a running bridge, for images without curl.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::config;

const DEADLINE: Duration = Duration::from_secs(12);

#[derive(Debug, clap::Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    config: config::ConfigArgs,
}

pub(crate) async fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let http = config::load(&args.config, std::env::vars_os())?.config.http;
    // The second listener has no TLS.
    let has_tls = http.metrics_listen.is_none() && http.cert_file.is_some();
    let address = reachable(http.metrics_listen.unwrap_or(http.listen));
    let answer = timeout(DEADLINE, ask(address, has_tls))
        .await
        .with_context(|| format!("no answer from {address} within {} s", DEADLINE.as_secs()))?
        .with_context(|| format!("cannot connect to {address}; is the bridge running?"))?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => bail!("the bridge at {address} is not healthy: {}", answer.trim()),
    }
}

/// For a listener on all addresses, loopback is used.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        other => other,
    }
}

async fn ask(address: SocketAddr, has_tls: bool) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await?;
    if !has_tls {
        return status_line(stream, address).await;
    }
    let connector = TlsConnector::from(Arc::new(any_certificate()?));
    status_line(connector.connect(address.ip().into(), stream).await?, address).await
}

async fn status_line(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
) -> anyhow::Result<String> {
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    Ok(line)
}

/// The certificate is made for the name that people use, not for this address, and the answer is
/// no secret.
fn any_certificate() -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = AnyCertificate(provider.signature_verification_algorithms);
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Accepts every certificate.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
