//! `gsdk2mqtt health`: reads `/healthz` of a running bridge, for images without curl.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio_rustls::rustls::crypto::ring;
use ureq::http::StatusCode;
use ureq::tls::TlsConfig;
use ureq::{Agent, Proxy};

use crate::config;

const DEADLINE: Duration = Duration::from_secs(12);

#[derive(Debug, clap::Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    config: config::ConfigArgs,
}

pub(crate) async fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let http = config::load_local(&args.config, std::env::vars_os())?.http;
    // The second listener has no TLS.
    let has_tls = http.metrics_listen.is_none() && http.cert_file.is_some();
    let address = reachable(http.metrics_listen.unwrap_or(http.listen));
    let scheme = if has_tls { "https" } else { "http" };
    let url = format!("{scheme}://{address}/healthz");
    // The certificate is made for the name that people use, not for this address, and the answer
    // is no secret.
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .disable_verification(true)
        .build();
    let call = move || agent(tls, None, DEADLINE).get(&url).call();
    let call = tokio::task::spawn_blocking(call);
    match call.await.context("internal error")? {
        Ok(answer) if answer.status() == StatusCode::OK => Ok(()),
        Ok(answer) => bail!("the bridge at {address} is not healthy: {}", answer.status()),
        Err(ureq::Error::Timeout(_)) => {
            bail!("no answer from {address} within {} s", DEADLINE.as_secs())
        }
        Err(error) => Err(error)
            .with_context(|| format!("cannot connect to {address}; is the bridge running?")),
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

/// An HTTP client whose calls return every answer as it is.
pub(crate) fn agent(tls: TlsConfig, proxy: Option<Proxy>, deadline: Duration) -> Agent {
    let config = Agent::config_builder()
        .tls_config(tls)
        .proxy(proxy)
        .timeout_global(Some(deadline))
        .max_redirects(0)
        .http_status_as_error(false)
        .build();
    config.into()
}
