//! The scripted log's byte format: one record per change.
//!
//! `op, schema version (4 bytes), rows (1 byte), then per row: cells (2 bytes), then per cell a tag and its payload.`

use crate::fixture::{Cell, filler};
use tidemark_contract::{ErrorKind, Result, RowBuilder, SourceError, Value};

/// A record as read from its bytes.
#[derive(Debug, PartialEq)]
pub(super) struct Decoded {
    pub(super) op: u8,
    pub(super) schema: u32,
    /// One row; two (old key, new row) in a key update; none in a truncate.
    pub(super) rows: Vec<Vec<Option<Cell>>>,
}

/// Writes a record; `None` is a cell that the log leaves out.
pub(super) fn encode(op: u8, schema: u32, rows: &[Vec<Option<Cell>>]) -> Box<[u8]> {
    let mut out = vec![op];
    out.extend(schema.to_be_bytes());
    out.push(rows.len() as u8);
    for row in rows {
        out.extend((row.len() as u16).to_be_bytes());
        for cell in row {
            match cell {
                None => out.push(b'u'),
                Some(Cell::Null) => out.push(b'n'),
                Some(Cell::Int(v)) => {
                    out.push(b'i');
                    out.extend(v.to_be_bytes());
                }
                Some(Cell::Text(text)) => {
                    out.push(b't');
                    out.extend((text.len() as u32).to_be_bytes());
                    out.extend(text.as_bytes());
                }
                Some(Cell::Filler { seed, len }) => {
                    out.push(b'f');
                    out.extend(seed.to_be_bytes());
                    out.extend(len.to_be_bytes());
                }
            }
        }
    }
    out.into_boxed_slice()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let Some((head, tail)) = self.0.split_at_checked(n) else {
            return Err(malformed(&format!("{n} bytes were wanted, {} are left", self.0.len())));
        };
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }
}

fn malformed(what: &str) -> SourceError {
    SourceError::new(ErrorKind::Undecodable, format!("a log record cannot be read: {what}"))
}

/// Reads a record.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded> {
    let mut reader = Reader(bytes);
    let [op] = reader.array()?;
    if !b"IUKDT".contains(&op) {
        return Err(malformed(&format!("unknown operation {op}")));
    }
    let schema = u32::from_be_bytes(reader.array()?);
    let [count] = reader.array()?;
    let mut rows = Vec::new();
    for _ in 0..count {
        let width = u16::from_be_bytes(reader.array()?);
        let mut row = Vec::with_capacity(usize::from(width));
        for _ in 0..width {
            row.push(match reader.array()? {
                [b'u'] => None,
                [b'n'] => Some(Cell::Null),
                [b'i'] => Some(Cell::Int(i64::from_be_bytes(reader.array()?))),
                [b't'] => {
                    let len = u32::from_be_bytes(reader.array()?) as usize;
                    let text = std::str::from_utf8(reader.take(len)?).map_err(|_| malformed("text is not UTF-8"))?;
                    Some(Cell::text(text))
                }
                [b'f'] => Some(Cell::Filler {
                    seed: u64::from_be_bytes(reader.array()?),
                    len: u32::from_be_bytes(reader.array()?),
                }),
                [tag] => return Err(malformed(&format!("unknown cell tag {tag}"))),
            });
        }
        rows.push(row);
    }
    if !reader.0.is_empty() {
        return Err(malformed(&format!("{} bytes too many", reader.0.len())));
    }
    let wanted = match op {
        b'T' => 0,
        b'K' => 2,
        _ => 1,
    };
    if rows.len() != wanted {
        return Err(malformed(&format!("{} rows instead of {wanted}", rows.len())));
    }
    Ok(Decoded { op, schema, rows })
}

/// Appends a cell to a row.
pub(super) fn push(row: &mut RowBuilder, cell: Option<&Cell>) {
    match cell {
        None => row.push(Value::Unchanged),
        Some(Cell::Null) => row.push(Value::Null),
        Some(Cell::Int(v)) => row.push(Value::Int(*v)),
        Some(Cell::Text(text)) => row.push(Value::Text(text)),
        Some(Cell::Filler { seed, len }) => row.push(Value::Text(&filler(*seed, *len))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_damaged_ones_are_errors() {
        let rows = vec![vec![Some(Cell::Int(1)), None, Some(Cell::text("ü")), Some(Cell::Filler { seed: 1, len: 3 })]];
        let bytes = encode(b'I', 3, &rows);
        assert_eq!(decode(&bytes).expect("whole"), Decoded { op: b'I', schema: 3, rows });
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "cut to {len}");
        }
    }
}
