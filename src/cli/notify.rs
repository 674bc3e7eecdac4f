//! Notifications to the service manager: ready, alive, stopping. Without one nothing is sent.
//!
//! The socket never waits, as those of the usual libraries do: a manager that reads nothing holds
//! up neither the loop nor the web server.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::task::Heartbeat;

/// The service manager's socket, if there is one.
#[derive(Debug)]
pub(super) struct Systemd {
    socket: Option<UnixDatagram>,
    /// A third of the watchdog's time: one ping may be late.
    every: Option<Duration>,
}

impl Systemd {
    pub(super) fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|path| {
            let connected = UnixDatagram::unbound().and_then(|socket| {
                socket.connect(&path)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            let warn = |error: &_| tracing::warn!(%error, "cannot notify the service manager");
            connected.inspect_err(warn).ok()
        });
        Self { socket, every: every(std::env::var("WATCHDOG_USEC").ok().as_deref()) }
    }

    pub(super) fn notify(&self, state: &str) {
        // A full or vanished socket is for the manager to notice: its watchdog runs out.
        _ = self.socket.as_ref().map(|socket| socket.send(state.as_bytes()));
    }

    /// Pings the watchdog, where there is one, for as long as the event loop runs.
    pub(super) async fn watchdog(&self, heartbeat: &Heartbeat) {
        let Some(every) = self.every else { return };
        let mut ticks = interval(every);
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

fn every(watchdog_usec: Option<&str>) -> Option<Duration> {
    let usec = watchdog_usec?.parse::<u64>().ok().filter(|&usec| usec > 0)?;
    Some(Duration::from_micros(usec) / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_watchdog_no_ping_is_due() {
        assert_eq!(every(None), None);
        assert_eq!(every(Some("0")), None);
        assert_eq!(every(Some("60000000")), Some(Duration::from_secs(20)));
    }
}
