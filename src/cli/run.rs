//! `gsdk2mqtt run`: the service, with its notifications to systemd: ready, alive, status, stopping.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::bridge;
use crate::config;
use crate::http::{self, LoopClient};
use crate::metrics::GatewayMeasures;
use crate::task::Heartbeat;

/// How often the status is sent if no watchdog requires pings.
const STATUS_INTERVAL: Duration = Duration::from_secs(20);

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

/// The service manager's socket, if there is one. It is non-blocking: a service manager that reads
/// nothing delays neither the watchdog's thread nor a stop.
#[derive(Debug)]
struct Systemd {
    socket: Option<UnixDatagram>,
    /// A third of the watchdog's deadline, so that one ping may be late.
    ping_interval: Option<Duration>,
}

impl Systemd {
    fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|path| {
            let connected = UnixDatagram::unbound().and_then(|socket| {
                socket.connect(&path)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            let warn = |error: &_| tracing::warn!(%error, "cannot notify the service manager");
            connected.inspect_err(warn).ok()
        });
        Self {
            socket,
            ping_interval: ping_interval(std::env::var("WATCHDOG_USEC").ok().as_deref()),
        }
    }

    fn notify(&self, state: &str) {
        // The manager notices a lost ping: its watchdog expires.
        _ = self.socket.as_ref().map(|socket| socket.send(state.as_bytes()));
    }

    /// Pings the watchdog, if there is one, while the event loop runs, and sends the status when it
    /// has changed.
    async fn watch(&self, heartbeat: &Heartbeat, event_loop: &LoopClient) {
        if self.socket.is_none() {
            return;
        }
        let period = self.ping_interval.unwrap_or(STATUS_INTERVAL);
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sent = String::new();
        loop {
            ticks.tick().await;
            if !heartbeat.is_alive() {
                let age_s = heartbeat.age().as_secs();
                tracing::error!(age_s, "event loop hangs; the watchdog gets no ping");
                continue;
            }
            if self.ping_interval.is_some() {
                self.notify("WATCHDOG=1");
            }
            // A slow loop must not delay the next ping.
            let Ok(Ok(gateways)) = timeout(period, event_loop.gateways()).await else {
                continue;
            };
            let status = status(&gateways);
            if status != sent {
                self.notify(&status);
                sent = status;
            }
        }
    }
}

fn ping_interval(watchdog_usec: Option<&str>) -> Option<Duration> {
    let usec = watchdog_usec?.parse::<u64>().ok().filter(|&usec| usec > 0)?;
    Some(Duration::from_micros(usec) / 3)
}

/// The line that `systemctl status` shows.
fn status(gateways: &[GatewayMeasures]) -> String {
    let connected: usize = gateways.iter().map(|gateway| gateway.state.connected).sum();
    let devices: usize = gateways.iter().map(|gateway| gateway.state.devices()).sum();
    let plural = if gateways.len() == 1 { "" } else { "s" };
    format!("STATUS={} gateway{plural}, {connected} of {devices} connected", gateways.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_watchdog_no_ping_is_due() {
        assert_eq!(ping_interval(None), None);
        assert_eq!(ping_interval(Some("0")), None);
        assert_eq!(ping_interval(Some("60000000")), Some(Duration::from_secs(20)));
    }
}
