//! Types and values on the wire: "[MS-TDS] 2.2.5.4 Data Type Definitions" and "2.2.5.5 Data Type Details".

use super::packet::{Reader, Short, utf16};
use crate::error::{Result, SqlError};
use crate::types::collation::Collation;
use crate::types::convert::{unzoned, zoned};
use crate::types::datetime::{DAY, Y1900};
use crate::types::{Kind, MAX, SqlType, decimal, guid_store, guid_wire, time_length, variant};
use rusqlite::types::Value;

/// TYPE_INFO. Types of a fixed length have their own tokens where the column cannot be NULL.
pub fn type_info(ty: SqlType, nullable: bool, database: &str, out: &mut Vec<u8>) {
    use Kind::*;
    let fixed = |id: u8, n: u8, length: u8| if nullable { vec![n, length] } else { vec![id] };
    match ty.kind {
        Bit => out.extend(fixed(0x32, 0x68, 1)),
        TinyInt => out.extend(fixed(0x30, 0x26, 1)),
        SmallInt => out.extend(fixed(0x34, 0x26, 2)),
        Int => out.extend(fixed(0x38, 0x26, 4)),
        BigInt => out.extend(fixed(0x7F, 0x26, 8)),
        Real => out.extend(fixed(0x3B, 0x6D, 4)),
        Float => out.extend(fixed(0x3E, 0x6D, 8)),
        Money => out.extend(fixed(0x3C, 0x6E, 8)),
        SmallMoney => out.extend(fixed(0x7A, 0x6E, 4)),
        DateTime => out.extend(fixed(0x3D, 0x6F, 8)),
        SmallDateTime => out.extend(fixed(0x3A, 0x6F, 4)),
        Decimal => out.extend([0x6A, ty.max_length() as u8, ty.precision, ty.scale]),
        Numeric => out.extend([0x6C, ty.max_length() as u8, ty.precision, ty.scale]),
        Date => out.push(0x28),
        Time => out.extend([0x29, ty.scale]),
        DateTime2 => out.extend([0x2A, ty.scale]),
        DateTimeOffset => out.extend([0x2B, ty.scale]),
        UniqueIdentifier => out.extend([0x24, 16]),
        Char => sized(0xAF, ty, 1, out),
        VarChar => sized(0xA7, ty, 1, out),
        NChar => sized(0xEF, ty, 2, out),
        NVarChar => sized(0xE7, ty, 2, out),
        Binary | RowVersion => {
            out.push(0xAD);
            out.extend(ty.len.to_le_bytes());
        }
        VarBinary => {
            out.push(0xA5);
            out.extend(ty.len.to_le_bytes());
        }
        Text => {
            out.push(0x23);
            out.extend(0x7FFF_FFFFu32.to_le_bytes());
            out.extend(ty.collation.wire());
        }
        NText => {
            out.push(0x63);
            out.extend(0x7FFF_FFFEu32.to_le_bytes());
            out.extend(ty.collation.wire());
        }
        Image => {
            out.push(0x22);
            out.extend(0x7FFF_FFFFu32.to_le_bytes());
        }
        Xml => out.extend([0xF1, 0]),
        Variant => {
            out.push(0x62);
            out.extend(8009u32.to_le_bytes());
        }
        HierarchyId | Geography | Geometry => {
            out.push(0xF0);
            let limit: u16 = if ty.kind == HierarchyId { 892 } else { MAX };
            out.extend(limit.to_le_bytes());
            short_text(database, out);
            short_text("sys", out);
            short_text(ty.name(), out);
            let class = match ty.kind {
                HierarchyId => "Microsoft.SqlServer.Types.SqlHierarchyId",
                Geography => "Microsoft.SqlServer.Types.SqlGeography",
                _ => "Microsoft.SqlServer.Types.SqlGeometry",
            };
            let full = format!(
                "{class}, Microsoft.SqlServer.Types, Version=11.0.0.0, Culture=neutral, PublicKeyToken=89845dcd8080cc91"
            );
            long_text(&full, out);
        }
    }
}

fn sized(id: u8, ty: SqlType, width: u16, out: &mut Vec<u8>) {
    out.push(id);
    out.extend(if ty.len == MAX { MAX } else { ty.len * width }.to_le_bytes());
    out.extend(ty.collation.wire());
}

/// B_VARCHAR: a length byte, then UTF-16.
pub fn short_text(t: &str, out: &mut Vec<u8>) {
    let units: Vec<u16> = t.encode_utf16().take(255).collect();
    out.push(units.len() as u8);
    out.extend(units.iter().flat_map(|u| u.to_le_bytes()));
}

/// US_VARCHAR: two length bytes, then UTF-16.
pub fn long_text(t: &str, out: &mut Vec<u8>) {
    let units: Vec<u16> = t.encode_utf16().take(4000).collect();
    out.extend((units.len() as u16).to_le_bytes());
    out.extend(units.iter().flat_map(|u| u.to_le_bytes()));
}

fn utf16_bytes(t: &str) -> Vec<u8> {
    t.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Partially length-prefixed bytes, in chunks of 8000.
fn chunks(b: &[u8], out: &mut Vec<u8>) {
    out.extend((b.len() as u64).to_le_bytes());
    for c in b.chunks(8000) {
        out.extend((c.len() as u32).to_le_bytes());
        out.extend(c);
    }
    out.extend(0u32.to_le_bytes());
}

fn is_chunked(ty: SqlType) -> bool {
    ty.is_max() || matches!(ty.kind, Kind::Xml | Kind::HierarchyId | Kind::Geography | Kind::Geometry)
}

/// Bytes of a text or binary value.
fn long_bytes(v: &Value, ty: SqlType) -> Vec<u8> {
    match v {
        Value::Text(t) if matches!(ty.kind, Kind::NChar | Kind::NVarChar | Kind::NText | Kind::Xml) => utf16_bytes(t),
        Value::Text(t) => ty.collation.encode(t),
        Value::Blob(b) => b.clone(),
        _ => Vec::new(),
    }
}

/// A value in a ROW.
pub fn value(v: &Value, ty: SqlType, nullable: bool, out: &mut Vec<u8>) {
    let null = *v == Value::Null;
    match ty.kind {
        _ if is_chunked(ty) => {
            if null {
                out.extend([0xFF; 8]);
            } else {
                chunks(&long_bytes(v, ty), out);
            }
        }
        Kind::Char
        | Kind::VarChar
        | Kind::NChar
        | Kind::NVarChar
        | Kind::Binary
        | Kind::VarBinary
        | Kind::RowVersion => {
            if null {
                out.extend([0xFF; 2]);
            } else {
                let b = long_bytes(v, ty);
                out.extend((b.len() as u16).to_le_bytes());
                out.extend(b);
            }
        }
        Kind::Text | Kind::NText | Kind::Image => {
            if null {
                out.push(0);
            } else {
                // A text pointer and a time stamp, which nobody reads.
                out.push(16);
                out.extend(b"dummy textptr\0\0\0");
                out.extend(b"dummyTS\0");
                let b = long_bytes(v, ty);
                out.extend((b.len() as u32).to_le_bytes());
                out.extend(b);
            }
        }
        Kind::Variant => in_variant(v, out),
        _ => {
            let mut body = Vec::with_capacity(16);
            plain(v, ty, &mut body);
            let always = matches!(
                ty.kind,
                Kind::Decimal
                    | Kind::Numeric
                    | Kind::Date
                    | Kind::Time
                    | Kind::DateTime2
                    | Kind::DateTimeOffset
                    | Kind::UniqueIdentifier
            );
            if nullable || always {
                out.push(if null { 0 } else { body.len() as u8 });
            }
            if !null {
                out.extend(body);
            }
        }
    }
}

fn whole(v: &Value) -> i64 {
    match v {
        Value::Integer(i) => *i,
        Value::Real(r) => *r as i64,
        _ => 0,
    }
}

fn real(v: &Value) -> f64 {
    match v {
        Value::Real(r) => *r,
        Value::Integer(i) => *i as f64,
        _ => 0.0,
    }
}

fn clock(ticks: i64, scale: u8, out: &mut Vec<u8>) {
    let units = ticks / 10i64.pow(7 - u32::from(scale));
    out.extend(&units.to_le_bytes()[..time_length(scale) as usize]);
}

fn day(ticks: i64, out: &mut Vec<u8>) {
    out.extend(&ticks.div_euclid(DAY).to_le_bytes()[..3]);
}

/// A value of fixed or small size, without any length.
fn plain(v: &Value, ty: SqlType, out: &mut Vec<u8>) {
    let i = whole(v);
    match ty.kind {
        Kind::Bit | Kind::TinyInt => out.push(i as u8),
        Kind::SmallInt => out.extend((i as i16).to_le_bytes()),
        Kind::Int | Kind::SmallMoney => out.extend((i as i32).to_le_bytes()),
        Kind::BigInt => out.extend(i.to_le_bytes()),
        Kind::Real => out.extend((real(v) as f32).to_le_bytes()),
        Kind::Float => out.extend(real(v).to_le_bytes()),
        Kind::Money => {
            // The high half first.
            out.extend(((i >> 32) as i32).to_le_bytes());
            out.extend((i as u32).to_le_bytes());
        }
        Kind::Decimal | Kind::Numeric => {
            if let Value::Blob(b) = v {
                let d = decimal::from_bytes(b);
                out.push(u8::from(d >= 0));
                out.extend(&d.unsigned_abs().to_le_bytes()[..ty.max_length() as usize - 1]);
            }
        }
        Kind::Date => day(i, out),
        Kind::Time => clock(i, ty.scale, out),
        Kind::DateTime2 => {
            clock(i.rem_euclid(DAY), ty.scale, out);
            day(i, out);
        }
        Kind::DateTimeOffset => {
            if let Value::Blob(b) = v {
                // The time is sent in UTC, the offset beside it.
                let (utc, offset) = unzoned(b);
                clock(utc.rem_euclid(DAY), ty.scale, out);
                day(utc, out);
                out.extend((offset as i16).to_le_bytes());
            }
        }
        Kind::DateTime => {
            out.extend(((i.div_euclid(DAY) - Y1900 / DAY) as i32).to_le_bytes());
            out.extend((((i.rem_euclid(DAY) * 3 + 50_000) / 100_000) as u32).to_le_bytes());
        }
        Kind::SmallDateTime => {
            out.extend(((i.div_euclid(DAY) - Y1900 / DAY) as u16).to_le_bytes());
            out.extend(((i.rem_euclid(DAY) / 600_000_000) as u16).to_le_bytes());
        }
        Kind::UniqueIdentifier => {
            if let Value::Blob(b) = v {
                out.extend(guid_wire(b));
            }
        }
        _ => {}
    }
}

/// "[MS-TDS] 2.2.5.5.4 SQL_VARIANT Values": length, base type, properties, value.
fn in_variant(v: &Value, out: &mut Vec<u8>) {
    let unpacked = match v {
        Value::Blob(b) => variant::unpack(b),
        _ => None,
    };
    let Some((ty, inner)) = unpacked else {
        out.extend(0u32.to_le_bytes());
        return;
    };
    let mut body = Vec::new();
    match ty.kind {
        Kind::Char | Kind::VarChar | Kind::NChar | Kind::NVarChar => {
            let wide = matches!(ty.kind, Kind::NChar | Kind::NVarChar);
            let id = match ty.kind {
                Kind::Char => 0xAF,
                Kind::VarChar => 0xA7,
                Kind::NChar => 0xEF,
                _ => 0xE7,
            };
            body.extend([id, 7]);
            body.extend(ty.collation.wire());
            body.extend((ty.len * if wide { 2 } else { 1 }).to_le_bytes());
            body.extend(long_bytes(&inner, ty));
        }
        Kind::Binary | Kind::VarBinary => {
            body.extend([if ty.kind == Kind::Binary { 0xAD } else { 0xA5 }, 2]);
            body.extend(ty.len.to_le_bytes());
            body.extend(long_bytes(&inner, ty));
        }
        Kind::Decimal | Kind::Numeric => {
            body.extend([if ty.kind == Kind::Decimal { 0x6A } else { 0x6C }, 2, ty.precision, ty.scale]);
            plain(&inner, ty, &mut body);
        }
        Kind::Time | Kind::DateTime2 | Kind::DateTimeOffset => {
            let id = match ty.kind {
                Kind::Time => 0x29,
                Kind::DateTime2 => 0x2A,
                _ => 0x2B,
            };
            body.extend([id, 1, ty.scale]);
            plain(&inner, ty, &mut body);
        }
        _ => {
            let id = match ty.kind {
                Kind::Bit => 0x32,
                Kind::TinyInt => 0x30,
                Kind::SmallInt => 0x34,
                Kind::Int => 0x38,
                Kind::BigInt => 0x7F,
                Kind::Real => 0x3B,
                Kind::Float => 0x3E,
                Kind::Money => 0x3C,
                Kind::SmallMoney => 0x7A,
                Kind::DateTime => 0x3D,
                Kind::SmallDateTime => 0x3A,
                Kind::Date => 0x28,
                _ => 0x24,
            };
            body.extend([id, 0]);
            plain(&inner, ty, &mut body);
        }
    }
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
}

/// Reads TYPE_INFO and value of a parameter.
pub fn parameter(r: &mut Reader<'_>) -> Result<(SqlType, Value)> {
    read_parameter(r).unwrap_or_else(|Short| {
        Err(SqlError::new(
            4002,
            16,
            1,
            "The incoming tabular data stream (TDS) protocol stream is incorrect. The stream ended unexpectedly.",
        ))
    })
}

type Parameter = Result<(SqlType, Value)>;

fn read_parameter(r: &mut Reader<'_>) -> std::result::Result<Parameter, Short> {
    let id = r.u8()?;
    let nothing = |ty: SqlType| Ok(Ok((ty, Value::Null)));
    let small = |r: &mut Reader<'_>, kinds: [Kind; 4]| -> std::result::Result<Parameter, Short> {
        let declared = r.u8()?;
        let at = match declared {
            1 => 0,
            2 => 1,
            4 => 2,
            _ => 3,
        };
        let length = usize::from(r.u8()?);
        let ty = SqlType::of(kinds[at]);
        if length == 0 {
            return Ok(Ok((ty, Value::Null)));
        }
        Ok(Ok((ty, fixed(r.take(length)?, ty))))
    };
    match id {
        0x1F => nothing(SqlType::of(Kind::Int)),
        0x30 => Ok(Ok((SqlType::of(Kind::TinyInt), fixed(r.take(1)?, SqlType::of(Kind::TinyInt))))),
        0x32 => Ok(Ok((SqlType::of(Kind::Bit), fixed(r.take(1)?, SqlType::of(Kind::Bit))))),
        0x34 => Ok(Ok((SqlType::of(Kind::SmallInt), fixed(r.take(2)?, SqlType::of(Kind::SmallInt))))),
        0x38 => Ok(Ok((SqlType::of(Kind::Int), fixed(r.take(4)?, SqlType::of(Kind::Int))))),
        0x7F => Ok(Ok((SqlType::of(Kind::BigInt), fixed(r.take(8)?, SqlType::of(Kind::BigInt))))),
        0x3B => Ok(Ok((SqlType::of(Kind::Real), fixed(r.take(4)?, SqlType::of(Kind::Real))))),
        0x3E => Ok(Ok((SqlType::of(Kind::Float), fixed(r.take(8)?, SqlType::of(Kind::Float))))),
        0x26 => small(r, [Kind::TinyInt, Kind::SmallInt, Kind::Int, Kind::BigInt]),
        0x68 => small(r, [Kind::Bit; 4]),
        0x6D => small(r, [Kind::Real, Kind::Real, Kind::Real, Kind::Float]),
        0x6E => small(r, [Kind::SmallMoney, Kind::SmallMoney, Kind::SmallMoney, Kind::Money]),
        0x6F => small(r, [Kind::SmallDateTime, Kind::SmallDateTime, Kind::SmallDateTime, Kind::DateTime]),
        0x24 => {
            r.u8()?;
            let length = usize::from(r.u8()?);
            let ty = SqlType::of(Kind::UniqueIdentifier);
            if length == 16 { Ok(Ok((ty, Value::Blob(guid_store(r.take(16)?))))) } else { nothing(ty) }
        }
        0x6A | 0x6C => {
            r.u8()?;
            let (precision, scale) = (r.u8()?, r.u8()?);
            let ty = SqlType {
                kind: if id == 0x6A { Kind::Decimal } else { Kind::Numeric },
                ..SqlType::numeric(precision, scale)
            };
            let length = usize::from(r.u8()?);
            if length == 0 {
                return nothing(ty);
            }
            let b = r.take(length)?;
            let mut digits = [0u8; 16];
            let n = (length - 1).min(16);
            digits[..n].copy_from_slice(&b[1..=n]);
            let v = i128::from_le_bytes(digits);
            Ok(Ok((ty, Value::Blob(decimal::to_bytes(if b[0] == 0 { -v } else { v })))))
        }
        0x28 => {
            let length = usize::from(r.u8()?);
            let ty = SqlType::of(Kind::Date);
            if length == 0 { nothing(ty) } else { Ok(Ok((ty, fixed(r.take(length)?, ty)))) }
        }
        0x29..=0x2B => {
            let kind = match id {
                0x29 => Kind::Time,
                0x2A => Kind::DateTime2,
                _ => Kind::DateTimeOffset,
            };
            let ty = SqlType::scaled(kind, r.u8()?.min(7));
            let length = usize::from(r.u8()?);
            if length == 0 { nothing(ty) } else { Ok(Ok((ty, fixed(r.take(length)?, ty)))) }
        }
        0xA7 | 0xAF | 0xE7 | 0xEF | 0xA5 | 0xAD => long(r, id),
        0x23 | 0x63 | 0x22 => {
            r.u32()?;
            let mut ty = SqlType::max(match id {
                0x23 => Kind::VarChar,
                0x63 => Kind::NVarChar,
                _ => Kind::VarBinary,
            });
            if id != 0x22 {
                ty.collation = collation(r)?;
            }
            let length = r.u32()?;
            if length == u32::MAX {
                return nothing(ty);
            }
            Ok(Ok((ty, long_value(r.take(length as usize)?, ty))))
        }
        0xF1 => {
            if r.u8()? != 0 {
                return Ok(Err(SqlError::unmodelled("typed xml parameters")));
            }
            let ty = SqlType::of(Kind::Xml);
            Ok(Ok((ty, read_chunks(r)?.map_or(Value::Null, |b| Value::Text(utf16(&b))))))
        }
        0xF3 => Ok(Err(SqlError::unmodelled("table-valued parameters"))),
        other => Ok(Err(SqlError::unmodelled(format!("parameters of TDS type 0x{other:02X}")))),
    }
}

fn collation(r: &mut Reader<'_>) -> std::result::Result<Collation, Short> {
    let b = r.take(5)?;
    Ok(Collation::from_wire([b[0], b[1], b[2], b[3], b[4]]))
}

fn long(r: &mut Reader<'_>, id: u8) -> std::result::Result<Parameter, Short> {
    let declared = r.u16()?;
    let kind = match id {
        0xA7 => Kind::VarChar,
        0xAF => Kind::Char,
        0xE7 => Kind::NVarChar,
        0xEF => Kind::NChar,
        0xA5 => Kind::VarBinary,
        _ => Kind::Binary,
    };
    let wide = matches!(kind, Kind::NVarChar | Kind::NChar);
    let mut ty = SqlType {
        len: if declared == MAX { MAX } else { (declared / if wide { 2 } else { 1 }).max(1) },
        ..SqlType::of(kind)
    };
    if !matches!(kind, Kind::VarBinary | Kind::Binary) {
        ty.collation = collation(r)?;
    }
    if declared == MAX {
        return Ok(Ok((ty, read_chunks(r)?.map_or(Value::Null, |b| long_value(&b, ty)))));
    }
    let length = r.u16()?;
    if length == u16::MAX {
        return Ok(Ok((ty, Value::Null)));
    }
    Ok(Ok((ty, long_value(r.take(usize::from(length))?, ty))))
}

fn long_value(b: &[u8], ty: SqlType) -> Value {
    match ty.kind {
        Kind::NVarChar | Kind::NChar => Value::Text(utf16(b)),
        Kind::VarBinary | Kind::Binary => Value::Blob(b.to_vec()),
        _ => Value::Text(ty.collation.decode(b)),
    }
}

fn read_chunks(r: &mut Reader<'_>) -> std::result::Result<Option<Vec<u8>>, Short> {
    if r.u64()? == u64::MAX {
        return Ok(None);
    }
    let mut out = Vec::new();
    loop {
        let n = r.u32()? as usize;
        if n == 0 {
            return Ok(Some(out));
        }
        out.extend(r.take(n)?);
    }
}

/// The inverse of [`plain`], for parameters.
fn fixed(b: &[u8], ty: SqlType) -> Value {
    let le = |b: &[u8]| b.iter().rev().fold(0u64, |v, x| v << 8 | u64::from(*x));
    let i32_at = |at: usize| b.get(at..at + 4).map_or(0, |b| le(b) as u32 as i32);
    let unit = 10i64.pow(7 - u32::from(ty.scale.min(7)));
    match ty.kind {
        Kind::Bit => Value::Integer(i64::from(b[0] != 0)),
        Kind::TinyInt => Value::Integer(i64::from(b[0])),
        Kind::SmallInt => Value::Integer(i64::from(le(b) as u16 as i16)),
        Kind::Int | Kind::SmallMoney => Value::Integer(i64::from(le(b) as u32 as i32)),
        Kind::BigInt => Value::Integer(le(b) as i64),
        Kind::Real => Value::Real(f64::from(f32::from_bits(le(b) as u32))),
        Kind::Float => Value::Real(f64::from_bits(le(b))),
        Kind::Money => Value::Integer(i64::from(i32_at(0)) << 32 | i64::from(i32_at(4) as u32)),
        Kind::Date => Value::Integer(le(b) as i64 * DAY),
        Kind::Time => Value::Integer(le(b) as i64 * unit),
        Kind::DateTime2 => {
            let (time, date) = b.split_at(b.len().saturating_sub(3));
            Value::Integer(le(date) as i64 * DAY + le(time) as i64 * unit)
        }
        Kind::DateTimeOffset => {
            let (rest, offset) = b.split_at(b.len().saturating_sub(2));
            let (time, date) = rest.split_at(rest.len().saturating_sub(3));
            zoned(le(date) as i64 * DAY + le(time) as i64 * unit, i64::from(le(offset) as u16 as i16))
        }
        Kind::DateTime => Value::Integer(Y1900 + i64::from(i32_at(0)) * DAY + (i64::from(i32_at(4)) * 100_000 + 1) / 3),
        Kind::SmallDateTime => Value::Integer(Y1900 + (le(&b[..2]) as i64) * DAY + le(&b[2..]) as i64 * 600_000_000),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::convert::convert;

    /// What is written as a column is read back as a parameter.
    #[test]
    fn every_type_turns_both_ways() {
        for (text, name, args) in [
            ("200", "tinyint", &[][..]),
            ("-3", "smallint", &[]),
            ("-2147483648", "int", &[]),
            ("-9223372036854775808", "bigint", &[]),
            ("1", "bit", &[]),
            ("1.5", "real", &[]),
            ("-2.25", "float", &[]),
            ("-922337203685477.5808", "money", &[]),
            ("214748.3647", "smallmoney", &[]),
            ("-12345678901234567890.123456789012345678", "decimal", &["38", "18"]),
            ("9999-12-31", "date", &[]),
            ("23:59:59.999", "time", &["3"]),
            ("0001-01-01 00:00:00.0000001", "datetime2", &[]),
            ("2024-02-29T23:59:59.1234567+05:30", "datetimeoffset", &[]),
            ("2024-02-29 23:59:59.997", "datetime", &[]),
            ("2024-02-29 23:59:00", "smalldatetime", &[]),
            ("6F9619FF-8B86-D011-B42D-00C04FC964FF", "uniqueidentifier", &[]),
            ("h\u{e9}llo", "varchar", &["20"]),
            ("\u{1F600}", "nvarchar", &["max"]),
            ("abc", "nchar", &["5"]),
        ] {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            let ty = SqlType::declared(name, &args, false).unwrap();
            let stored = convert(&Value::Text(text.into()), SqlType::max(Kind::NVarChar), ty, 0).unwrap();
            for v in [stored, Value::Null] {
                let mut bytes = Vec::new();
                type_info(ty, true, "db", &mut bytes);
                value(&v, ty, true, &mut bytes);
                let mut r = Reader::new(&bytes);
                let (back, got) = parameter(&mut r).unwrap();
                assert_eq!((back, got), (ty, v), "{name}");
                assert!(r.done(), "{name}");
            }
        }
    }

    #[test]
    fn short_messages_are_errors() {
        let mut bytes = Vec::new();
        let ty = SqlType::max(Kind::NVarChar);
        type_info(ty, true, "", &mut bytes);
        value(&Value::Text("hello".into()), ty, true, &mut bytes);
        for n in 0..bytes.len() {
            assert!(parameter(&mut Reader::new(&bytes[..n])).is_err(), "{n}");
        }
    }
}
