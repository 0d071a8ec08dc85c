//! The engine: sessions that run statements against simulated databases.

pub mod agent;
mod alter_table;
pub mod bind;
pub mod capture;
pub mod catalog;
pub mod cdc;
mod core_views;
mod create_table;
pub mod database;
pub mod ddl;
pub mod dml;
pub mod functions;
mod privileges;
pub mod procedures;
pub mod security;
pub mod server;
mod server_views;
pub mod session;
mod settings;
mod statements;
pub mod tables;
pub mod tracking;
pub mod transaction;
pub mod views;
