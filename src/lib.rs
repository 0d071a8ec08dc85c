//! Tidemark keeps a CRM equal to the database of the vendor software a customer uses.
//!
//! See `docs/ARCHITECTURE.md` for the bird's eye view; each module's own documentation carries the argument for what
//! it does. One tenant is one configuration, one process, one state directory, one CRM account.

pub mod admin;
pub mod cli;
pub mod command;
pub mod config;
pub mod crm;
pub mod daemon;
pub mod demo;
pub mod diagnostics;
pub mod document;
pub mod error;
pub mod exact;
pub mod gather;
pub mod init;
pub mod loader;
pub mod logging;
pub mod mapping;
pub mod metrics;
pub mod notify;
pub mod packs;
pub mod pipeline;
pub mod plan;
pub mod registry;
pub mod status;
pub mod store;
pub mod verify;
