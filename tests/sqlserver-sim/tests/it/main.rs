//! The simulator as its users see it: through the control handle, and through clients that know nothing of it.
// Tests may unwrap and panic: that is how they fail.
#![allow(clippy::unwrap_used, clippy::panic)]

mod capture;
mod catalogue;
mod engine;
mod freetds;
mod readers;
mod support;
mod tiberius_client;
mod tls;
mod tracking;
