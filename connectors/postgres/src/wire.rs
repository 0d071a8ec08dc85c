//! The replication connection: a small client of PostgreSQL's frontend/backend protocol 3.0 with TLS, authentication,
//! simple queries and the two-way copy that replication runs in.
//!
//! It and the SQL sessions (sql.rs) read text produced under the same session settings ([`PINS`]), so that a value looks
//! the same from a snapshot and from the log (R11). Only the simple query protocol is used: all values come as text, and
//! every literal is quoted by [`literal`].

use crate::error::{ServerError, bug, undecodable, unreachable};
use crate::socket::{Frames, Socket};
use crate::sql::{PATIENCE, Queries};
use crate::{PostgresConfig, auth, tls};
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use std::path::Path;
use std::time::Duration;
use tidemark_contract::{ErrorKind, Result, SourceError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// Settings of every session, so that text forms depend on no server, database or role setting.
pub(crate) const PINS: [(&str, &str); 9] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("standard_conforming_strings", "on"),
    ("search_path", "pg_catalog"),
    ("lock_timeout", "30s"),
];

/// Settings of the replication connection beyond [`PINS`].
const SETTINGS: [(&str, &str); 2] = [("statement_timeout", "0"), ("replication", "database")];

/// The rows of one statement, as text.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// One replication connection to the server.
pub(crate) struct Connection {
    socket: Socket,
    pub(crate) frames: Frames,
    out: BytesMut,
    /// The server's version, e.g. `150008` for 15.8.
    pub(crate) version: u32,
    /// How long an answer is waited for. (The stream of changes has its own rules.)
    pub(crate) patience: Duration,
}

impl Connection {
    /// Connects, within the configured time.
    pub(crate) async fn open(config: &PostgresConfig) -> Result<Self> {
        let limit = config.connect_timeout;
        tokio::time::timeout(limit, Self::connect(config)).await.unwrap_or_else(|_| Err(late(config)))
    }

    async fn connect(config: &PostgresConfig) -> Result<Self> {
        let (socket, channel) = connect_socket(config).await?;
        let mut connection =
            Self { socket, frames: Frames::new(), out: BytesMut::new(), version: 0, patience: PATIENCE };
        let mut parameters = vec![
            ("user", config.user.as_str()),
            ("database", config.database.as_str()),
            ("application_name", config.application_name.as_str()),
        ];
        parameters.extend(PINS);
        parameters.extend(SETTINGS);
        frontend::startup_message(parameters, &mut connection.out)
            .map_err(|_| SourceError::new(ErrorKind::SettingWrong, "user or database contain a zero byte"))?;
        connection.flush().await?;
        auth::authenticate(&mut connection, config, &channel).await?;
        connection.read_greeting().await?;
        Ok(connection)
    }

    /// Everything between a successful authentication and the first ReadyForQuery.
    async fn read_greeting(&mut self) -> Result<()> {
        let mut ascii = false;
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'S' => {
                    let mut parts = body.split(|b| *b == 0).map(String::from_utf8_lossy);
                    let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                    if name == "server_version" {
                        self.version = version_number(&value);
                    } else if name == "server_encoding" {
                        ascii = value == "SQL_ASCII";
                    } else {
                        check_pin(&name, &value)?;
                    }
                }
                b'Z' => break,
                b'E' => return Err(ServerError::parse(body).into_source_error("connecting to PostgreSQL")),
                b'K' | b'N' | b'v' => {}
                other => return Err(unexpected(other)),
            }
        }
        if ascii {
            // Such a database holds bytes of any encoding, and the server would refuse to send what is not UTF-8.
            self.query("choosing the encoding", "SET client_encoding = 'SQL_ASCII'").await?;
        }
        Ok(())
    }

    /// Major version, e.g. 15.
    pub(crate) fn major(&self) -> u32 {
        self.version / 10_000
    }

    /// Sends what was put into the out buffer.
    async fn flush(&mut self) -> Result<()> {
        let sent = async {
            self.socket.write_all(&self.out).await?;
            self.socket.flush().await
        };
        sent.await.map_err(broken)?;
        self.out.clear();
        Ok(())
    }

    /// Sends a message; `write` puts it into the buffer.
    pub(crate) async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<()> {
        write(&mut self.out).map_err(|e| bug(format!("a message could not be written: {e}")))?;
        self.flush().await
    }

    /// Sends a message that can always be written.
    pub(crate) async fn send_all(&mut self, write: impl FnOnce(&mut BytesMut)) -> Result<()> {
        write(&mut self.out);
        self.flush().await
    }

    /// Waits for more bytes. Cancel-safe.
    pub(crate) async fn read(&mut self) -> Result<()> {
        match self.frames.read_from(&mut self.socket).await.map_err(broken)? {
            0 => Err(unreachable("the server closed the connection")),
            _ => Ok(()),
        }
    }

    /// Waits for the next message: its letter and its body.
    pub(crate) async fn message(&mut self) -> Result<(u8, &[u8])> {
        loop {
            if let Some((tag, range)) = self.frames.take()? {
                return Ok((tag, self.frames.body(range)));
            }
            let limit = self.patience;
            tokio::time::timeout(limit, self.read())
                .await
                .map_err(|_| unreachable(format!("the server has not answered for {limit:?}")))??;
        }
    }

    /// Runs a command that turns the connection into a two-way copy (START_REPLICATION).
    pub(crate) async fn copy_both(&mut self, doing: &str, command: &str) -> Result<()> {
        self.send(|out| frontend::query(command, out)).await?;
        let mut error = None;
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'W' => return Ok(()),
                b'E' => error = Some(ServerError::parse(body).into_source_error(doing)),
                b'Z' => return Err(error.unwrap_or_else(|| unexpected(b'Z'))),
                b'N' | b'S' | b'A' => {}
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Takes leave of the server; errors do not matter any more.
    pub(crate) async fn terminate(mut self) {
        let leave = async {
            let _ = self.send_all(frontend::terminate).await;
            let _ = self.socket.shutdown().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), leave).await;
    }
}

impl Queries for Connection {
    async fn query(&mut self, doing: &str, sql: &str) -> Result<Vec<Rows>> {
        self.send(|out| frontend::query(sql, out)).await?;
        let mut results = Vec::new();
        let mut error = None;
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'T' => results.push(Vec::new()),
                b'D' => {
                    let row = data_row(body).ok_or_else(|| undecodable("a malformed DataRow message"))?;
                    results.last_mut().ok_or_else(|| unexpected(tag))?.push(row);
                }
                b'E' => error = Some(ServerError::parse(body).into_source_error(doing)),
                b'Z' => return error.map_or(Ok(results), Err),
                b'C' | b'I' | b'N' | b'S' | b'A' => {}
                other => return Err(unexpected(other)),
            }
        }
    }
}

/// A message that has no place here.
pub(crate) fn unexpected(tag: u8) -> SourceError {
    undecodable(format!("the server sent a message of type {:?} where none belongs", char::from(tag)))
}

pub(crate) fn broken(error: std::io::Error) -> SourceError {
    unreachable(format!("the connection to PostgreSQL broke: {error}"))
}

/// Nothing came of connecting within the configured time.
pub(crate) fn late(config: &PostgresConfig) -> SourceError {
    let limit = config.connect_timeout.as_secs_f32();
    unreachable(format!("no connection to PostgreSQL at {} within {limit} s", config.address()))
        .hint("check host, port and firewalls; raise connect_timeout if the way is just slow")
}

/// Checks a setting that the server reports against [`PINS`].
pub(crate) fn check_pin(name: &str, value: &str) -> Result<()> {
    match PINS.iter().find(|(pin, _)| *pin == name) {
        Some((_, wanted)) if *wanted != value => Err(SourceError::new(
            ErrorKind::SettingWrong,
            format!("the server did not take the session setting {name} = {wanted}: it reports {value}"),
        )
        .hint("connect to PostgreSQL itself, not to a pooler")),
        _ => Ok(()),
    }
}

/// A name as SQL.
pub(crate) fn ident(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}

/// A text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text).trim_start().to_owned()
}

/// `15.8 (Debian 15.8-0+deb12u1)` → 150008; `16beta1` → 160000; 0 if there is no number.
pub(crate) fn version_number(text: &str) -> u32 {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse::<u32>().unwrap_or(0));
    let major = numbers.next().unwrap_or(0).min(400_000);
    let has_minor = text.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('.');
    major * 10_000 + if has_minor { numbers.next().unwrap_or(0).min(9_999) } else { 0 }
}

/// The columns of a DataRow: a count, then a length (-1 for null) and bytes for each.
fn data_row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_be_bytes(*count));
    let mut row = Vec::with_capacity(count.min(body.len()));
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        rest = tail;
        row.push(match u32::try_from(i32::from_be_bytes(*length)) {
            Err(_) => None,
            Ok(length) => {
                let (value, tail) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                rest = tail;
                Some(String::from_utf8_lossy(value).into_owned())
            }
        });
    }
    Some(row)
}

/// How well the way to the server is protected, for the choice of authentication methods.
pub(crate) struct Channel {
    /// Nobody can listen: TLS, or a unix socket.
    pub(crate) private: bool,
    /// The way does not leave this machine.
    pub(crate) local: bool,
    /// What SCRAM binds itself to: the hash of the server's certificate.
    pub(crate) end_point: Option<Vec<u8>>,
}

/// Makes the way to the server: a unix socket, or TCP with TLS as configured.
pub(crate) async fn connect_socket(config: &PostgresConfig) -> Result<(Socket, Channel)> {
    if config.is_unix() {
        let path = Path::new(&config.host).join(format!(".s.PGSQL.{}", config.port));
        let socket = UnixStream::connect(&path)
            .await
            .map_err(|e| unreachable(format!("cannot connect to PostgreSQL at {}: {e}", path.display())))?;
        return Ok((Socket::Unix(socket), Channel { private: true, local: true, end_point: None }));
    }
    let mut socket = TcpStream::connect((config.host.as_str(), config.port))
        .await
        .map_err(|e| unreachable(format!("cannot connect to PostgreSQL at {}: {e}", config.address())))?;
    set_options(&socket).map_err(broken)?;
    let local = socket.peer_addr().is_ok_and(|a| a.ip().is_loopback());
    let Some(tls_config) = config.tls.client_config(rustls::DEFAULT_VERSIONS)? else {
        return Ok((Socket::Tcp(socket), Channel { private: false, local, end_point: None }));
    };
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await.map_err(broken)?;
    // Exactly one byte is read: anything sent behind it in the clear would reach the TLS library, which refuses it.
    match socket.read_u8().await.map_err(broken)? {
        b'S' => {}
        b'N' => {
            return Err(SourceError::new(
                ErrorKind::SettingWrong,
                format!("the server at {} does not offer TLS, and the mode is {:?}", config.address(), config.tls.mode),
            )
            .hint("set ssl = on in postgresql.conf, or accept an open connection with tls mode \"disable\""));
        }
        other => return Err(unexpected(other)),
    }
    let name = ServerName::try_from(config.host.clone())
        .map_err(|_| SourceError::new(ErrorKind::SettingWrong, format!("{:?} is no host name", config.host)))?;
    let stream = TlsConnector::from(std::sync::Arc::new(tls_config)).connect(name, socket).await.map_err(|e| {
        let kind =
            if e.kind() == std::io::ErrorKind::InvalidData { ErrorKind::SettingWrong } else { ErrorKind::Unreachable };
        let error = SourceError::new(kind, format!("TLS with {} failed: {e}", config.address()));
        match tidemark_login::advice(&e) {
            Some(advice) => error.hint(advice),
            None => error,
        }
    })?;
    let end_point = stream.get_ref().1.peer_certificates().and_then(|c| tls::end_point(c.first()?));
    Ok((Socket::Tls(Box::new(stream)), Channel { private: true, local, end_point }))
}

/// Keeps a dead peer from being waited for: probes on an idle connection, and a limit for unacknowledged bytes.
fn set_options(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = socket2::SockRef::from(socket);
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&probes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version_number("15.8 (Debian 15.8-0+deb12u1)"), 150_008);
        assert_eq!(version_number("16beta1"), 160_000);
        assert_eq!(version_number("18.0"), 180_000);
        assert_eq!(version_number("?"), 0);
    }

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn a_cut_data_row_is_noticed() {
        let body = [0, 2, 0, 0, 0, 1, b'x', 255, 255, 255, 255];
        assert_eq!(data_row(&body), Some(vec![Some("x".into()), None]));
        for cut in 0..body.len() {
            assert_eq!(data_row(&body[..cut]), None);
        }
    }
}
