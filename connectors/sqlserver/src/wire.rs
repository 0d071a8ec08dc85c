//! One connection: TCP, PRELOGIN and TLS by ourselves, then the driver inside.
//!
//! The driver's own TLS needs a crypto library that this tree does not carry. So PRELOGIN and the handshake are done here,
//! and the driver is given a stream on which its own PRELOGIN is answered at once with "no encryption" ([`Inner`]): its
//! packets then go out inside TLS.

use crate::SqlServerConfig;
use crate::error::{of, setting_wrong, undecodable, unreachable};
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, Row};
use tidemark_contract::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

const HEADER: usize = 8;
const PRELOGIN: u8 = 0x12;
const ENCRYPT_ON: u8 = 1;
const ENCRYPT_NOT_SUP: u8 = 2;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection that is logged in.
pub(crate) struct Connection {
    client: Client<Compat<Inner>>,
}

impl Connection {
    /// Connects and logs in, within the configuration's limit.
    pub(crate) async fn open(config: &SqlServerConfig) -> Result<Self> {
        let limit = config.connect_timeout;
        match tokio::time::timeout(limit, Self::establish(config)).await {
            Ok(connected) => connected,
            Err(_) => Err(unreachable(format!("connecting to {} took longer than {limit:?}", config.address()))),
        }
    }

    async fn establish(config: &SqlServerConfig) -> Result<Self> {
        let address = config.address();
        let tcp = TcpStream::connect((config.host.as_str(), config.port)).await.map_err(|e| {
            unreachable(format!("{address} cannot be reached: {e}")).hint("check host, port and firewall")
        })?;
        let _ = tcp.set_nodelay(true);
        if config.strict && config.tls.mode == crate::TlsMode::Disable {
            return Err(setting_wrong("strict encryption is asked for, and TLS is disabled")
                .hint("set mode = \"verify-full\" in [source.tls], or encryption = \"standard\""));
        }
        // Inside PRELOGIN packets the handshake must end with one flight: TLS 1.3 goes on with tickets behind it.
        let versions = if config.strict { rustls::ALL_VERSIONS } else { &[&rustls::version::TLS12] };
        let inner = match config.tls.client_config(versions)? {
            None => Inner { stream: Box::new(tcp), prelogin: Prelogin::Passed },
            Some(mut tls) => {
                if config.strict {
                    tls.alpn_protocols = vec![b"tds/8.0".to_vec()];
                }
                Inner { stream: encrypt(config, tls, tcp).await?, prelogin: Prelogin::Awaited { seen: Vec::new() } }
            }
        };
        let mut driver = Config::new();
        driver.host(&config.host);
        driver.port(config.port);
        driver.database(&config.database);
        driver.application_name(&config.application_name);
        let password = config.password.as_ref().map_or("", |p| p.expose());
        driver.authentication(AuthMethod::sql_server(&config.user, password));
        driver.readonly(config.read_only);
        driver.encryption(EncryptionLevel::NotSupported);
        driver.lossy_utf16_decoding(true);
        driver.handshake_timeout(Some(config.connect_timeout));
        driver.command_timeout(Some(config.statement_timeout));
        let client = Client::connect(driver, inner.compat_write()).with_subscriber(NoSubscriber::new()).await;
        let client = client.map_err(|e| of(&format!("logging in to {address} as {}", config.user), e))?;
        Ok(Self { client })
    }

    /// Runs a batch and gives all its results. A call that is dropped leaves the connection unusable: it must be thrown
    /// away.
    pub(crate) async fn results(&mut self, doing: &str, sql: &str) -> Result<Vec<Vec<Row>>> {
        let client = &mut self.client;
        let work = async { client.simple_query(sql).await?.into_results().await };
        // The driver logs rows as it decodes them (R9): nobody listens.
        work.with_subscriber(NoSubscriber::new()).await.map_err(|e| of(doing, e))
    }

    /// Runs a batch with one result.
    pub(crate) async fn rows(&mut self, doing: &str, sql: &str) -> Result<Vec<Row>> {
        Ok(self.results(doing, sql).await?.into_iter().next().unwrap_or_default())
    }

    /// Runs a batch without a result.
    pub(crate) async fn run(&mut self, doing: &str, sql: &str) -> Result<()> {
        self.results(doing, sql).await.map(drop)
    }
}

/// TLS on a new connection: within PRELOGIN packets, or first.
async fn encrypt(config: &SqlServerConfig, tls: rustls::ClientConfig, mut tcp: TcpStream) -> Result<Box<dyn Stream>> {
    let address = config.address();
    let name = ServerName::try_from(config.host.clone())
        .map_err(|_| setting_wrong(format!("`{}` is no host name that TLS could check", config.host)))?;
    let failed = |e: io::Error| {
        let mut error = match e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            true => setting_wrong(format!("TLS with {address} failed: {e}")),
            false => unreachable(format!("TLS with {address} failed: {e}")),
        };
        error.hint = tidemark_login::advice(&e).map(str::to_owned);
        error
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    if config.strict {
        let mut stream = connector.connect(name, tcp).await.map_err(failed)?;
        exchange_prelogin(&mut stream, ENCRYPT_ON, &address).await?;
        return Ok(Box::new(stream));
    }
    if exchange_prelogin(&mut tcp, ENCRYPT_ON, &address).await? == ENCRYPT_NOT_SUP {
        return Err(setting_wrong(format!("{address} does not offer TLS"))
            .hint("give the server a certificate, or set mode = \"disable\" in [source.tls]"));
    }
    let mut stream = connector.connect(name, Wrapped::new(tcp)).await.map_err(failed)?;
    stream.get_mut().0.wrapping = false;
    Ok(Box::new(stream))
}

/// A PRELOGIN message with one option, ENCRYPTION.
fn prelogin(kind: u8, encryption: u8) -> Vec<u8> {
    let body = [1, 0, 6, 0, 1, 0xff, encryption];
    let mut out = header(kind, body.len()).to_vec();
    out.extend(body);
    out
}

fn header(kind: u8, body: usize) -> [u8; HEADER] {
    let [high, low] = u16::try_from(HEADER + body).unwrap_or(u16::MAX).to_be_bytes();
    [kind, 1, high, low, 0, 0, 1, 0]
}

/// Says what encryption we want, and gives the server's answer.
async fn exchange_prelogin<S: Stream>(stream: &mut S, encryption: u8, address: &str) -> Result<u8> {
    let broke = |e: io::Error| unreachable(format!("{address} ended the connection before logging in: {e}"));
    stream.write_all(&prelogin(PRELOGIN, encryption)).await.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let mut head = [0; HEADER];
    stream.read_exact(&mut head).await.map_err(broke)?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let strange = || undecodable(format!("{address} does not answer as a SQL Server does"));
    let mut body = vec![0; length.checked_sub(HEADER).filter(|n| head[0] == 4 && *n <= 4096).ok_or_else(strange)?];
    stream.read_exact(&mut body).await.map_err(broke)?;
    encryption_of(&body).ok_or_else(strange)
}

/// The option ENCRYPTION of a PRELOGIN body.
fn encryption_of(body: &[u8]) -> Option<u8> {
    let mut at = 0;
    while let [token, a, b, ..] = *body.get(at..)? {
        if token == 0xff {
            return None;
        }
        if token == 1 {
            return body.get(usize::from(u16::from_be_bytes([a, b]))).copied();
        }
        at += 5;
    }
    None
}

/// The handshake's records inside PRELOGIN packets, until `wrapping` is turned off.
struct Wrapped {
    tcp: TcpStream,
    wrapping: bool,
    /// Header of the packet being read, as far as it has come.
    head: [u8; HEADER],
    head_len: usize,
    /// Bytes of its body still to come.
    body_left: usize,
    out: Vec<u8>,
    sent: usize,
}

impl Wrapped {
    fn new(tcp: TcpStream) -> Self {
        Self { tcp, wrapping: true, head: [0; HEADER], head_len: 0, body_left: 0, out: Vec::new(), sent: 0 }
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let n = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.out[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wrapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.wrapping && this.body_left == 0 {
            return Pin::new(&mut this.tcp).poll_read(cx, buf);
        }
        while this.body_left == 0 {
            let mut rest = ReadBuf::new(&mut this.head[this.head_len..]);
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut rest))?;
            match rest.filled().len() {
                0 => return Poll::Ready(Ok(())),
                n => this.head_len += n,
            }
            if this.head_len == HEADER {
                this.head_len = 0;
                let length = usize::from(u16::from_be_bytes([this.head[2], this.head[3]]));
                this.body_left = length.checked_sub(HEADER).ok_or(io::ErrorKind::InvalidData)?;
            }
        }
        let room = buf.remaining().min(this.body_left);
        let mut part = buf.take(room);
        ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut part))?;
        let n = part.filled().len();
        // The bytes are in `buf` already; `take` lent them out.
        buf.initialize_unfilled_to(n);
        buf.advance(n);
        this.body_left -= n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wrapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.drain(cx))?;
        if !self.wrapping {
            return Pin::new(&mut self.tcp).poll_write(cx, data);
        }
        let n = data.len().min(4000);
        let head = header(PRELOGIN, n);
        self.out.extend_from_slice(&head);
        self.out.extend_from_slice(&data[..n]);
        let _ = self.drain(cx)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// The stream that the driver gets.
struct Inner {
    stream: Box<dyn Stream>,
    prelogin: Prelogin,
}

/// What becomes of the driver's own PRELOGIN.
enum Prelogin {
    /// It is kept back until it is whole.
    Awaited { seen: Vec<u8> },
    /// It is answered with these bytes, from this one on.
    Answered { answer: Vec<u8>, at: usize },
    /// Everything goes through.
    Passed,
}

impl AsyncRead for Inner {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Prelogin::Answered { answer, at } = &mut this.prelogin {
            let n = buf.remaining().min(answer.len() - *at);
            buf.put_slice(&answer[*at..*at + n]);
            *at += n;
            if *at == answer.len() {
                this.prelogin = Prelogin::Passed;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Inner {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Prelogin::Awaited { seen } = &mut this.prelogin else {
            return Pin::new(&mut this.stream).poll_write(cx, data);
        };
        seen.extend_from_slice(data);
        if let [_, _, high, low, ..] = seen[..]
            && seen.len() >= usize::from(u16::from_be_bytes([high, low]))
        {
            this.prelogin = Prelogin::Answered { answer: prelogin(4, ENCRYPT_NOT_SUP), at: 0 };
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encryption_option_is_found() {
        assert_eq!(encryption_of(&prelogin(4, 3)[HEADER..]), Some(3));
        let with_version = [0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xff, 16, 0, 0, 0, 0, 0, 2];
        assert_eq!(encryption_of(&with_version), Some(2));
        for cut in 0..with_version.len() {
            encryption_of(&with_version[..cut]);
        }
        assert_eq!(encryption_of(&[0xff, 0, 0]), None);
    }
}
