//! The signals that would end the program. SIGHUP ends it when it comes from a terminal; a service
//! manager sends it to request a reload, which the bridge does not support.

use std::io::{self, IsTerminal};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGHUP in the mask of ignored signals.
const HANGUP_BIT: u64 = 1;
/// SIGXFSZ, on Linux and macOS.
const FILE_SIZE_EXCEEDED: i32 = 25;

/// Makes a write beyond a limit on file sizes (`ulimit -f`, `LimitFSIZE=`) fail, as on a full disk:
/// unhandled, this signal ends the program.
pub(crate) fn handle_file_size_limit() {
    // Its handler stays.
    drop(handled(SignalKind::from_raw(FILE_SIZE_EXCEEDED)));
}

/// Completes at the first signal that requests a stop. Signals are handled from this call on.
pub(crate) fn stop_signal() -> impl Future<Output = ()> + Send {
    let ignored = hangup_is_ignored();
    let managed = has_service_manager();
    let mut interrupt = handled(SignalKind::interrupt());
    let mut terminate = handled(SignalKind::terminate());
    let mut hangup = if ignored { None } else { handled(SignalKind::hangup()) };
    async move {
        loop {
            tokio::select! {
                () = received(&mut interrupt) => return,
                () = received(&mut terminate) => return,
                () = received(&mut hangup) => {
                    if !managed {
                        return;
                    }
                    tracing::warn!(
                        "SIGHUP ignored: the configuration is read at start only; restart the \
                         service"
                    );
                }
            }
        }
    }
}

fn handled(kind: SignalKind) -> Option<Signal> {
    let signal: io::Result<Signal> = signal(kind);
    signal.inspect_err(|error| tracing::warn!(%error, "cannot handle a signal")).ok()
}

async fn received(signal: &mut Option<Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending().await
    }
}

/// Whether a service manager runs this process. `INVOCATION_ID` alone does not say so at a
/// terminal: desktops run terminals as services, and their shells inherit it.
fn has_service_manager() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("NOTIFY_SOCKET") || is_set("INVOCATION_ID") && !io::stdin().is_terminal()
}

/// Whether SIGHUP was ignored when the program started, as under nohup (Linux only).
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_signals(&status).is_some_and(|ignored| ignored & HANGUP_BIT != 0)
}

fn ignored_signals(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored_signals(status), Some(0x1001));
        assert_eq!(ignored_signals("Name:\tx\n"), None);
    }
}
