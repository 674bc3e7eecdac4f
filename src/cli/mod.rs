//! The command line: one file a command.
//!
//! May not decide anything: arguments in, a room's function called, an exit code out.

pub mod check;
