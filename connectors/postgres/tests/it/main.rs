//! The connector against real servers.

// Helpers of tests fail like tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod access;
mod heavy;
mod lab;
mod resume;
mod snapshot;
mod tail;
mod types;
