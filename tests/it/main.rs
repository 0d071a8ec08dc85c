//! Tests of the whole program on real servers.
#![allow(missing_docs)]

mod harness;
mod support;
