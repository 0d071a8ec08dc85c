//! A throwaway server with one database, and helpers to drive the connector.

use std::time::Duration;
use tidemark_contract::{
    ChangeEvent, ChangeStream, Connector, Position, Row, SourceMessage, TableId, TableRequest, Value,
};
use tidemark_postgres::{Postgres, PostgresConfig, TlsConfig, TlsMode};
use tidemark_throwaway::{PostgresCluster, PostgresOptions};

pub struct Lab {
    pub cluster: PostgresCluster,
    pub config: PostgresConfig,
}

impl Lab {
    /// A server whose database `shop` was made by `sql`.
    pub fn new(sql: &str) -> Self {
        Self::with(PostgresOptions::default(), sql)
    }

    pub fn with(options: PostgresOptions, sql: &str) -> Self {
        let cluster = PostgresCluster::start(options).unwrap();
        cluster.createdb("shop").unwrap();
        let mut config = PostgresConfig::new("127.0.0.1", cluster.port(), "shop", cluster.user());
        config.tls = TlsConfig::new(TlsMode::Disable);
        config.slot_wait = Duration::from_secs(20);
        let lab = Self { cluster, config };
        lab.sql(sql);
        lab
    }

    pub fn sql(&self, sql: &str) -> String {
        self.cluster.psql_in("shop", sql).unwrap()
    }

    pub fn connector(&self) -> Postgres {
        Postgres::new(self.config.clone())
    }

    /// The log's present end, as a position of the log that `like` belongs to.
    pub fn head(&self, like: &Position) -> Position {
        let place = self.sql("SELECT pg_current_wal_flush_lsn()");
        Position { log: like.log.clone(), place: place.into() }
    }

    /// Waits until the server has noticed that nobody reads from a slot.
    pub async fn slot_is_free(&self) {
        while self.sql("SELECT count(*) FROM pg_replication_slots WHERE active") != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything the stream has to say up to now.
    pub async fn drain(&self, connector: &Postgres, stream: &mut Box<dyn ChangeStream>) -> Vec<SourceMessage> {
        let mut goal = None;
        let mut out = Vec::new();
        let wait = async {
            loop {
                let from = out.len();
                stream.request_position().await.unwrap();
                stream.next(&mut out).await.unwrap();
                for message in &out[from..] {
                    let (SourceMessage::Commit(p) | SourceMessage::Idle(p)) = message else { continue };
                    let goal = goal.get_or_insert_with(|| self.head(p));
                    if connector.covers(p, goal).unwrap() {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the stream should reach the head");
        out
    }
}

/// All columns of `public.<name>`.
pub fn table(name: &str) -> TableRequest {
    TableRequest { table: TableId::new("public", name), columns: None, key: None }
}

pub fn columns(name: &str, columns: &[&str]) -> TableRequest {
    TableRequest { columns: Some(columns.iter().map(|c| Box::from(*c)).collect()), ..table(name) }
}

pub fn events(messages: &[SourceMessage]) -> Vec<ChangeEvent> {
    let event = |m: &SourceMessage| if let SourceMessage::Change(e) = m { Some(e.clone()) } else { None };
    messages.iter().filter_map(event).collect()
}

/// The position of the last message that has one.
pub fn position(messages: &[SourceMessage]) -> Position {
    last_position(messages).expect("a position")
}

pub fn last_position(messages: &[SourceMessage]) -> Option<Position> {
    let position = |m: &SourceMessage| match m {
        SourceMessage::Commit(p) | SourceMessage::Idle(p) | SourceMessage::Resumable(p) => Some(p.clone()),
        _ => None,
    };
    messages.iter().rev().find_map(position)
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
        Value::Real(x) => format!("{x:?}"),
        Value::Bytes(b) => format!("{b:?}"),
        Value::Decimal(s)
        | Value::Text(s)
        | Value::Date(s)
        | Value::Time(s)
        | Value::Timestamp(s)
        | Value::TimestampTz(s)
        | Value::Uuid(s)
        | Value::Json(s)
        | Value::List(s) => s.to_owned(),
    }
}

pub fn show_row(row: &Row) -> String {
    row.iter().map(show).collect::<Vec<_>>().join("|")
}

/// `op row` of each change, with the old row where there is one.
pub fn changes(messages: &[SourceMessage]) -> Vec<String> {
    let change = |e: ChangeEvent| {
        let old = e.old.as_ref().map_or(String::new(), |old| format!(" <- {}", show_row(old)));
        format!("{} {}{old}", e.op.as_str(), show_row(&e.row))
    };
    events(messages).into_iter().map(change).collect()
}

/// A whole table by pages.
pub async fn snapshot(connector: &Postgres, table: &TableRequest, limit: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let page = connector.snapshot_chunk(table, after.as_ref(), limit).await.unwrap();
        assert!(page.rows.len() <= limit);
        rows.extend(page.rows);
        after = page.next;
        if after.is_none() {
            return rows;
        }
    }
}

/// A TCP proxy before a server, which can cut or freeze its connections.
pub struct Proxy {
    pub port: u16,
    command: tokio::sync::watch::Sender<Command>,
}

#[derive(Clone, Copy, PartialEq)]
enum Command {
    Pass,
    Freeze,
    /// Counts the cuts, so that connections made after one live.
    Cut(u32),
}

impl Proxy {
    pub async fn start(server: u16) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (command, commands) = tokio::sync::watch::channel(Command::Pass);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut commands = commands.clone();
                tokio::spawn(async move {
                    let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", server)).await else { return };
                    commands.mark_unchanged();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                        _ = commands.changed() => {}
                    }
                    if *commands.borrow() == Command::Freeze {
                        // Both ends stay open, and nothing passes any more.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { port, command }
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.command.send_modify(|c| *c = Command::Cut(if let Command::Cut(n) = c { *n + 1 } else { 0 }));
    }

    /// Lets nothing pass any more on the connections there are.
    pub fn freeze(&self) {
        self.command.send_replace(Command::Freeze);
    }
}
