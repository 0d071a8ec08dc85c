//! The program run through what happens to programs.

mod commands;
mod crm_faults;
mod gaps;
mod kills;
mod lifecycle;
mod models;
mod operators;
mod packs;
mod plans;
mod proposals;
mod records;
mod related;
mod scale;
mod silence;
mod snapshots;
mod source_faults;
mod types;
