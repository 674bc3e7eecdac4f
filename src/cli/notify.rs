//! Notifications to systemd: ready, alive, stopping. The socket is non-blocking: a service manager
//! that reads nothing delays neither the watchdog's thread nor a stop.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::task::Heartbeat;

/// The service manager's socket, if there is one.
#[derive(Debug)]
pub(crate) struct Systemd {
    socket: Option<UnixDatagram>,
    /// A third of the watchdog's deadline, so that one ping may be late.
    ping_interval: Option<Duration>,
}

impl Systemd {
    pub(crate) fn from_environment() -> Self {
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

    pub(crate) fn notify(&self, state: &str) {
        // The manager notices a lost ping: its watchdog expires.
        _ = self.socket.as_ref().map(|socket| socket.send(state.as_bytes()));
    }

    /// Pings the watchdog, if there is one, while the event loop runs.
    pub(crate) async fn watchdog(&self, heartbeat: &Heartbeat) {
        let Some(ping_interval) = self.ping_interval else { return };
        let mut ticks = interval(ping_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if heartbeat.is_alive() {
                self.notify("WATCHDOG=1");
            } else {
                let age_s = heartbeat.age().as_secs();
                tracing::error!(age_s, "event loop hangs; the watchdog gets no ping");
            }
        }
    }
}

fn ping_interval(watchdog_usec: Option<&str>) -> Option<Duration> {
    let usec = watchdog_usec?.parse::<u64>().ok().filter(|&usec| usec > 0)?;
    Some(Duration::from_micros(usec) / 3)
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
