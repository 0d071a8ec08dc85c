//! Drives a SQL Server for the battery, by SQL alone.

use super::server::{Server, Session, enable, enable_cdc};
use super::{corpus, mangle};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemark_conformance::{
    Cell, ColumnKind, Corpus, Disturbance, Fixture, FixtureError, FixtureResult, Hostile, Leftover, Op, Proxy, Step,
    TableDef,
};
use tidemark_contract::{Connector, TableId, TableRequest};
use tidemark_sqlserver::{Mode, Password, SqlServer, SqlServerConfig, TlsConfig, TlsMode};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

const PASSWORD: &str = "My s3cr3t/+%&'x";
const WRONG_PASSWORD: &str = "Wr0ng s3cr3t/+%&";

/// How changes come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Change data capture.
    Capture,
    /// Change tracking.
    Tracking,
}

impl Way {
    /// The checks it is for. Of rows that changed several times change tracking tells the last state only, whatever was in
    /// between: the sequence of all changes, which R1, R2, R4 and R5 compare, is what it does not keep. The connector's own
    /// tests look at order, resuming and moved keys under it.
    pub fn checks(self) -> &'static [u8] {
        match self {
            Way::Capture => &[1, 2, 3, 4, 5, 7, 8, 10, 11, 12],
            Way::Tracking => &[3, 7, 8, 10, 11, 12],
        }
    }

    fn mode(self) -> Mode {
        match self {
            Way::Capture => Mode::Auto,
            Way::Tracking => Mode::ChangeTracking,
        }
    }

    /// The statement that makes a table's changes be kept.
    fn enable(self, table: &str, instance: &str) -> String {
        match self {
            Way::Capture => enable(table, instance),
            Way::Tracking => format!("ALTER TABLE dbo.[{}] ENABLE CHANGE_TRACKING", table.replace(']', "]]")),
        }
    }

    /// Waits until changes can be read; change tracking is part of the commit.
    async fn settled(self, session: &mut Session) -> Result<(), String> {
        match self {
            Way::Capture => session.captured().await,
            Way::Tracking => Ok(()),
        }
    }
}

/// A server, and a database on it.
struct Place {
    server: Server,
    way: Way,
    database: String,
    /// Logins belong to the server: their names say whose they are.
    user: String,
}

impl Place {
    async fn make(server: Server, way: Way) -> Result<Self, String> {
        let database = server.database_name();
        server.create_database(&database, way == Way::Capture).await?;
        let place = Self { user: format!("{database}_reader"), server, database, way };
        let mut session = place.server.connect(&place.database).await?;
        for (user, rights) in [(place.user.clone(), true), (place.nobody(), false)] {
            let password = PASSWORD.replace('\'', "''");
            session.run(&format!("CREATE LOGIN [{user}] WITH PASSWORD = N'{password}'")).await?;
            session.run(&format!("CREATE USER [{user}] FOR LOGIN [{user}]")).await?;
            session.run(&format!("GRANT SELECT ON SCHEMA::dbo TO [{user}]")).await?;
            if rights && way == Way::Tracking {
                session.run(&format!("GRANT VIEW CHANGE TRACKING ON SCHEMA::dbo TO [{user}]")).await?;
            } else if rights {
                session.run(&format!("GRANT SELECT ON SCHEMA::cdc TO [{user}]")).await?;
                session.run(&format!("GRANT VIEW DATABASE STATE TO [{user}]")).await?;
            }
        }
        Ok(place)
    }

    /// A login that may read the tables and nothing else.
    fn nobody(&self) -> String {
        format!("{}_nobody", self.database)
    }

    async fn connect(&self) -> FixtureResult<Session> {
        self.server.connect(&self.database).await.map_err(FixtureError)
    }

    fn connector_to(&self, address: (&str, u16), user: &str, password: &str, database: &str) -> Arc<dyn Connector> {
        let mut config = SqlServerConfig::new(address.0, address.1, database, user);
        config.password = Some(Password::new(password));
        config.tls = TlsConfig::new(TlsMode::Disable);
        config.mode = self.way.mode();
        config.poll_interval = Duration::from_millis(10);
        // A damaged end of a result makes a client wait for what does not come.
        config.statement_timeout = Duration::from_millis(700);
        config.connect_timeout = Duration::from_secs(3);
        config.application_name = self.user.clone();
        Arc::new(SqlServer::new(config))
    }

    fn address(&self) -> (&str, u16) {
        (&self.server.host, self.server.port)
    }

    fn connector(&self) -> Arc<dyn Connector> {
        let mut config = SqlServerConfig::new(&*self.server.host, self.server.port, &*self.database, &*self.user);
        config.password = Some(Password::new(PASSWORD));
        config.tls = TlsConfig::new(TlsMode::Disable);
        config.mode = self.way.mode();
        config.poll_interval = Duration::from_millis(10);
        config.application_name = self.user.clone();
        Arc::new(SqlServer::new(config))
    }
}

pub struct SqlServerFixture {
    version: String,
    place: Place,
    other: OnceCell<Place>,
    /// One per session number, opened when first needed.
    sessions: AsyncMutex<Vec<Option<Slot>>>,
    proxies: Mutex<Vec<Proxy>>,
    /// Key columns of the tables of the present check.
    keys: Mutex<BTreeMap<String, Vec<String>>>,
    /// How many capture instances each table has had.
    instances: Mutex<BTreeMap<String, u32>>,
}

/// A session, and what it is to run when it commits. The simulator has one writer at a time, so that transactions that are
/// open beside each other would wait for each other for ever; there they run when they end.
struct Slot {
    session: Session,
    queue: Vec<String>,
}

fn column_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Int => "bigint",
        ColumnKind::Text => "nvarchar(2000)",
        ColumnKind::Big => "nvarchar(max)",
    }
}

fn create_table(table: &TableDef) -> String {
    let column = |(at, (name, kind)): (usize, &(String, ColumnKind))| match kind {
        // An index holds 900 bytes.
        ColumnKind::Text if at < table.key => format!("{name} nvarchar(300) NOT NULL"),
        _ if at < table.key => format!("{name} {} NOT NULL", column_type(*kind)),
        _ => format!("{name} {} NULL", column_type(*kind)),
    };
    let columns: Vec<String> = table.columns.iter().enumerate().map(column).collect();
    let key: Vec<&str> = table.columns[..table.key].iter().map(|(name, _)| name.as_str()).collect();
    format!("CREATE TABLE dbo.{} ({}, PRIMARY KEY ({}))", table.name, columns.join(", "), key.join(", "))
}

fn literal(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".into(),
        Cell::Int(number) => number.to_string(),
        cell => format!("N'{}'", cell.as_text().unwrap_or_default().replace('\'', "''")),
    }
}

/// A query of one column `n` with `count` numbers from `first` on.
fn numbers(first: i64, count: u32) -> String {
    let digit = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL \
                 SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let places = count.max(2).ilog10() + 1;
    let sum: Vec<String> = (0..places).map(|p| format!("p{p}.d * {}", 10_u32.pow(p))).collect();
    let tables: Vec<String> = (0..places).map(|p| format!("{digit} p{p}")).collect();
    let (sum, tables) = (sum.join(" + "), tables.join(" CROSS JOIN "));
    format!("SELECT {first} + {sum} AS n FROM {tables} WHERE {sum} < {count}")
}

impl SqlServerFixture {
    /// A fixture on this server.
    pub async fn on(server: Server, way: Way) -> Result<Arc<Self>, String> {
        let place = Place::make(server, way).await?;
        let sql = "SELECT CAST(SERVERPROPERTY('ProductVersion') AS nvarchar(128))";
        let version = place.server.connect("master").await?.rows(sql).await?;
        let version = version.into_iter().flatten().next().flatten().unwrap_or_default();
        Ok(Arc::new(Self {
            version,
            place,
            other: OnceCell::new(),
            sessions: AsyncMutex::default(),
            proxies: Mutex::default(),
            keys: Mutex::default(),
            instances: Mutex::default(),
        }))
    }

    /// Removes everything from a server that was lent.
    pub async fn finish(&self) -> FixtureResult<()> {
        self.sessions.lock().await.clear();
        for place in [Some(&self.place), self.other.get()].into_iter().flatten() {
            place.server.drop_database(&place.database).await.map_err(FixtureError)?;
            if !place.server.is_simulated() {
                let mut session = place.server.connect("master").await.map_err(FixtureError)?;
                for login in [place.user.clone(), place.nobody()] {
                    session.run(&format!("DROP LOGIN [{login}]")).await.map_err(FixtureError)?;
                }
            }
        }
        Ok(())
    }

    fn key_is(&self, table: &str, key: &[Cell]) -> String {
        let names = self.keys.lock().expect("not poisoned").get(table).cloned().unwrap_or_default();
        let part = |(name, cell): (&String, &Cell)| format!("{name} = {}", literal(cell));
        names.iter().zip(key).map(part).collect::<Vec<_>>().join(" AND ")
    }

    async fn statement(&self, session: &mut Session, op: &Op) -> FixtureResult<String> {
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
            Op::Truncate { .. } => return Err(FixtureError("a captured table cannot be truncated".into())),
            Op::InsertMany { table, first, count, width } => {
                let sql = format!(
                    "SELECT t.name FROM sys.columns c JOIN sys.types t ON t.user_type_id = c.user_type_id \
                     WHERE c.object_id = OBJECT_ID(N'dbo.{table}') ORDER BY c.column_id"
                );
                let kinds = session.rows(&sql).await.map_err(FixtureError)?;
                let word = tidemark_conformance::filler(7, 64);
                let long = format!("LEFT(REPLICATE(N'{word}', {}), {width})", width / 64 + 1);
                let list: Vec<&str> = kinds
                    .iter()
                    .map(|row| if row[0].as_deref() == Some("bigint") { "k.n" } else { long.as_str() })
                    .collect();
                format!("INSERT INTO {table} SELECT {} FROM ({}) k", list.join(", "), numbers(*first, *count))
            }
            Op::AddColumn { table, column, kind } => {
                format!("ALTER TABLE {table} ADD {column} {} NULL", column_type(*kind))
            }
            Op::DropColumn { table, column } => format!("ALTER TABLE {table} DROP COLUMN {column}"),
            Op::IntToText { table, column } => {
                format!("ALTER TABLE {table} ALTER COLUMN {column} {} NULL", column_type(ColumnKind::Text))
            }
        })
    }

    /// What an administrator does when a column was added: a second instance, which takes over where it begins. Of three,
    /// the first must go; the stream is past its end by then.
    async fn capture_new_column(&self, session: &mut Session, table: &str) -> Result<(), String> {
        let number = {
            let mut instances = self.instances.lock().expect("not poisoned");
            let number = instances.entry(table.to_owned()).or_insert(1);
            *number += 1;
            *number
        };
        if number > 2 {
            let oldest = instance(table, number - 2);
            session
                .run(&format!(
                    "EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'{table}', \
                     @capture_instance = N'{oldest}'"
                ))
                .await?;
        }
        session.run(&enable(table, &instance(table, number))).await
    }

    async fn drop_tables(&self, session: &mut Session) -> Result<(), String> {
        let sql = "SELECT name FROM sys.tables WHERE schema_id = SCHEMA_ID(N'dbo') AND is_ms_shipped = 0 \
                   AND name NOT IN (N'fence', N'systranschemas')";
        for row in session.rows(sql).await? {
            let name = row[0].clone().unwrap_or_default();
            // Takes its capture instances along.
            session.run(&format!("DROP TABLE dbo.[{}]", name.replace(']', "]]"))).await?;
        }
        Ok(())
    }

    async fn create(way: Way, session: &mut Session, tables: &[TableDef]) -> Result<(), String> {
        for table in tables {
            session.run(&create_table(table)).await?;
            session.run(&way.enable(&table.name, &instance(&table.name, 1))).await?;
        }
        // An instance begins when the log reader comes to it.
        way.settled(session).await
    }
}

/// Name of a table's n-th capture instance.
fn instance(table: &str, number: u32) -> String {
    format!("dbo_{table}_{number}")
}

#[async_trait]
impl Fixture for SqlServerFixture {
    fn name(&self) -> String {
        let what = if self.place.server.is_simulated() { "SQL Server, SIMULATED" } else { "SQL Server" };
        let way = match self.place.way {
            Way::Capture => "change data capture",
            Way::Tracking => "change tracking",
        };
        format!("{what} {} ({way})", self.version)
    }

    fn connector(&self) -> Arc<dyn Connector> {
        self.place.connector()
    }

    fn request(&self, table: &TableDef) -> TableRequest {
        TableRequest { table: TableId::new("dbo", table.name.as_str()), columns: None, key: None }
    }

    async fn reset(&self, tables: &[TableDef]) -> FixtureResult<()> {
        self.proxies.lock().expect("not poisoned").clear();
        self.sessions.lock().await.clear();
        let mut session = self.place.connect().await?;
        let sessions =
            format!("SELECT session_id FROM sys.dm_exec_sessions WHERE program_name = N'{}'", self.place.user);
        for row in session.rows(&sessions).await.map_err(FixtureError)? {
            // It may have ended in between.
            let _ = session.run(&format!("KILL {}", row[0].clone().unwrap_or_default())).await;
        }
        self.drop_tables(&mut session).await.map_err(FixtureError)?;
        Self::create(self.place.way, &mut session, tables).await.map_err(FixtureError)?;
        let keys = |table: &TableDef| table.columns[..table.key].iter().map(|(name, _)| name.clone()).collect();
        *self.keys.lock().expect("not poisoned") = tables.iter().map(|t| (t.name.clone(), keys(t))).collect();
        self.instances.lock().expect("not poisoned").clear();
        Ok(())
    }

    async fn run(&self, steps: &[Step]) -> FixtureResult<()> {
        let queued = self.place.server.is_simulated();
        let mut slots = self.sessions.lock().await;
        for step in steps {
            let (Step::Begin(number) | Step::Run(number, _) | Step::Commit(number) | Step::Rollback(number)) = step;
            let number = usize::from(*number);
            if slots.len() <= number {
                slots.resize_with(number + 1, || None);
            }
            if slots[number].is_none() {
                slots[number] = Some(Slot { session: self.place.connect().await?, queue: Vec::new() });
            }
            let Some(slot) = slots[number].as_mut() else { return Err(FixtureError("no session".into())) };
            let sql = match step {
                Step::Begin(_) => "BEGIN TRAN".to_owned(),
                Step::Run(
                    _,
                    Op::AddColumn { table, .. } | Op::DropColumn { table, .. } | Op::IntToText { table, .. },
                ) => {
                    let Step::Run(_, op) = step else { unreachable!() };
                    let sql = self.statement(&mut slot.session, op).await?;
                    slot.session.run("IF @@TRANCOUNT > 0 ROLLBACK").await.map_err(FixtureError)?;
                    slot.queue.clear();
                    slot.session.run(&sql).await.map_err(FixtureError)?;
                    if matches!(op, Op::AddColumn { .. }) && self.place.way == Way::Capture {
                        self.capture_new_column(&mut slot.session, table).await.map_err(FixtureError)?;
                    }
                    slot.session.run("BEGIN TRAN").await.map_err(FixtureError)?;
                    continue;
                }
                Step::Run(_, op) => self.statement(&mut slot.session, op).await?,
                Step::Commit(_) => "IF @@TRANCOUNT > 0 COMMIT".to_owned(),
                Step::Rollback(_) => "IF @@TRANCOUNT > 0 ROLLBACK".to_owned(),
            };
            slot.queue.push(sql);
            if queued && !matches!(step, Step::Commit(_) | Step::Rollback(_)) {
                continue;
            }
            for sql in std::mem::take(&mut slot.queue) {
                if let Err(error) = slot.session.run(&sql).await {
                    let _ = slot.session.run("IF @@TRANCOUNT > 0 ROLLBACK").await;
                    return Err(FixtureError(error));
                }
            }
        }
        Ok(())
    }

    async fn settle(&self) -> FixtureResult<()> {
        let mut session = self.place.connect().await?;
        self.place.way.settled(&mut session).await.map_err(FixtureError)
    }

    async fn disturb(&self, how: Disturbance) -> FixtureResult<bool> {
        let mut session = self.place.connect().await?;
        if self.place.way == Way::Tracking {
            let keys = self.keys.lock().expect("not poisoned").clone();
            for table in keys.keys() {
                let sql = match how {
                    // As the clean-up does, it makes earlier versions invalid.
                    Disturbance::Expire => format!("TRUNCATE TABLE dbo.{table}"),
                    Disturbance::Recreate => format!(
                        "ALTER TABLE dbo.{table} DISABLE CHANGE_TRACKING; ALTER TABLE dbo.{table} ENABLE CHANGE_TRACKING"
                    ),
                };
                session.run(&sql).await.map_err(FixtureError)?;
            }
            return Ok(true);
        }
        match how {
            Disturbance::Expire => {
                session.captured().await.map_err(FixtureError)?;
                let low = "SELECT MAX(start_lsn) FROM cdc.lsn_time_mapping WHERE tran_id <> 0x00";
                let low = session.rows(low).await.map_err(FixtureError)?;
                let low = low.into_iter().flatten().next().flatten().unwrap_or_default();
                let instances = session.rows("SELECT capture_instance FROM cdc.change_tables").await;
                for row in instances.map_err(FixtureError)? {
                    let name = row[0].clone().unwrap_or_default();
                    let sql = format!(
                        "EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'{name}', @low_water_mark = 0x{low}, \
                         @threshold = 4000"
                    );
                    session.run(&sql).await.map_err(FixtureError)?;
                }
            }
            Disturbance::Recreate => {
                let keys = self.keys.lock().expect("not poisoned").clone();
                session.captured().await.map_err(FixtureError)?;
                session.run("EXEC sys.sp_cdc_disable_db").await.map_err(FixtureError)?;
                enable_cdc(&mut session, self.place.server.is_simulated()).await.map_err(FixtureError)?;
                for table in keys.keys() {
                    session.run(&enable(table, &instance(table, 1))).await.map_err(FixtureError)?;
                }
                // The schema is a new one, and so are the rights on it.
                let grant = format!("GRANT SELECT ON SCHEMA::cdc TO [{}]", self.place.user);
                session.run(&grant).await.map_err(FixtureError)?;
                session.captured().await.map_err(FixtureError)?;
            }
        }
        Ok(true)
    }

    async fn foreign(&self, tables: &[TableDef]) -> FixtureResult<Option<Arc<dyn Connector>>> {
        let start = || async {
            let server = tokio::task::spawn_blocking(Server::start).await.map_err(|e| e.to_string())??;
            Place::make(server, self.place.way).await
        };
        let other = self.other.get_or_try_init(start).await.map_err(FixtureError)?;
        let mut session = other.connect().await?;
        self.drop_tables(&mut session).await.map_err(FixtureError)?;
        Self::create(self.place.way, &mut session, tables).await.map_err(FixtureError)?;
        Ok(Some(other.connector()))
    }

    async fn leftovers(&self) -> FixtureResult<BTreeSet<Leftover>> {
        let mut session = self.place.connect().await?;
        let instances = match self.place.way {
            Way::Capture => "UNION ALL SELECT N'capture instance', capture_instance FROM cdc.change_tables",
            Way::Tracking => "",
        };
        let sql = format!(
            "SELECT N'session' AS kind, CAST(session_id AS nvarchar(200)) AS name FROM sys.dm_exec_sessions \
             WHERE program_name = N'{}' \
             UNION ALL SELECT N'object', name FROM sys.objects WHERE is_ms_shipped = 0 \
             {instances} UNION ALL SELECT N'user', name FROM sys.database_principals",
            self.place.user
        );
        let rows = session.rows(&sql).await.map_err(FixtureError)?;
        let left = |row: &Vec<Option<String>>| {
            let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
            Leftover { kind: text(0), name: text(1) }
        };
        Ok(rows.iter().map(left).collect())
    }

    async fn contents(&self) -> FixtureResult<BTreeMap<String, String>> {
        let mut session = self.place.connect().await?;
        // The change tables are filled behind the commits: an account taken before the log reader has come to them would
        // lay the test's own rows at the connector's door, and miss a row that the connector wrote a moment ago.
        self.place.way.settled(&mut session).await.map_err(FixtureError)?;
        let mut all = BTreeMap::new();
        let tables = "SELECT name FROM sys.tables WHERE schema_id = SCHEMA_ID(N'dbo') AND is_ms_shipped = 0";
        for row in session.rows(tables).await.map_err(FixtureError)? {
            let name = row[0].clone().unwrap_or_default();
            if name == "fence" {
                continue;
            }
            let rows = session.rows(&format!("SELECT * FROM dbo.[{name}] ORDER BY 1")).await.map_err(FixtureError)?;
            all.insert(name, format!("{rows:?}"));
        }
        // Whatever anybody writes into a table, a row that is removed again included, leaves rows here or counts there.
        let instances = match self.place.way {
            Way::Capture => {
                session.rows("SELECT capture_instance FROM cdc.change_tables").await.map_err(FixtureError)?
            }
            Way::Tracking => {
                let version = session.number("SELECT CAST(CHANGE_TRACKING_CURRENT_VERSION() AS bigint)").await;
                all.insert("version".into(), version.map_err(FixtureError)?.to_string());
                Vec::new()
            }
        };
        for name in instances.into_iter().flatten().flatten().filter(|name| name != "dbo_fence") {
            let rows = session.number(&format!("SELECT CAST(COUNT(*) AS bigint) FROM cdc.[{name}_CT]")).await;
            all.insert(format!("changes of {name}"), rows.map_err(FixtureError)?.to_string());
        }
        let objects = "SELECT name, type FROM sys.objects WHERE is_ms_shipped = 0";
        for row in session.rows(objects).await.map_err(FixtureError)? {
            all.insert(format!("object {:?}", row[0]), format!("{:?}", row[1]));
        }
        Ok(all)
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.into(), WRONG_PASSWORD.into()]
    }

    async fn broken(&self) -> FixtureResult<Vec<(String, Arc<dyn Connector>)>> {
        let place = &self.place;
        let unused = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let unused = unused.map_err(|e| FixtureError(e.to_string()))?.port();
        let (at, nowhere) = (place.address(), ("127.0.0.1", unused));
        let (user, nobody, database) = (&*place.user, place.nobody(), &*place.database);
        Ok(vec![
            ("a wrong password".into(), place.connector_to(at, user, WRONG_PASSWORD, database)),
            ("a missing database".into(), place.connector_to(at, user, PASSWORD, "no_such_database")),
            ("a port where nobody listens".into(), place.connector_to(nowhere, user, PASSWORD, database)),
            ("a user without rights on the changes".into(), place.connector_to(at, &nobody, PASSWORD, database)),
        ])
    }

    async fn hostile(&self, seed: u64) -> FixtureResult<Option<Hostile>> {
        let (host, port) = self.place.address();
        let failed = |e: std::io::Error| FixtureError(e.to_string());
        let server: Option<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.next();
        let server = server.ok_or_else(|| FixtureError("the server has no address".into()))?;
        let connections = std::sync::atomic::AtomicU64::new(seed);
        let next = move || connections.fetch_add(mangle::KINDS, std::sync::atomic::Ordering::Relaxed);
        let proxy = Proxy::mangling(server, move || mangle::mangler(next())).await.map_err(failed)?;
        let at = ("127.0.0.1", proxy.addr().port());
        let connector = self.place.connector_to(at, &self.place.user, PASSWORD, &self.place.database);
        self.proxies.lock().expect("not poisoned").push(proxy);
        // A flipped bit inside a text is another text: not every damage can be seen.
        Ok(Some(Hostile { connector, must_fail: false }))
    }

    fn hostile_seeds(&self) -> u64 {
        mangle::KINDS
    }

    fn leaves_out_large(&self) -> bool {
        // Of a real server no page says it; the simulator of these tests is one that does.
        self.place.server.is_simulated()
    }

    fn earlier_shapes_remain(&self) -> bool {
        // A table has two capture instances at most: the third shape costs the first.
        false
    }

    async fn create_corpora(&self) -> FixtureResult<Vec<Corpus>> {
        let mut session = self.place.connect().await?;
        // Change tracking names rows by the primary key, and takes no table without one.
        let fits = |name: &str| self.place.way == Way::Capture || name != "k_declared";
        for (number, (name, sql)) in corpus::create().iter().enumerate().filter(|(_, (name, _))| fits(name)) {
            session.run(sql).await.map_err(FixtureError)?;
            session.run(&self.place.way.enable(name, &format!("corpus_{number}"))).await.map_err(FixtureError)?;
        }
        self.place.way.settled(&mut session).await.map_err(FixtureError)?;
        Ok(corpus::corpora().into_iter().filter(|corpus| fits(&corpus.label)).collect())
    }

    async fn load_corpus(&self, corpus: &Corpus) -> FixtureResult<()> {
        let mut session = self.place.connect().await?;
        for sql in corpus::load(&corpus.label) {
            session.run(&sql).await.map_err(FixtureError)?;
        }
        Ok(())
    }

    async fn touch_corpus(&self, corpus: &Corpus) -> FixtureResult<()> {
        let Some(counter) = &corpus.counter else { return Ok(()) };
        let name = corpus.request.table.name.replace(']', "]]");
        let sql = format!("UPDATE dbo.[{name}] SET {counter} = {counter} + 1");
        self.place.connect().await?.run(&sql).await.map_err(FixtureError)
    }
}
