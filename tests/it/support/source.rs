//! The vendor's database: Northwind in a throwaway cluster, with what the judge needs added to it.

use super::crm::Content;
use super::{Vendor, judge};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tidemark_throwaway::{Auth, PostgresCluster, PostgresOptions};
use tokio_postgres::{Client, NoTls};

pub const PASSWORD: &str = "d4tabase+pass/w%rd&'x";
const SUPERUSER_PASSWORD: &str = "superuser";

/// A database of the tests.
pub struct Source {
    pub cluster: PostgresCluster,
    pub database: &'static str,
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Whether a test without its server is a failure.
pub fn everything_is_required() -> bool {
    std::env::var("TIDEMARK_REQUIRE_ALL").is_ok_and(|v| v == "1")
}

impl Source {
    /// A cluster with an empty database, or `None`, said aloud, where there is no PostgreSQL and nobody insists.
    pub async fn empty() -> Option<Self> {
        Self::with(PostgresOptions::default()).await
    }

    pub async fn with(options: PostgresOptions) -> Option<Self> {
        let options = PostgresOptions { auth: Auth::Scram, password: Some(SUPERUSER_PASSWORD.into()), ..options };
        let cluster = match tokio::task::spawn_blocking(|| PostgresCluster::start(options)).await.expect("no panic") {
            Ok(cluster) => cluster,
            Err(error @ tidemark_throwaway::Error::Missing { .. }) if !everything_is_required() => {
                println!("DID NOT RUN: {error}");
                return None;
            }
            Err(error) => panic!("cannot start PostgreSQL: {error}"),
        };
        let source = Self { cluster, database: "vendor" };
        let password = PASSWORD.replace('\'', "''");
        let roles = format!(
            "CREATE ROLE vendor; CREATE ROLE tidemark LOGIN REPLICATION PASSWORD '{password}' IN ROLE vendor;
             CREATE DATABASE vendor OWNER vendor;"
        );
        source.cluster.psql(&roles).expect("roles and database");
        source.psql("GRANT ALL ON SCHEMA public TO vendor");
        Some(source)
    }

    /// Northwind, prepared for the judge.
    pub async fn northwind() -> Option<Self> {
        let source = Self::empty().await?;
        for file in ["packs/northwind/data/postgres-northwind.sql", "tests/data/e2e/prepare.sql"] {
            source.cluster.psql_file(source.database, &repository(file)).expect("the script runs");
        }
        source.own_everything();
        Some(source)
    }

    /// Gives all tables to the vendor's role, of which the daemon's is a member.
    pub fn own_everything(&self) {
        self.psql(
            "DO $$ DECLARE name text; BEGIN
               FOR name IN SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p')
                 AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)
               LOOP EXECUTE 'ALTER TABLE ' || name || ' OWNER TO vendor'; END LOOP;
               FOR name IN SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
               LOOP EXECUTE 'GRANT ALL ON SCHEMA ' || name || ' TO vendor'; END LOOP;
             END $$;
             GRANT ALL ON DATABASE vendor TO vendor",
        );
    }

    /// Runs statements as superuser.
    pub fn psql(&self, sql: &str) -> String {
        self.cluster.psql_in(self.database, sql).unwrap_or_else(|e| panic!("{e}\nin: {sql}"))
    }

    /// A connection as superuser.
    pub async fn connect(&self) -> Client {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.cluster.port()).user(self.cluster.user());
        config.password(SUPERUSER_PASSWORD).dbname(self.database);
        let (client, connection) = config.connect(NoTls).await.expect("a connection");
        tokio::spawn(connection);
        client
    }
}

impl Vendor for Source {
    type Client = Client;

    fn port(&self) -> u16 {
        self.cluster.port()
    }

    fn database(&self) -> &str {
        self.database
    }

    fn engine(&self) -> String {
        "engine = \"postgres\"\n[source.postgres]\nslot = \"tidemark_e2e\"\npublication = \"tidemark_e2e\"".into()
    }

    /// What the CRM must hold now, by a query of three columns: entity, external id, fields as JSON text.
    async fn wanted(&self, client: &Client, oracle: &str) -> Content {
        let mut content = Content::new();
        for row in client.query(oracle, &[]).await.expect("the oracle's query runs") {
            let (entity, id, fields): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            let fields: BTreeMap<String, Value> = serde_json::from_str(&fields).expect("an object");
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
            content.entry(entity).or_default().insert(id, fields);
        }
        content
    }

    async fn states(&self, client: &Client) -> judge::States {
        let rows = client.query("SELECT source, key, rev, present FROM judge.states ORDER BY rev", &[]).await;
        let rows = rows.expect("the account can be read");
        judge::states(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))))
    }
}

/// The oracle for [`Source::northwind`] under `tests/data/e2e/mapping.toml`.
pub fn northwind_oracle() -> String {
    std::fs::read_to_string(repository("tests/data/e2e/oracle.sql")).expect("oracle.sql")
}
