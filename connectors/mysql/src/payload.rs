//! What is compressed in the log: whole transactions (MySQL, zstd) and single events (MariaDB, zlib).

use crate::cursor::Cursor;
use crate::error::undecodable;
use crate::event::{self, HEADER};
use bytes::Bytes;
use std::io::{Cursor as IoCursor, Read};
use tidemark_contract::{Result, SourceError};

/// No event is larger: the server's limit for a packet.
const LARGEST_EVENT: usize = 1 << 30;
/// Windows of compressed data may take at most 2²⁷ bytes.
const WINDOW_LOG: u32 = 27;

fn damaged() -> SourceError {
    undecodable("a compressed transaction in the log cannot be unpacked")
}

/// A transaction that came in one event. It is unpacked event by event; whole it is never in memory.
pub(crate) struct Payload {
    source: Box<dyn Read + Send + Sync>,
    /// What must come out in all.
    left: Option<u64>,
}

impl Payload {
    pub(crate) fn open(body: &Bytes) -> Result<Self> {
        let mut fields = Cursor(body);
        let (mut size, mut method, mut left) = (None, None, None);
        loop {
            let field = fields.lenenc()?;
            if field == 0 {
                break;
            }
            let mut value = Cursor(fields.lenenc_bytes()?);
            match field {
                1 => size = Some(value.lenenc()?),
                2 => method = Some(value.lenenc()?),
                3 => left = Some(value.lenenc()?),
                _ => {}
            }
        }
        let data = body.slice_ref(fields.0);
        if size.is_some_and(|size| size != data.len() as u64) {
            return Err(damaged());
        }
        let source: Box<dyn Read + Send + Sync> = match method {
            Some(0) => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(IoCursor::new(data)).map_err(|_| damaged())?;
                decoder.window_log_max(WINDOW_LOG).map_err(|_| damaged())?;
                Box::new(decoder)
            }
            Some(255) => Box::new(IoCursor::new(data)),
            _ => return Err(undecodable("a transaction in the log is compressed by a method that is not known here")),
        };
        Ok(Self { source, left })
    }

    /// The next event in it; `None` at its end.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>> {
        let mut head = [0; HEADER];
        let mut read = 0;
        while read < HEADER {
            match self.source.read(&mut head[read..]).map_err(|_| damaged())? {
                0 if read == 0 => {
                    // All of it must have come out, or something is lost.
                    return if self.left.is_none_or(|left| left == 0) { Ok(None) } else { Err(damaged()) };
                }
                0 => return Err(damaged()),
                n => read += n,
            }
        }
        let size = u32::from_le_bytes([head[9], head[10], head[11], head[12]]) as usize;
        let rest = size.checked_sub(HEADER).filter(|_| size <= LARGEST_EVENT).ok_or_else(damaged)?;
        let mut bytes = head.to_vec();
        // Not as much as is announced at once: only as much as there is.
        let got = (&mut self.source).take(rest as u64).read_to_end(&mut bytes).map_err(|_| damaged())?;
        if got != rest {
            return Err(damaged());
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(size as u64).ok_or_else(damaged)?;
        }
        Ok(Some(bytes.into()))
    }
}

/// MariaDB's compressed form: a byte with the width of the length, the length (high byte first), zlib data.
fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let broken = || undecodable("a compressed event in the log cannot be unpacked");
    let mut packed = Cursor(packed);
    let head = packed.u8()?;
    let width = usize::from(head & 7);
    // The highest bit is always set; the three below it name the method, of which there is one.
    if head & 0xf0 != 0x80 || width == 0 || width > 4 {
        return Err(broken());
    }
    let length = packed.uint_be(width)?;
    if length > LARGEST_EVENT as u64 {
        return Err(broken());
    }
    let mut out = Vec::new();
    let decoder = flate2::read::ZlibDecoder::new(packed.0);
    decoder.take(length + 1).read_to_end(&mut out).map_err(|_| broken())?;
    if out.len() as u64 == length { Ok(out) } else { Err(broken()) }
}

/// A row event of type `of` with its rows unpacked: head and bitmaps are never compressed.
pub(crate) fn inflate(body: &[u8], of: u8) -> Result<Bytes> {
    let rows = event::rows(body, of)?.rows;
    let mut out = body.get(..body.len() - rows.len()).unwrap_or_default().to_vec();
    out.extend_from_slice(&unpack(rows)?);
    Ok(out.into())
}

/// A statement with its text unpacked.
pub(crate) fn inflate_query(body: &[u8]) -> Result<Vec<u8>> {
    let mut rest = Cursor(body);
    rest.take(8)?;
    let database = usize::from(rest.u8()?);
    rest.take(2)?;
    let variables = usize::from(rest.u16()?);
    rest.take(variables + database + 1)?;
    let mut out = body.get(..body.len() - rest.0.len()).unwrap_or_default().to_vec();
    out.extend_from_slice(&unpack(rest.0)?);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn event(body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(HEADER + body.len()).unwrap();
        [&[0, 0, 0, 0, 2, 1, 0, 0, 0][..], &size.to_le_bytes(), &[0; 6], body].concat()
    }

    fn payload(content: &[u8], compressed: &[u8]) -> Bytes {
        let mut body = vec![2, 1, 0, 3, 3, 0xfc];
        body.extend_from_slice(&u16::try_from(content.len()).unwrap().to_le_bytes());
        body.push(1);
        body.push(3);
        body.push(0xfc);
        body.extend_from_slice(&u16::try_from(compressed.len()).unwrap().to_le_bytes());
        body.push(0);
        body.extend_from_slice(compressed);
        body.into()
    }

    #[test]
    fn a_transaction_is_unpacked_event_by_event() {
        let content = [event(b"one"), event(&[7; 5000])].concat();
        let compressed = zstd::encode_all(&content[..], 3).unwrap();
        let mut whole = Payload::open(&payload(&content, &compressed)).unwrap();
        assert_eq!(whole.next().unwrap().unwrap(), event(b"one"));
        assert_eq!(whole.next().unwrap().unwrap().len(), HEADER + 5000);
        assert!(whole.next().unwrap().is_none());
        // A part of it must not pass for the whole.
        let half = &compressed[..compressed.len() / 2];
        let read = |bytes: Bytes| -> Result<usize> {
            let mut payload = Payload::open(&bytes)?;
            let mut count = 0;
            while payload.next()?.is_some() {
                count += 1;
            }
            Ok(count)
        };
        assert!(read(payload(&content, half)).is_err());
        let first = zstd::encode_all(&event(b"one")[..], 3).unwrap();
        assert!(read(payload(&content, &first)).is_err(), "less came out than was announced");
    }

    #[test]
    fn mariadbs_form_is_unpacked() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(&[5; 300]).unwrap();
        let packed = [&[0x82, 1, 44][..], &zlib.finish().unwrap()].concat();
        assert_eq!(unpack(&packed).unwrap(), [5; 300]);
        for bad in [&packed[..20], &[0x02, 1, 44, 0], &[0x87, 0], &[]] {
            assert!(unpack(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_unpacked_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = unpack(&bytes);
            let _ = inflate(&bytes, event::kind::WRITE);
            let _ = inflate_query(&bytes);
            if let Ok(mut payload) = Payload::open(&Bytes::from(bytes)) {
                while let Ok(Some(_)) = payload.next() {}
            }
        }
    }
}
