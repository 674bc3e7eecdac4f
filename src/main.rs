//! The program: its arguments, its runtime, its exit code. May not decide anything.

use std::process::ExitCode;

use clap::Parser;
use gsdk2mqtt::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
