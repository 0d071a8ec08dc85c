//! TLS: inside PRELOGIN packets for TDS 7.4 ("[MS-TDS] 2.2.6.5"), before everything for TDS 8.0.

use super::packet::PRELOGIN;
use crate::options::Certificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that carries TLS records in PRELOGIN packets until told that the handshake is over.
#[derive(Debug)]
pub struct Framed<S> {
    inner: S,
    framing: bool,
    header: Vec<u8>,
    /// Bytes left of the packet being read.
    left: usize,
    outgoing: Vec<u8>,
    sending: Vec<u8>,
}

impl<S> Framed<S> {
    /// Begins with framing on.
    pub fn new(inner: S) -> Self {
        Self { inner, framing: true, header: Vec::new(), left: 0, outgoing: Vec::new(), sending: Vec::new() }
    }

    /// The handshake is over: from here on TLS records go as they are.
    pub fn finish(&mut self) {
        self.framing = false;
    }

    /// The stream below.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if !me.framing {
            return Pin::new(&mut me.inner).poll_read(cx, buf);
        }
        while me.left == 0 {
            let mut one = [0u8; 8];
            let mut head = ReadBuf::new(&mut one[me.header.len()..]);
            ready!(Pin::new(&mut me.inner).poll_read(cx, &mut head))?;
            if head.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let read = head.filled().to_vec();
            me.header.extend(read);
            if me.header.len() == 8 {
                me.left = usize::from(u16::from_be_bytes([me.header[2], me.header[3]])).saturating_sub(8);
                me.header.clear();
            }
        }
        let mut part = vec![0u8; me.left.min(buf.remaining())];
        let mut body = ReadBuf::new(&mut part);
        ready!(Pin::new(&mut me.inner).poll_read(cx, &mut body))?;
        me.left -= body.filled().len();
        buf.put_slice(body.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        if me.framing {
            me.outgoing.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut me.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        // What was gathered goes out as one packet (or a few) at each flush.
        for part in std::mem::take(&mut me.outgoing).chunks(4000) {
            me.sending.extend([PRELOGIN, 1]);
            me.sending.extend(((part.len() + 8) as u16).to_be_bytes());
            me.sending.extend([0, 0, 1, 0]);
            me.sending.extend(part);
        }
        while !me.sending.is_empty() {
            let n = ready!(Pin::new(&mut me.inner).poll_write(cx, &me.sending))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            me.sending.drain(..n);
        }
        Pin::new(&mut me.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The server's side of TLS. TDS 7.4 knows no TLS newer than 1.2; strict encryption speaks 1.2 and 1.3 with ALPN `tds/8.0`.
pub fn acceptor(certificate: &Certificate, strict: bool) -> io::Result<tokio_rustls::TlsAcceptor> {
    let bad = |e: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("certificate of the simulated server: {e}"))
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&certificate.chain).and_then(Iterator::collect).map_err(|e| bad(&e))?;
    let key = PrivateKeyDer::from_pem_file(&certificate.key).map_err(|e| bad(&e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let versions: &[&rustls::SupportedProtocolVersion] =
        if strict { &[&rustls::version::TLS12, &rustls::version::TLS13] } else { &[&rustls::version::TLS12] };
    let mut config = builder
        .with_protocol_versions(versions)
        .map_err(|e| bad(&e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| bad(&e))?;
    if strict {
        config.alpn_protocols = vec![b"tds/8.0".to_vec()];
    }
    Ok(tokio_rustls::TlsAcceptor::from(Arc::new(config)))
}
