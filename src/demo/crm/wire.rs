//! Connections that can be cut in the middle.

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Nothing is to be cut.
const UNLIMITED: usize = usize::MAX;

/// A listener whose connections carry a `Cutter`.
pub(super) struct Wire(pub TcpListener);

/// A connection with a number of bytes that it still lets out.
pub(super) struct Line {
    stream: TcpStream,
    left: Arc<AtomicUsize>,
}

/// Who is at the other end, and the way to cut them off.
#[derive(Clone)]
pub(super) struct Peer {
    pub address: SocketAddr,
    left: Arc<AtomicUsize>,
}

impl Peer {
    /// Cuts the connection after `bytes` more bytes.
    pub fn cut_after(&self, bytes: usize) {
        self.left.store(bytes, Ordering::Relaxed);
    }
}

impl Listener for Wire {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    // A socket that is gone already shows when it is used.
                    let _ = stream.set_nodelay(true);
                    return (Line { stream, left: Arc::new(AtomicUsize::new(UNLIMITED)) }, address);
                }
                // Out of file handles, or a connection that broke before it was taken: wait for better times.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Wire>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Wire>) -> Self {
        Peer { address: *stream.remote_addr(), left: stream.io().left.clone() }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let left = self.left.load(Ordering::Relaxed);
        if left == UNLIMITED {
            return Pin::new(&mut self.stream).poll_write(cx, data);
        }
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, &data[..data.len().min(left)]);
        if let Poll::Ready(Ok(count)) = written {
            self.left.fetch_sub(count, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
