//! Before the driver speaks: TCP, PRELOGIN and TLS, by ourselves.
//!
//! The driver's own TLS needs a crypto library that this tree does not carry. So PRELOGIN and the handshake are done here,
//! and the driver is given a stream on which its own PRELOGIN is answered at once with "no encryption" ([`Inner`]): its
//! packets then go out inside TLS. What the server said about tokens (FEDAUTHREQUIRED) is passed on in that answer, because
//! LOGIN7 has to repeat it.

use crate::error::{setting_wrong, undecodable, unreachable};
use crate::{Encryption, SqlServerConfig, TlsMode};
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tidemark_contract::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const HEADER: usize = 8;
const PRELOGIN: u8 = 0x12;
const RESPONSE: u8 = 4;
const ENCRYPT_OFF: u8 = 0;
const ENCRYPT_ON: u8 = 1;
const ENCRYPT_NOT_SUP: u8 = 2;
/// Options of PRELOGIN.
const VERSION: u8 = 0;
const ENCRYPTION: u8 = 1;
const FED_AUTH_REQUIRED: u8 = 6;
const END: u8 = 0xff;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A way to the server on which the driver can log in.
pub(crate) struct Door {
    /// What the driver speaks on.
    pub(crate) stream: Inner,
    /// Whether rows will travel unencrypted, though the login does not.
    pub(crate) login_only: bool,
}

/// Connects, and encrypts as the configuration says.
pub(crate) async fn open(config: &SqlServerConfig, host: &str, port: u16) -> Result<Door> {
    let address = format!("{host}:{port}");
    let disabled = config.tls.mode == TlsMode::Disable;
    if config.encryption != Encryption::Standard && disabled {
        return Err(setting_wrong(format!("encryption is \"{}\", and TLS is disabled", config.encryption.as_str()))
            .hint("set mode = \"verify-full\" in [source.tls], or encryption = \"standard\""));
    }
    if config.token.is_some() && (disabled || config.encryption == Encryption::LoginOnly) {
        return Err(setting_wrong("a token is given, and the connection is not to be encrypted throughout")
            .hint("set mode = \"verify-full\" in [source.tls], and encryption = \"standard\" or \"strict\""));
    }
    let tcp = TcpStream::connect((host, port))
        .await
        .map_err(|e| unreachable(format!("{address} cannot be reached: {e}")).hint("check host, port and firewall"))?;
    let _ = tcp.set_nodelay(true);
    let strict = config.encryption == Encryption::Strict;
    // Inside PRELOGIN packets the handshake must end with one flight: TLS 1.3 goes on with tickets behind it.
    let versions = if strict { rustls::ALL_VERSIONS } else { &[&rustls::version::TLS12] };
    let Some(mut tls) = config.tls.client_config(versions)? else {
        let stream = Inner { stream: Box::new(tcp), prelogin: Prelogin::Passed };
        return Ok(Door { stream, login_only: false });
    };
    if strict {
        tls.alpn_protocols = vec![b"tds/8.0".to_vec()];
    }
    let (stream, answer) = encrypt(config, tls, tcp, host, &address).await?;
    let login_only = answer.encryption == ENCRYPT_OFF && !strict;
    let prelogin = Prelogin::Awaited { seen: Vec::new(), federated: answer.federated };
    Ok(Door { stream: Inner { stream, prelogin }, login_only })
}

/// TLS on a new connection: within PRELOGIN packets, or first.
async fn encrypt(
    config: &SqlServerConfig,
    tls: rustls::ClientConfig,
    mut tcp: TcpStream,
    host: &str,
    address: &str,
) -> Result<(Box<dyn Stream>, Answer)> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| setting_wrong(format!("`{host}` is no host name that TLS could check")))?;
    let failed = |e: io::Error| {
        let mut error = match e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            true => setting_wrong(format!("TLS with {address} failed: {e}")),
            false => unreachable(format!("TLS with {address} failed: {e}")),
        };
        error.hint = tidemark_login::advice(&e).map(str::to_owned);
        error
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let federated = config.token.is_some();
    if config.encryption == Encryption::Strict {
        let mut stream = connector.connect(name, tcp).await.map_err(failed)?;
        let answer = exchange_prelogin(&mut stream, ENCRYPT_ON, federated, address).await?;
        return Ok((Box::new(stream), answer));
    }
    let wish = if config.encryption == Encryption::LoginOnly { ENCRYPT_OFF } else { ENCRYPT_ON };
    let answer = exchange_prelogin(&mut tcp, wish, federated, address).await?;
    if answer.encryption == ENCRYPT_NOT_SUP {
        return Err(setting_wrong(format!("{address} does not offer TLS"))
            .hint("give the server a certificate, or set mode = \"disable\" in [source.tls]"));
    }
    if answer.encryption == ENCRYPT_OFF && wish != ENCRYPT_OFF {
        return Err(setting_wrong(format!("{address} encrypts the login alone"))
            .hint("let the server encrypt connections throughout"));
    }
    let mut stream = connector.connect(name, Wrapped::new(tcp)).await.map_err(failed)?;
    stream.get_mut().0.wrapping = false;
    match answer.encryption {
        ENCRYPT_OFF => Ok((Box::new(FirstPacket { tls: Some(Box::new(stream)), clear: None, left: None }), answer)),
        _ => Ok((Box::new(stream), answer)),
    }
}

/// What a server answers to PRELOGIN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Answer {
    encryption: u8,
    /// FEDAUTHREQUIRED, if the server spoke of it.
    federated: Option<u8>,
}

/// A PRELOGIN message. VERSION must be its first option; the number says nothing.
fn prelogin(kind: u8, encryption: u8, federated: Option<u8>) -> Vec<u8> {
    let mut options: Vec<(u8, &[u8])> = vec![(VERSION, &[0; 6]), (ENCRYPTION, std::slice::from_ref(&encryption))];
    options.extend(federated.as_ref().map(|value| (FED_AUTH_REQUIRED, std::slice::from_ref(value))));
    let mut offset = options.len() * 5 + 1;
    let mut body = Vec::new();
    for (token, data) in &options {
        body.push(*token);
        body.extend(short(offset));
        body.extend(short(data.len()));
        offset += data.len();
    }
    body.push(END);
    options.iter().for_each(|(_, data)| body.extend(*data));
    let mut out = header(kind, body.len()).to_vec();
    out.extend(body);
    out
}

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes()
}

fn header(kind: u8, body: usize) -> [u8; HEADER] {
    let [high, low] = short(HEADER + body);
    [kind, 1, high, low, 0, 0, 1, 0]
}

/// Says what encryption we want and whether a token will come, and gives the server's answer.
async fn exchange_prelogin<S: Stream>(stream: &mut S, wish: u8, federated: bool, address: &str) -> Result<Answer> {
    let broke = |e: io::Error| unreachable(format!("{address} ended the connection before logging in: {e}"));
    stream.write_all(&prelogin(PRELOGIN, wish, federated.then_some(1))).await.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let mut head = [0; HEADER];
    stream.read_exact(&mut head).await.map_err(broke)?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let strange = || undecodable(format!("{address} does not answer as a SQL Server does"));
    let mut body =
        vec![0; length.checked_sub(HEADER).filter(|n| head[0] == RESPONSE && *n <= 4096).ok_or_else(strange)?];
    stream.read_exact(&mut body).await.map_err(broke)?;
    let encryption = option(&body, ENCRYPTION).ok_or_else(strange)?;
    Ok(Answer { encryption, federated: option(&body, FED_AUTH_REQUIRED) })
}

/// The first byte of an option of a PRELOGIN body.
fn option(body: &[u8], wanted: u8) -> Option<u8> {
    let mut at = 0;
    while let [token, a, b, ..] = *body.get(at..)? {
        if token == END {
            return None;
        }
        if token == wanted {
            return body.get(usize::from(u16::from_be_bytes([a, b]))).copied();
        }
        at += 5;
    }
    None
}

/// TLS around the first packet, which is LOGIN7, and no longer: both sides said ENCRYPT_OFF. A login with a password is one
/// packet.
struct FirstPacket {
    tls: Option<Box<TlsStream<Wrapped>>>,
    clear: Option<Wrapped>,
    /// Bytes of the packet that are still to be written; not known before its header.
    left: Option<usize>,
}

impl FirstPacket {
    /// Takes TLS off once the packet is on its way.
    fn uncover(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.left == Some(0)
            && let Some(tls) = &mut self.tls
        {
            ready!(Pin::new(&mut **tls).poll_flush(cx))?;
            self.clear = self.tls.take().map(|tls| tls.into_inner().0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for FirstPacket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.uncover(cx))?;
        let this = &mut *self;
        match (&mut this.tls, &mut this.clear) {
            (Some(tls), _) => Pin::new(&mut **tls).poll_read(cx, buf),
            (None, Some(clear)) => Pin::new(clear).poll_read(cx, buf),
            (None, None) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for FirstPacket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.uncover(cx))?;
        let this = &mut *self;
        let Some(tls) = &mut this.tls else {
            let Some(clear) = &mut this.clear else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
            return Pin::new(clear).poll_write(cx, data);
        };
        let left = match (this.left, data) {
            (Some(left), _) => left,
            // The driver writes a packet with its header in front.
            (None, [_, _, high, low, ..]) => usize::from(u16::from_be_bytes([*high, *low])),
            (None, _) => return Poll::Ready(Err(io::ErrorKind::InvalidInput.into())),
        };
        let written = ready!(Pin::new(&mut **tls).poll_write(cx, &data[..data.len().min(left)]))?;
        this.left = Some(left - written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.uncover(cx))?;
        let this = &mut *self;
        match (&mut this.tls, &mut this.clear) {
            (Some(tls), _) => Pin::new(&mut **tls).poll_flush(cx),
            (None, Some(clear)) => Pin::new(clear).poll_flush(cx),
            (None, None) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match (&mut this.tls, &mut this.clear) {
            (Some(tls), _) => Pin::new(&mut **tls).poll_shutdown(cx),
            (None, Some(clear)) => Pin::new(clear).poll_shutdown(cx),
            (None, None) => Poll::Ready(Ok(())),
        }
    }
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
pub(crate) struct Inner {
    stream: Box<dyn Stream>,
    prelogin: Prelogin,
}

/// What becomes of the driver's own PRELOGIN.
enum Prelogin {
    /// It is kept back until it is whole; the answer says of FEDAUTHREQUIRED what the server said.
    Awaited { seen: Vec<u8>, federated: Option<u8> },
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
        let Prelogin::Awaited { seen, federated } = &mut this.prelogin else {
            return Pin::new(&mut this.stream).poll_write(cx, data);
        };
        seen.extend_from_slice(data);
        if let [_, _, high, low, ..] = seen[..]
            && seen.len() >= usize::from(u16::from_be_bytes([high, low]))
        {
            this.prelogin = Prelogin::Answered { answer: prelogin(RESPONSE, ENCRYPT_NOT_SUP, *federated), at: 0 };
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
    fn options_are_found_behind_the_version() {
        let message = prelogin(RESPONSE, 3, Some(1));
        assert_eq!(message[HEADER], VERSION);
        assert_eq!(usize::from(u16::from_be_bytes([message[2], message[3]])), message.len());
        let body = &message[HEADER..];
        assert_eq!((option(body, ENCRYPTION), option(body, FED_AUTH_REQUIRED)), (Some(3), Some(1)));
        assert_eq!(option(&prelogin(RESPONSE, 2, None)[HEADER..], FED_AUTH_REQUIRED), None);
        for cut in 0..body.len() {
            option(&body[..cut], FED_AUTH_REQUIRED);
        }
        assert_eq!(option(&[0xff, 0, 0], ENCRYPTION), None);
    }
}
