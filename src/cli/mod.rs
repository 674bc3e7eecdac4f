//! The command line's subcommands. May not decide anything that a room decides.

pub mod simulate;
