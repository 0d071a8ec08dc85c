//! Drives a real MariaDB or MySQL server for the battery.

use super::{corpus, mangle};
use async_trait::async_trait;
use corpus::DATABASE;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
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
use tidemark_mysql::{Mysql, MysqlConfig, Password, TlsMode};
use tidemark_throwaway::{MysqlCluster, MysqlFlavour, MysqlOptions};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

const PASSWORD: &str = "my s3cr3t/+%&'x";
const WRONG_PASSWORD: &str = "wr0ng s3cr3t/+%&";

/// How a server is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub label: &'static str,
    pub flavour: MysqlFlavour,
    /// Whether transactions have global ids (MySQL).
    pub gtid: bool,
    /// Whether the log names columns, signs and labels.
    pub metadata: bool,
    /// Whether transactions (MySQL) or events (MariaDB) are compressed in the log.
    pub compressed: bool,
}

impl Setup {
    pub fn new(label: &'static str, flavour: MysqlFlavour) -> Self {
        Self { label, flavour, gtid: true, metadata: true, compressed: false }
    }

    /// Without names in the log, events written before a change of schema cannot be told from later ones by anybody who
    /// comes afterwards: R12 asks for what only the names can give.
    pub fn checks(self) -> &'static [u8] {
        if self.metadata { &[] } else { &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] }
    }

    fn options(self) -> MysqlOptions {
        let mut options = MysqlOptions { gtid: self.gtid, ..MysqlOptions::new(self.flavour) };
        // Large values that an update did not touch stay out of the log: R4 looks for them.
        options = options.setting("binlog-row-image", "NOBLOB");
        if !self.metadata {
            options = options.setting(
                "binlog-row-metadata",
                if self.flavour == MysqlFlavour::MariaDb { "NO_LOG" } else { "MINIMAL" },
            );
        }
        match (self.compressed, self.flavour) {
            (false, _) => options,
            (true, MysqlFlavour::MySql) => options.setting("binlog-transaction-compression", "ON"),
            (true, MysqlFlavour::MariaDb) => {
                options.setting("log-bin-compress", "ON").setting("log-bin-compress-min-len", "10")
            }
        }
    }
}

pub struct MysqlFixture {
    setup: Setup,
    version: String,
    cluster: MysqlCluster,
    other: OnceCell<MysqlCluster>,
    /// One connection per session number, opened when first needed.
    sessions: AsyncMutex<Vec<Option<Conn>>>,
    proxies: Mutex<Vec<Proxy>>,
    /// Key columns of the tables of the present check.
    keys: Mutex<BTreeMap<String, Vec<String>>>,
}

fn failed(error: impl Display) -> FixtureError {
    FixtureError(error.to_string())
}

fn start_cluster(setup: Setup) -> Result<MysqlCluster, String> {
    let cluster = MysqlCluster::start(setup.options()).map_err(|e| e.to_string())?;
    let password = PASSWORD.replace('\'', "''");
    let sql = format!(
        "CREATE DATABASE {DATABASE};
         CREATE USER tidemark@'%' IDENTIFIED BY '{password}'; CREATE USER nobody@'%' IDENTIFIED BY '{password}';
         GRANT SELECT ON {DATABASE}.* TO tidemark@'%', nobody@'%';
         GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO tidemark@'%'"
    );
    cluster.sql(&sql).map_err(|e| e.to_string())?;
    Ok(cluster)
}

fn column_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Int => "bigint",
        ColumnKind::Text => "varchar(2000)",
        ColumnKind::Big => "longtext",
    }
}

fn create_table(table: &TableDef) -> String {
    let column = |(at, (name, kind)): (usize, &(String, ColumnKind))| match kind {
        // An index holds 3,072 bytes.
        ColumnKind::Text if at < table.key => format!("{name} varchar(300)"),
        _ => format!("{name} {}", column_type(*kind)),
    };
    let columns: Vec<String> = table.columns.iter().enumerate().map(column).collect();
    let key: Vec<&str> = table.columns[..table.key].iter().map(|(name, _)| name.as_str()).collect();
    format!("CREATE TABLE {} ({}, PRIMARY KEY ({}))", table.name, columns.join(", "), key.join(", "))
}

fn literal(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".into(),
        Cell::Int(number) => number.to_string(),
        cell => format!("'{}'", cell.as_text().unwrap_or_default().replace('\\', "\\\\").replace('\'', "''")),
    }
}

impl MysqlFixture {
    pub async fn start(setup: Setup) -> Result<Arc<Self>, String> {
        let cluster = tokio::task::spawn_blocking(move || start_cluster(setup)).await.map_err(|e| e.to_string())??;
        let version = cluster.version().map_err(|e| e.to_string())?;
        Ok(Arc::new(Self {
            setup,
            version,
            cluster,
            other: OnceCell::new(),
            sessions: AsyncMutex::default(),
            proxies: Mutex::default(),
            keys: Mutex::default(),
        }))
    }

    /// A session of the administrator.
    async fn connect(cluster: &MysqlCluster) -> FixtureResult<Conn> {
        let socket = cluster.socket().display().to_string();
        let options = OptsBuilder::default().socket(Some(socket)).user(Some("root")).db_name(Some(DATABASE));
        Conn::new(Opts::from(options)).await.map_err(failed)
    }

    fn connector_to(&self, port: u16, user: &str, password: &str, database: &str) -> Arc<dyn Connector> {
        let mut config = MysqlConfig::new("127.0.0.1", port, database, user);
        config.password = Some(Password::new(password));
        config.tls.mode = TlsMode::Disable;
        config.server_id = 7_001;
        // A damaged end of a result makes a client wait for what does not come.
        config.statement_timeout = Duration::from_secs(3);
        Arc::new(Mysql::new(config))
    }

    /// Runs statements on a connection of their own, which takes any date and any text.
    async fn loosely(&self, statements: Vec<String>) -> FixtureResult<()> {
        let mut session = Self::connect(&self.cluster).await?;
        // MariaDB leaves large columns that a statement did not name out of inserts too, unless images are full.
        session.query_drop("SET sql_mode = '', binlog_row_image = 'FULL'").await.map_err(failed)?;
        for sql in statements {
            session.query_drop(&sql).await.map_err(|e| failed(describe(&e, &sql)))?;
        }
        session.disconnect().await.map_err(failed)
    }

    fn key_is(&self, table: &str, key: &[Cell]) -> String {
        let names = self.keys.lock().expect("not poisoned").get(table).cloned().unwrap_or_default();
        let part = |(name, cell): (&String, &Cell)| format!("{name} = {}", literal(cell));
        names.iter().zip(key).map(part).collect::<Vec<_>>().join(" AND ")
    }

    async fn statement(&self, session: &mut Conn, op: &Op) -> FixtureResult<String> {
        let assign = |set: &[(String, Cell)]| {
            set.iter().map(|(column, cell)| format!("{column} = {}", literal(cell))).collect::<Vec<_>>().join(", ")
        };
        Ok(match op {
            Op::Insert { table, row } => {
                format!("INSERT INTO {table} VALUES ({})", row.iter().map(literal).collect::<Vec<_>>().join(", "))
            }
            Op::Update { table, key, set } => {
                format!("UPDATE {table} SET {} WHERE {}", assign(set), self.key_is(table, key))
            }
            Op::Delete { table, key } => format!("DELETE FROM {table} WHERE {}", self.key_is(table, key)),
            Op::Truncate { table } => format!("TRUNCATE {table}"),
            Op::InsertMany { table, first, count, width } => {
                let sql = format!(
                    "SELECT data_type FROM information_schema.columns
                     WHERE table_schema = '{DATABASE}' AND table_name = '{table}' ORDER BY ordinal_position"
                );
                let kinds: Vec<String> = session.query(&sql).await.map_err(|e| failed(describe(&e, &sql)))?;
                let long = format!("substr(repeat(sha2(k.n, 256), {}), 1, {width})", width / 64 + 1);
                let list: Vec<&str> = kinds.iter().map(|kind| if kind == "bigint" { "k.n" } else { &long }).collect();
                format!("INSERT INTO {table} SELECT {} FROM ({}) k", list.join(", "), numbers(*first, *count))
            }
            Op::AddColumn { table, column, kind } => {
                format!("ALTER TABLE {table} ADD COLUMN {column} {}", column_type(*kind))
            }
            Op::DropColumn { table, column } => format!("ALTER TABLE {table} DROP COLUMN {column}"),
            Op::IntToText { table, column } => {
                format!("ALTER TABLE {table} MODIFY COLUMN {column} {}", column_type(ColumnKind::Text))
            }
        })
    }

    async fn purge(&self, session: &mut Conn) -> FixtureResult<()> {
        session.query_drop("FLUSH BINARY LOGS").await.map_err(failed)?;
        // A session that has just ended may hold a file for a moment.
        for _ in 0..100 {
            let files: Vec<mysql_async::Row> = session.query("SHOW BINARY LOGS").await.map_err(failed)?;
            let last: String = files.last().and_then(|row| row.get(0)).ok_or_else(|| failed("no binary log"))?;
            if files.len() == 1 {
                return Ok(());
            }
            session.query_drop(format!("PURGE BINARY LOGS TO '{last}'")).await.map_err(failed)?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(FixtureError("binary logs stay in use".into()))
    }

    fn forget_log(&self) -> &'static str {
        match self.setup.flavour {
            MysqlFlavour::MariaDb => "RESET MASTER",
            MysqlFlavour::MySql => "RESET BINARY LOGS AND GTIDS",
        }
    }
}

/// A query of one column `n` with `count` numbers from `first` on; recursion is limited by default on both servers.
fn numbers(first: i64, count: u32) -> String {
    let digit = "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL \
                 SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let places = count.max(2).ilog10() + 1;
    let sum: Vec<String> = (0..places).map(|p| format!("p{p}.d * {}", 10_u32.pow(p))).collect();
    let tables: Vec<String> = (0..places).map(|p| format!("{digit} p{p}")).collect();
    let (sum, tables) = (sum.join(" + "), tables.join(", "));
    format!("SELECT {first} + {sum} AS n FROM {tables} WHERE {sum} < {count} ORDER BY 1")
}

/// A table's name for SQL.
fn quoted(table: &TableId) -> String {
    let quote = |name: &str| format!("`{}`", name.replace('`', "``"));
    format!("{}.{}", quote(&table.schema), quote(&table.name))
}

fn describe(error: &mysql_async::Error, sql: &str) -> String {
    format!("{error} in: {}", sql.chars().take(300).collect::<String>())
}

#[async_trait]
impl Fixture for MysqlFixture {
    fn name(&self) -> String {
        let how = |on: bool, yes: &'static str, no: &'static str| if on { yes } else { no };
        let setup = self.setup;
        format!(
            "{} {} ({}, {}{})",
            setup.label,
            self.version,
            how(setup.gtid, "global ids", "file and offset"),
            how(setup.metadata, "names in the log", "no names in the log"),
            how(setup.compressed, ", compressed", ""),
        )
    }

    fn connector(&self) -> Arc<dyn Connector> {
        self.connector_to(self.cluster.port(), "tidemark", PASSWORD, DATABASE)
    }

    fn request(&self, table: &TableDef) -> TableRequest {
        TableRequest { table: TableId::new(DATABASE, table.name.as_str()), columns: None, key: None }
    }

    async fn reset(&self, tables: &[TableDef]) -> FixtureResult<()> {
        self.proxies.lock().expect("not poisoned").clear();
        self.sessions.lock().await.clear();
        let mut session = Self::connect(&self.cluster).await?;
        let sessions = "SELECT id FROM information_schema.processlist WHERE user = 'tidemark'";
        for id in session.query::<u64, _>(sessions).await.map_err(failed)? {
            // It may have ended in between.
            let _ = session.query_drop(format!("KILL {id}")).await;
        }
        let sql = format!("DROP DATABASE {DATABASE}; CREATE DATABASE {DATABASE}; USE {DATABASE}");
        for sql in sql.split("; ").map(str::to_owned).chain(tables.iter().map(create_table)) {
            session.query_drop(&sql).await.map_err(|e| failed(describe(&e, &sql)))?;
        }
        let keys = |table: &TableDef| table.columns[..table.key].iter().map(|(name, _)| name.clone()).collect();
        *self.keys.lock().expect("not poisoned") = tables.iter().map(|t| (t.name.clone(), keys(t))).collect();
        session.disconnect().await.map_err(failed)
    }

    async fn run(&self, steps: &[Step]) -> FixtureResult<()> {
        let mut sessions = self.sessions.lock().await;
        for step in steps {
            let (Step::Begin(number) | Step::Run(number, _) | Step::Commit(number) | Step::Rollback(number)) = step;
            let number = usize::from(*number);
            if sessions.len() <= number {
                sessions.resize_with(number + 1, || None);
            }
            if sessions[number].is_none() {
                sessions[number] = Some(Self::connect(&self.cluster).await?);
            }
            let session = sessions[number].as_mut().ok_or_else(|| failed("no session"))?;
            let sql = match step {
                Step::Begin(_) => "BEGIN".to_owned(),
                Step::Run(_, op) => self.statement(session, op).await?,
                Step::Commit(_) => "COMMIT".to_owned(),
                Step::Rollback(_) => "ROLLBACK".to_owned(),
            };
            if let Err(error) = session.query_drop(&sql).await {
                let _ = session.query_drop("ROLLBACK").await;
                return Err(failed(describe(&error, &sql)));
            }
        }
        Ok(())
    }

    async fn disturb(&self, how: Disturbance) -> FixtureResult<bool> {
        let mut session = Self::connect(&self.cluster).await?;
        match how {
            Disturbance::Expire => self.purge(&mut session).await?,
            Disturbance::Recreate => session.query_drop(self.forget_log()).await.map_err(failed)?,
        }
        session.disconnect().await.map_err(failed)?;
        Ok(true)
    }

    async fn foreign(&self, tables: &[TableDef]) -> FixtureResult<Option<Arc<dyn Connector>>> {
        let setup = self.setup;
        // It has the same `server_id`: a server that was built again, or another one behind the same name.
        let start = || async {
            tokio::task::spawn_blocking(move || start_cluster(setup)).await.map_err(failed)?.map_err(failed)
        };
        let other = self.other.get_or_try_init(start).await?;
        let mut session = Self::connect(other).await?;
        for table in tables {
            session.query_drop(create_table(table)).await.map_err(failed)?;
        }
        session.disconnect().await.map_err(failed)?;
        Ok(Some(self.connector_to(other.port(), "tidemark", PASSWORD, DATABASE)))
    }

    async fn leftovers(&self) -> FixtureResult<BTreeSet<Leftover>> {
        let mut session = Self::connect(&self.cluster).await?;
        let sql = "SELECT 'session', cast(id AS char) FROM information_schema.processlist WHERE user = 'tidemark'
            UNION ALL SELECT 'table', concat(table_schema, '.', table_name) FROM information_schema.tables
            UNION ALL SELECT 'user', concat(user, '@', host) FROM mysql.user";
        let rows: Vec<(String, String)> = session.query(sql).await.map_err(failed)?;
        session.disconnect().await.map_err(failed)?;
        Ok(rows.into_iter().map(|(kind, name)| Leftover { kind, name }).collect())
    }

    async fn contents(&self) -> FixtureResult<BTreeMap<String, String>> {
        let mut session = Self::connect(&self.cluster).await?;
        let mut all = BTreeMap::new();
        let tables = "SELECT concat(table_schema, '.', table_name) FROM information_schema.tables
            WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('mysql', 'sys', 'performance_schema')";
        for table in session.query::<String, _>(tables).await.map_err(failed)? {
            let sum: Option<(String, Option<u64>)> =
                session.query_first(format!("CHECKSUM TABLE {table}")).await.map_err(failed)?;
            all.insert(table, format!("{:?}", sum.and_then(|(_, sum)| sum)));
        }
        let routines = "SELECT concat(routine_schema, '.', routine_name), 'routine' FROM information_schema.routines
            WHERE routine_schema = 'shop'
            UNION ALL SELECT trigger_name, 'trigger' FROM information_schema.triggers WHERE trigger_schema = 'shop'";
        all.extend(session.query::<(String, String), _>(routines).await.map_err(failed)?);
        // Whatever anybody writes, a row that is removed again and any definition included, moves the end of the log;
        // writes that stay out of it are counted by the storage engine.
        let logs: Vec<mysql_async::Row> = session.query("SHOW BINARY LOGS").await.map_err(failed)?;
        for row in logs {
            let (file, size): (String, u64) =
                row.get(0).zip(row.get(1)).ok_or_else(|| failed("SHOW BINARY LOGS has other columns"))?;
            all.insert(file, size.to_string());
        }
        for counter in ["Innodb_rows_inserted", "Innodb_rows_updated", "Innodb_rows_deleted"] {
            let row: Option<(String, String)> =
                session.query_first(format!("SHOW GLOBAL STATUS LIKE '{counter}'")).await.map_err(failed)?;
            all.extend(row);
        }
        session.disconnect().await.map_err(failed)?;
        Ok(all)
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.into(), WRONG_PASSWORD.into()]
    }

    async fn broken(&self) -> FixtureResult<Vec<(String, Arc<dyn Connector>)>> {
        let port = self.cluster.port();
        let unused = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(failed)?.port();
        Ok(vec![
            ("a wrong password".into(), self.connector_to(port, "tidemark", WRONG_PASSWORD, DATABASE)),
            ("a missing database".into(), self.connector_to(port, "tidemark", PASSWORD, "no_such_database")),
            ("a port where nobody listens".into(), self.connector_to(unused, "tidemark", PASSWORD, DATABASE)),
            ("an account that may not replicate".into(), self.connector_to(port, "nobody", PASSWORD, DATABASE)),
        ])
    }

    async fn hostile(&self, seed: u64) -> FixtureResult<Option<Hostile>> {
        let server = SocketAddr::from(([127, 0, 0, 1], self.cluster.port()));
        let connections = std::sync::atomic::AtomicU64::new(seed);
        let next = move || connections.fetch_add(mangle::KINDS, std::sync::atomic::Ordering::Relaxed);
        let proxy = Proxy::mangling(server, move || mangle::mangler(next(), true)).await.map_err(failed)?;
        let connector = self.connector_to(proxy.addr().port(), "tidemark", PASSWORD, DATABASE);
        self.proxies.lock().expect("not poisoned").push(proxy);
        // A flipped bit inside a text is another text: not every damage can be seen.
        Ok(Some(Hostile { connector, must_fail: false }))
    }

    fn hostile_seeds(&self) -> u64 {
        if crate::support::soak() { 20 * mangle::KINDS } else { 2 * mangle::KINDS }
    }

    async fn create_corpora(&self) -> FixtureResult<Vec<Corpus>> {
        self.loosely(corpus::create(self.setup.flavour)).await?;
        Ok(corpus::corpora(self.setup.flavour))
    }

    async fn load_corpus(&self, corpus: &Corpus) -> FixtureResult<()> {
        self.loosely(corpus::load(self.setup.flavour, &corpus.label)).await
    }

    async fn touch_corpus(&self, corpus: &Corpus) -> FixtureResult<()> {
        let Some(counter) = &corpus.counter else { return Ok(()) };
        let table = quoted(&corpus.request.table);
        self.loosely(vec![format!("UPDATE {table} SET {counter} = {counter} + 1")]).await
    }
}
