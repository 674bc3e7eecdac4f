//! The program.

fn main() -> std::process::ExitCode {
    gsdk2mqtt::cli::main()
}
