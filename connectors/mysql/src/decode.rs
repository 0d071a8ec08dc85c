//! Values of the log's row images → [`Value`]s. Pure; the hot path of the tail.

use crate::charset::Charset;
use crate::cursor::Cursor;
use crate::decimal;
use crate::error::undecodable;
use crate::event::{LogColumn, code};
use crate::geometry;
use crate::gtid::show_uuid;
use crate::json;
use crate::temporal::{Civil, Stamp};
use crate::types::{Kind, Scratch, ZeroPolicy, push_bits, push_json_text, push_labels, push_vector};
use std::io::Read as _;
use tidemark_contract::{Result, RowBuilder, SourceError, Value};

/// A type in the log that does not fit what the column is known to be.
fn mismatch(column: &LogColumn, kind: &Kind) -> SourceError {
    undecodable(format!("a column of log type {} cannot be read as {}", column.code, kind.logical()))
}

/// Whether values of a column's log type can be read as `kind`: what the catalogue says about a column is believed only
/// if the log does not say otherwise.
pub(crate) fn fits(column: &LogColumn, kind: &Kind) -> bool {
    let is_string = matches!(column.code, code::VARCHAR | code::VAR_STRING | code::STRING | code::VARCHAR_COMPRESSED);
    let is_blob = matches!(
        column.code,
        code::BLOB | code::TINY_BLOB | code::MEDIUM_BLOB | code::LONG_BLOB | code::BLOB_COMPRESSED
    );
    match kind {
        Kind::Int { unsigned } => {
            matches!(column.code, code::TINY | code::SHORT | code::INT24 | code::LONG | code::LONGLONG)
                && column.unsigned.is_none_or(|u| u == *unsigned)
        }
        Kind::Float => column.code == code::FLOAT,
        Kind::Double => column.code == code::DOUBLE,
        Kind::Decimal => column.code == code::NEWDECIMAL,
        Kind::Year => column.code == code::YEAR,
        Kind::Bit(bits) => column.code == code::BIT && bit_count(column) == *bits,
        Kind::Date(_) => matches!(column.code, code::DATE | code::NEWDATE),
        Kind::Time => matches!(column.code, code::TIME | code::TIME2),
        Kind::DateTime(_) => matches!(column.code, code::DATETIME | code::DATETIME2),
        Kind::Timestamp(_) => matches!(column.code, code::TIMESTAMP | code::TIMESTAMP2),
        Kind::Text(..) | Kind::JsonText(_) => is_string || is_blob,
        Kind::Enum(..) => column.code == code::ENUM,
        Kind::Set(..) => column.code == code::SET,
        Kind::Json => column.code == code::JSON,
        Kind::Geometry => column.code == code::GEOMETRY,
        // A CHAR of that name is what the column may have been before.
        Kind::Uuid | Kind::Inet6 => is_fixed(column, 16),
        Kind::Inet4 => is_fixed(column, 4),
        Kind::Vector => column.code == code::VECTOR || is_blob || is_string,
    }
}

/// Whether it is one of MariaDB's types of so many bytes.
fn is_fixed(column: &LogColumn, width: u16) -> bool {
    column.code == code::STRING && column.meta == width && column.collation.is_none_or(|collation| collation == 63)
}

/// How many bits a BIT column of the log has: the odd bits in the low byte, whole bytes in the high one.
pub(crate) fn bit_count(column: &LogColumn) -> u32 {
    u32::from(column.meta & 0xff) + u32::from(column.meta >> 8) * 8
}

/// The bytes of one value, read from the front of `cursor`.
fn raw<'a>(column: &LogColumn, cursor: &mut Cursor<'a>) -> Result<&'a [u8]> {
    use code::{
        BIT, BLOB, BLOB_COMPRESSED, DATE, DATETIME, DATETIME2, DOUBLE, ENUM, FLOAT, GEOMETRY, INT24, JSON, LONG,
        LONG_BLOB, LONGLONG, MEDIUM_BLOB, NEWDATE, NEWDECIMAL, SET, SHORT, STRING, TIME, TIME2, TIMESTAMP, TIMESTAMP2,
        TINY, TINY_BLOB, VAR_STRING, VARCHAR, VARCHAR_COMPRESSED, VECTOR, YEAR,
    };
    let meta = usize::from(column.meta);
    let fraction = || meta.min(6).div_ceil(2);
    let size = match column.code {
        TINY | YEAR => 1,
        SHORT => 2,
        INT24 | DATE | NEWDATE | TIME => 3,
        LONG | FLOAT | TIMESTAMP => 4,
        LONGLONG | DOUBLE | DATETIME => 8,
        TIMESTAMP2 => 4 + fraction(),
        DATETIME2 => 5 + fraction(),
        TIME2 => 3 + fraction(),
        NEWDECIMAL => {
            let [precision, scale] = column.meta.to_be_bytes();
            decimal::size(precision, scale).ok_or_else(|| undecodable("a decimal column has impossible digits"))?
        }
        VARCHAR | VAR_STRING | STRING | VARCHAR_COMPRESSED => {
            if meta > 255 {
                usize::from(cursor.u16()?)
            } else {
                usize::from(cursor.u8()?)
            }
        }
        BLOB | TINY_BLOB | MEDIUM_BLOB | LONG_BLOB | JSON | GEOMETRY | VECTOR | BLOB_COMPRESSED => {
            usize::try_from(cursor.uint(meta.min(4))?).unwrap_or(usize::MAX)
        }
        ENUM | SET => meta.min(8),
        BIT => usize::from(column.meta >> 8) + usize::from(column.meta & 0xff > 0),
        other => return Err(undecodable(format!("the log has a column of the unknown type {other}"))),
    };
    cursor.take(size)
}

/// Passes over one value.
pub(crate) fn skip<'a>(column: &LogColumn, cursor: &mut Cursor<'a>) -> Result<&'a [u8]> {
    raw(column, cursor)
}

/// Reads one value and appends it.
pub(crate) fn push(
    kind: &Kind,
    column: &LogColumn,
    cursor: &mut Cursor<'_>,
    row: &mut RowBuilder,
    scratch: &mut Scratch,
) -> Result<()> {
    let bytes = raw(column, cursor)?;
    let mut value = Cursor(bytes);
    match (kind, column.code) {
        (Kind::Int { unsigned }, _) => row.push(integer(bytes, column.unsigned.unwrap_or(*unsigned))),
        // Minus zero becomes zero: the text of a page does not always tell the two apart.
        (Kind::Float, code::FLOAT) => row.push(Value::Real(f32::from_le_bytes(value.array()?) + 0.0)),
        (Kind::Double, code::DOUBLE) => row.push(Value::Float(f64::from_le_bytes(value.array()?) + 0.0)),
        (Kind::Decimal, code::NEWDECIMAL) => {
            let [precision, scale] = column.meta.to_be_bytes();
            scratch.text.clear();
            decimal::write(&mut value, precision, scale, &mut scratch.text)?;
            row.push(Value::Decimal(&scratch.text));
        }
        (Kind::Year, code::YEAR) => {
            let year = i64::from(value.u8()?);
            row.push(Value::Int(if year == 0 { 0 } else { 1900 + year }));
        }
        (Kind::Bit(bits), code::BIT) => push_bits(*bits, bytes, row)?,
        (Kind::Date(zero), code::DATE | code::NEWDATE) => {
            let packed = value.uint(3)?;
            let civil = Civil { year: packed >> 9, month: packed >> 5 & 15, day: packed & 31, ..Civil::default() };
            let mut stamp = Stamp::default();
            stamp.date(civil.year, civil.month, civil.day);
            if civil.is_zero() {
                zero.push(stamp.as_str(), None, row);
            } else {
                row.push(Value::Date(stamp.as_str()));
            }
        }
        (Kind::Time, code::TIME2) => push_time(value, column.meta, row)?,
        (Kind::Time, code::TIME) => {
            let stored = i64::try_from(value.uint(3)?).unwrap_or(0);
            // 24 bits with a sign: HHMMSS in decimal.
            let signed = if stored >= 1 << 23 { stored - (1 << 24) } else { stored };
            let digits = signed.unsigned_abs();
            write_time(signed < 0, digits / 10_000, digits / 100 % 100, digits % 100, 0, row);
        }
        (Kind::DateTime(zero), code::DATETIME2) => {
            let whole = value.uint_be(5)?.wrapping_sub(0x80_0000_0000) & 0xff_ffff_ffff;
            let (date, time) = (whole >> 17, whole & 0x1_ffff);
            let civil = Civil {
                year: (date >> 5) / 13,
                month: (date >> 5) % 13,
                day: date & 31,
                hour: time >> 12,
                minute: time >> 6 & 63,
                second: time & 63,
                micros: fraction(&mut value, column.meta)?,
            };
            push_civil(civil, zero, false, row);
        }
        (Kind::DateTime(zero), code::DATETIME) => {
            let digits = value.u64()?;
            let (date, time) = (digits / 1_000_000, digits % 1_000_000);
            let civil = Civil {
                year: date / 10_000,
                month: date / 100 % 100,
                day: date % 100,
                hour: time / 10_000,
                minute: time / 100 % 100,
                second: time % 100,
                micros: 0,
            };
            push_civil(civil, zero, false, row);
        }
        (Kind::Timestamp(zero), code::TIMESTAMP2 | code::TIMESTAMP) => {
            let seconds = if column.code == code::TIMESTAMP { value.uint(4)? } else { value.uint_be(4)? };
            let micros = if column.code == code::TIMESTAMP { 0 } else { fraction(&mut value, column.meta)? };
            // No point in time, but the sign for "none".
            let civil = if seconds == 0 && micros == 0 { Civil::default() } else { Civil::at(seconds, micros) };
            push_civil(civil, zero, true, row);
        }
        (Kind::Text(charset, pad), _) => {
            let unpacked;
            let bytes = if matches!(column.code, code::VARCHAR_COMPRESSED | code::BLOB_COMPRESSED) {
                unpacked = unpack_column(bytes)?;
                &unpacked[..]
            } else {
                bytes
            };
            match pad {
                // The log leaves out the zeros at a BINARY's end.
                Some(width) if bytes.len() < *width as usize && *charset == Charset::Binary => {
                    let mut whole = bytes.to_vec();
                    whole.resize(*width as usize, 0);
                    row.push(Value::Bytes(&whole));
                }
                _ => charset.push(bytes, row, &mut scratch.text),
            }
        }
        (Kind::JsonText(charset), _) => {
            if matches!(column.code, code::VARCHAR_COMPRESSED | code::BLOB_COMPRESSED) {
                push_json_text(*charset, &unpack_column(bytes)?, row, scratch);
            } else {
                push_json_text(*charset, bytes, row, scratch);
            }
        }
        (Kind::Enum(labels, _), code::ENUM) => {
            let number = usize::try_from(value.uint(bytes.len())?).unwrap_or(usize::MAX);
            match number.checked_sub(1) {
                // The sign for a value that was none of the labels.
                None => row.push(Value::Text("")),
                Some(at) => {
                    let label = labels
                        .get(at)
                        .ok_or_else(|| undecodable("an ENUM in the log has a number beyond its labels"))?;
                    row.push(Value::Text(label));
                }
            }
        }
        (Kind::Set(labels, _), code::SET) => {
            let bits = value.uint(bytes.len())?;
            if labels.len() < 64 && bits >> labels.len() != 0 {
                return Err(undecodable("a SET in the log has a member beyond its labels"));
            }
            let chosen = labels.iter().enumerate().filter(|(at, _)| *at < 64 && bits >> at & 1 == 1);
            push_labels(chosen.map(|(_, label)| &**label), row, scratch);
        }
        (Kind::Json, code::JSON) => {
            scratch.text.clear();
            json::write(bytes, &mut scratch.text)?;
            row.push(Value::Json(&scratch.text));
        }
        (Kind::Geometry, code::GEOMETRY) => geometry::push(bytes, row, scratch)?,
        (Kind::Uuid, code::STRING) => row.push(Value::Uuid(&show_uuid(&mariadb_uuid(padded(bytes))))),
        (Kind::Inet6, code::STRING) => row.push(Value::Text(&inet6(padded(bytes)))),
        (Kind::Inet4, code::STRING) => {
            let address: [u8; 4] = padded(bytes);
            row.push(Value::Text(&std::net::Ipv4Addr::from(address).to_string()));
        }
        (Kind::Vector, _) => push_vector(bytes, row, scratch)?,
        _ => return Err(mismatch(column, kind)),
    }
    Ok(())
}

/// An integer of one to eight bytes.
#[inline]
fn integer(bytes: &[u8], unsigned: bool) -> Value<'static> {
    let value = bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    if unsigned {
        return Value::UInt(value);
    }
    let unused = 64 - 8 * bytes.len().min(8);
    Value::Int(if unused == 64 { 0 } else { (value << unused).cast_signed() >> unused })
}

/// Microseconds of a fraction stored in as many bytes as its digits need.
fn fraction(value: &mut Cursor<'_>, digits: u16) -> Result<u64> {
    Ok(match digits {
        0 => 0,
        1 | 2 => value.uint_be(1)? * 10_000,
        3 | 4 => value.uint_be(2)? * 100,
        _ => value.uint_be(3)?,
    })
}

/// A time with a sign: the whole and its fraction are one number, which negative times have negated.
fn push_time(mut value: Cursor<'_>, digits: u16, row: &mut RowBuilder) -> Result<()> {
    let bytes = digits.min(6).div_ceil(2);
    let all = i64::try_from(value.uint_be(3 + usize::from(bytes))?).unwrap_or(0);
    let signed = all - (1_i64 << (23 + 8 * bytes));
    let magnitude = signed.unsigned_abs();
    let (time, rest) = (magnitude >> (8 * bytes), magnitude & ((1 << (8 * bytes)) - 1));
    let micros = rest * [1, 10_000, 100, 1][usize::from(bytes)];
    write_time(signed < 0, time >> 12 & 0x3ff, time >> 6 & 63, time & 63, micros, row);
    Ok(())
}

fn write_time(negative: bool, hour: u64, minute: u64, second: u64, micros: u64, row: &mut RowBuilder) {
    let mut stamp = Stamp::default();
    if negative {
        stamp.mark(b'-');
    }
    stamp.time(hour, minute, second, micros);
    row.push(Value::Time(stamp.as_str()));
}

fn push_civil(civil: Civil, zero: &ZeroPolicy, zoned: bool, row: &mut RowBuilder) {
    if civil.is_zero() {
        let suffix = if zoned { "Z" } else { "" };
        return zero.push(civil.stamp(b' ').as_str(), Some(suffix), row);
    }
    let mut stamp = civil.stamp(b'T');
    if zoned {
        stamp.mark(b'Z');
        row.push(Value::TimestampTz(stamp.as_str()));
    } else {
        row.push(Value::Timestamp(stamp.as_str()));
    }
}

fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    out
}

/// MariaDB stores UUIDs of versions 1 to 5 with their parts in reverse order, so that those made one after the other lie
/// side by side; later versions are in order already. Which way it is shows in the bits of variant and version.
fn mariadb_uuid(stored: [u8; 16]) -> [u8; 16] {
    let s = stored;
    let swapped = s[6] & 0x80 != 0 && s[8] > 0 && s[8] < 0x60;
    if !swapped {
        return s;
    }
    [s[12], s[13], s[14], s[15], s[10], s[11], s[8], s[9], s[6], s[7], s[0], s[1], s[2], s[3], s[4], s[5]]
}

fn inet6(address: [u8; 16]) -> String {
    let (head, tail) = (&address[..12], [address[12], address[13], address[14], address[15]]);
    // An IPv4 address in disguise is shown as one.
    if head == [0; 12] && tail[..2] != [0, 0] {
        return format!("::{}", std::net::Ipv4Addr::from(tail));
    }
    std::net::Ipv6Addr::from(address).to_string()
}

/// A column that MariaDB keeps compressed: a byte with the method, a flag and the length's width, the length, the data.
fn unpack_column(bytes: &[u8]) -> Result<Vec<u8>> {
    let damaged = || undecodable("a compressed column in the log cannot be unpacked");
    let Some((&head, rest)) = bytes.split_first() else { return Ok(Vec::new()) };
    match head >> 4 {
        0 => Ok(rest.to_vec()),
        8 => {
            let mut rest = Cursor(rest);
            let length = rest.uint_be(usize::from(head & 7))?;
            let mut out = Vec::new();
            let limit = length.saturating_add(1);
            let read = if head & 8 == 0 {
                flate2::read::ZlibDecoder::new(rest.0).take(limit).read_to_end(&mut out)
            } else {
                flate2::read::DeflateDecoder::new(rest.0).take(limit).read_to_end(&mut out)
            };
            read.map_err(|_| damaged())?;
            if out.len() as u64 == length { Ok(out) } else { Err(damaged()) }
        }
        _ => Err(damaged()),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
