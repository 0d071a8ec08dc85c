//! The wire: "[MS-TDS]: Tabular Data Stream Protocol", versions 7.4 and 8.0.

pub mod connection;
pub mod login;
pub mod packet;
pub mod request;
pub mod response;
pub mod tls;
pub mod types;
