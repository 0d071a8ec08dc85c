//! The transaction log as the simulator keeps it: numbers of records, and rows packed as pairs of column number and value.
//!
//! A log sequence number is ten bytes: virtual log file (4), log block (4), slot (2), all big-endian, so that byte order is
//! log order ("SQL Server transaction log architecture and management guide").

use rusqlite::types::Value;

/// The LSN of a record number. Blocks hold 256 records.
pub fn lsn(record: i64) -> Vec<u8> {
    let record = record.cast_unsigned();
    let mut out = (0x2A + (record >> 40) as u32).to_be_bytes().to_vec();
    out.extend(((record >> 8) as u32).to_be_bytes());
    out.extend(((record & 0xFF) as u16 + 1).to_be_bytes());
    out
}

/// The record at which the next block begins.
pub fn next_block(record: i64) -> i64 {
    (record | 0xFF) + 1
}

/// `0000002a:00000100:0003`, the form of the dynamic management views.
pub fn lsn_text(lsn: &[u8]) -> String {
    let h =
        |r: std::ops::Range<usize>| lsn.get(r).unwrap_or(&[]).iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("{}:{}:{}", h(0..4), h(4..8), h(8..10))
}

/// Appends one column of a row.
pub fn pack(out: &mut Vec<u8>, column: i64, value: &Value) {
    out.extend((column as u32).to_be_bytes());
    let mut put = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend((bytes.len() as u32).to_be_bytes());
        out.extend(bytes);
    };
    match value {
        Value::Null => put(0, &[]),
        Value::Integer(i) => put(1, &i.to_be_bytes()),
        Value::Real(r) => put(2, &r.to_be_bytes()),
        Value::Text(t) => put(3, t.as_bytes()),
        Value::Blob(b) => put(4, b),
    }
}

/// Reads a packed row.
pub fn unpack(mut bytes: &[u8]) -> Vec<(i64, Value)> {
    let mut out = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let word = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
        let length = word(&head[5..9]) as usize;
        let Some((body, behind)) = rest.split_at_checked(length) else { break };
        let value = match head[4] {
            1 => Value::Integer(i64::from_be_bytes(body.try_into().unwrap_or_default())),
            2 => Value::Real(f64::from_be_bytes(body.try_into().unwrap_or_default())),
            3 => Value::Text(String::from_utf8_lossy(body).into_owned()),
            4 => Value::Blob(body.to_vec()),
            _ => Value::Null,
        };
        out.push((i64::from(word(&head[..4])), value));
        bytes = behind;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_order_is_byte_order() {
        let records = [0, 1, 255, 256, 65_535, 65_536, 1 << 40, (1 << 40) + 1];
        let lsns: Vec<_> = records.iter().map(|r| lsn(*r)).collect();
        assert!(lsns.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(lsn_text(&lsn(256)), "0000002a:00000001:0001");
        assert_eq!(next_block(0), 256);
    }

    #[test]
    fn rows_survive() {
        let row =
            [(1, Value::Null), (7, Value::Integer(-3)), (9, Value::Text("é".into())), (12, Value::Blob(vec![0; 300]))];
        let mut b = Vec::new();
        for (c, v) in &row {
            pack(&mut b, *c, v);
        }
        assert_eq!(unpack(&b), row);
    }
}
