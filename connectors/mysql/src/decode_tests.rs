use super::*;
use proptest::prelude::*;
use std::sync::Arc;

fn column(code: u8, meta: u16) -> LogColumn {
    LogColumn { code, meta, nullable: true, unsigned: None, name: None, collation: None, labels: None }
}

fn shown(kind: &Kind, column: &LogColumn, bytes: &[u8]) -> Result<String> {
    let mut row = RowBuilder::default();
    let mut cursor = Cursor(bytes);
    push(kind, column, &mut cursor, &mut row, &mut Scratch::default())?;
    assert!(cursor.is_empty(), "bytes are left");
    Ok(match row.finish().get(0) {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::UInt(u) => u.to_string(),
        Value::Real(x) => x.to_string(),
        Value::Text(s) | Value::Date(s) | Value::Time(s) | Value::Timestamp(s) | Value::TimestampTz(s) => s.into(),
        Value::Uuid(s) | Value::List(s) | Value::Decimal(s) => s.into(),
        Value::Bytes(b) => format!("{b:?}"),
        other => other.kind().into(),
    })
}

fn zero() -> Arc<ZeroPolicy> {
    Arc::default()
}

fn int(unsigned: bool) -> Kind {
    Kind::Int { unsigned }
}

#[test]
fn values_of_every_width() {
    let labels: Arc<[Box<str>]> = Arc::from(["a".into(), "b".into(), "c".into()]);
    let text = Kind::Text(Charset::Utf8, None);
    for (kind, code, meta, bytes, wanted) in [
        (int(false), code::TINY, 0, &[0xff][..], "-1"),
        (int(true), code::TINY, 0, &[0xff], "255"),
        (int(false), code::INT24, 0, &[0xff, 0xff, 0x7f], "8388607"),
        (int(false), code::INT24, 0, &[0, 0, 0x80], "-8388608"),
        (int(true), code::LONGLONG, 0, &[0xff; 8], "18446744073709551615"),
        (int(false), code::LONGLONG, 0, &[0, 0, 0, 0, 0, 0, 0, 0x80], "-9223372036854775808"),
        (Kind::Float, code::FLOAT, 4, &0.1_f32.to_le_bytes(), "0.1"),
        (Kind::Year, code::YEAR, 0, &[124], "2024"),
        (Kind::Year, code::YEAR, 0, &[0], "0"),
        (Kind::Bit(1), code::BIT, 1, &[1], "true"),
        (Kind::Bit(10), code::BIT, 0x0102, &[2, 1], "513"),
        (Kind::Date(zero()), code::DATE, 0, &[0x5d, 0xd0, 0x0f], "2024-02-29"),
        (Kind::Date(zero()), code::DATE, 0, &[0, 0, 0], "null"),
        (Kind::Time, code::TIME2, 0, &[0x80, 0x10, 0x83], "01:02:03"),
        (Kind::Time, code::TIME2, 0, &[0x4b, 0x91, 0x05], "-838:59:59"),
        (Kind::Time, code::TIME2, 2, &[0x7f, 0xff, 0xff, 0xf6], "-00:00:00.1"),
        (Kind::Time, code::TIME2, 6, &[0x80, 0x00, 0x01, 0x00, 0x00, 0x01], "00:00:01.000001"),
        (Kind::DateTime(zero()), code::DATETIME2, 0, &[0x99, 0xb2, 0xba, 0x10, 0x83], "2024-02-29T01:02:03"),
        (
            Kind::DateTime(zero()),
            code::DATETIME2,
            3,
            &[0x99, 0xb2, 0xba, 0x10, 0x83, 0x04, 0xd2],
            "2024-02-29T01:02:03.1234",
        ),
        (Kind::DateTime(zero()), code::DATETIME2, 0, &[0x80, 0, 0, 0, 0], "null"),
        (Kind::Timestamp(zero()), code::TIMESTAMP2, 0, &[0, 0, 0, 1], "1970-01-01T00:00:01Z"),
        (Kind::Timestamp(zero()), code::TIMESTAMP2, 0, &[0, 0, 0, 0], "null"),
        (Kind::Timestamp(zero()), code::TIMESTAMP2, 6, &[0, 0, 0, 0, 0, 0, 1], "1970-01-01T00:00:00.000001Z"),
        (text.clone(), code::VARCHAR, 20, b"\x02ab", "ab"),
        (text.clone(), code::VARCHAR, 300, b"\x02\x00ab", "ab"),
        (text, code::BLOB, 3, b"\x02\x00\x00ab", "ab"),
        (Kind::Text(Charset::Binary, Some(4)), code::STRING, 4, b"\x01a", "[97, 0, 0, 0]"),
        (Kind::Enum(labels.clone(), Charset::Utf8), code::ENUM, 1, &[2], "b"),
        (Kind::Enum(labels.clone(), Charset::Utf8), code::ENUM, 1, &[0], ""),
        (Kind::Set(labels, Charset::Utf8), code::SET, 1, &[5], r#"["a","c"]"#),
        (Kind::Decimal, code::NEWDECIMAL, 0x0402, &[0x8c, 0x32], "12.50"),
        (Kind::Inet6, code::STRING, 16, &[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "::1"),
    ] {
        assert_eq!(shown(&kind, &column(code, meta), bytes).unwrap(), wanted, "{code} {bytes:?}");
    }
}

#[test]
fn uuids_are_turned_round_where_they_were() {
    let stored = [0x0c, 0xcd, 0xa4, 0x0a, 0xb1, 0x2c, 0x9a, 0x1b, 0x41, 0xd4, 0xe2, 0x9b, 0x55, 0x0e, 0x84, 0x00];
    assert_eq!(show_uuid(&mariadb_uuid(stored)), "550e8400-e29b-41d4-9a1b-0ccda40ab12c");
    let newer = [0x01, 0x8f, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(mariadb_uuid(newer), newer);
}

#[test]
fn what_cannot_be_is_an_error() {
    let labels: Arc<[Box<str>]> = Arc::from(["a".into()]);
    assert!(shown(&Kind::Enum(labels.clone(), Charset::Utf8), &column(code::ENUM, 1), &[2]).is_err());
    assert!(shown(&Kind::Set(labels, Charset::Utf8), &column(code::SET, 1), &[2]).is_err());
    assert!(shown(&Kind::Float, &column(code::DOUBLE, 8), &[0; 8]).is_err());
    assert!(shown(&int(false), &column(99, 0), &[0; 8]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_value_or_an_error(code: u8, meta: u16, bytes in prop::collection::vec(any::<u8>(), 0..40), which in 0..20_usize) {
        let labels: Arc<[Box<str>]> = Arc::from(["a".into(), "b".into()]);
        let kinds = [
            int(true), int(false), Kind::Float, Kind::Double, Kind::Decimal, Kind::Year, Kind::Bit(1), Kind::Bit(64),
            Kind::Date(zero()), Kind::Time, Kind::DateTime(zero()), Kind::Timestamp(zero()),
            Kind::Text(Charset::Utf8, None), Kind::Enum(labels.clone(), Charset::Utf8), Kind::Set(labels, Charset::Utf8),
            Kind::Json, Kind::Geometry, Kind::Uuid, Kind::Inet6, Kind::Vector,
        ];
        let mut row = RowBuilder::default();
        let _ = push(&kinds[which], &column(code, meta), &mut Cursor(&bytes), &mut row, &mut Scratch::default());
    }
}
