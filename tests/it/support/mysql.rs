//! The vendor's database on MariaDB or MySQL: Northwind with what the judge needs added to it, Sakila, or tables of a
//! scenario's own.

use crate::support::crm::{Content, Crm};
use crate::support::daemon::Tenant;
use crate::support::source::{PASSWORD, everything_is_required, repository};
use crate::support::{Scene, Vendor, judge};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Pool, Row};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use tidemark_throwaway::{MysqlCluster, MysqlFlavour, MysqlOptions};

/// A server of the tests.
pub struct MysqlSource {
    pub cluster: MysqlCluster,
    pub database: &'static str,
}

/// A scene on one of the two servers.
pub type MysqlScene = Scene<MysqlSource>;

/// The tables of Northwind that are mapped: columns that no rule maps, the key as it appears in external ids, and whether
/// a row is in scope.
const JUDGED: [(&str, &[&str], &str, &str); 6] = [
    ("Customers", &["Fax"], "concat('cust-', {}.CustomerID)", "true"),
    ("Suppliers", &["Fax", "ContactName"], "concat('supp-', {}.SupplierID)", "true"),
    ("Employees", &["Extension", "Title"], "{}.EmployeeID", "true"),
    ("Products", &["ReorderLevel", "QuantityPerUnit"], "{}.ProductID", "true"),
    ("Orders", &["ShipVia", "RequiredDate"], "{}.OrderID", "true"),
    ("Order Details", &[], "concat({}.OrderID, '-', {}.ProductID)", "{}.Quantity < 1000"),
];

impl MysqlSource {
    /// A server without anything, or `None`, said aloud, where there is none and nobody insists.
    pub async fn bare(options: MysqlOptions, database: &'static str) -> Option<Self> {
        // The judge's account needs a function that writes, on replicas too.
        let options = options.setting("log-bin-trust-function-creators", "ON");
        let cluster = match tokio::task::spawn_blocking(|| MysqlCluster::start(options)).await.expect("no panic") {
            Ok(cluster) => cluster,
            Err(error @ tidemark_throwaway::Error::Missing { .. }) if !everything_is_required() => {
                println!("DID NOT RUN: {error}");
                return None;
            }
            Err(error) => panic!("cannot start the server: {error}"),
        };
        Some(Self { cluster, database })
    }

    /// A server with an empty database and the daemon's account.
    pub async fn empty(options: MysqlOptions, database: &'static str) -> Option<Self> {
        let source = Self::bare(options, database).await?;
        let password = PASSWORD.replace('\'', "''");
        source.admin(&format!(
            "CREATE DATABASE {database} CHARACTER SET utf8mb4; CREATE USER tidemark@'%' IDENTIFIED BY '{password}';
             GRANT SELECT ON {database}.* TO tidemark@'%';
             GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO tidemark@'%'"
        ));
        Some(source)
    }

    /// Northwind, prepared for the judge.
    pub async fn northwind(options: MysqlOptions) -> Option<Self> {
        let source = Self::empty(options, "northwind").await?;
        let file = repository("packs/northwind/data/mysql-northwind.sql");
        source.cluster.sql_file(None, &file).expect("the script runs");
        source.prepare().await;
        Some(source)
    }

    /// Sakila as it is shipped.
    pub async fn sakila(options: MysqlOptions) -> Option<Self> {
        let source = Self::empty(options, "sakila").await?;
        for name in ["schema", "data"] {
            let packed = std::fs::File::open(repository(&format!("tests/data/sakila/mysql-sakila-{name}.sql.gz")));
            let mut sql = String::new();
            flate2::read::GzDecoder::new(packed.expect("the script")).read_to_string(&mut sql).expect("the script");
            source.admin(&sql);
        }
        Some(source)
    }

    /// Runs statements of the client's language as administrator, outside of any database.
    pub fn admin(&self, sql: &str) -> String {
        self.cluster.sql(sql).unwrap_or_else(|e| panic!("{e}\nin: {}", sql.chars().take(2_000).collect::<String>()))
    }

    /// Runs statements as administrator.
    pub fn sql(&self, sql: &str) -> String {
        self.cluster.sql_in(self.database, sql).unwrap_or_else(|e| panic!("{e}\nin: {sql}"))
    }

    fn login(&self) -> OptsBuilder {
        let socket = self.cluster.socket().display().to_string();
        OptsBuilder::default().socket(Some(socket)).user(Some("root")).db_name(Some(self.database))
    }

    /// A connection of the application, which quotes names as the standard has it.
    pub async fn connect(&self) -> Conn {
        let mut connection = Conn::new(self.login()).await.expect("a connection");
        let mode = "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE'";
        connection.query_drop(mode).await.expect("a mode");
        connection
    }

    /// The judge's connections.
    pub fn pool(&self) -> Pool {
        Pool::new(self.login())
    }

    /// What the tests add to Northwind: a counter in each row that grows with every change of a mapped column, and an
    /// account of every state each record ever had, kept by triggers. Foreign keys stay as they are: a cascade is made by
    /// the storage engine, behind the back of triggers (and, in most versions, of the log).
    async fn prepare(&self) {
        let mut connection = Conn::new(self.login()).await.expect("a connection");
        let mut statements: Vec<String> = [
            "CREATE DATABASE judge CHARACTER SET utf8mb4",
            "CREATE TABLE judge.counter (n bigint NOT NULL)",
            "INSERT INTO judge.counter VALUES (0)",
            "CREATE TABLE judge.states (rev bigint PRIMARY KEY, source varchar(40), name varchar(60) COLLATE utf8mb4_bin,
             present boolean, KEY (source, name))",
            "CREATE FUNCTION judge.next() RETURNS bigint MODIFIES SQL DATA
             BEGIN UPDATE judge.counter SET n = n + 1; RETURN (SELECT n FROM judge.counter); END",
            "ALTER TABLE Employees ADD FOREIGN KEY (ReportsTo) REFERENCES Employees (EmployeeID)",
        ]
        .map(str::to_owned)
        .to_vec();
        for (table, unmapped, key, present) in JUDGED {
            let sql = format!(
                "SELECT column_name FROM information_schema.columns
                 WHERE table_schema = 'northwind' AND table_name = '{table}'"
            );
            let columns: Vec<String> = connection.query(sql).await.expect("the columns");
            let mapped = columns.iter().filter(|column| !unmapped.contains(&column.as_str()));
            let same = |column: &String| format!("cast(NEW.`{column}` AS binary) <=> cast(OLD.`{column}` AS binary)");
            let same = mapped.map(same).collect::<Vec<_>>().join(" AND ");
            let of = |row: &str| key.replace("{}", row);
            let (was, is, present) = (of("OLD"), of("NEW"), present.replace("{}", "NEW"));
            let name = table.replace(' ', "_");
            let note = |rev: &str, key: &str, present: &str| {
                format!("INSERT INTO judge.states VALUES ({rev}, '{table}', {key}, {present});")
            };
            let (gone, there) = (note("judge.next()", &was, "false"), note("NEW.rev", &is, &present));
            let each = |when: &str, body: &str| {
                format!(
                    "CREATE TRIGGER {name}_{} {when} ON `{table}` FOR EACH ROW BEGIN {body} END",
                    when.replace(' ', "_")
                )
            };
            statements.extend([
                format!("ALTER TABLE `{table}` ADD COLUMN rev bigint NOT NULL DEFAULT 0"),
                format!("UPDATE `{table}` SET rev = judge.next()"),
                format!(
                    "INSERT INTO judge.states SELECT rev, '{table}', {}, {} FROM `{table}` t",
                    of("t"),
                    present.replace("NEW", "t")
                ),
                each("BEFORE INSERT", "SET NEW.rev = judge.next();"),
                each("BEFORE UPDATE", &format!("IF NOT ({same}) THEN SET NEW.rev = judge.next(); END IF;")),
                each("AFTER INSERT", &there),
                each("AFTER DELETE", &gone),
                each(
                    "AFTER UPDATE",
                    &format!(
                        "IF NOT (cast({was} AS binary) <=> cast({is} AS binary)) THEN {gone} {there}
                         ELSEIF NEW.rev <> OLD.rev THEN {there} END IF;"
                    ),
                ),
            ]);
        }
        for sql in statements {
            connection.query_drop(&sql).await.unwrap_or_else(|e| panic!("{e}\nin: {sql}"));
        }
        connection.disconnect().await.expect("ends");
    }
}

impl Vendor for MysqlSource {
    type Client = Pool;

    fn port(&self) -> u16 {
        self.cluster.port()
    }

    fn database(&self) -> &str {
        self.database
    }

    fn engine(&self) -> String {
        "engine = \"mysql\"\n[source.mysql]\nserver_id = 7001".into()
    }

    /// By queries whose first two columns are entity and external id, and whose others are fields. A column's name tells
    /// more: `a.b` is a member of an object, `:number`, `:boolean`, `:json` and `:ref` (the external id) say what the text is.
    async fn wanted(&self, client: &Pool, oracle: &str) -> Content {
        let mut connection = client.get_conn().await.expect("a connection");
        // One instant for all queries.
        connection.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.expect("begins");
        let mut content = Content::new();
        for sql in oracle.split(";\n").filter(|sql| !sql.trim().is_empty()) {
            let rows: Vec<Row> = connection.query(sql).await.unwrap_or_else(|e| panic!("{e}\nin: {sql}"));
            for row in rows {
                let (entity, id, fields) = fields(&row);
                content.entry(entity).or_default().insert(id, fields);
            }
        }
        connection.query_drop("COMMIT").await.expect("ends");
        content
    }

    async fn states(&self, client: &Pool) -> judge::States {
        let mut connection = client.get_conn().await.expect("a connection");
        let sql = "SELECT source, name, rev, present FROM judge.states ORDER BY rev";
        judge::states(connection.query::<(String, String, i64, bool), _>(sql).await.expect("the account can be read"))
    }
}

fn fields(row: &Row) -> (String, String, BTreeMap<String, Value>) {
    let text = |at: usize| match row.as_ref(at) {
        Some(mysql_async::Value::Bytes(bytes)) => Some(String::from_utf8(bytes.clone()).expect("UTF-8")),
        Some(mysql_async::Value::NULL) | None => None,
        Some(other) => panic!("the text protocol gives text, not {other:?}"),
    };
    let (entity, id) = (text(0).expect("an entity"), text(1).expect("an external id"));
    let mut fields = BTreeMap::new();
    for (at, column) in row.columns_ref().iter().enumerate().skip(2) {
        let column = column.name_str();
        let (name, kind) = column.split_once(':').unwrap_or((&column, "text"));
        let value = text(at).map(|text| match kind {
            "number" | "json" => serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name} of {id}: {e}: {text}")),
            "boolean" => json!(text != "0"),
            "ref" => json!({ "external_id": text }),
            _ => Value::String(text),
        });
        match name.split_once('.') {
            Some((object, member)) => {
                let object = fields.entry(object.to_owned()).or_insert_with(|| json!({}));
                object[member] = value.unwrap_or_default();
            }
            None => fields.extend(value.map(|value| (name.to_owned(), value))),
        }
    }
    (entity, id, fields)
}

impl MysqlScene {
    /// Northwind under the mapping of the end-to-end tests; `None`, said aloud, where there is no server.
    pub async fn on(flavour: MysqlFlavour) -> Option<Self> {
        Self::with(MysqlOptions::new(flavour)).await
    }

    /// As [`MysqlScene::on`], on a server with these options.
    pub async fn with(options: MysqlOptions) -> Option<Self> {
        let source = MysqlSource::northwind(options).await?;
        let model = std::fs::read(repository("tests/data/e2e/crm.json")).expect("crm.json");
        let crm = Crm::start(serde_json::from_slice(&model).expect("JSON")).await;
        let tenant = Tenant::new(&source, &crm, "tests/data/e2e/mapping.toml");
        let oracle = std::fs::read_to_string(repository("tests/data/e2e/mysql-oracle.sql")).expect("the oracle");
        Some(Self { client: source.pool(), source, crm, tenant, oracle })
    }

    /// A scene of its own tables.
    pub async fn tables(options: MysqlOptions, sql: &str, mapping: &str, model: Value, oracle: &str) -> Option<Self> {
        let source = MysqlSource::empty(options, "vendor").await?;
        source.sql(sql);
        let crm = Crm::start(model).await;
        let mut tenant = Tenant::new(&source, &crm, "tests/data/e2e/mapping.toml");
        tenant.pack = tenant.path().join("mapping.toml");
        std::fs::write(&tenant.pack, mapping).expect("the pack");
        Some(Self { client: source.pool(), source, crm, tenant, oracle: oracle.to_owned() })
    }
}
