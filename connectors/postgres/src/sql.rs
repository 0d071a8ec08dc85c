//! SQL sessions, by tokio-postgres.
//!
//! The library is used in one way only: simple queries and `COPY … TO STDOUT`, so that all values come as text, as they do
//! from the log (R11). The way to the server is made by [`connect_socket`], the same for SQL and for replication: the
//! library is told to negotiate TLS directly, and its "handshake" ([`Done`]) has been made already.
//!
//! A session's socket is driven by a task, which ends with the session: a session that is dropped in the middle of an
//! answer is cut off, whatever is still unread. Only a session between two statements may be used again. What the server
//! sends is bounded by what is taken: the task reads on only when the answers before have been fetched from it.

use crate::error::{ServerError, bug, undecodable, unreachable};
use crate::socket::Socket;
use crate::wire::{Channel, PINS, Rows, broken, check_pin, connect_socket, late, version_number};
use crate::{PostgresConfig, auth};
use futures_util::future::maybe_done;
use futures_util::{FutureExt, TryStreamExt};
use std::future::{Ready, ready};
use std::io;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tidemark_contract::{ErrorKind, Result, SourceError};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// Settings of SQL sessions beyond [`PINS`]: read-only, bounded in time, rows never hidden in silence (`row_security = off`
/// makes a query fail that a policy would filter), and pages of a table always walked along the key's index: without the
/// planner settings a missing statistic may make it sort the whole table for each page.
const SETTINGS: [(&str, &str); 8] = [
    ("default_transaction_read_only", "on"),
    ("row_security", "off"),
    ("statement_timeout", "5min"),
    ("idle_in_transaction_session_timeout", "2min"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("jit", "off"),
];

/// How long an answer is waited for: a minute more than the server itself allows a statement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(360);

/// Whatever runs statements and gives rows as text: an SQL session, or a replication connection before it streams.
pub(crate) trait Queries: Send {
    /// Runs one or more statements; gives the rows of those that return any. `doing` is for error messages.
    fn query(&mut self, doing: &str, sql: &str) -> impl Future<Output = Result<Vec<Rows>>> + Send;

    /// Runs a statement and gives its rows.
    fn rows(&mut self, doing: &str, sql: &str) -> impl Future<Output = Result<Rows>> + Send {
        async move { Ok(self.query(doing, sql).await?.into_iter().next().unwrap_or_default()) }
    }

    /// Runs a statement that gives one row of one column; `None` for null or no row.
    fn value(&mut self, doing: &str, sql: &str) -> impl Future<Output = Result<Option<String>>> + Send {
        async move {
            let row = self.rows(doing, sql).await?.into_iter().next();
            Ok(row.and_then(|row| row.into_iter().next().flatten()))
        }
    }
}

/// An SQL session.
pub(crate) struct Sql {
    client: Client,
    driver: Driver,
    version: u32,
    /// Whether the bytes travel encrypted.
    pub(crate) encrypted: bool,
}

/// The task that moves a session's bytes; ends when this is dropped.
struct Driver(Option<JoinHandle<Result<(), Error>>>);

impl Driver {
    /// Waits a moment for the task's end; gives the error that ended it.
    async fn end(&mut self) -> Option<Error> {
        let task = self.0.as_mut()?;
        let end = timeout(Duration::from_secs(1), task).await.ok()?;
        self.0 = None;
        end.ok()?.err()
    }

    /// The error for somebody who was `doing` something.
    async fn failed(&mut self, error: Error, doing: &str) -> SourceError {
        let reason = if error.is_closed() { self.end().await } else { None };
        failure(reason.unwrap_or(error), doing)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Sql {
    /// Connects, within the configured time.
    pub(crate) async fn open(config: &PostgresConfig) -> Result<Self> {
        timeout(config.connect_timeout, Self::connect(config)).await.unwrap_or_else(|_| Err(late(config)))
    }

    async fn connect(config: &PostgresConfig) -> Result<Self> {
        let (socket, channel) = connect_socket(config).await?;
        let encrypted = matches!(socket, Socket::Tls(_));
        let mut settings = tokio_postgres::Config::new();
        settings
            .user(&config.user)
            .dbname(&config.database)
            .application_name(&config.application_name)
            .options(options())
            .ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct);
        if let Some(password) = &config.password {
            settings.password(password.expose());
        }
        let head = Vec::with_capacity(HEAD);
        let socket = BufReader::with_capacity(BUFFER, socket);
        let stream = Protected { socket, channel, has_password: config.password.is_some(), head };
        let connected = settings.connect_raw(stream, Done).await;
        let (client, connection) = connected.map_err(|e| failure(e, "connecting to PostgreSQL"))?;
        for (name, _) in PINS {
            connection.parameter(name).map_or(Ok(()), |value| check_pin(name, value))?;
        }
        let version = connection.parameter("server_version").map_or(0, version_number);
        let ascii = connection.parameter("server_encoding") == Some("SQL_ASCII");
        let mut session = Self { client, driver: Driver(Some(tokio::spawn(connection))), version, encrypted };
        if ascii {
            // Such a database holds bytes of any encoding, and the server would refuse to send what is not UTF-8.
            session.query("choosing the encoding", "SET client_encoding = 'SQL_ASCII'").await?;
        }
        Ok(session)
    }

    /// Major version, e.g. 15.
    pub(crate) fn major(&self) -> u32 {
        self.version / 10_000
    }

    /// Whether the connection is known to have ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs `COPY … TO STDOUT` and commits; `row` is called for each line and may break off. Afterwards the session can be
    /// used again only if nothing was broken off (`true`): what is left unread may be long.
    pub(crate) async fn copy_and_commit(
        &mut self,
        doing: &str,
        sql: &str,
        mut row: impl FnMut(&[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<bool> {
        let lines = match patient(self.client.copy_out(sql)).await? {
            Ok(lines) => lines,
            Err(error) => return Err(self.driver.failed(error, doing).await),
        };
        let mut lines = pin!(lines);
        // The server has begun to answer: the commit may be sent behind, without waiting for the answer's end.
        let mut commit = pin!(maybe_done(self.client.batch_execute("COMMIT")));
        let _ = commit.as_mut().now_or_never();
        loop {
            // Most lines are there already: only a real wait sets a timer.
            let line = match lines.try_next().now_or_never() {
                Some(line) => line,
                None => patient(lines.try_next()).await?,
            };
            match line {
                Ok(Some(line)) if row(&line)?.is_break() => return Ok(false),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return Err(self.driver.failed(error, doing).await),
            }
        }
        patient(commit.as_mut()).await?;
        match commit.take_output() {
            Some(Err(error)) => Err(self.driver.failed(error, doing).await),
            _ => Ok(true),
        }
    }

    /// Takes leave of the server; errors do not matter any more.
    pub(crate) async fn terminate(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        driver.end().await;
    }
}

impl Queries for Sql {
    async fn query(&mut self, doing: &str, sql: &str) -> Result<Vec<Rows>> {
        let messages = match patient(self.client.simple_query(sql)).await? {
            Ok(messages) => messages,
            Err(error) => return Err(self.driver.failed(error, doing).await),
        };
        let mut results: Vec<Rows> = Vec::new();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(_) => results.push(Vec::new()),
                SimpleQueryMessage::Row(row) => {
                    let texts = (0..row.len()).map(|at| Ok(row.try_get(at)?.map(str::to_owned)));
                    let texts = texts.collect::<Result<_, Error>>().map_err(|e| failure(e, doing))?;
                    results.last_mut().ok_or_else(|| bug("a row came before its description"))?.push(texts);
                }
                _ => {}
            }
        }
        Ok(results)
    }
}

/// Waits for an answer, for [`PATIENCE`].
async fn patient<T>(answer: impl Future<Output = T>) -> Result<T> {
    let late = |_| unreachable(format!("the server has not answered for {PATIENCE:?}"));
    timeout(PATIENCE, answer).await.map_err(late)
}

/// The session's settings in the form of a server's command line: blanks and backslashes are escaped by a backslash.
fn options() -> String {
    let mut options = String::new();
    for (name, value) in PINS.into_iter().chain(SETTINGS) {
        options.push_str(&format!("-c {name}={} ", value.replace('\\', r"\\").replace(' ', r"\ ")));
    }
    options
}

/// The library's error: what the server said, what our side of the socket said, or what the library made of the bytes.
fn failure(error: Error, doing: &str) -> SourceError {
    if let Some(error) = error.as_db_error() {
        return ServerError::from(error).into_source_error(doing);
    }
    if error.is_closed() {
        return unreachable("the server closed the connection");
    }
    let what = error.to_string();
    let cause = match error.into_source().map(|cause| cause.downcast::<io::Error>()) {
        Some(Ok(cause)) => match cause.downcast::<SourceError>() {
            Ok(ours) => return ours,
            Err(cause) => format!(": {cause}"),
        },
        Some(Err(cause)) => format!(": {cause}"),
        None => String::new(),
    };
    // The library does not tell the kinds of its errors in another way.
    let kind = if what.starts_with("authentication") {
        ErrorKind::AuthRefused
    } else if what.starts_with("error encoding") {
        ErrorKind::Bug
    } else {
        return undecodable(format!("{doing}: {what}{cause}"));
    };
    SourceError::new(kind, format!("{doing}: {what}{cause}"))
}

/// Size of the read buffer: the library itself reads in small pieces.
const BUFFER: usize = 64 << 10;
/// Length of an authentication request's head: letter, length, code.
const HEAD: usize = 9;

/// The socket as the library wants it. It watches for the server's first message, so that a password is given only to
/// whom, and as, it may be ([`auth::objection`]); the library itself would send it in the clear over an open connection.
struct Protected {
    socket: BufReader<Socket>,
    channel: Channel,
    has_password: bool,
    /// The first bytes that the server sent, [`HEAD`] at most.
    head: Vec<u8>,
}

impl Protected {
    fn watch(&mut self, bytes: &[u8]) -> io::Result<()> {
        let missing = HEAD - self.head.len();
        if missing == 0 {
            return Ok(());
        }
        self.head.extend_from_slice(&bytes[..missing.min(bytes.len())]);
        if let [b'R', _, _, _, _, code @ ..] = &self.head[..]
            && let Ok(code) = <[u8; 4]>::try_from(code)
            && let Some(objection) = auth::objection(u32::from_be_bytes(code), self.has_password, &self.channel)
        {
            return Err(io::Error::other(objection));
        }
        Ok(())
    }
}

/// An error of the socket in our own words; it comes back through the library as it is.
fn ours(error: io::Error) -> io::Error {
    io::Error::other(broken(error))
}

impl AsyncRead for Protected {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.socket).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => Poll::Ready(this.watch(&buf.filled()[before..])),
            other => other.map_err(ours),
        }
    }
}

impl AsyncWrite for Protected {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf).map_err(ours)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx).map_err(ours)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx).map_err(ours)
    }
}

impl TlsStream for Protected {
    fn channel_binding(&self) -> ChannelBinding {
        self.channel.end_point.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// The handshake of a stream that is protected already, as far as the configuration asks for it.
struct Done;

impl TlsConnect<Protected> for Done {
    type Stream = Protected;
    type Error = io::Error;
    type Future = Ready<io::Result<Protected>>;

    fn connect(self, stream: Protected) -> Self::Future {
        ready(Ok(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Password, TlsConfig, TlsMode};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What comes of a server that answers the startup message with `answer`, and what it is told then.
    async fn login(password: Option<&str>, answer: &'static [u8]) -> (SourceError, Vec<u8>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = PostgresConfig::new("127.0.0.1", listener.local_addr().unwrap().port(), "d", "u");
        config.tls = TlsConfig::new(TlsMode::Disable);
        config.password = password.map(Password::new);
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let length = socket.read_u32().await.unwrap();
            socket.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
            let (begin, end) = answer.split_at(3);
            socket.write_all(begin).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            socket.write_all(end).await.unwrap();
            let mut told = Vec::new();
            let _ = socket.read_to_end(&mut told).await;
            told
        };
        let (session, told) = tokio::join!(Sql::open(&config), server);
        (session.err().expect("refused"), told)
    }

    #[tokio::test]
    async fn a_password_is_not_given_to_just_anybody() {
        for (answer, words) in [
            (&b"R\0\0\0\x08\0\0\0\x03"[..], "in the clear"),
            (b"R\0\0\0\x08\0\0\0\x07", "Kerberos"),
            (b"R\0\0\0\x08\0\0\0\x63", "unknown authentication method"),
            (b"R\0\0\0\x0f\0\0\0\x0aHELLO\0\0", "SASL"),
        ] {
            let (error, told) = login(Some("secret"), answer).await;
            assert_eq!(error.kind, ErrorKind::AuthRefused, "{error}");
            assert!(error.to_string().contains(words), "{error}");
            assert!(told.is_empty(), "{error}");
        }
        let (error, _) = login(None, b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0").await;
        assert!(error.kind == ErrorKind::AuthRefused && error.message.contains("none is configured"), "{error}");
    }

    #[tokio::test]
    async fn a_login_that_fails_is_told_by_its_cause() {
        let (error, _) = login(None, b"E\0\0\0\x25SFATAL\0C53300\0Mtoo many clients\0\0").await;
        assert_eq!((error.kind, crate::error::sqlstate(&error)), (ErrorKind::Unreachable, Some("53300")), "{error}");
        let (error, _) = login(None, b"?\0\0\0\x04").await;
        assert_eq!(error.kind, ErrorKind::Undecodable, "{error}");
    }

    #[test]
    fn options_are_one_word_each() {
        assert!(options().contains(r"-c DateStyle=ISO,\ YMD -c "));
    }
}
