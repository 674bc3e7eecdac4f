//! A line on stderr with the elapsed time of a command, on terminals only. It is erased before the
//! answer is printed.

use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use crate::commands::Command;

/// How often the line is updated.
const INTERVAL: Duration = Duration::from_secs(1);

/// Awaits `work` and shows its progress.
pub(crate) async fn show<T>(command: &Command, work: impl Future<Output = T>) -> T {
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
