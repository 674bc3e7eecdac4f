//! The integration tests: one binary with a module for each subject; `harness` starts what they
//! need.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bridge;
mod check;
mod commands;
mod demo;
mod faults;
mod files;
mod follow;
mod gateway;
mod harness;
mod homeassistant;
mod http;
mod init;
mod masters;
mod mqtt_session;
mod pages;
mod recorded;
mod report;
mod service;
mod simulate;
