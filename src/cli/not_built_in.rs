//! `simulate` and `demo` in a build without them: prints how to install a build with them.

use std::ffi::OsString;
use std::process::ExitCode;

/// Accepts whatever the real command accepts, so that the explanation is printed in every case.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct IgnoredArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _args: Vec<OsString>,
}

/// Prints how to get a build that has the command, and returns the exit code for wrong usage.
pub(crate) fn explain(command: &str) -> ExitCode {
    super::say(&format!(
        "`{command}` is not built into this program. Get it from a release archive, by \
         `cargo install --path . --locked` in a clone of the source, or as the container image of \
         the target `try` (docker build -f deploy/container/Containerfile --target try .)"
    ));
    ExitCode::from(super::EXIT_WRONG)
}
