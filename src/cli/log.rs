//! The log: to stderr, as text for people or as JSON for machines.
//!
//! May not decide what is logged: RUST_LOG does, and without it what is worth knowing.

use std::backtrace::Backtrace;
use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::stderr::Writer;

/// What is logged unless RUST_LOG says otherwise. The MQTT library tells each refusal of each
/// message; we tell them ourselves, once.
pub(super) const DEFAULT: &str = "info,mqtt5=warn,rumqttc=error";
/// The same for a command that says by itself what happens.
pub(super) const QUIET: &str = "error";

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Format {
    /// A line an entry
    #[default]
    Text,
    /// A JSON object an entry
    Json,
}

/// The log while it is kept; when this is dropped, what waits to be written is waited for.
#[derive(Debug)]
pub(super) struct Log(Writer);

impl Log {
    /// Says this whatever RUST_LOG says.
    pub(super) fn say(&self, text: &str) {
        // It takes everything, or counts it.
        _ = (&self.0).write_all(format!("{text}\n").as_bytes());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Logs from now on, panics too.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(format: Format, default: &str) -> std::io::Result<Log> {
    let stderr = Writer::start(std::io::stderr())?;
    let to_tell = Log(stderr.clone());
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        to_tell.say(&format!("thread '{name}' {panic}\n{}", Backtrace::capture()));
    }));
    // An empty RUST_LOG, as compose files pass on, is none.
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|wanted| !wanted.is_empty());
    let filter = EnvFilter::new(wanted.as_deref().unwrap_or(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr.clone());
    // What cannot be written would be told on the same stderr, and die of it.
    let builder = builder.log_internal_errors(false);
    match format {
        Format::Text => {
            builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
        }
        Format::Json => builder.json().flatten_event(true).init(),
    }
    Ok(Log(stderr))
}
