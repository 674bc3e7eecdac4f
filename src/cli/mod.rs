//! The command line: one file for each subcommand.

mod check;
mod ctl;
#[cfg(feature = "demo")]
mod demo;
mod documents;
mod escape;
mod health;
mod history;
mod init;
mod log;
mod period;
mod report;
mod run;
mod signals;
#[cfg(feature = "simulator")]
mod simulate;
mod source;
mod stderr;

use std::future::pending;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

use crate::config;
use signals::{handle_file_size_limit, stop_signal};

/// Publishes connects and disconnects of Suprema devices, read from G-SDK gateways, to MQTT and
/// Prometheus.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    /// Format of the log on stderr; RUST_LOG sets its filter
    #[arg(long, global = true, value_enum, default_value_t, ignore_case = true)]
    log: log::LogFormat,
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the service
    Run(run::RunArgs),
    /// Run a demo: a broker, a simulated gateway and the bridge in one process
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    #[cfg(not(feature = "demo"))]
    #[command(hide = true)]
    Demo(IgnoredArgs),
    /// Create a configuration: prompt for the settings and test each answer at once
    Init(Box<init::InitArgs>),
    /// Check the configuration and show where each value comes from
    Check(check::CheckArgs),
    /// Report the availability of the doors, from the history
    Report(report::ReportArgs),
    /// Print recorded events
    History(history::HistoryArgs),
    /// Send commands directly to a gateway
    Ctl(ctl::CtlArgs),
    /// Run a simulated G-SDK gateway
    #[cfg(feature = "simulator")]
    Simulate(simulate::SimulateArgs),
    #[cfg(not(feature = "simulator"))]
    #[command(hide = true)]
    Simulate(IgnoredArgs),
    /// Print the AsyncAPI document of topics and payloads, the OpenAPI document of the HTTP API, or
    /// the configuration's JSON Schema
    Schema(documents::SchemaArgs),
    /// Check the health of a running bridge
    Health(health::HealthArgs),
    /// Print the completion script of a shell
    Completions(documents::CompletionsArgs),
    /// Print a manual page, or write all of them
    Man(documents::ManArgs),
}

/// Accepts whatever the real command accepts, so that the explanation is printed in every case.
#[cfg(not(feature = "demo"))]
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
struct IgnoredArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _args: Vec<std::ffi::OsString>,
}

/// Exit code for a wrong configuration; clap uses the same for wrong usage.
const EXIT_WRONG: u8 = 2;

/// A mistake in the arguments that clap does not find.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongUsage(String);

/// The program. Its runtime is here and not in `main.rs`: an `async fn` is compiled where it is
/// first run, and `main.rs` is compiled after the library, not in parallel with it.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("the system gives no threads: {error}")),
    };
    let code = runtime.block_on(arguments.run());
    // Does not wait for blocking tasks, such as a DNS look-up without an answer.
    runtime.shutdown_background();
    code
}

impl Cli {
    /// Runs the command. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
    async fn run(self) -> ExitCode {
        let is_quiet = matches!(
            self.command,
            CliCommand::Ctl(_)
                | CliCommand::Check(_)
                | CliCommand::Init(_)
                | CliCommand::Report(_)
                | CliCommand::History(_)
        );
        let default = if is_quiet { log::QUIET } else { log::DEFAULT };
        let log = match log::start(self.log, default) {
            Ok(log) => log,
            Err(error) => return failed(&format!("the system gives no thread: {error}")),
        };
        handle_file_size_limit();
        let outcome = Box::pin(self.command.run()).await;
        match outcome {
            Ok(code) => code,
            Err(error) if error.is::<config::Error>() || error.is::<WrongUsage>() => {
                log.say(&format!("gsdk2mqtt: {error}"));
                ExitCode::from(EXIT_WRONG)
            }
            Err(error) => {
                log.say(&escape::escaped(&format!("gsdk2mqtt: {error:#}")));
                ExitCode::FAILURE
            }
        }
    }
}

impl CliCommand {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => run::run(args).await?,
            #[cfg(feature = "demo")]
            Self::Demo(args) => demo::run(args).await?,
            #[cfg(not(feature = "demo"))]
            Self::Demo(_) => return Err(not_built_in("demo")),
            Self::Init(args) => init::run(*args).await?,
            Self::Check(args) => return check::run(&args).await,
            Self::Report(args) => report::run(args).await?,
            Self::History(args) => history::run(args).await?,
            Self::Ctl(args) => return ctl::run(args).await,
            #[cfg(feature = "simulator")]
            Self::Simulate(args) => simulate::run(args, stop_signal()).await?,
            #[cfg(not(feature = "simulator"))]
            Self::Simulate(_) => return Err(not_built_in("simulate")),
            Self::Schema(args) => documents::schema(&args)?,
            Self::Health(args) => health::run(&args).await?,
            Self::Completions(args) => documents::completions(&args)?,
            Self::Man(args) => documents::man(&args)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The error of a command in a build without it, with how to get a build that has it.
#[cfg(not(feature = "demo"))]
fn not_built_in(command: &str) -> anyhow::Error {
    let text = format!(
        "`{command}` is not built into this program. Get it from a release archive, by \
         `cargo install --path . --locked` in a clone of the source, or as the container image of \
         the target `try` (docker build -f deploy/container/Containerfile --target try .)"
    );
    WrongUsage(text).into()
}

/// Prints a result, or a part of it, and returns whether more may follow. It is not an error if its
/// reader has closed the pipe, as `head` does: the exit code remains.
fn print(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        result => result.context("cannot write the result to stdout").map(|()| true),
    }
}

/// Completes once the reader of stdout has closed the pipe, even while nothing is printed.
async fn stdout_closed() {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    // Fails for a file, which is never closed.
    if let Ok(pipe) = stdout.and_then(Sender::from_owned_fd_unchecked)
        && pipe.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    pending().await
}

/// Reports an error without a log.
fn failed(message: &str) -> ExitCode {
    say(message);
    ExitCode::FAILURE
}

/// Prints a message with the program's name to stderr.
fn say(message: &str) {
    print_to_stderr(&format!("gsdk2mqtt: {message}"));
}

/// Prints a line to stderr directly, in order with the result on stdout. It is not an error if
/// stderr is closed or full: the exit code remains.
fn print_to_stderr(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}
