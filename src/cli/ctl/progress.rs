//! A line on stderr that shows how long a command has taken, where stderr is a terminal. It is
//! erased before the answer is printed.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::commands::Command;

/// How long a command may take before the line is shown, and how often the line is updated.
const INTERVAL: Duration = Duration::from_secs(1);

/// Awaits `work` and shows its progress.
pub(crate) async fn show<T>(command: &Command, work: impl Future<Output = T>) -> T {
    let searching = match command {
        Command::Search { wait } => Some(*wait),
        _ => None,
    };
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let started = Instant::now();
    let first = if searching.is_some() { started } else { started + INTERVAL };
    let mut ticks = interval_at(first, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut work = std::pin::pin!(work);
    let mut shown = Shown(0);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {
                let line = line(searching, started.elapsed());
                write_stderr(&format!("\r{line}"));
                shown.0 = line.len();
            }
        }
    }
}

/// The length of the line on the screen, which is erased on drop.
struct Shown(usize);

impl Drop for Shown {
    fn drop(&mut self) {
        write_stderr(&format!("\r{:width$}\r", "", width = self.0));
    }
}

fn line(searching: Option<Duration>, passed: Duration) -> String {
    let passed_s = passed.as_secs();
    match searching {
        Some(wait) => format!("searching the subnet: {passed_s} of {} s", wait.as_secs_f32()),
        None => format!("waiting for the gateway: {passed_s} s"),
    }
}

fn write_stderr(text: &str) {
    let mut err = std::io::stderr();
    // Fails where the terminal is gone.
    _ = write!(err, "{text}").and_then(|()| err.flush());
}
