//! The whole system from outside: a real mosquitto, the simulated gateway, the bridge as a process.

mod answers;
mod clearing;
mod configuration;
mod desired;
mod details;
mod duplicates;
mod events;
mod expected;
mod info;
mod losses;
mod metrics;
mod own_requests;
mod readiness;
mod refusals;
mod restarts;
mod strict;
