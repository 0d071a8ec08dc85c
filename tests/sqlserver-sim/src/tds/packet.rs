//! Packets and messages ("[MS-TDS] 2.2.3 Packets").

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// SQL batch.
pub const BATCH: u8 = 0x01;
/// Remote procedure call.
pub const RPC: u8 = 0x03;
/// Response of the server.
pub const RESPONSE: u8 = 0x04;
/// Attention.
pub const ATTENTION: u8 = 0x06;
/// Transaction manager request.
pub const TRANSACTION: u8 = 0x0E;
/// LOGIN7.
pub const LOGIN7: u8 = 0x10;
/// PRELOGIN, and TLS records during the handshake.
pub const PRELOGIN: u8 = 0x12;

/// A message longer than this is refused.
const LIMIT: usize = 512 << 20;

/// A whole message: its type, the status bits of its first packet, its bytes.
#[derive(Debug)]
pub struct Message {
    /// Packet type.
    pub kind: u8,
    /// Status bits: 0x02 ignore, 0x08 reset connection.
    pub status: u8,
    /// Payload of all packets.
    pub body: Vec<u8>,
}

/// Reads a message, all its packets.
pub async fn read<R: AsyncRead + Unpin>(r: &mut R) -> io::Result<Message> {
    let mut message = Message { kind: 0, status: 0, body: Vec::new() };
    let mut first = true;
    loop {
        let mut header = [0u8; 8];
        r.read_exact(&mut header).await?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if length < 8 || (!first && header[0] != message.kind) || message.body.len() > LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a TDS packet"));
        }
        if first {
            (message.kind, message.status, first) = (header[0], header[1], false);
        }
        let at = message.body.len();
        message.body.resize(at + length - 8, 0);
        r.read_exact(&mut message.body[at..]).await?;
        if header[1] & 1 == 1 {
            // The client takes the message back.
            if header[1] & 2 == 2 {
                message.body.clear();
            }
            return Ok(message);
        }
    }
}

/// Cuts a response into packets as it grows.
#[derive(Debug)]
pub struct Packets {
    size: usize,
    spid: u16,
    number: u8,
    pending: Vec<u8>,
}

impl Packets {
    /// For packets of `size` bytes with their header.
    pub fn new(size: usize, spid: u16) -> Self {
        Self { size: size.clamp(512, 32_767), spid, number: 0, pending: Vec::new() }
    }

    /// Adds bytes; answers the packets that are full. `last` ends the message.
    pub fn push(&mut self, bytes: &[u8], last: bool) -> Vec<u8> {
        self.pending.extend_from_slice(bytes);
        let room = self.size - 8;
        let mut out = Vec::new();
        while self.pending.len() > room {
            let rest = self.pending.split_off(room);
            self.packet(0, &mut out);
            self.pending = rest;
        }
        if last {
            self.packet(1, &mut out);
            self.pending.clear();
            self.number = 0;
        }
        out
    }

    fn packet(&mut self, status: u8, out: &mut Vec<u8>) {
        self.number = self.number.wrapping_add(1);
        out.extend([RESPONSE, status]);
        out.extend(((self.pending.len() + 8) as u16).to_be_bytes());
        out.extend(self.spid.to_be_bytes());
        out.extend([self.number, 0]);
        out.extend_from_slice(&self.pending);
    }
}

/// Writes and flushes.
pub async fn send<W: AsyncWrite + Unpin>(w: &mut W, bytes: &[u8]) -> io::Result<()> {
    w.write_all(bytes).await?;
    w.flush().await
}

/// Reads little-endian values from a message. Reading past the end is an error, never a panic.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The message ended early.
#[derive(Debug)]
pub struct Short;

impl<'a> Reader<'a> {
    /// From the beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Nothing left.
    pub fn done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Short> {
        let end = self.at.checked_add(n).ok_or(Short)?;
        let out = self.bytes.get(self.at..end).ok_or(Short)?;
        self.at = end;
        Ok(out)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(self.take(1)?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Short> {
        let b = self.take(2)?;
        Ok(u16::from_le_bytes([b[0], b[1]]))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Short> {
        let b = self.take(4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Short> {
        let (low, high) = (self.u32()?, self.u32()?);
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    /// Text of `n` UTF-16 units.
    pub fn ucs2(&mut self, n: usize) -> Result<String, Short> {
        Ok(utf16(self.take(n * 2)?))
    }

    /// Skips ALL_HEADERS, which begin with their whole length.
    pub fn skip_headers(&mut self) -> Result<(), Short> {
        let length = self.u32()? as usize;
        self.take(length.checked_sub(4).ok_or(Short)?).map(drop)
    }

    /// What is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let out = self.bytes.get(self.at..).unwrap_or(&[]);
        self.at = self.bytes.len();
        out
    }
}

/// Text of UTF-16 bytes, little-endian.
pub fn utf16(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_and_numbered() {
        let mut p = Packets::new(512, 51);
        let out = [p.push(&[7; 600], false), p.push(&[8; 10], true)].concat();
        assert_eq!(&out[..8], [4, 0, 2, 0, 0, 51, 1, 0]);
        assert_eq!(&out[512..520], [4, 1, 0, 114, 0, 51, 2, 0]);
        assert_eq!(out.len(), 512 + 114);
    }

    #[tokio::test]
    async fn messages_are_put_together() {
        let bytes = [&[1, 0, 0, 10, 0, 0, 1, 0, 65, 0][..], &[1, 1, 0, 9, 0, 0, 2, 0, 66]].concat();
        let m = read(&mut &bytes[..]).await.unwrap();
        assert_eq!((m.kind, m.body), (1, vec![65, 0, 66]));
        assert!(read(&mut &[1u8, 1, 0, 3, 0, 0, 0, 0][..]).await.is_err());
    }
}
