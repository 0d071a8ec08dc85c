//! The daemon's doors for people and programs: an API on a unix socket for the operator's commands, and a TCP listener
//! for what may be read by anybody on the host (metrics, probes, the status page).
//!
//! Commands travel to the pipeline as [`AdminCommand`]s and come back through a `oneshot`; the pipeline alone changes
//! its state. What is only read (the report, the dead letters) is read beside it.
//!
//! Who may open the socket may do everything (mode 0660, in a directory of the tenant's group). The TCP side changes
//! nothing, whatever the request.

mod client;
mod server;

pub use crate::command::{
    AdminCommand, AdminError, AdminReply, CheckpointView, DeadLetterSelection, PauseMark, Repair, RepairReceipt, Reply,
    ResyncPlan, ResyncRequest, ResyncScope, ResyncTable,
};
pub use client::{Client, ClientError};
pub use server::{AdminState, BindError, serve_http, serve_socket};
