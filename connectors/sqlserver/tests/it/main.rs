//! The connector against the simulated server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

mod access;
mod lab;
mod rows;
mod tail;
mod tracking;
