//! A simulated server with a database, and shorthands for connector and stream.

use std::sync::Arc;
use std::time::Duration;
use tidemark_contract::{
    ChangeEvent, ChangeStream, Connector, Position, Row, SourceMessage, TableId, TableRequest, TableSchema, Value,
};
use tidemark_sqlserver::{Password, SqlServer, SqlServerConfig, TlsConfig, TlsMode};
use tidemark_sqlserver_sim::{Options, Sim};

pub struct Lab {
    pub sim: Sim,
}

pub fn request(table: &str) -> TableRequest {
    TableRequest { table: TableId::new("dbo", table), columns: None, key: None }
}

impl Lab {
    /// A server with change data capture in its database.
    pub fn new() -> Self {
        let lab = Self::with(Options { snapshot_isolation: true, ..Options::default() });
        lab.sql("EXEC sys.sp_cdc_enable_db");
        lab
    }

    pub fn with(options: Options) -> Self {
        Self { sim: Sim::start(options).unwrap() }
    }

    pub fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.sim.execute("vendor", sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    pub fn capture(&self, table: &str) {
        self.sql(&format!("EXEC sys.sp_cdc_enable_table N'dbo', N'{table}', @role_name = NULL"));
        self.captured();
    }

    pub fn captured(&self) {
        self.sim.wait_captured("vendor", Duration::from_secs(10)).unwrap();
    }

    pub fn config(&self) -> SqlServerConfig {
        SqlServerConfig {
            password: Some(Password::new("Passw0rd!")),
            tls: TlsConfig::new(TlsMode::Disable),
            poll_interval: Duration::from_millis(20),
            connect_timeout: Duration::from_secs(10),
            ..SqlServerConfig::new("127.0.0.1", self.sim.port(), "vendor", "sa")
        }
    }

    pub fn connector(&self) -> SqlServer {
        SqlServer::new(self.config())
    }
}

/// What a stream gave, up to a point.
pub struct Reader {
    pub stream: Box<dyn ChangeStream>,
    pub at: Position,
    /// What came with the first message.
    rest: Vec<SourceMessage>,
}

impl Reader {
    pub async fn open(connector: &dyn Connector, tables: &[&str], from: Option<&Position>) -> Self {
        let requests: Vec<TableRequest> = tables.iter().map(|t| request(t)).collect();
        let mut stream = connector.open_stream(&requests, from).await.unwrap();
        let mut first = Vec::new();
        stream.next(&mut first).await.unwrap();
        let SourceMessage::Idle(at) = first.remove(0) else { panic!("no Idle first") };
        Self { stream, at, rest: first }
    }

    /// Everything until the log has been seen up to its present end.
    pub async fn settle(&mut self, lab: &Lab) -> Vec<SourceMessage> {
        let end: String = lab.sim.log_end("vendor").unwrap().iter().map(|b| format!("{b:02x}")).collect();
        self.stream.request_position().await.unwrap();
        let mut all = std::mem::take(&mut self.rest);
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let mut out = Vec::new();
            tokio::time::timeout_at(until, self.stream.next(&mut out)).await.expect("an Idle in time").unwrap();
            let mut answered = false;
            for message in &out {
                if let SourceMessage::Idle(p) | SourceMessage::Commit(p) = message {
                    let seen = p.place.rsplit('/').next().unwrap();
                    answered |= matches!(message, SourceMessage::Idle(_)) && seen >= end.as_str();
                    self.at = p.clone();
                }
            }
            all.extend(out);
            if answered {
                return all;
            }
        }
    }

    /// The changes of [`Reader::settle`].
    pub async fn changes(&mut self, lab: &Lab) -> Vec<ChangeEvent> {
        let all = self.settle(lab).await;
        let change = |message| if let SourceMessage::Change(change) = message { Some(change) } else { None };
        all.into_iter().filter_map(change).collect()
    }
}

pub fn cell(schema: &Arc<TableSchema>, row: &Row, column: &str) -> String {
    show(row.get(schema.position(column).unwrap_or_else(|| panic!("no column {column}"))))
}

pub fn show(value: Value<'_>) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Unchanged => "unchanged".into(),
        Value::Bool(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::UInt(v) => v.to_string(),
        Value::Float(v) => v.to_string(),
        Value::Real(v) => v.to_string(),
        Value::Bytes(v) => format!("{v:?}"),
        Value::Decimal(v)
        | Value::Text(v)
        | Value::Date(v)
        | Value::Time(v)
        | Value::Timestamp(v)
        | Value::TimestampTz(v)
        | Value::Uuid(v)
        | Value::Json(v)
        | Value::List(v) => v.into(),
    }
}

/// A change as `insert 1 a`.
pub fn line(change: &ChangeEvent) -> String {
    let cells: Vec<String> = change.row.iter().map(show).collect();
    format!("{} {}", change.op.as_str(), cells.join(" "))
}
