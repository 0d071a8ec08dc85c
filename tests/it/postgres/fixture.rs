//! Drives a real PostgreSQL server for the battery.

use super::{corpus, mangle};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemark_conformance::{
    Cell, ColumnKind, Corpus, Disturbance, Fixture, FixtureError, FixtureResult, Hostile, Leftover, Op, Proxy, Step,
    TableDef,
};
use tidemark_contract::{Connector, TableId, TableRequest};
use tidemark_postgres::{Password, Postgres, PostgresConfig, TlsMode};
use tidemark_throwaway::{Auth, PostgresCluster, PostgresOptions};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};
use tokio_postgres::{Client, NoTls};

const SLOT: &str = "tidemark_conformance";
const PASSWORD: &str = "pg s3cr3t/+%&'x";
const WRONG_PASSWORD: &str = "wr0ng s3cr3t/+%&";

pub struct PostgresFixture {
    version: u32,
    cluster: PostgresCluster,
    other: OnceCell<PostgresCluster>,
    /// One connection per session number, opened when first needed.
    sessions: AsyncMutex<Vec<Option<Client>>>,
    proxies: Mutex<Vec<Proxy>>,
    /// Key columns of the tables of the present check.
    keys: Mutex<BTreeMap<String, Vec<String>>>,
}

fn failed(error: impl Display) -> FixtureError {
    FixtureError(error.to_string())
}

fn start_cluster() -> Result<PostgresCluster, String> {
    let options =
        PostgresOptions { auth: Auth::Scram, password: Some("superuser".into()), ..PostgresOptions::default() };
    let cluster = PostgresCluster::start(options).map_err(|e| e.to_string())?;
    let password = PASSWORD.replace('\'', "''");
    let sql = format!(
        "CREATE ROLE vendor; CREATE ROLE tidemark LOGIN REPLICATION PASSWORD '{password}' IN ROLE vendor;
         CREATE DATABASE shop OWNER vendor;"
    );
    cluster.psql(&sql).map_err(|e| e.to_string())?;
    cluster
        .psql_in("shop", "GRANT ALL ON SCHEMA public TO vendor; CREATE EXTENSION hstore; CREATE EXTENSION citext")
        .map_err(|e| e.to_string())?;
    Ok(cluster)
}

fn column_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Int => "bigint",
        ColumnKind::Text | ColumnKind::Big => "text",
    }
}

fn create_table(table: &TableDef) -> String {
    let columns: Vec<String> =
        table.columns.iter().map(|(name, kind)| format!("{name} {}", column_type(*kind))).collect();
    let key: Vec<&str> = table.columns[..table.key].iter().map(|(name, _)| name.as_str()).collect();
    let mut sql = format!("CREATE TABLE {} ({}, PRIMARY KEY ({}));", table.name, columns.join(", "), key.join(", "));
    for (name, kind) in &table.columns {
        if *kind == ColumnKind::Big {
            // Out of line and never compressed into the row.
            sql.push_str(&format!("ALTER TABLE {} ALTER COLUMN {name} SET STORAGE EXTERNAL;", table.name));
        }
    }
    sql.push_str(&format!("ALTER TABLE {} OWNER TO vendor;", table.name));
    sql
}

fn literal(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".into(),
        Cell::Int(number) => number.to_string(),
        cell => format!("'{}'", cell.as_text().unwrap_or_default().replace('\'', "''")),
    }
}

impl PostgresFixture {
    pub async fn start() -> Result<Arc<Self>, String> {
        let cluster = tokio::task::spawn_blocking(start_cluster).await.map_err(|e| e.to_string())??;
        let version = cluster.major_version().map_err(|e| e.to_string())?;
        Ok(Arc::new(Self {
            version,
            cluster,
            other: OnceCell::new(),
            sessions: AsyncMutex::default(),
            proxies: Mutex::default(),
            keys: Mutex::default(),
        }))
    }

    async fn connect(cluster: &PostgresCluster) -> FixtureResult<Client> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(cluster.port()).user(cluster.user()).password("superuser").dbname("shop");
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn connector_to(&self, port: u16, password: &str, database: &str) -> Arc<dyn Connector> {
        let mut config = PostgresConfig::new("127.0.0.1", port, database, "tidemark");
        config.password = Some(Password::new(password));
        config.tls.mode = TlsMode::Disable;
        config.slot = SLOT.into();
        config.publication = SLOT.into();
        Arc::new(Postgres::new(config))
    }

    /// Runs statements on a connection of their own.
    async fn sql(&self, sql: &str) -> FixtureResult<()> {
        Self::connect(&self.cluster).await?.batch_execute(sql).await.map_err(|e| failed(describe(&e, sql)))
    }

    /// Drops every slot, waiting for walsenders of dropped streams to end.
    async fn drop_slots(client: &Client) -> FixtureResult<()> {
        for _ in 0..200 {
            let sql = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active;
                       SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active;";
            // A slot may become active or inactive in between.
            let _ = client.batch_execute(sql).await;
            let left = client.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.map_err(failed)?;
            if left.get::<_, i64>(0) == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Err(FixtureError("a replication slot stays in use".into()))
    }

    fn key_is(&self, table: &str, key: &[Cell]) -> String {
        let names = self.keys.lock().expect("not poisoned").get(table).cloned().unwrap_or_default();
        let part = |(name, cell): (&String, &Cell)| format!("{name} = {}", literal(cell));
        names.iter().zip(key).map(part).collect::<Vec<_>>().join(" AND ")
    }

    fn statement(&self, op: &Op) -> String {
        let assign = |set: &[(String, Cell)]| {
            set.iter().map(|(column, cell)| format!("{column} = {}", literal(cell))).collect::<Vec<_>>().join(", ")
        };
        match op {
            Op::Insert { table, row } => {
                format!("INSERT INTO {table} VALUES ({})", row.iter().map(literal).collect::<Vec<_>>().join(", "))
            }
            Op::Update { table, key, set } => {
                format!("UPDATE {table} SET {} WHERE {}", assign(set), self.key_is(table, key))
            }
            Op::Delete { table, key } => format!("DELETE FROM {table} WHERE {}", self.key_is(table, key)),
            Op::Truncate { table } => format!("TRUNCATE {table}"),
            Op::InsertMany { table, first, count, width } => format!(
                "DO $$ DECLARE list text; BEGIN
                   SELECT string_agg(CASE WHEN atttypid = 'text'::regtype
                     THEN 'substr(repeat(md5(n::text), {}), 1, {width})' ELSE 'n' END, ',' ORDER BY attnum) INTO list
                   FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped;
                   EXECUTE 'INSERT INTO {table} SELECT ' || list || ' FROM generate_series({first}::bigint, {}) n';
                 END $$",
                width / 32 + 1,
                first + i64::from(*count) - 1
            ),
            Op::AddColumn { table, column, kind } => {
                format!("ALTER TABLE {table} ADD COLUMN {column} {}", column_type(*kind))
            }
            Op::DropColumn { table, column } => format!("ALTER TABLE {table} DROP COLUMN {column}"),
            Op::IntToText { table, column } => {
                format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE text USING {column}::text")
            }
        }
    }
}

fn describe(error: &tokio_postgres::Error, sql: &str) -> String {
    let text = error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_owned());
    format!("{text} in: {}", sql.chars().take(300).collect::<String>())
}

#[async_trait]
impl Fixture for PostgresFixture {
    fn name(&self) -> String {
        format!("PostgreSQL {}", self.version)
    }

    fn connector(&self) -> Arc<dyn Connector> {
        self.connector_to(self.cluster.port(), PASSWORD, "shop")
    }

    fn request(&self, table: &TableDef) -> TableRequest {
        TableRequest { table: TableId::new("public", table.name.as_str()), columns: None, key: None }
    }

    async fn reset(&self, tables: &[TableDef]) -> FixtureResult<()> {
        self.proxies.lock().expect("not poisoned").clear();
        let client = Self::connect(&self.cluster).await?;
        Self::drop_slots(&client).await?;
        let clear = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tidemark';
            DO $$ DECLARE name text; BEGIN
                FOR name IN SELECT quote_ident(pubname) FROM pg_publication LOOP EXECUTE 'DROP PUBLICATION ' || name; END LOOP;
                FOR name IN SELECT c.oid::regclass::text FROM pg_class c
                    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
                LOOP EXECUTE 'DROP TABLE ' || name || ' CASCADE'; END LOOP;
            END $$";
        client.batch_execute(clear).await.map_err(|e| failed(describe(&e, clear)))?;
        for table in tables {
            let sql = create_table(table);
            client.batch_execute(&sql).await.map_err(|e| failed(describe(&e, &sql)))?;
        }
        let keys = |table: &TableDef| table.columns[..table.key].iter().map(|(name, _)| name.clone()).collect();
        *self.keys.lock().expect("not poisoned") = tables.iter().map(|t| (t.name.clone(), keys(t))).collect();
        Ok(())
    }

    async fn run(&self, steps: &[Step]) -> FixtureResult<()> {
        let mut sessions = self.sessions.lock().await;
        for step in steps {
            let (number, sql) = match step {
                Step::Begin(n) => (*n, "BEGIN".to_owned()),
                Step::Run(n, op) => (*n, self.statement(op)),
                Step::Commit(n) => (*n, "COMMIT".to_owned()),
                Step::Rollback(n) => (*n, "ROLLBACK".to_owned()),
            };
            let number = usize::from(number);
            if sessions.len() <= number {
                sessions.resize_with(number + 1, || None);
            }
            if sessions[number].as_ref().is_none_or(Client::is_closed) {
                sessions[number] = Some(Self::connect(&self.cluster).await?);
            }
            let client = sessions[number].as_ref().ok_or_else(|| failed("no session"))?;
            if let Err(error) = client.batch_execute(&sql).await {
                let _ = client.batch_execute("ROLLBACK").await;
                return Err(failed(describe(&error, &sql)));
            }
        }
        Ok(())
    }

    async fn disturb(&self, how: Disturbance) -> FixtureResult<bool> {
        let client = Self::connect(&self.cluster).await?;
        Self::drop_slots(&client).await?;
        if how == Disturbance::Recreate {
            let sql = format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')");
            client.batch_execute(&sql).await.map_err(failed)?;
        }
        Ok(true)
    }

    async fn foreign(&self, tables: &[TableDef]) -> FixtureResult<Option<Arc<dyn Connector>>> {
        let start = || async { tokio::task::spawn_blocking(start_cluster).await.map_err(failed)?.map_err(failed) };
        let other = self.other.get_or_try_init(start).await?;
        let client = Self::connect(other).await?;
        for table in tables {
            client.batch_execute(&create_table(table)).await.map_err(failed)?;
        }
        Ok(Some(self.connector_to(other.port(), PASSWORD, "shop")))
    }

    async fn leftovers(&self) -> FixtureResult<BTreeSet<Leftover>> {
        let client = Self::connect(&self.cluster).await?;
        let sql = "SELECT 'slot', slot_name::text FROM pg_replication_slots
            UNION ALL SELECT 'publication', pubname::text FROM pg_publication
            UNION ALL SELECT 'origin', roname FROM pg_replication_origin
            UNION ALL SELECT 'session', pid::text FROM pg_stat_activity WHERE usename = 'tidemark'";
        let rows = client.query(sql, &[]).await.map_err(failed)?;
        Ok(rows.iter().map(|row| Leftover { kind: row.get(0), name: row.get(1) }).collect())
    }

    async fn contents(&self) -> FixtureResult<BTreeMap<String, String>> {
        // A session's counters reach the statistics at most a second after its last transaction.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let client = Self::connect(&self.cluster).await?;
        let mut all = BTreeMap::new();
        let tables = "SELECT oid::regclass::text, relkind::text FROM pg_class
            WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)";
        for row in client.query(tables, &[]).await.map_err(failed)? {
            let (name, kind): (String, String) = (row.get(0), row.get(1));
            let account = if kind == "r" {
                // Where each row version lies and who wrote it, beside what it holds.
                let sql = format!(
                    "SELECT count(*) || ' ' || coalesce(md5(string_agg(ctid::text || xmin::text || t::text, ',' ORDER BY ctid)), '')
                     || (SELECT format(' ins %s upd %s del %s', n_tup_ins, n_tup_upd, n_tup_del)
                         FROM pg_stat_user_tables WHERE relid = '{name}'::regclass)
                     || (SELECT ' triggers ' || count(*) FROM pg_trigger WHERE tgrelid = '{name}'::regclass)
                     FROM {name} t"
                );
                client.query_one(&sql, &[]).await.map_err(failed)?.get(0)
            } else {
                kind.clone()
            };
            all.insert(format!("{kind} {name}"), account);
        }
        let functions = "SELECT count(*)::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
        all.insert("functions".into(), client.query_one(functions, &[]).await.map_err(failed)?.get(0));
        Ok(all)
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.into(), WRONG_PASSWORD.into()]
    }

    async fn broken(&self) -> FixtureResult<Vec<(String, Arc<dyn Connector>)>> {
        let port = self.cluster.port();
        let unused = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(failed)?.port();
        Ok(vec![
            ("a wrong password".into(), self.connector_to(port, WRONG_PASSWORD, "shop")),
            ("a missing database".into(), self.connector_to(port, PASSWORD, "no_such_database")),
            ("a port where nobody listens".into(), self.connector_to(unused, PASSWORD, "shop")),
        ])
    }

    async fn hostile(&self, seed: u64) -> FixtureResult<Option<Hostile>> {
        let server = SocketAddr::from(([127, 0, 0, 1], self.cluster.port()));
        let connections = std::sync::atomic::AtomicU64::new(seed);
        let make = move || mangle::mangler(connections.fetch_add(mangle::KINDS, std::sync::atomic::Ordering::Relaxed));
        let proxy = Proxy::mangling(server, make).await.map_err(failed)?;
        let connector = self.connector_to(proxy.addr().port(), PASSWORD, "shop");
        self.proxies.lock().expect("not poisoned").push(proxy);
        // A flipped bit inside a text is another text: not every damage can be seen.
        Ok(Some(Hostile { connector, must_fail: false }))
    }

    fn hostile_seeds(&self) -> u64 {
        45
    }

    async fn create_corpora(&self) -> FixtureResult<Vec<Corpus>> {
        let client = Self::connect(&self.cluster).await?;
        for sql in corpus::create() {
            client.batch_execute(&sql).await.map_err(|e| failed(describe(&e, &sql)))?;
        }
        Ok(corpus::corpora())
    }

    async fn load_corpus(&self, corpus: &Corpus) -> FixtureResult<()> {
        for sql in corpus::load(&corpus.label) {
            self.sql(&sql).await?;
        }
        Ok(())
    }

    async fn touch_corpus(&self, corpus: &Corpus) -> FixtureResult<()> {
        let Some(counter) = &corpus.counter else { return Ok(()) };
        let table = corpus::quoted(&corpus.request.table);
        self.sql(&format!("UPDATE {table} SET {counter} = {counter} + 1")).await
    }
}
