//! `gsdk2mqtt run`: the service.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;

use super::notify::Systemd;
use crate::bridge;
use crate::config;
use crate::http;

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    config: config::ConfigArgs,
}

pub(crate) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let loaded = config::load(&args.config, std::env::vars_os())?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let config = loaded.config;
    let web = http::start_runtime().context("the system gives no thread for the web server")?;
    let listeners = {
        let _runtime = web.enter();
        let metrics = config.http.metrics_listen;
        http::Listeners {
            main: listen(config.http.listen, "http.listen")?,
            metrics: metrics.map(|it| listen(it, "http.metrics_listen")).transpose()?,
        }
    };
    let address = listeners.main.local_addr()?;
    let bridge = bridge::start(&config, listeners, &web)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        gateways = config.gateways.len(),
        broker = %config.mqtt.broker,
        http = %address,
        "started"
    );
    // A task of its own, because the event loop polls it in each iteration.
    let stop = tokio::spawn(super::stop_signal());
    let (heartbeat, event_loop) = (bridge.heartbeat(), bridge.client());
    let systemd = Arc::new(Systemd::from_environment());
    systemd.notify("READY=1");
    let watcher = Arc::clone(&systemd);
    // Not on the event loop's runtime, so that an event loop that hangs is logged.
    web.spawn(async move { watcher.watch(&heartbeat, &event_loop).await });
    let shutdown = async move {
        _ = stop.await;
        systemd.notify("STOPPING=1");
    };
    // On a worker, like the tasks that wake it: waking the main thread costs a switch each time.
    let event_loop = tokio::spawn(bridge.run(shutdown));
    event_loop.await.context("internal error: the event loop panicked; please report this")
}

fn listen(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    http::listen(address).map_err(|error| {
        let remedy = http::listen_remedy(&error, address, key);
        anyhow::anyhow!("cannot listen on {address} ({error}); {remedy}")
    })
}
