//! The connector against real servers.

mod lab;
mod resume;
mod snapshot;
mod tail;
mod types;
