//! The log: to stderr, as text for people or as JSON for machines.
//!
//! May not decide what is logged: RUST_LOG does, and without it what is worth knowing.

use std::io::IsTerminal;

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

/// Logs from now on; call [`Writer::finish`] on what this gives before the program ends.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(format: Format, default: &str) -> std::io::Result<Writer> {
    let stderr = Writer::start(std::io::stderr())?;
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
    Ok(stderr)
}
