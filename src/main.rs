//! The program: arguments, logging, and the exit code. May not decide anything.

use clap::Parser;
use gsdk2mqtt::cli::simulate;

#[derive(Parser)]
#[command(name = "gsdk2mqtt", version)]
enum Command {
    /// A simulated G-SDK gateway.
    Simulate(simulate::SimulateArgs),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Command::Simulate(args) = Command::parse();
    simulate::run(args, tokio::signal::ctrl_c()).await
}
