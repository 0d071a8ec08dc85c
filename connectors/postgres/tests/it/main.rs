//! The connector against real servers.

mod lab;
mod tail;
mod types;
