//! Northwind in a throwaway PostgreSQL.

use super::{CUSTOMERS, DATABASE, FIRST_ORDER, ORDERS, PASSWORD, USER};
use crate::demo::scene::SceneError;
use tidemark_throwaway::{Auth, PostgresCluster, PostgresOptions};
use tokio_postgres::{Client, NoTls};

const NORTHWIND: &str = include_str!("../../../../packs/northwind/data/postgres-northwind.sql");

/// A running server.
pub struct Postgres {
    cluster: PostgresCluster,
}

/// The application's connection.
pub struct Owner(Client);

impl Postgres {
    /// Starts a server with an empty database. Blocks for a second or two.
    ///
    /// # Errors
    /// If PostgreSQL is not installed or does not start.
    pub fn start() -> Result<Self, SceneError> {
        let options =
            PostgresOptions { auth: Auth::Scram, password: Some(PASSWORD.into()), ..PostgresOptions::default() };
        let cluster = PostgresCluster::start(options)?;
        cluster.createdb(DATABASE)?;
        Ok(Self { cluster })
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// A connection of the application that owns the data.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn connect(&self) -> Result<Owner, SceneError> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port()).dbname(DATABASE).user(self.cluster.user()).password(PASSWORD);
        config.application_name("northwind");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(async move {
            // Its error reaches the client's next call.
            let _ = connection.await;
        });
        Ok(Owner(client))
    }
}

impl Owner {
    /// Loads the sample data, grows it, and makes the daemon's role with the rights that `tidemark check` asks for.
    ///
    /// # Errors
    /// If a statement fails.
    pub async fn fill(&self) -> Result<(), SceneError> {
        self.0.batch_execute(NORTHWIND).await?;
        self.0.batch_execute(&grow()).await?;
        self.0.batch_execute(&grants()).await?;
        Ok(())
    }

    /// Runs a statement; how many rows it changed.
    ///
    /// # Errors
    /// If it fails.
    pub async fn execute(&mut self, sql: &str) -> Result<u64, SceneError> {
        Ok(self.0.execute(sql, &[]).await?)
    }
}

fn grow() -> String {
    let last_order = FIRST_ORDER + i64::from(ORDERS);
    format!(
        r#"
        insert into "Customers" ("CustomerID", "CompanyName", "ContactName", "ContactTitle", "Address", "City", "Country", "Phone")
            select 'Z' || lpad(upper(to_hex(n)), 4, '0'), p.first || ' ' || p.second || ' ' || n, 'Contact ' || n, 'Buyer', n || ' Harbour Street',
                   t.city, t.country, '+00 ' || (1000000 + n)
              from generate_series(1, {CUSTOMERS}) n
              cross join lateral (select (array['North','Blue','Grand','Old','Silver','Green'])[1 + n % 6] as first,
                                         (array['Traders','Foods','Delikatessen','Mercado','Supplies'])[1 + n % 5] as second) p
              cross join lateral (select (array['London','Berlin','Madrid','Paris','Lisboa','Bern'])[1 + n % 6] as city,
                                         (array['UK','Germany','Spain','France','Portugal','Switzerland'])[1 + n % 6] as country) t;
        insert into "Orders" ("OrderID", "CustomerID", "EmployeeID", "OrderDate", "RequiredDate", "ShipVia", "Freight", "ShipName", "ShipCity", "ShipCountry")
            select n, c."CustomerID", 1 + n % 9, timestamp '2026-01-01' + n * interval '1 minute',
                   timestamp '2026-02-01' + n * interval '1 minute', 1 + n % 3, (n % 9973) / 100.0, c."CompanyName", c."City", c."Country"
              from generate_series({FIRST_ORDER}, {last_order} - 1) n
              join (select *, row_number() over (order by "CustomerID") - 1 as i from "Customers") c
                on c.i = n % (select count(*) from "Customers");
        analyze;
        "#
    )
}

fn grants() -> String {
    // A publication for chosen tables can be made only by the tables' owner; the rest are plain reading rights.
    format!(
        r#"
        create role {USER} login replication password '{PASSWORD}';
        grant connect on database {DATABASE} to {USER};
        grant usage on schema northwind to {USER};
        grant select on all tables in schema northwind to {USER};
        create publication {USER} for all tables with (publish_via_partition_root = true);
        "#
    )
}
