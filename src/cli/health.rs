//! `gsdk2mqtt health`: asks `/healthz` of a running bridge, for images without curl.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config;

const DEADLINE: Duration = Duration::from_secs(12);

#[derive(Debug, clap::Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    config: config::Args,
}

pub(crate) async fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let config = config::load(&args.config, std::env::vars_os())?.config;
    let address = reachable(config.http.listen);
    let answer = timeout(DEADLINE, ask(address))
        .await
        .with_context(|| format!("no answer from {address} within {} s", DEADLINE.as_secs()))?
        .with_context(|| format!("cannot ask {address}; is the bridge running?"))?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => bail!("the bridge at {address} is not healthy: {}", answer.trim()),
    }
}

/// A listener on all addresses is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        other => other,
    }
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
