//! `gsdk2mqtt run`: the service.

use std::sync::Arc;

use anyhow::Context;

use super::notify::Systemd;
use crate::bridge;
use crate::config;
use crate::http;

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    config: config::Args,
}

pub(crate) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let loaded = config::load(&args.config, std::env::vars_os())?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let config = loaded.config;
    let listen = config.http.listen;
    let web = http::start_runtime().context("the system gives no thread for the web server")?;
    let listener = {
        let _runtime = web.enter();
        http::listen(listen).with_context(|| {
            format!("cannot listen on {listen}; free the address or set another in http.listen")
        })?
    };
    let address = listener.local_addr()?;
    let bridge = bridge::start(&config, listener, &web)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        gateways = config.gateways.len(),
        broker = %config.mqtt.broker,
        http = %address,
        "started"
    );
    let (stop, heartbeat) = (super::stop_signal(), bridge.heartbeat());
    let systemd = Arc::new(Systemd::from_environment());
    systemd.notify("READY=1");
    let watchdog = Arc::clone(&systemd);
    // Not on the event loop's runtime, so that an event loop that hangs is logged.
    web.spawn(async move { watchdog.watchdog(&heartbeat).await });
    let shutdown = async move {
        stop.await;
        systemd.notify("STOPPING=1");
    };
    // On a worker, like the tasks that wake it: waking the main thread costs a switch each time.
    let event_loop = tokio::spawn(bridge.run(shutdown));
    event_loop.await.context("internal error: the event loop panicked; please report this")
}
