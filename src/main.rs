//! The program: arguments, logging, and the exit code. May not decide anything.

fn main() {}
