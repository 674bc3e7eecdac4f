//! The log on stderr: text for people, JSON for machines, and for systemd's journal a syslog
//! priority before each line. RUST_LOG filters it.

use std::backtrace::Backtrace;
use std::fmt;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use clap::ValueEnum;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::escape::{EscapedFields, EscapedJson, escaped};
use super::stderr::StderrWriter;

/// The filter unless RUST_LOG is set. The MQTT library logs each refusal of each message; the
/// bridge reports them once by itself.
pub(crate) const DEFAULT: &str = "info,mqtt5=warn,rumqttc=error";
/// The filter of commands that print by themselves what happens.
pub(crate) const QUIET: &str = "error";
/// The journal's priority of an error.
const ERROR: &str = "<3>";

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// A line an entry
    #[default]
    Text,
    /// A JSON object an entry
    Json,
}

/// The log. Dropping it waits until pending lines are written.
#[derive(Debug)]
pub(crate) struct Log {
    writer: StderrWriter,
    /// The priority of lines without a level.
    prefix: &'static str,
}

impl Log {
    /// Writes these lines whatever RUST_LOG says.
    pub(crate) fn say(&self, text: &str) {
        let lines = text.lines().map(|line| format!("{}{}\n", self.prefix, escaped(line)));
        // Never fails: lost lines are counted.
        _ = (&self.writer).write_all(lines.collect::<String>().as_bytes());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.writer.finish();
    }
}

/// Starts the log, of panics too.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn start(format: Format, default: &str) -> std::io::Result<Log> {
    let writer = StderrWriter::start(std::io::stderr())?;
    let to_journal = is_journal();
    let prefix = if to_journal { ERROR } else { "" };
    let panic_log = Log { writer: writer.clone(), prefix };
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        panic_log.say(&format!("thread '{name}' {panic}\n{}", Backtrace::capture()));
    }));
    // An empty RUST_LOG, as compose files pass it on, counts as not set.
    let filter = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| !filter.is_empty());
    let filter = EnvFilter::new(filter.as_deref().unwrap_or(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer.clone());
    // Internal errors would be printed to the same stderr, and panic.
    let builder = builder.log_internal_errors(false).with_ansi(std::io::stderr().is_terminal());
    match (format, to_journal) {
        (Format::Text, false) => builder.fmt_fields(EscapedFields).with_target(false).init(),
        // The journal adds the time.
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

/// Whether stderr is the journal: `JOURNAL_STREAM` names its device and inode. Child processes
/// inherit the variable, so it has to be compared.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stderr.and_then(|file| file.metadata());
    metadata.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// Formats entries as the inner format does, after their priority.
#[derive(Debug)]
struct WithPriority<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithPriority<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => ERROR,
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            Level::DEBUG | Level::TRACE => "<7>",
        })?;
        self.0.format_event(context, writer, event)
    }
}
