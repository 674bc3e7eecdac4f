//! The log on stderr: text for people, JSON for machines; RUST_LOG filters it. An entry is one
//! line, which in systemd's journal begins with its syslog priority.

use std::backtrace::Backtrace;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::escape::{escaped, escaped_in_json};
use super::stderr::StderrWriter;

/// The filter unless RUST_LOG is set. The MQTT library logs each refusal of each message; the
/// bridge reports them once by itself.
pub(crate) const DEFAULT: &str = "info,rumqttc=error";
/// The filter of commands that print their own messages.
pub(crate) const QUIET: &str = "error";

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line of text for each entry
    #[default]
    Text,
    /// One JSON object for each entry
    Json,
}

/// The log. Dropping it waits until pending lines are written.
#[derive(Debug)]
pub(crate) struct ProcessLog(Entries);

impl ProcessLog {
    /// Writes these lines as errors, independent of RUST_LOG.
    pub(crate) fn say(&self, text: &str) {
        for line in text.lines() {
            self.0.write(Level::ERROR, &escaped(line));
        }
    }
}

impl Drop for ProcessLog {
    fn drop(&mut self) {
        self.0.stderr.finish();
    }
}

/// Starts the log, of panics too.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn start(format: LogFormat, default: &str) -> io::Result<ProcessLog> {
    let stderr = StderrWriter::start(io::stderr())?;
    let entries = Entries { stderr, format, is_journal: is_journal() };
    let panic_log = ProcessLog(entries.clone());
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        panic_log.say(&format!("thread '{name}' {panic}\n{}", Backtrace::capture()));
    }));
    let (filter, invalid) = filter(std::env::var("RUST_LOG").unwrap_or_default(), default);
    // The filter is a layer above; alone, the builder would omit what is below `info`.
    let builder = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE);
    let builder = builder.with_writer(entries.clone());
    // Internal errors would be printed to the same stderr, and panic. The entries escape all text.
    let builder = builder.log_internal_errors(false).with_ansi_sanitization(false).with_ansi(false);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).finish().with(filter).init(),
        // The journal adds the time.
        LogFormat::Text if entries.is_journal => {
            builder.with_target(false).without_time().finish().with(filter).init();
        }
        LogFormat::Text => builder.with_target(false).finish().with(filter).init(),
    }
    if let Some(value) = invalid {
        tracing::warn!(value, default, "RUST_LOG is no filter; the default applies");
    }
    Ok(ProcessLog(entries))
}

/// The filter of this value of RUST_LOG, or the default and the value if it is no filter. An empty
/// value, as compose files pass it on, counts as not set.
fn filter(value: String, default: &str) -> (Targets, Option<String>) {
    match value.parse::<Targets>() {
        Ok(filter) if !value.is_empty() && is_meant(&filter, &value) => (filter, None),
        _ => {
            let default = default.parse().unwrap_or_else(|_| Targets::new());
            (default, (!value.is_empty()).then_some(value))
        }
    }
}

/// Whether a filter has no word that is neither a level nor a module of this program: it would be
/// taken for the name of a module, and everything else would be silent.
fn is_meant(filter: &Targets, value: &str) -> bool {
    filter.default_level().is_some()
        || filter.iter().any(|(module, _)| module.starts_with("gsdk2mqtt"))
        || value.split(',').all(|directive| directive.contains('='))
}

/// Whether stderr is the journal: `JOURNAL_STREAM` names its device and inode. Child processes
/// inherit the variable, so it has to be compared.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stderr.and_then(|file| file.metadata());
    metadata.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// Writes entries as lines.
#[derive(Clone, Debug)]
struct Entries {
    stderr: StderrWriter,
    format: LogFormat,
    is_journal: bool,
}

impl Entries {
    fn write(&self, level: Level, entry: &str) {
        let priority = match level {
            _ if !self.is_journal => "",
            Level::ERROR => "<3>",
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            Level::DEBUG | Level::TRACE => "<7>",
        };
        self.stderr.write(&format!("{priority}{entry}\n"));
    }
}

impl<'a> MakeWriter<'a> for Entries {
    type Writer = EntryWriter<'a>;

    fn make_writer(&'a self) -> EntryWriter<'a> {
        EntryWriter { entries: self, level: Level::ERROR }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> EntryWriter<'a> {
        EntryWriter { entries: self, level: *metadata.level() }
    }
}

/// Takes a formatted entry, in one call as the formatter writes it, with a new line at its end.
struct EntryWriter<'a> {
    entries: &'a Entries,
    level: Level,
}

impl Write for EntryWriter<'_> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(entry);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let escaped = match self.entries.format {
            LogFormat::Text => escaped(text),
            LogFormat::Json => escaped_in_json(text),
        };
        self.entries.write(self.level, &escaped);
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_no_filter() {
        let invalid = |value: &str| filter(value.to_owned(), DEFAULT).1;
        let shown = |value: &str| filter(value.to_owned(), DEFAULT).0;
        for value in ["", "debgu"] {
            assert!(shown(value).would_enable("gsdk2mqtt::bridge", &Level::INFO), "{value:?}");
        }
        for value in ["", "debug", "OFF", "0", "gsdk2mqtt::mqtt", "warn,h2=debug", "h2=trace"] {
            assert_eq!(invalid(value), None, "{value}");
        }
        for value in ["debgu", "verbose", "!!", "a=b=c", "debgu,h2=debug"] {
            assert_eq!(invalid(value).as_deref(), Some(value));
        }
    }
}
