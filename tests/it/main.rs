//! Tests of the whole program on real servers.
//!
//! `TIDEMARK_SOAK=1` asks for the long versions, `TIDEMARK_SEED=n` repeats a random one.
#![allow(missing_docs)]
// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod harness;
mod mysql;
mod postgres;
mod scenarios;
mod sqlserver;
mod support;
