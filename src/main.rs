//! The program: its arguments, its runtime, its exit code. May not decide anything.

use std::process::ExitCode;

use clap::Parser;
use gsdk2mqtt::cli::{self, Cli};

fn main() -> ExitCode {
    let arguments = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return cli::failed(&format!("the system gives no threads: {error}")),
    };
    let code = runtime.block_on(arguments.run());
    // A look-up of a name that nobody answers may still be under way: nobody waits for it.
    runtime.shutdown_background();
    code
}
