//! A line on stderr while a command takes its time, for people: gone before the answer comes.
//!
//! May not show anything where stderr is no terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::commands::Command;

/// How long a command may take before anything is said of it, and how often it is said.
const EVERY: Duration = Duration::from_secs(1);

/// Awaits `work`, and tells meanwhile how long it has taken.
pub(super) async fn during<T>(command: &Command, work: impl Future<Output = T>) -> T {
    let searching = match command {
        Command::Search { wait } => Some(*wait),
        _ => None,
    };
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let begun = Instant::now();
    let first = if searching.is_some() { begun } else { begun + EVERY };
    let mut ticks = interval_at(first, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut work = std::pin::pin!(work);
    let mut shown = Shown(0);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {
                let line = line(searching, begun.elapsed());
                show(&format!("\r{line}"));
                shown.0 = line.len();
            }
        }
    }
}

/// The length of the line on the screen: wiped when the command is done, or given up.
struct Shown(usize);

impl Drop for Shown {
    fn drop(&mut self) {
        show(&format!("\r{:width$}\r", "", width = self.0));
    }
}

fn line(searching: Option<Duration>, passed: Duration) -> String {
    let passed_s = passed.as_secs();
    match searching {
        Some(wait) => format!("searching the subnet: {passed_s} of {} s", wait.as_secs_f32()),
        None => format!("waiting for the gateway: {passed_s} s"),
    }
}

fn show(text: &str) {
    let mut err = std::io::stderr();
    // A terminal that is gone needs no progress.
    _ = write!(err, "{text}").and_then(|()| err.flush());
}
