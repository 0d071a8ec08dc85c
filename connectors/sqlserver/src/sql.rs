//! Names and values in SQL, and cells of the driver's rows.

use tiberius::{ColumnData, Row};
use tidemark_contract::TableId;

/// A quoted name.
pub(crate) fn ident(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

/// A table's quoted full name.
pub(crate) fn table_name(table: &TableId) -> String {
    format!("{}.{}", ident(&table.schema), ident(&table.name))
}

/// A text as a literal.
pub(crate) fn literal(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

/// Bytes as a literal.
pub(crate) fn binary(bytes: &[u8]) -> String {
    format!("0x{}", hex(bytes))
}

/// The condition for rows behind some values in the order of `columns`, spelled out: SQL Server has no row values.
pub(crate) fn behind(columns: &[String], values: &[String]) -> String {
    let mut any = Vec::new();
    for last in 0..columns.len().min(values.len()) {
        let mut all: Vec<String> = (0..last).map(|at| format!("{} = {}", columns[at], values[at])).collect();
        all.push(format!("{} > {}", columns[last], values[last]));
        any.push(format!("({})", all.join(" AND ")));
    }
    format!("({})", any.join(" OR "))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The bytes that [`hex`] was made of.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// Cells of rows of the catalogue.
pub(crate) trait Cells {
    /// A text; `None` for null or something else.
    fn text(&self, at: usize) -> Option<&str>;
    /// A whole number of any width, or a bit.
    fn int(&self, at: usize) -> Option<i64>;
    /// Bytes.
    fn bytes(&self, at: usize) -> Option<&[u8]>;
}

impl Cells for Row {
    fn text(&self, at: usize) -> Option<&str> {
        match self.get_column_data(at).ok()? {
            ColumnData::String(Some(text)) => Some(text),
            _ => None,
        }
    }

    fn int(&self, at: usize) -> Option<i64> {
        Some(match self.get_column_data(at).ok()? {
            ColumnData::U8(v) => i64::from((*v)?),
            ColumnData::I16(v) => i64::from((*v)?),
            ColumnData::I32(v) => i64::from((*v)?),
            ColumnData::I64(v) => (*v)?,
            ColumnData::Bit(v) => i64::from((*v)?),
            _ => return None,
        })
    }

    fn bytes(&self, at: usize) -> Option<&[u8]> {
        match self.get_column_data(at).ok()? {
            ColumnData::Binary(Some(bytes)) => Some(bytes),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(table_name(&TableId::new("a.b", "x]y")), "[a.b].[x]]y]");
        assert_eq!(literal("it's"), "N'it''s'");
        assert_eq!(binary(&[0, 255]), "0x00ff");
        assert_eq!(unhex("00ff"), Some(vec![0, 255]));
        assert_eq!((unhex("0"), unhex("zz"), unhex("ü")), (None, None, None));
    }
}
