//! The vendor's database on SQL Server for scenarios: a shop of three tables whose changes the test itself accounts for.

use super::server::{Server, Session, enable};
use crate::support::crm::{Content, Crm};
use crate::support::daemon::Tenant;
use crate::support::source::PASSWORD;
use crate::support::{Scene, Vendor, judge};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemark_conformance::{Proxy, Rng};

/// Every state that each record had: table, external id, number, whether it was there.
pub type Account = Arc<Mutex<Vec<(String, String, i64, bool)>>>;

/// A server with a database of the scenario.
pub struct SqlServerSource {
    pub server: Arc<Server>,
    pub database: String,
    pub user: String,
    /// Lines of `[source.sqlserver]`.
    pub settings: String,
    /// The daemon connects to this machine; a server that was lent is elsewhere.
    door: Proxy,
    /// Every state that each record had: table, external id, number, whether it was there.
    pub account: Account,
}

pub type SqlServerScene = Scene<SqlServerSource>;

impl SqlServerSource {
    /// A database with change data capture, or else with change tracking, and the daemon's login.
    pub async fn start(server: Server, captured: bool) -> Self {
        let database = server.database_name();
        server.create_database(&database, captured).await.expect("a database");
        let user = format!("{database}_daemon");
        let mut session = server.connect(&database).await.expect("a session");
        let password = PASSWORD.replace('\'', "''");
        let sql = format!("CREATE LOGIN [{user}] WITH PASSWORD = N'{password}', CHECK_POLICY = OFF");
        session.run(&sql).await.expect("a login");
        admit(&mut session, &user, captured).await;
        let address = tokio::net::lookup_host((server.host.as_str(), server.port)).await.expect("an address").next();
        let door = Proxy::start(address.expect("an address")).await.expect("a door");
        let settings = "poll_interval = \"50ms\"\n".to_owned();
        Self { server: Arc::new(server), database, user, settings, door, account: Arc::default() }
    }

    pub async fn connect(&self) -> Session {
        self.server.connect(&self.database).await.expect("a session")
    }

    pub async fn sql(&self, sql: &str) {
        self.connect().await.run(sql).await.unwrap_or_else(|e| panic!("{e}"));
    }
}

/// The daemon's user in a database, with the least rights.
pub async fn admit(session: &mut Session, user: &str, captured: bool) {
    let rights = match captured {
        true => ["SELECT ON SCHEMA::cdc", "VIEW DATABASE STATE"].as_slice(),
        false => &["VIEW CHANGE TRACKING ON SCHEMA::dbo"],
    };
    let mut all =
        vec![format!("CREATE USER [{user}] FOR LOGIN [{user}]"), format!("GRANT SELECT ON SCHEMA::dbo TO [{user}]")];
    all.extend(rights.iter().map(|right| format!("GRANT {right} TO [{user}]")));
    for sql in all {
        session.run(&sql).await.unwrap_or_else(|e| panic!("{e}"));
    }
}

impl Vendor for SqlServerSource {
    type Client = ();

    fn port(&self) -> u16 {
        self.door.addr().port()
    }

    fn database(&self) -> &str {
        &self.database
    }

    fn engine(&self) -> String {
        format!("engine = \"sqlserver\"\n[source.sqlserver]\n{}", self.settings)
    }

    /// By queries whose first two columns are entity and external id, and whose others are fields. A column's name tells
    /// more, as on MySQL: `a.b` is a member of an object, `:number`, `:json` and `:ref` (the external id) say what the text is.
    async fn wanted(&self, (): &(), oracle: &str) -> Content {
        let mut session = self.connect().await;
        let mut content = Content::new();
        // One instant for all queries.
        session.run("SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRAN").await.expect("begins");
        for sql in oracle.split(";\n").filter(|sql| !sql.trim().is_empty()) {
            for row in session.named(sql).await.unwrap_or_else(|e| panic!("{e}")) {
                let (entity, id, fields) = fields(row);
                content.entry(entity).or_default().insert(id, fields);
            }
        }
        session.run("COMMIT").await.expect("ends");
        content
    }

    async fn states(&self, (): &()) -> judge::States {
        judge::states(self.account.lock().expect("not poisoned").clone())
    }
}

fn fields(row: Vec<(String, Option<String>)>) -> (String, String, BTreeMap<String, Value>) {
    let mut cells = row.into_iter();
    let mut text = || cells.next().and_then(|(_, text)| text).expect("entity and external id");
    let (entity, id) = (text(), text());
    let mut fields = BTreeMap::new();
    for (column, text) in cells {
        let (name, kind) = column.split_once(':').unwrap_or((&column, "text"));
        let value = text.map(|text| match kind {
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

const TABLES: [&str; 3] = [
    "CREATE TABLE dbo.customers (id int NOT NULL PRIMARY KEY, name nvarchar(80) NOT NULL, notes nvarchar(max), rev bigint NOT NULL)",
    "CREATE TABLE dbo.orders (id int NOT NULL PRIMARY KEY, customer_id int NOT NULL, total money, placed datetime2(3), \
     shipped datetimeoffset(0), rev bigint NOT NULL)",
    "CREATE TABLE dbo.order_lines (order_id int NOT NULL, line int NOT NULL, sku varchar(40), amount decimal(10,2), \
     guid uniqueidentifier, rev bigint NOT NULL, PRIMARY KEY (order_id, line))",
];

const MAPPING: &str = r#"
tidemark = 1
[pack]
name = "e2e"
version = "1.0.0"
[record.customer]
entity = "account"
from = "customers as c"
external_id = "concat('cust-', c.id)"
[record.customer.fields]
name = "c.name"
notes = "c.notes"
rev = "c.rev"
[record.order]
from = "orders as o"
external_id = "o.id"
[record.order.fields]
account = { ref = "account", external_id = "concat('cust-', o.customer_id)" }
total = "o.total"
placed = "o.placed"
shipped = "o.shipped"
rev = "o.rev"
[record.order_line]
from = "order_lines as l"
external_id = "concat(l.order_id, '-', l.line)"
[record.order_line.fields]
order = { ref = "order", external_id = "l.order_id" }
sku = "l.sku"
amount = "l.amount"
guid = "l.guid"
rev = "l.rev"
"#;

const ORACLE: &str = "
SELECT N'account', CONCAT(N'cust-', id), name AS [name], notes AS [notes], rev AS [rev:number] FROM dbo.customers;
SELECT N'order', CAST(id AS nvarchar(20)), CONCAT(N'cust-', customer_id) AS [account:ref],
    CONVERT(nvarchar(30), total, 2) AS [total], CONVERT(nvarchar(30), placed, 126) AS [placed],
    CONCAT(CONVERT(nvarchar(19), SWITCHOFFSET(shipped, '+00:00'), 126), N'Z') AS [shipped], rev AS [rev:number] FROM dbo.orders;
SELECT N'order_line', CONCAT(order_id, N'-', line), CAST(order_id AS nvarchar(20)) AS [order:ref],
    CAST(sku AS nvarchar(40)) AS [sku], CAST(amount AS nvarchar(20)) AS [amount],
    LOWER(CAST(guid AS nvarchar(36))) AS [guid], rev AS [rev:number] FROM dbo.order_lines;
";

fn model() -> Value {
    let text = || json!({"type": ["string", "null"]});
    json!({
        "account": {"type": "object", "properties": {"name": text(), "notes": text(), "rev": {"type": "integer"}}},
        "order": {"type": "object", "properties": {"account": {"type": ["object", "null"], "x-ref": "account"},
            "total": text(), "placed": text(), "shipped": text(), "rev": {"type": "integer"}}},
        "order_line": {"type": "object", "properties": {"order": {"type": ["object", "null"], "x-ref": "order"},
            "sku": text(), "amount": text(), "guid": text(), "rev": {"type": "integer"}}},
    })
}

impl SqlServerScene {
    /// The shop, with some rows, captured.
    pub async fn shop(server: Server) -> Self {
        Self::shop_by(server, true).await
    }

    /// The shop, captured or else tracked.
    pub async fn shop_by(server: Server, captured: bool) -> Self {
        let source = SqlServerSource::start(server, captured).await;
        create_shop(&mut source.connect().await, captured).await;
        Self::of_source(source, MAPPING, model(), ORACLE).await
    }

    /// A scene of its own mapping over a source.
    pub async fn of_source(source: SqlServerSource, mapping: &str, model: Value, oracle: &str) -> Self {
        let crm = Crm::start(model).await;
        let mut tenant = Tenant::new(&source, &crm, "tests/data/e2e/mapping.toml");
        tenant.pack = tenant.path().join("mapping.toml");
        std::fs::write(&tenant.pack, mapping).expect("the pack");
        tenant.source_user = source.user.clone();
        Self { client: (), source, crm, tenant, oracle: oracle.to_owned() }
    }

    pub fn workload(&self, seed: u64) -> Workload {
        Workload {
            rng: Rng::new(seed),
            rev: 0,
            shop: Shop::default(),
            account: self.source.account.clone(),
            committed: 0,
        }
    }

    /// Removes the database and the login from a server that was lent.
    pub async fn finish(self) {
        let (server, database, user) =
            (self.source.server.clone(), self.source.database.clone(), self.source.user.clone());
        drop(self);
        server.drop_database(&database).await.expect("is dropped");
        if !server.is_simulated() {
            let mut session = server.connect("master").await.expect("a session");
            session.run(&format!("DROP LOGIN [{user}]")).await.expect("is dropped");
        }
    }
}

/// Makes the shop's tables.
pub async fn create_shop(session: &mut Session, captured: bool) {
    for sql in TABLES {
        session.run(sql).await.unwrap_or_else(|e| panic!("{e}"));
    }
    if captured {
        for table in ["customers", "orders", "order_lines"] {
            session.run(&enable(table, &format!("dbo_{table}"))).await.unwrap_or_else(|e| panic!("{e}"));
        }
        session.captured().await.expect("the log reader runs");
    } else {
        for table in ["customers", "orders", "order_lines"] {
            let sql = format!("ALTER TABLE dbo.{table} ENABLE CHANGE_TRACKING");
            session.run(&sql).await.unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

/// Which rows there are: customers; orders with their customers; lines.
#[derive(Clone, Default)]
struct Shop {
    customers: Vec<i64>,
    orders: Vec<(i64, i64)>,
    lines: Vec<(i64, i64)>,
    next: i64,
}

/// Random changes, and the account of the states they made.
pub struct Workload {
    rng: Rng,
    rev: i64,
    shop: Shop,
    account: Account,
    pub committed: u64,
}

impl Workload {
    /// Makes `transactions` of one to five statements, one in ten of them rolled back.
    pub async fn run(&mut self, session: &mut Session, transactions: usize) {
        for _ in 0..transactions {
            self.transaction(session).await;
        }
    }

    pub async fn transaction(&mut self, session: &mut Session) {
        let before = self.shop.clone();
        let (mut statements, mut states) = (Vec::new(), Vec::new());
        for _ in 0..=self.rng.index(4) {
            self.statement(&mut statements, &mut states);
        }
        if self.rng.one_in(10) {
            self.shop = before;
            let sql = format!("BEGIN TRAN; {}; ROLLBACK", statements.join("; "));
            session.run(&sql).await.unwrap_or_else(|e| panic!("{e}"));
            return;
        }
        // The account is ahead of the source, never behind it: whoever judges in between knows every state that can be seen.
        self.account.lock().expect("not poisoned").extend(states);
        let sql = format!("BEGIN TRAN; {}; COMMIT", statements.join("; "));
        session.run(&sql).await.unwrap_or_else(|e| panic!("{e}"));
        self.committed += 1;
    }

    fn statement(&mut self, sql: &mut Vec<String>, states: &mut Vec<(String, String, i64, bool)>) {
        const WORDS: [&str; 8] = ["Tide", "Måne", "O''Hara", "東京", " edge ", "a,b", "🦀", "{x}"];
        self.rev += 1;
        let rev = self.rev;
        let word = WORDS[self.rng.index(WORDS.len())];
        let (n, cents) = (self.rng.below(10_000), self.rng.below(100));
        let customer = |id: i64| format!("cust-{id}");
        let mut note = |table: &str, id: String, there: bool| states.push((table.to_owned(), id, rev, there));
        let shop = &mut self.shop;
        let (some_customer, some_order, some_line) = (
            self.rng.pick(&shop.customers).copied(),
            self.rng.pick(&shop.orders).copied(),
            self.rng.pick(&shop.lines).copied(),
        );
        match (self.rng.below(16), some_customer, some_order, some_line) {
            (3, Some(id), ..) => {
                sql.push(format!("UPDATE dbo.customers SET name = N'{word} {n}', rev = {rev} WHERE id = {id}"));
                note("Suppliers", customer(id), true);
            }
            (4, Some(id), ..) => {
                let notes = if n % 4 == 0 {
                    "NULL".into()
                } else {
                    format!("REPLICATE(CAST(N'{word}' AS nvarchar(max)), {n})")
                };
                sql.push(format!("UPDATE dbo.customers SET notes = {notes}, rev = {rev} WHERE id = {id}"));
                note("Suppliers", customer(id), true);
            }
            // Nothing changes in what is mapped.
            (5, Some(id), ..) => sql.push(format!("UPDATE dbo.customers SET name = name WHERE id = {id}")),
            // A key moves, and what points to it with it.
            (6, Some(id), ..) => {
                shop.next += 1;
                let new = shop.next;
                sql.push(format!("UPDATE dbo.customers SET id = {new}, rev = {rev} WHERE id = {id}"));
                sql.push(format!("UPDATE dbo.orders SET customer_id = {new}, rev = {rev} WHERE customer_id = {id}"));
                note("Suppliers", customer(id), false);
                note("Suppliers", customer(new), true);
                for (order, of) in shop.orders.iter_mut().filter(|(_, of)| *of == id) {
                    *of = new;
                    note("Orders", order.to_string(), true);
                }
                shop.customers.retain(|other| *other != id);
                shop.customers.push(new);
            }
            (7, Some(id), ..) if shop.orders.iter().all(|(_, of)| *of != id) && shop.customers.len() > 5 => {
                sql.push(format!("DELETE FROM dbo.customers WHERE id = {id}"));
                note("Suppliers", customer(id), false);
                shop.customers.retain(|other| *other != id);
                if n % 2 == 0 {
                    // Born again in the same transaction.
                    self.rev += 1;
                    let rev = self.rev;
                    sql.push(format!("INSERT dbo.customers (id, name, rev) VALUES ({id}, N'{word} again', {rev})"));
                    states.push(("Suppliers".into(), customer(id), rev, true));
                    shop.customers.push(id);
                }
            }
            (8 | 9, Some(of), ..) => {
                shop.next += 1;
                let id = shop.next;
                sql.push(format!(
                    "INSERT dbo.orders VALUES ({id}, {of}, {n}.{cents:02}, '2024-02-29T10:20:30.{:03}', \
                     '2024-02-29 23:59:59 +05:30', {rev})",
                    101 + n % 90 * 10
                ));
                note("Orders", id.to_string(), true);
                shop.orders.push((id, of));
                for line in 1..=3 {
                    sql.push(format!(
                        "INSERT dbo.order_lines VALUES ({id}, {line}, N'sku é {n}', {n}.{cents:02}, NEWID(), {rev})"
                    ));
                    note("lines", format!("{id}-{line}"), true);
                    shop.lines.push((id, line));
                }
            }
            (10, _, Some((id, _)), _) => {
                sql.push(format!(
                    "UPDATE dbo.orders SET total = -{n}.{cents:02}, placed = NULL, rev = {rev} WHERE id = {id}"
                ));
                note("Orders", id.to_string(), true);
            }
            (11, _, Some((id, _)), _) => {
                sql.push(format!("DELETE FROM dbo.order_lines WHERE order_id = {id}"));
                sql.push(format!("DELETE FROM dbo.orders WHERE id = {id}"));
                shop.lines.retain(|(order, line)| {
                    if *order == id {
                        note("lines", format!("{order}-{line}"), false);
                    }
                    *order != id
                });
                note("Orders", id.to_string(), false);
                shop.orders.retain(|(other, _)| *other != id);
            }
            (12 | 13, .., Some((order, line))) => {
                sql.push(format!(
                    "UPDATE dbo.order_lines SET amount = {n}.{cents:02}, sku = NULL, rev = {rev} \
                     WHERE order_id = {order} AND line = {line}"
                ));
                note("lines", format!("{order}-{line}"), true);
            }
            // One statement moves many keys.
            (14, _, Some((order, _)), _) if n % 3 == 0 => {
                sql.push(format!("UPDATE dbo.order_lines SET line = line + 100, rev = {rev} WHERE order_id = {order}"));
                for (_, line) in shop.lines.iter_mut().filter(|(of, _)| *of == order) {
                    note("lines", format!("{order}-{line}"), false);
                    *line += 100;
                    note("lines", format!("{order}-{line}"), true);
                }
            }
            _ => {
                shop.next += 1;
                let id = shop.next;
                sql.push(format!(
                    "INSERT dbo.customers (id, name, notes, rev) VALUES ({id}, N'{word}', N'{n}', {rev})"
                ));
                note("Suppliers", customer(id), true);
                shop.customers.push(id);
            }
        }
    }
}

/// How long the capture job is waited for by the daemon in scenarios that stop it.
pub const CAPTURE_TIMEOUT: Duration = Duration::from_secs(2);
