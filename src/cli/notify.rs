//! What systemd is told: that the bridge is ready, alive, and stopping.
//!
//! May not judge by itself: it asks `/healthz` as anyone would, so that a loop that hangs gets no
//! sign of life sent and the process is started again. Does nothing where systemd did not ask.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::health;

/// The service manager's socket, if there is one.
#[derive(Debug)]
pub(super) struct Systemd {
    socket: Option<UnixDatagram>,
    /// A third of the time after which systemd loses patience: one answer may come late.
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
            connected.inspect_err(|error| tracing::warn!(%error, "systemd cannot be told")).ok()
        });
        Self { socket, every: every(std::env::var("WATCHDOG_USEC").ok().as_deref()) }
    }

    pub(super) fn tell(&self, state: &str) {
        // A full or vanished socket is systemd's to notice: its patience runs out.
        _ = self.socket.as_ref().map(|socket| socket.send(state.as_bytes()));
    }

    /// Never ends: a sign of life for each answer of `/healthz`.
    pub(super) async fn keep_alive(&self, http: SocketAddr) {
        let Some(every) = self.every else { return std::future::pending().await };
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match health::well(http).await {
                Ok(()) => self.tell("WATCHDOG=1"),
                Err(error) => tracing::error!("{error:#}"),
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
    fn without_a_watchdog_no_sign_of_life_is_due() {
        assert_eq!(every(None), None);
        assert_eq!(every(Some("0")), None);
        assert_eq!(every(Some("60000000")), Some(Duration::from_secs(20)));
    }
}
