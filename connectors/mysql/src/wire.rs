//! One connection: socket, TLS, login, packets.
//!
//! The log is read by a client of our own, because mysql_async's stream of the log (its feature `binlog`, off here) keeps
//! fewer promises than this crate has to: an event that ends sooner than it says is a panic (R6); a compressed transaction
//! is unpacked whole, into a buffer of the size that the server announces (R7), and one that does not unpack is an empty
//! one, so its changes are gone without a word (R3); and rows come as values of their own, with all names of the table map
//! parsed again for each. SQL is mysql_async's (`sql.rs`), over the connections that are made here (`relay.rs`).

use crate::auth;
use crate::cursor::Cursor;
use crate::error::{ServerError, setting_wrong, undecodable, unreachable};
use crate::{MysqlConfig, TlsMode};
use bytes::{Buf, BytesMut};
use rustls::pki_types::ServerName;
use tidemark_contract::{ErrorKind, Result, SourceError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Bytes asked of the socket at a time.
const READ_SIZE: usize = 128 << 10;
/// The payload length that says that the packet goes on in the next one.
const FULL: usize = 0xff_ffff;
/// No packet may be larger: the server's own limit.
const LARGEST: usize = 1 << 30;

const COM_QUERY: u8 = 3;

const CLIENT_LONG_PASSWORD: u32 = 1;
const CLIENT_LONG_FLAG: u32 = 1 << 2;
const CLIENT_CONNECT_WITH_DB: u32 = 1 << 3;
const CLIENT_PROTOCOL_41: u32 = 1 << 9;
const CLIENT_SSL: u32 = 1 << 11;
const CLIENT_TRANSACTIONS: u32 = 1 << 13;
const CLIENT_SECURE_CONNECTION: u32 = 1 << 15;
const CLIENT_PLUGIN_AUTH: u32 = 1 << 19;
const CLIENT_CONNECT_ATTRS: u32 = 1 << 20;
const CLIENT_PLUGIN_AUTH_LENENC: u32 = 1 << 21;
pub(crate) const CLIENT_DEPRECATE_EOF: u32 = 1 << 24;
/// utf8mb4_general_ci.
pub(crate) const COLLATION: u8 = 45;

pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for T {}

/// A connection that is logged in.
pub(crate) struct Connection {
    socket: Box<dyn Socket>,
    buffer: BytesMut,
    /// The beginning of a packet that comes in several parts.
    partial: Option<BytesMut>,
    sequence: u8,
    /// What was agreed upon with the server, as flags of the protocol.
    pub(crate) flags: u32,
    /// The server's version as it says it.
    pub(crate) version: String,
    pub(crate) is_mariadb: bool,
    pub(crate) encrypted: bool,
    /// How long the server may be silent while it works on a statement.
    patience: std::time::Duration,
    /// The server's number for this connection.
    pub(crate) id: u32,
}

struct Greeting {
    version: String,
    id: u32,
    nonce: Vec<u8>,
    capabilities: u32,
    plugin: String,
}

impl Connection {
    /// Connects and logs in, within the configured time.
    pub(crate) async fn open(config: &MysqlConfig) -> Result<Self> {
        timeout(config.connect_timeout, Self::connect(config)).await.unwrap_or_else(|_| Err(late(config)))
    }

    async fn connect(config: &MysqlConfig) -> Result<Self> {
        let failed = |e: std::io::Error| unreachable(format!("connecting to {}: {e}", config.address())).caused_by(e);
        let socket: Box<dyn Socket> = if config.is_unix() {
            Box::new(UnixStream::connect(&config.host).await.map_err(failed)?)
        } else {
            let stream = TcpStream::connect((config.host.as_str(), config.port)).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            Box::new(stream)
        };
        let mut this = Self {
            socket,
            buffer: BytesMut::new(),
            partial: None,
            sequence: 0,
            flags: 0,
            version: String::new(),
            is_mariadb: false,
            encrypted: false,
            patience: config.statement_timeout,
            id: 0,
        };
        let greeting = greeting(&this.packet().await?)?;
        this.log_in(config, greeting).await.map_err(|error| match error.kind {
            // Bytes that make no sense before the login is over are no MySQL server's.
            ErrorKind::Undecodable => SourceError { kind: ErrorKind::Unreachable, ..error },
            _ => error,
        })?;
        Ok(this)
    }

    async fn log_in(&mut self, config: &MysqlConfig, greeting: Greeting) -> Result<()> {
        self.is_mariadb = greeting.version.contains("MariaDB");
        // MariaDB puts an old version number in front, for replicas that knew no better.
        self.version = greeting.version.strip_prefix("5.5.5-").unwrap_or(&greeting.version).to_owned();
        self.id = greeting.id;
        let needed = CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH;
        if greeting.capabilities & needed != needed {
            return Err(setting_wrong(format!("the server (version {}) is too old: 5.7 is wanted", self.version)));
        }
        let mut flags = needed
            | CLIENT_LONG_PASSWORD
            | CLIENT_LONG_FLAG
            | CLIENT_CONNECT_WITH_DB
            | CLIENT_TRANSACTIONS
            | (greeting.capabilities & (CLIENT_CONNECT_ATTRS | CLIENT_PLUGIN_AUTH_LENENC | CLIENT_DEPRECATE_EOF));
        self.flags = flags;
        let tls = if config.is_unix() { None } else { config.tls.client_config(rustls::DEFAULT_VERSIONS)? };
        if let Some(tls) = tls {
            if greeting.capabilities & CLIENT_SSL == 0 {
                return Err(setting_wrong("TLS is wanted, but the server does not offer it")
                    .hint("set up certificates on the server, or choose tls mode \"disable\""));
            }
            flags |= CLIENT_SSL;
            self.send(&login_head(flags)).await?;
            self.encrypt(config, tls).await?;
        }
        let private = self.encrypted || config.is_unix();
        let password = config.password.as_ref().map_or("", |p| p.expose()).as_bytes();
        let mut plugin = greeting.plugin;
        let mut nonce = greeting.nonce;
        // A plugin that is not known here, or wants more privacy, may yet be switched away from.
        let first = match auth::answer(&plugin, password, &nonce, private) {
            Ok(first) => first,
            Err(_) => {
                plugin = "mysql_native_password".into();
                auth::answer(&plugin, password, &nonce, private)?
            }
        };
        self.send(&login(config, flags, &first, &plugin)).await?;
        let doing = format!("logging in as {}", config.user);
        loop {
            let packet = self.packet().await?;
            let mut body = Cursor(&packet);
            match body.u8()? {
                0x00 => return Ok(()),
                0xff => return Err(ServerError::parse(body.rest()).into_source_error(&doing)),
                0xfe if body.is_empty() => {
                    return Err(setting_wrong("the account uses the password hash of MySQL 3.23, which is not safe")
                        .hint("set the password again: ALTER USER … IDENTIFIED BY …"));
                }
                0xfe => {
                    plugin = String::from_utf8_lossy(body.until_nul()?).into_owned();
                    nonce = body.rest().to_vec();
                    let answer = auth::answer(&plugin, password, &nonce, private)?;
                    self.send(&answer).await?;
                }
                0x01 => match (plugin.as_str(), body.rest()) {
                    // Known to the server's cache: an OK follows.
                    ("caching_sha2_password", [3]) => {}
                    ("caching_sha2_password", [4]) if private => self.send(&[password, &[0]].concat()).await?,
                    ("caching_sha2_password", [4]) => self.send(&[2]).await?,
                    ("caching_sha2_password" | "sha256_password", key) if key.starts_with(b"-----BEGIN") => {
                        let secret = auth::encrypted(password, &nonce, key)?;
                        self.send(&secret).await?;
                    }
                    _ => return Err(undecodable("the server says something unknown while logging in")),
                },
                _ => return Err(undecodable("the server says something unknown while logging in")),
            }
        }
    }

    async fn encrypt(&mut self, config: &MysqlConfig, tls: rustls::ClientConfig) -> Result<()> {
        if !self.buffer.is_empty() {
            // Bytes sent before TLS began could have been put there by anybody.
            return Err(undecodable("the server sent data before TLS was set up"));
        }
        let name = ServerName::try_from(config.host.clone())
            .map_err(|_| setting_wrong(format!("{} is not a host name that TLS can verify", config.host)))?;
        let plain = std::mem::replace(&mut self.socket, Box::new(tokio::io::empty()));
        let stream =
            tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls)).connect(name, plain).await.map_err(|error| {
                let kind = if tidemark_login::advice(&error).is_some() || config.tls.mode == TlsMode::VerifyFull {
                    ErrorKind::SettingWrong
                } else {
                    ErrorKind::Unreachable
                };
                let mut wrong = SourceError::new(kind, format!("setting up TLS with {}: {error}", config.address()));
                wrong.hint = tidemark_login::advice(&error).map(str::to_owned);
                if error.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>()) {
                    wrong.kind = ErrorKind::Unreachable;
                }
                wrong.caused_by(error)
            })?;
        self.socket = Box::new(stream);
        self.encrypted = true;
        Ok(())
    }

    /// Sends one packet as the next of the running exchange.
    async fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut out = Vec::with_capacity(payload.len() + 8);
        let mut rest = payload;
        loop {
            let (part, tail) = rest.split_at(rest.len().min(FULL));
            let length = u32::try_from(part.len()).unwrap_or(0);
            out.extend_from_slice(&length.to_le_bytes()[..3]);
            out.push(self.sequence);
            self.sequence = self.sequence.wrapping_add(1);
            out.extend_from_slice(part);
            rest = tail;
            if part.len() < FULL {
                break;
            }
        }
        let written = async {
            self.socket.write_all(&out).await?;
            self.socket.flush().await
        };
        written.await.map_err(|e| unreachable(format!("sending to the server: {e}")).caused_by(e))
    }

    /// Begins a new exchange: a command and its arguments.
    pub(crate) async fn command(&mut self, command: u8, body: &[u8]) -> Result<()> {
        self.sequence = 0;
        let mut payload = Vec::with_capacity(body.len() + 1);
        payload.push(command);
        payload.extend_from_slice(body);
        self.send(&payload).await
    }

    /// The next packet, if it has arrived whole.
    pub(crate) fn take(&mut self) -> Result<Option<BytesMut>> {
        loop {
            let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
            let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
            let sequence = head[3];
            if sequence != self.sequence {
                return Err(undecodable("the server's packets are out of order"));
            }
            if self.buffer.len() < 4 + length {
                self.buffer.reserve(4 + length - self.buffer.len());
                return Ok(None);
            }
            self.sequence = sequence.wrapping_add(1);
            self.buffer.advance(4);
            let part = self.buffer.split_to(length);
            let packet = match self.partial.take() {
                None => part,
                Some(mut begun) => {
                    if begun.len() + part.len() > LARGEST {
                        return Err(undecodable("a packet from the server is larger than any may be"));
                    }
                    begun.extend_from_slice(&part);
                    begun
                }
            };
            if length < FULL {
                return Ok(Some(packet));
            }
            self.partial = Some(packet);
        }
    }

    /// Reads more bytes from the socket. Cancel-safe.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        self.buffer.reserve(READ_SIZE);
        match self.socket.read_buf(&mut self.buffer).await {
            Ok(0) => Err(unreachable("the server closed the connection")),
            Ok(_) => Ok(()),
            Err(e) => Err(unreachable(format!("reading from the server: {e}")).caused_by(e)),
        }
    }

    /// The next packet. Cancel-safe.
    pub(crate) async fn packet(&mut self) -> Result<BytesMut> {
        self.packet_within(self.patience).await
    }

    /// The next packet, which must begin to arrive within `limit`; so must each further part of it.
    pub(crate) async fn packet_within(&mut self, limit: std::time::Duration) -> Result<BytesMut> {
        loop {
            if let Some(packet) = self.take()? {
                return Ok(packet);
            }
            let late = |_| unreachable(format!("the server was silent for {limit:?}"));
            timeout(limit, self.fill()).await.map_err(late)??;
        }
    }

    /// Runs a statement that has no result, such as the settings of a connection that is to read the log.
    pub(crate) async fn run(&mut self, doing: &str, sql: &str) -> Result<()> {
        self.command(COM_QUERY, sql.as_bytes()).await?;
        let packet = self.packet().await?;
        match packet.first() {
            Some(0x00) => Ok(()),
            Some(0xff) => Err(ServerError::parse(&packet[1..]).into_source_error(doing)),
            _ => Err(undecodable("the server answers a setting with something else than yes or no")),
        }
    }

    /// The socket of a connection that is between two exchanges.
    pub(crate) fn into_socket(self) -> Result<Box<dyn Socket>> {
        if self.buffer.is_empty() {
            Ok(self.socket)
        } else {
            Err(undecodable("the server goes on after the login without being asked"))
        }
    }
}

/// The error of a connection that was not made in time.
pub(crate) fn late(config: &MysqlConfig) -> SourceError {
    unreachable(format!("{} did not let us in within {:?}", config.address(), config.connect_timeout))
}

fn greeting(packet: &[u8]) -> Result<Greeting> {
    let mut body = Cursor(packet);
    match body.u8()? {
        0xff => return Err(ServerError::parse(body.rest()).into_source_error("connecting")),
        10 => {}
        _ => return Err(unreachable("what answers is not a MySQL server")),
    }
    let version: String =
        String::from_utf8_lossy(body.until_nul()?).chars().filter(|c| c.is_ascii_graphic()).take(80).collect();
    let id = body.u32()?;
    let mut nonce = body.take(8)?.to_vec();
    body.take(1)?;
    let mut capabilities = u32::from(body.u16()?);
    body.take(3)?;
    capabilities |= u32::from(body.u16()?) << 16;
    let nonce_length = usize::from(body.u8()?);
    body.take(10)?;
    nonce.extend_from_slice(body.take(nonce_length.saturating_sub(8).max(13))?);
    if nonce.last() == Some(&0) {
        nonce.pop();
    }
    let plugin = body.until_nul().map_or_else(|_| "mysql_native_password".into(), String::from_utf8_lossy).into_owned();
    Ok(Greeting { version, id, nonce, capabilities, plugin })
}

/// The part of the login that also asks for TLS.
fn login_head(flags: u32) -> Vec<u8> {
    let mut out = flags.to_le_bytes().to_vec();
    out.extend_from_slice(&u32::try_from(LARGEST).unwrap_or(u32::MAX).to_le_bytes());
    out.push(COLLATION);
    out.extend_from_slice(&[0; 23]);
    out
}

fn login(config: &MysqlConfig, flags: u32, answer: &[u8], plugin: &str) -> Vec<u8> {
    let mut out = login_head(flags);
    let mut text = |text: &str| {
        out.extend(text.bytes().filter(|b| *b != 0));
        out.push(0);
    };
    text(&config.user);
    // Every answer is shorter than 251 bytes except a clear password, which the length-encoded form can hold too.
    let length = u8::try_from(answer.len().min(250)).unwrap_or(250);
    out.push(length);
    out.extend_from_slice(&answer[..usize::from(length)]);
    let mut text = |text: &str| {
        out.extend(text.bytes().filter(|b| *b != 0));
        out.push(0);
    };
    text(&config.database);
    text(plugin);
    if flags & CLIENT_CONNECT_ATTRS != 0 {
        let mut attributes = Vec::new();
        for part in ["program_name", config.application_name.as_str()] {
            let part = &part.as_bytes()[..part.len().min(100)];
            attributes.push(u8::try_from(part.len()).unwrap_or(0));
            attributes.extend_from_slice(part);
        }
        out.push(u8::try_from(attributes.len()).unwrap_or(0));
        out.extend_from_slice(&attributes);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_read_and_short_ones_are_refused() {
        let mut packet = vec![10];
        packet.extend_from_slice(b"5.5.5-10.11.6-MariaDB\0");
        packet.extend_from_slice(&7_u32.to_le_bytes());
        packet.extend_from_slice(b"abcdefgh\0");
        packet.extend_from_slice(&0xffff_u16.to_le_bytes());
        packet.extend_from_slice(&[45, 2, 0]);
        packet.extend_from_slice(&0x81ff_u16.to_le_bytes());
        packet.push(21);
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(b"ijklmnopqrst\0");
        packet.extend_from_slice(b"mysql_native_password\0");
        let read = greeting(&packet).unwrap();
        assert_eq!((read.id, read.nonce.as_slice()), (7, &b"abcdefghijklmnopqrst"[..]));
        assert_eq!(read.plugin, "mysql_native_password");
        for cut in 0..packet.len() - 22 {
            assert!(greeting(&packet[..cut]).is_err(), "{cut}");
        }
    }
}
