//! The optional part of a table map: signs, names, character sets, labels, keys. MySQL writes the signs always and the rest
//! under `binlog_row_metadata=FULL`; MariaDB writes nothing, the signs, or all (`NO_LOG`, `MINIMAL`, `FULL`).

use crate::cursor::{Cursor, bit};
use crate::error::undecodable;
use crate::event::{LogColumn, TableMap, code};
use tidemark_contract::Result;

fn is_number(column: &LogColumn) -> bool {
    use code::{DOUBLE, FLOAT, INT24, LONG, LONGLONG, NEWDECIMAL, SHORT, TINY, YEAR};
    matches!(column.code, TINY | SHORT | INT24 | LONG | LONGLONG | FLOAT | DOUBLE | NEWDECIMAL | YEAR | 0)
}

/// Whether a column has a collation of its own in the list of characters' collations.
fn is_text(column: &LogColumn) -> bool {
    use code::{
        BLOB, BLOB_COMPRESSED, LONG_BLOB, MEDIUM_BLOB, STRING, TINY_BLOB, VAR_STRING, VARCHAR, VARCHAR_COMPRESSED,
    };
    matches!(
        column.code,
        STRING
            | VAR_STRING
            | VARCHAR
            | BLOB
            | TINY_BLOB
            | MEDIUM_BLOB
            | LONG_BLOB
            | VARCHAR_COMPRESSED
            | BLOB_COMPRESSED
    )
}

fn is_text_or_geometry(column: &LogColumn) -> bool {
    is_text(column) || column.code == code::GEOMETRY
}

fn is_label(column: &LogColumn) -> bool {
    matches!(column.code, code::ENUM | code::SET)
}

/// Takes one field of the optional metadata into the map. Fields that are not needed, or not known, are skipped: each says
/// how long it is.
/// MariaDB counts geometries among the texts.
pub(crate) fn apply(map: &mut TableMap, field: u8, mut value: Cursor<'_>, is_mariadb: bool) -> Result<()> {
    let is_text = if is_mariadb { is_text_or_geometry } else { is_text };
    let columns = &mut map.columns;
    match field {
        1 => {
            let signs = value.rest();
            let numbers = columns.iter_mut().filter(|c| is_number(c)).enumerate();
            // The first bit is the highest one.
            numbers.for_each(|(at, column)| column.unsigned = Some(bit(signs, at / 8 * 8 + (7 - at % 8))));
        }
        2 => default_collations(columns, is_text, value)?,
        3 => own_collations(columns, is_text, value)?,
        4 => {
            for column in columns.iter_mut() {
                let name = std::str::from_utf8(value.lenenc_bytes()?);
                column.name = Some(name.map_err(|_| undecodable("a column in the log has no readable name"))?.into());
            }
        }
        5 => labels(columns, code::SET, value)?,
        6 => labels(columns, code::ENUM, value)?,
        8 => {
            let mut key = Vec::new();
            while !value.is_empty() {
                key.push(usize::try_from(value.lenenc()?).unwrap_or(usize::MAX));
            }
            map.key = Some(key);
        }
        9 => {
            let mut key = Vec::new();
            while !value.is_empty() {
                key.push(usize::try_from(value.lenenc()?).unwrap_or(usize::MAX));
                value.lenenc()?;
            }
            map.key = Some(key);
        }
        10 => default_collations(columns, is_label, value)?,
        11 => own_collations(columns, is_label, value)?,
        _ => {}
    }
    Ok(())
}

/// One collation for most, and others for some, by their index among the columns `of` this kind.
fn default_collations(columns: &mut [LogColumn], of: fn(&LogColumn) -> bool, mut value: Cursor<'_>) -> Result<()> {
    let number = |value: &mut Cursor<'_>| Ok::<_, tidemark_contract::SourceError>(u32::try_from(value.lenenc()?).ok());
    let default = number(&mut value)?;
    let mut chosen: Vec<&mut LogColumn> = columns.iter_mut().filter(|c| of(c)).collect();
    chosen.iter_mut().for_each(|column| column.collation = default);
    while !value.is_empty() {
        let at = usize::try_from(value.lenenc()?).unwrap_or(usize::MAX);
        let collation = number(&mut value)?;
        if let Some(column) = chosen.get_mut(at) {
            column.collation = collation;
        }
    }
    Ok(())
}

fn own_collations(columns: &mut [LogColumn], of: fn(&LogColumn) -> bool, mut value: Cursor<'_>) -> Result<()> {
    for column in columns.iter_mut().filter(|c| of(c)) {
        column.collation = u32::try_from(value.lenenc()?).ok();
    }
    Ok(())
}

fn labels(columns: &mut [LogColumn], code: u8, mut value: Cursor<'_>) -> Result<()> {
    for column in columns.iter_mut().filter(|c| c.code == code) {
        let count = value.lenenc()?;
        let mut labels = Vec::new();
        for _ in 0..count {
            labels.push(value.lenenc_bytes()?.into());
        }
        column.labels = Some(labels);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::table_map;

    /// A table `d.t` (int unsigned, varchar, enum) with full metadata.
    fn body() -> Vec<u8> {
        let mut body = vec![9, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 3, code::LONG, code::VARCHAR, code::STRING];
        body.extend_from_slice(&[4, 160, 0, code::ENUM, 1, 0b110]);
        body.extend_from_slice(&[1, 1, 0b1000_0000]);
        body.extend_from_slice(&[2, 1, 45]);
        body.extend_from_slice(&[4, 9, 2, b'i', b'd', 1, b'n', 3, b's', b'e', b'x']);
        body.extend_from_slice(&[6, 5, 2, 1, b'f', 1, b'm']);
        body.extend_from_slice(&[8, 1, 0, 10, 1, 8, 77, 2, 1, 2]);
        body
    }

    #[test]
    fn all_of_it_is_read() {
        let map = table_map(&body(), false).unwrap();
        let [id, name, sex] = &map.columns[..] else { panic!() };
        assert_eq!((&*map.schema, &*map.name, map.id), ("d", "t", 9));
        assert_eq!((id.unsigned, id.nullable, id.name.as_deref()), (Some(true), false, Some("id")));
        assert_eq!((name.meta, name.collation, name.nullable), (160, Some(45), true));
        assert_eq!((sex.code, sex.collation, sex.labels.as_ref().map(Vec::len)), (code::ENUM, Some(8), Some(2)));
        assert_eq!(map.key, Some(vec![0]));
    }

    #[test]
    fn a_short_one_is_an_error() {
        let body = body();
        for cut in 0..23 {
            assert!(table_map(&body[..cut], true).is_err(), "{cut}");
        }
    }
}
