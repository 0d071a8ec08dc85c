//! A simulated SQL Server, for tests and the demo.
//!
//! The real product cannot be installed where these tests run. This crate speaks its wire protocol (TDS 7.4, and 8.0 under
//! strict encryption) and executes the part of T-SQL that a reader of change data capture sends and that tests write with,
//! over SQLite. It knows nothing of the reader. What it does not model it refuses, with error 49999 naming the construct;
//! a wrong answer in silence is the one thing it must never give. Each modelled behaviour names the page of Microsoft's
//! documentation it follows; the README lists where the two differ.
//!
//! ```
//! use tidemark_sqlserver_sim::{Options, Sim};
//!
//! let sim = Sim::start(Options::default())?;
//! sim.execute("vendor", "CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, name nvarchar(20))")?;
//! sim.execute("vendor", "EXEC sys.sp_cdc_enable_db")?;
//! sim.execute("vendor", "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N't', @role_name = NULL")?;
//! sim.execute("vendor", "INSERT INTO dbo.t VALUES (1, N'a'), (2, N'b')")?;
//! sim.wait_captured("vendor", std::time::Duration::from_secs(5))?;
//! let rows = sim.execute("vendor", "SELECT __$operation, id FROM cdc.dbo_t_CT ORDER BY id")?;
//! assert_eq!(rows[1], [Some("2".into()), Some("2".into())]);
//! # Ok::<(), tidemark_sqlserver_sim::SqlError>(())
//! ```
// Wire and log formats are defined by their bits: a number that turns negative on the way is meant to.
#![allow(clippy::cast_possible_wrap)]

mod engine;
mod error;
mod log;
mod options;
mod sim;
mod sql;
mod tds;
mod types;

pub use error::{Result, SqlError};
pub use options::{Certificate, Encryption, Options, Quirks};
pub use sim::{Backup, Console, Sim};
pub use tds::tls::Framed;
