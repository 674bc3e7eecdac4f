//! The whole: real mosquitto, the simulated gateway, the bridge as a process, seen from outside.

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
