//! The log: to stderr, as text for people or as JSON for machines; RUST_LOG chooses what is in it.

use std::backtrace::Backtrace;
use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::escape::{EscapedFields, EscapedJson, escaped};
use super::journal::{self, WithPriority};
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
pub(super) struct Log {
    writer: Writer,
    /// What comes before each line that no level was given.
    prefix: &'static str,
}

impl Log {
    /// Writes these lines whatever RUST_LOG says, as errors where the journal wants a priority.
    pub(super) fn say(&self, text: &str) {
        let lines = text.lines().map(|line| format!("{}{}\n", self.prefix, escaped(line)));
        // It takes everything, or counts it.
        _ = (&self.writer).write_all(lines.collect::<String>().as_bytes());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.writer.finish();
    }
}

/// A message that may quote other programs, as one line.
pub(super) fn in_one_line(text: &str) -> String {
    escaped(text)
}

/// Logs from now on, panics too.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(format: Format, default: &str) -> std::io::Result<Log> {
    let writer = Writer::start(std::io::stderr())?;
    let to_journal = journal::is_stderr();
    let prefix = if to_journal { journal::ERROR } else { "" };
    let for_panics = Log { writer: writer.clone(), prefix };
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        for_panics.say(&format!("thread '{name}' {panic}\n{}", Backtrace::capture()));
    }));
    // An empty RUST_LOG, as compose files pass on, is none.
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|wanted| !wanted.is_empty());
    let filter = EnvFilter::new(wanted.as_deref().unwrap_or(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer.clone());
    // What cannot be written would be told on the same stderr, and die of it.
    let builder = builder.log_internal_errors(false).with_ansi(std::io::stderr().is_terminal());
    match (format, to_journal) {
        (Format::Text, false) => builder.fmt_fields(EscapedFields).with_target(false).init(),
        // The journal has a time of its own.
        (Format::Text, true) => {
            let builder = builder.fmt_fields(EscapedFields).with_target(false).without_time();
            builder.map_event_format(WithPriority).init();
        }
        (Format::Json, false) => {
            builder.json().flatten_event(true).map_event_format(EscapedJson).init();
        }
        (Format::Json, true) => {
            let builder = builder.json().flatten_event(true);
            builder.map_event_format(|json| WithPriority(EscapedJson(json))).init();
        }
    }
    Ok(Log { writer, prefix })
}
