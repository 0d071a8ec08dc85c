//! The engine: sessions that run statements against simulated databases.

pub mod agent;
pub mod bind;
pub mod capture;
pub mod catalog;
pub mod cdc;
pub mod database;
pub mod ddl;
pub mod dml;
pub mod functions;
pub mod procedures;
pub mod security;
pub mod server;
pub mod session;
pub mod tables;
pub mod tracking;
pub mod transaction;
pub mod views;
