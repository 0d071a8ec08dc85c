//! The vendor's database of the scene: Northwind in a throwaway server, grown so that there is something to watch.

mod mysql;
mod postgres;
mod sqlserver;

use super::SceneError;
use tidemark_throwaway::MysqlFlavour;

/// Name of the database, and of the user that the daemon reads it with.
pub const DATABASE: &str = "northwind";
/// The daemon's account: it may read and replicate, and own a publication; nothing else.
pub const USER: &str = "tidemark";
/// Its password: the server listens on loopback only and lives for minutes.
pub const PASSWORD: &str = "scene";

/// Orders that are added have numbers from here on; the original ones end far below.
pub const FIRST_ORDER: i64 = 100_000;
/// Orders that are added.
pub const ORDERS: u32 = 40_000;
/// Customers that are added, with the numbers from 1 on.
pub const CUSTOMERS: u32 = 4_000;

/// The key of an added customer.
pub fn customer_id(number: u32) -> String {
    format!("Z{number:04X}")
}

/// The kinds of servers that the scene can be played on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    /// PostgreSQL.
    Postgres,
    /// MariaDB or MySQL.
    Mysql(MysqlFlavour),
    /// The simulated SQL Server of the tests.
    SqlServer,
}

impl Server {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Server::Postgres => "PostgreSQL",
            Server::Mysql(MysqlFlavour::MariaDb) => "MariaDB",
            Server::Mysql(MysqlFlavour::MySql) => "MySQL",
            Server::SqlServer => {
                "SIMULATED SQL Server (the tests' simulator; the real product cannot be installed here)"
            }
        }
    }
}

/// A running server.
pub enum Database {
    /// PostgreSQL.
    Postgres(postgres::Postgres),
    /// MariaDB or MySQL.
    Mysql(mysql::Mysql),
    /// The simulated SQL Server.
    SqlServer(sqlserver::SqlServer),
}

/// The connection of the application that owns the data.
pub enum Owner {
    /// To PostgreSQL.
    Postgres(postgres::Owner),
    /// To MariaDB or MySQL.
    Mysql(mysql::Owner),
    /// To the simulated SQL Server.
    SqlServer(sqlserver::Owner),
}

impl Database {
    /// Starts a server. Blocks for a second or two.
    ///
    /// # Errors
    /// If the server is not installed or does not start.
    pub fn start(server: Server) -> Result<Self, SceneError> {
        Ok(match server {
            Server::Postgres => Database::Postgres(postgres::Postgres::start()?),
            Server::Mysql(flavour) => Database::Mysql(mysql::Mysql::start(flavour)?),
            Server::SqlServer => Database::SqlServer(sqlserver::SqlServer::start()?),
        })
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        match self {
            Database::Postgres(server) => server.port(),
            Database::Mysql(server) => server.port(),
            Database::SqlServer(server) => server.port(),
        }
    }

    /// Loads the sample data, grows it, makes the daemon's account with the rights that `tidemark check` asks for, and
    /// gives the application its connection.
    ///
    /// # Errors
    /// If the server cannot be reached or a statement fails.
    pub async fn fill(&mut self) -> Result<Owner, SceneError> {
        match self {
            Database::Postgres(server) => {
                let owner = server.connect().await?;
                owner.fill().await?;
                Ok(Owner::Postgres(owner))
            }
            Database::Mysql(server) => {
                let mut owner = server.connect()?;
                owner.fill().await?;
                Ok(Owner::Mysql(owner))
            }
            Database::SqlServer(server) => {
                let mut owner = server.connect()?;
                owner.fill().await?;
                Ok(Owner::SqlServer(owner))
            }
        }
    }
}

impl Owner {
    /// Runs a statement; how many rows it changed.
    ///
    /// # Errors
    /// If it fails.
    pub async fn execute(&mut self, sql: &str) -> Result<u64, SceneError> {
        match self {
            Owner::Postgres(owner) => owner.execute(sql).await,
            Owner::Mysql(owner) => owner.execute(sql).await,
            Owner::SqlServer(owner) => owner.execute(sql).await,
        }
    }

    /// Whether it understands Transact-SQL rather than what the others share.
    pub fn is_transact(&self) -> bool {
        matches!(self, Owner::SqlServer(_))
    }
}
