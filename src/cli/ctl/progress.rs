//! Waits for a command, until Ctrl-C. On terminals a line on stderr shows the elapsed time; it is
//! erased before the answer is printed.

use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Code;

use crate::cli::stop_signal;
use crate::commands::{Command, Failure, Outcome, Progress};

/// How often the line is updated.
const INTERVAL: Duration = Duration::from_secs(1);

/// Awaits `work`, which reports its steps.
pub(crate) async fn until_interrupted<F: Future<Output = Outcome>>(
    command: &Command,
    work: impl FnOnce(watch::Sender<Progress>) -> F,
) -> Outcome {
    let (report, progress) = watch::channel(Progress::default());
    tokio::select! {
        outcome = show(command, work(report)) => outcome,
        () = stop_signal() => interrupted(command, &progress.borrow()),
    }
}

/// After Ctrl-C the gateway may still complete the call.
fn interrupted(command: &Command, progress: &Progress) -> Outcome {
    let see = match command {
        command if !command.name().changes() => {
            return Outcome::failed(Failure::new(Code::Cancelled, "interrupted"));
        }
        Command::Set { .. } => "`devices` and `accept-filter get`",
        Command::FilterSet(_)
        | Command::FilterAdd(_)
        | Command::FilterRemove(_)
        | Command::FilterAllowAll(_) => "`accept-filter get`",
        Command::SlavesSet(_) => "`slaves get`",
        _ => "`devices`",
    };
    let message =
        format!("interrupted while the gateway was at it; what was done is not known: see {see}");
    let failure = Failure::new(Code::Cancelled, message);
    let data = json!({ "device_ids": [], "steps": progress.steps });
    Outcome { error: Some(failure), ..Outcome::done(data) }
}

/// Awaits `work` and shows its progress.
async fn show<T>(command: &Command, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let (mut work, mut line, mut passed_s) = (pin!(work), ProgressLine(0), 0);
    loop {
        match command {
            Command::Search { wait } => {
                let wait_s = wait.as_secs_f32();
                line.show(&format!("searching the subnet: {passed_s} of {wait_s} s"));
            }
            _ if passed_s == 0 => {}
            _ => line.show(&format!("waiting for the gateway: {passed_s} s")),
        }
        match timeout(INTERVAL, &mut work).await {
            Ok(done) => return done,
            Err(_) => passed_s += INTERVAL.as_secs(),
        }
    }
}

/// The line, with its length on the screen; erased on drop.
struct ProgressLine(usize);

impl ProgressLine {
    fn show(&mut self, text: &str) {
        self.0 = text.len();
        let mut err = std::io::stderr();
        // Fails where the terminal is gone.
        _ = write!(err, "\r{text}").and_then(|()| err.flush());
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.show(&format!("{:width$}\r", "", width = self.0));
    }
}
