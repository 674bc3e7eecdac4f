//! The program: arguments, runtime, exit code.

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
    // Does not wait for blocking tasks, such as a DNS look-up without an answer.
    runtime.shutdown_background();
    code
}
