//! The command line: arguments in, text and exit codes out. One file per command; what they have in common is beside
//! them. All formatting for people lives here.

mod status_view;
mod terminal;

pub use status_view::render as render_status;
pub use terminal::{Look, Table, Tone};
