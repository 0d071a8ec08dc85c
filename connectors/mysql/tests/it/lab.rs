//! A throwaway server with one database, and helpers to drive the connector.

use std::time::Duration;
use tidemark_contract::{
    ChangeEvent, ChangeStream, Connector, Position, Row, RowKey, SourceMessage, TableId, TableRequest, Value,
};
use tidemark_mysql::{Mysql, MysqlConfig, Password, TlsConfig, TlsMode};
use tidemark_throwaway::{MysqlCluster, MysqlFlavour, MysqlOptions};

pub const PASSWORD: &str = "sesame-42";

pub struct Lab {
    pub cluster: MysqlCluster,
    pub config: MysqlConfig,
}

impl Lab {
    /// A server whose database `shop` was made by `sql`.
    pub fn new(flavour: MysqlFlavour, sql: &str) -> Self {
        Self::with(MysqlOptions::new(flavour), sql)
    }

    pub fn with(options: MysqlOptions, sql: &str) -> Self {
        let cluster = MysqlCluster::start(options).unwrap();
        cluster.sql("CREATE DATABASE shop CHARACTER SET utf8mb4").unwrap();
        let account = format!(
            "CREATE USER tidemark@'%' IDENTIFIED BY '{PASSWORD}';
             GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO tidemark@'%'; GRANT SELECT ON shop.* TO tidemark@'%'"
        );
        cluster.sql(&account).unwrap();
        let config = config(&cluster);
        let lab = Self { cluster, config };
        lab.sql(sql);
        lab
    }

    pub fn sql(&self, sql: &str) -> String {
        self.cluster.sql_in("shop", sql).unwrap()
    }

    pub fn connector(&self) -> Mysql {
        Mysql::new(self.config.clone())
    }

    /// Everything the stream has to say up to now.
    pub async fn drain(&self, connector: &Mysql, stream: &mut Box<dyn ChangeStream>) -> Vec<SourceMessage> {
        // Any read gives a barrier: the head of the log.
        let goal = connector.fetch_rows(&table("barrier"), &[]).await.unwrap().barrier;
        let mut out = Vec::new();
        let wait = async {
            loop {
                let from = out.len();
                stream.request_position().await.unwrap();
                stream.next(&mut out).await.unwrap();
                for message in &out[from..] {
                    let (SourceMessage::Commit(p) | SourceMessage::Idle(p)) = message else { continue };
                    if connector.covers(p, &goal).unwrap() {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the stream should reach the head");
        out
    }

    /// Runs `sql` under an open stream and gives what the stream says about it.
    pub async fn told(&self, tables: &[TableRequest], sql: &str) -> Vec<SourceMessage> {
        let connector = self.connector();
        let mut stream = connector.open_stream(tables, None).await.unwrap();
        self.sql(sql);
        let messages = self.drain(&connector, &mut stream).await;
        stream.close().await.unwrap();
        messages
    }

    /// All rows of a table by pages.
    pub async fn snapshot(&self, request: &TableRequest, limit: usize) -> Vec<Row> {
        let connector = self.connector();
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let chunk = connector.snapshot_chunk(request, after.as_ref(), limit).await.unwrap();
            rows.extend(chunk.rows);
            after = chunk.next;
            if after.is_none() {
                return rows;
            }
        }
    }
}

/// A configuration for a server.
pub fn config(cluster: &MysqlCluster) -> MysqlConfig {
    let mut config = MysqlConfig::new("127.0.0.1", cluster.port(), "shop", "tidemark");
    config.password = Some(Password::new(PASSWORD));
    config.tls = TlsConfig::new(TlsMode::Disable);
    config
}

/// What every lab has, so that a head of the log can be asked for.
pub const BARRIER: &str = "CREATE TABLE barrier (id INT PRIMARY KEY);";

/// All columns of `shop.<name>`.
pub fn table(name: &str) -> TableRequest {
    TableRequest { table: TableId::new("shop", name), columns: None, key: None }
}

pub fn events(messages: &[SourceMessage]) -> Vec<ChangeEvent> {
    let event = |m: &SourceMessage| if let SourceMessage::Change(e) = m { Some(e.clone()) } else { None };
    messages.iter().filter_map(event).collect()
}

/// Operation, table and row of each change.
pub fn words(messages: &[SourceMessage]) -> Vec<String> {
    let word = |e: ChangeEvent| format!("{} {} {}", e.op.as_str(), e.schema.table.name, shown(&e.row));
    events(messages).into_iter().map(word).collect()
}

/// The positions of commits and resumable places, with the number of changes before each.
pub fn positions(messages: &[SourceMessage]) -> Vec<(usize, Position)> {
    let mut changes = 0;
    let mut out = Vec::new();
    for message in messages {
        match message {
            SourceMessage::Change(_) => changes += 1,
            SourceMessage::Commit(p) | SourceMessage::Resumable(p) | SourceMessage::Idle(p) => {
                out.push((changes, p.clone()));
            }
            SourceMessage::Schema(_) | SourceMessage::Rewritten(_) => {}
        }
    }
    out
}

pub fn last_position(messages: &[SourceMessage]) -> Position {
    positions(messages).pop().expect("a position").1
}

pub fn shown(row: &Row) -> String {
    row.iter().map(show).collect::<Vec<_>>().join(" ")
}

/// A value as text, with a mark for what is not plain.
pub fn show(value: Value<'_>) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Unchanged => "unchanged".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::UInt(u) => u.to_string(),
        Value::Float(x) => format!("{x:?}"),
        Value::Real(x) => format!("{x:?}f"),
        Value::Bytes(b) => format!("x{}", b.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        Value::Decimal(s)
        | Value::Text(s)
        | Value::Date(s)
        | Value::Time(s)
        | Value::Timestamp(s)
        | Value::TimestampTz(s)
        | Value::Uuid(s)
        | Value::Json(s)
        | Value::List(s) => s.into(),
    }
}

pub fn key(row: &Row, columns: &[usize]) -> RowKey {
    RowKey::of(row, columns).unwrap()
}
