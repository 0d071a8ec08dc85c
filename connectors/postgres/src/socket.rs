//! The byte stream to the server, and the buffer its frames are read from.

use crate::error::undecodable;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use tidemark_contract::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A connected socket, with or without TLS.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Socket::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Socket::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_flush(cx),
            Socket::Unix(s) => Pin::new(s).poll_flush(cx),
            Socket::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// Size of the read buffer: the server sends one small message per change, so one big read takes many of them.
const BUFFER: usize = 256 << 10;
/// Longest message taken from a server. PostgreSQL's own limit for one value is 1 GB; a row of several may be longer,
/// but no message may be longer than this.
const MAX_FRAME: usize = 0x7fff_ffff;

/// Bytes received and not yet consumed, cut into the protocol's frames: a letter, a length, a body.
pub(crate) struct Frames {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), start: 0, end: 0 }
    }

    /// Takes the next complete frame: its letter and where its body lies ([`Frames::body`]). `None` if more bytes are
    /// needed.
    pub(crate) fn take(&mut self) -> Result<Option<(u8, Range<usize>)>> {
        let Some(length) = self.announced()? else { return Ok(None) };
        if self.end - self.start < 1 + length {
            return Ok(None);
        }
        let tag = self.bytes[self.start];
        let body = self.start + 5..self.start + 1 + length;
        self.start = body.end;
        Ok(Some((tag, body)))
    }

    /// The body of a frame from [`Frames::take`]; valid until more bytes are read.
    pub(crate) fn body(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// Length of the next frame without its letter, once its head has arrived.
    fn announced(&self) -> Result<Option<usize>> {
        let Some(head) = self.bytes[self.start..self.end].first_chunk::<5>() else { return Ok(None) };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if !(4..=MAX_FRAME).contains(&length) {
            return Err(undecodable(format!("the server sent a message of {length} bytes")));
        }
        Ok(Some(length))
    }

    /// Waits for more bytes and appends them; gives their number, 0 at the end of the stream. Cancel-safe.
    pub(crate) async fn read_from(&mut self, socket: &mut Socket) -> io::Result<usize> {
        self.make_room();
        let n = socket.read(&mut self.bytes[self.end..]).await?;
        self.end += n;
        Ok(n)
    }

    /// Makes room behind `end`. The buffer grows with the bytes that have really come, never to an announced length at
    /// once, and shrinks back when a giant message is done.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > BUFFER {
                self.bytes = Vec::new();
            }
        }
        if self.bytes.is_empty() {
            self.bytes = vec![0; BUFFER];
        }
        if self.end == self.bytes.len() || (self.start > 0 && self.bytes.len() - self.end < BUFFER / 4) {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(frames: &mut Frames, bytes: &[u8]) {
        for chunk in bytes.chunks(100_000) {
            frames.make_room();
            let room = &mut frames.bytes[frames.end..];
            assert!(!room.is_empty());
            let n = chunk.len().min(room.len());
            room[..n].copy_from_slice(&chunk[..n]);
            frames.end += n;
            if n < chunk.len() {
                feed(frames, &chunk[n..]);
            }
        }
    }

    fn frame(tag: u8, length: usize) -> Vec<u8> {
        let mut out = vec![tag];
        out.extend_from_slice(&(u32::try_from(length).unwrap() + 4).to_be_bytes());
        out.resize(out.len() + length, tag);
        out
    }

    #[test]
    fn frames_of_any_size_come_out_whole_and_the_buffer_shrinks_back() {
        let mut frames = Frames::new();
        for length in [0, 1, 70_000, 300_000, 3 << 20, 5] {
            feed(&mut frames, &frame(b'd', length));
            let (tag, body) = frames.take().unwrap().expect("complete");
            assert_eq!((tag, frames.body(body.clone()).len()), (b'd', length));
            assert!(frames.body(body).iter().all(|b| *b == b'd'));
            assert!(frames.take().unwrap().is_none());
        }
        frames.make_room();
        assert_eq!(frames.bytes.len(), BUFFER);
    }

    #[test]
    fn an_incomplete_frame_waits_and_a_nonsense_length_is_an_error() {
        let mut frames = Frames::new();
        feed(&mut frames, &frame(b'x', 10)[..12]);
        assert!(frames.take().unwrap().is_none());
        for length in [0_u32, 3, u32::MAX] {
            let mut frames = Frames::new();
            let [a, b, c, d] = length.to_be_bytes();
            feed(&mut frames, &[b'd', a, b, c, d]);
            assert!(frames.take().is_err());
        }
    }
}
