//! Statements and their results, by the text protocol.

use crate::cursor::Cursor;
use crate::error::{ServerError, undecodable};
use crate::wire::Connection;
use std::ops::Range;
use tidemark_contract::Result;

const COM_QUERY: u8 = 3;

/// One row: its bytes, and where each value is.
pub(crate) struct TextRow<'a> {
    bytes: &'a [u8],
    fields: &'a [Option<Range<usize>>],
}

impl<'a> TextRow<'a> {
    /// The value in column `index`; `None` for null.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.fields.get(index)?.as_ref().and_then(|range| self.bytes.get(range.clone()))
    }
}

impl Connection {
    /// Runs one statement and hands each row to `row`; gives a hash of the result's description (names, types, lengths,
    /// keys of its columns). If this fails or is dropped, the connection must not be used again,
    /// except after an error that the server reported.
    pub(crate) async fn each(
        &mut self,
        doing: &str,
        sql: &str,
        mut row: impl FnMut(TextRow<'_>) -> Result<()>,
    ) -> Result<u32> {
        self.command(COM_QUERY, sql.as_bytes()).await?;
        let failed = |body: &[u8]| ServerError::parse(body).into_source_error(doing);
        let head = self.packet().await?;
        let columns = match head.first() {
            None => return Err(undecodable("the server answers with nothing")),
            Some(0x00) => return Ok(0),
            Some(0xff) => return Err(failed(&head[1..])),
            // The server asks for a local file: never.
            Some(0xfb) => return Err(undecodable("the server asks for a file, which it does not get")),
            Some(_) => usize::try_from(Cursor(&head).lenenc()?).unwrap_or(usize::MAX),
        };
        if columns > 4096 {
            return Err(undecodable("the server announces more columns than a result can have"));
        }
        let mut described = crc32fast::Hasher::new();
        for _ in 0..columns {
            described.update(&self.packet().await?);
        }
        let described = described.finalize();
        if !self.deprecate_eof {
            self.packet().await?;
        }
        let mut fields = Vec::with_capacity(columns);
        loop {
            let packet = self.packet().await?;
            match packet.first() {
                Some(0xff) => return Err(failed(&packet[1..])),
                Some(0xfe) if packet.len() < 0xff_ffff => return Ok(described),
                _ => {}
            }
            parse(&packet, columns, &mut fields)?;
            row(TextRow { bytes: &packet, fields: &fields })?;
        }
    }

    /// All rows, as texts. For small results.
    pub(crate) async fn rows(&mut self, doing: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let mut rows = Vec::new();
        self.each(doing, sql, |row| {
            let text = |at| row.get(at).map(|b: &[u8]| String::from_utf8_lossy(b).into_owned());
            rows.push((0..row.fields.len()).map(text).collect());
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Runs a statement that has no result worth reading.
    pub(crate) async fn run(&mut self, doing: &str, sql: &str) -> Result<()> {
        self.each(doing, sql, |_| Ok(())).await.map(drop)
    }
}

fn parse(packet: &[u8], columns: usize, fields: &mut Vec<Option<Range<usize>>>) -> Result<()> {
    fields.clear();
    let mut cursor = Cursor(packet);
    for _ in 0..columns {
        if cursor.0.first() == Some(&0xfb) {
            cursor.take(1)?;
            fields.push(None);
            continue;
        }
        let value = cursor.lenenc_bytes()?;
        let end = packet.len() - cursor.0.len();
        fields.push(Some(end - value.len()..end));
    }
    if cursor.is_empty() { Ok(()) } else { Err(undecodable("a row of a result has too many values")) }
}

/// `` `name` ``.
pub(crate) fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text as an SQL literal, whatever the session's modes.
pub(crate) fn literal(text: &str) -> String {
    if text.is_empty() { "''".into() } else { format!("_utf8mb4 X'{}'", hex(text.as_bytes())) }
}

/// Upper-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_apart() {
        let mut fields = Vec::new();
        parse(b"\x01a\xfb\x00\x02bc", 4, &mut fields).unwrap();
        assert_eq!(fields, [Some(1..2), None, Some(4..4), Some(5..7)]);
        assert!(parse(b"\x01a", 2, &mut fields).is_err());
        assert!(parse(b"\x01a\x01b", 1, &mut fields).is_err());
        assert!(parse(b"\x09a", 1, &mut fields).is_err());
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(ident("a`b"), "`a``b`");
        assert_eq!(literal("a'"), "_utf8mb4 X'6127'");
    }
}
