//! End to end: the program on real MariaDB and MySQL.

mod failover;
mod gaps;
mod log;
mod northwind;
mod packs;
mod sakila;
mod schema;
mod types;

use super::on_both;
