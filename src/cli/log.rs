//! The log: to stderr, as text for people or as JSON for machines.
//!
//! May not decide what is logged: RUST_LOG does, and without it what is worth knowing.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Format {
    /// A line an entry
    #[default]
    Text,
    /// A JSON object an entry
    Json,
}

pub(super) fn start(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => {
            builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
        }
        Format::Json => builder.json().flatten_event(true).init(),
    }
}
