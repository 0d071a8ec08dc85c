//! MySQL's binary JSON → the text that the server itself shows.
//!
//! Numbers stay exact: integers of 64 bits, decimals with their scale, doubles in the server's own shortest form (the
//! text of a double must be the same from the log as from a query).

use crate::cursor::Cursor;
use crate::decimal;
use crate::error::undecodable;
use base64::Engine as _;
use std::fmt::Write as _;
use tidemark_contract::{Result, SourceError};

/// Documents are at most 100 levels deep in MySQL.
const DEEPEST: u32 = 120;

pub(crate) fn malformed() -> SourceError {
    undecodable("a JSON document in the log is malformed")
}

/// Appends the text of a document: a type byte and what follows. No bytes at all are an SQL value that was never set
/// properly, which the server shows as JSON null.
pub(crate) fn write(bytes: &[u8], out: &mut String) -> Result<()> {
    match bytes.split_first() {
        None => out.push_str("null"),
        // No document is shown in so much more than it takes: one that is points at the same bytes over and over.
        Some((kind, body)) => value(*kind, body, out, 0, out.len() + bytes.len() * 16 + 64)?,
    }
    Ok(())
}

/// Offsets are two bytes wide in small containers, four in large ones.
struct Container<'a> {
    body: &'a [u8],
    wide: bool,
    is_object: bool,
    count: usize,
}

impl<'a> Container<'a> {
    fn open(kind: u8, body: &'a [u8]) -> Result<Self> {
        let wide = kind & 1 == 1;
        let width = if wide { 4 } else { 2 };
        let mut head = Cursor(body);
        let count = usize::try_from(head.uint(width)?).map_err(|_| malformed())?;
        let size = usize::try_from(head.uint(width)?).map_err(|_| malformed())?;
        // The size counts from the container's own beginning.
        let body = body.get(..size).ok_or_else(malformed)?;
        let is_object = kind < 2;
        let entry = if is_object { 2 * width + 3 } else { width + 1 };
        if count.checked_mul(entry).is_none_or(|entries| entries > size) {
            return Err(malformed());
        }
        Ok(Self { body, wide, is_object, count })
    }

    fn width(&self) -> usize {
        if self.wide { 4 } else { 2 }
    }

    fn at(&self, offset: usize) -> Result<Cursor<'a>> {
        self.body.get(offset..).map(Cursor).ok_or_else(malformed)
    }

    fn key(&self, index: usize) -> Result<&'a str> {
        let width = self.width();
        let mut entry = self.at(2 * width + index * (width + 2))?;
        let offset = usize::try_from(entry.uint(width)?).map_err(|_| malformed())?;
        let length = usize::from(entry.u16()?);
        std::str::from_utf8(self.at(offset)?.take(length)?).map_err(|_| malformed())
    }

    /// The type and the bytes of a member; small scalars lie in the entry itself.
    fn member(&self, index: usize) -> Result<(u8, &'a [u8])> {
        let width = self.width();
        let keys = if self.is_object { self.count * (width + 2) } else { 0 };
        let mut entry = self.at(2 * width + keys + index * (width + 1))?;
        let kind = entry.u8()?;
        if matches!(kind, 4..=6) || (self.wide && matches!(kind, 7 | 8)) {
            return Ok((kind, entry.take(width)?));
        }
        let offset = usize::try_from(entry.uint(width)?).map_err(|_| malformed())?;
        if offset < 2 * width {
            return Err(malformed());
        }
        Ok((kind, self.at(offset)?.rest()))
    }
}

fn value(kind: u8, body: &[u8], out: &mut String, depth: u32, limit: usize) -> Result<()> {
    if kind > 3 {
        return scalar(kind, body, out);
    }
    if depth > DEEPEST || out.len() > limit {
        return Err(malformed());
    }
    let container = Container::open(kind, body)?;
    out.push(if container.is_object { '{' } else { '[' });
    for index in 0..container.count {
        if index > 0 {
            out.push_str(", ");
        }
        if container.is_object {
            quote(container.key(index)?, out);
            out.push_str(": ");
        }
        let (kind, body) = container.member(index)?;
        value(kind, body, out, depth + 1, limit)?;
    }
    out.push(if container.is_object { '}' } else { ']' });
    Ok(())
}

/// A length in groups of seven bits, the lowest first.
fn length(cursor: &mut Cursor<'_>) -> Result<usize> {
    let mut length = 0_usize;
    for shift in [0, 7, 14, 21, 28] {
        let byte = cursor.u8()?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(malformed())
}

fn scalar(kind: u8, body: &[u8], out: &mut String) -> Result<()> {
    let mut body = Cursor(body);
    let _ = match kind {
        4 => {
            out.push_str(match body.u8()? {
                0 => "null",
                1 => "true",
                2 => "false",
                _ => return Err(malformed()),
            });
            Ok(())
        }
        5 => write!(out, "{}", i16::from_le_bytes(body.array()?)),
        6 => write!(out, "{}", body.u16()?),
        7 => write!(out, "{}", i32::from_le_bytes(body.array()?)),
        8 => write!(out, "{}", body.u32()?),
        9 => write!(out, "{}", i64::from_le_bytes(body.array()?)),
        10 => write!(out, "{}", body.u64()?),
        11 => {
            write_double(f64::from_le_bytes(body.array()?), out);
            Ok(())
        }
        12 => {
            let length = length(&mut body)?;
            quote(std::str::from_utf8(body.take(length)?).map_err(|_| malformed())?, out);
            Ok(())
        }
        15 => {
            let field = body.u8()?;
            let length = length(&mut body)?;
            opaque(field, body.take(length)?, out)?;
            Ok(())
        }
        _ => return Err(undecodable(format!("a JSON document in the log has a value of unknown type {kind}"))),
    };
    Ok(())
}

/// A value of an SQL type inside a document.
fn opaque(field: u8, data: &[u8], out: &mut String) -> Result<()> {
    let packed = || -> Result<i64> { Ok(i64::from_le_bytes(Cursor(data).array()?)) };
    let _ = match field {
        246 => {
            let mut data = Cursor(data);
            let (precision, scale) = (data.u8()?, data.u8()?);
            decimal::write(&mut data, precision, scale, out)?;
            Ok(())
        }
        10 => {
            let (year, month, day, ..) = date_time(packed()?);
            write!(out, "\"{year:04}-{month:02}-{day:02}\"")
        }
        7 | 12 => {
            let (year, month, day, hour, minute, second, micros) = date_time(packed()?);
            write!(out, "\"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}\"")
        }
        11 => {
            let packed = packed()?;
            let sign = if packed < 0 { "-" } else { "" };
            let value = packed.unsigned_abs();
            let (time, micros) = (value >> 24, value & 0xff_ffff);
            let (hour, minute, second) = (time >> 12 & 0x3ff, time >> 6 & 63, time & 63);
            write!(out, "\"{sign}{hour:02}:{minute:02}:{second:02}.{micros:06}\"")
        }
        other => {
            let _ = write!(out, "\"base64:type{other}:");
            base64::engine::general_purpose::STANDARD.encode_string(data, out);
            out.push('"');
            Ok(())
        }
    };
    Ok(())
}

/// Year, month, day, hour, minute, second, microsecond of MySQL's packed form.
fn date_time(packed: i64) -> (u64, u64, u64, u64, u64, u64, u64) {
    let value = packed.unsigned_abs();
    let (date, time, micros) = (value >> 41, value >> 24 & 0x1_ffff, value & 0xff_ffff);
    let (months, day) = (date >> 5, date & 31);
    (months / 13, months % 13, day, time >> 12, time >> 6 & 63, time & 63, micros)
}

/// A double as the server writes it in JSON: the shortest digits that give the same number, a point where it would look
/// like an integer without, an exponent outside 10⁻¹⁵ … 10¹⁵.
pub(crate) fn write_double(number: f64, out: &mut String) {
    let text = format!("{:e}", number.abs());
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let digits: String = digits.chars().filter(|c| *c != '.').collect();
    if number.is_sign_negative() {
        out.push('-');
    }
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    if number == 0.0 {
        out.push_str("0.0");
    } else if !(-14..=15).contains(&point) {
        out.push_str(&digits[..1]);
        if count > 1 {
            out.push('.');
            out.push_str(&digits[1..]);
        }
        let _ = write!(out, "e{}", point - 1);
    } else if point <= 0 {
        out.push_str("0.");
        (point..0).for_each(|_| out.push('0'));
        out.push_str(&digits);
    } else if point < count {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
        out.push_str(whole);
        out.push('.');
        out.push_str(fraction);
    } else {
        out.push_str(&digits);
        (count..point).for_each(|_| out.push('0'));
        out.push_str(".0");
    }
}

/// A text in quotes, escaped as the server does.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\') {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            8 => out.push_str("\\b"),
            9 => out.push_str("\\t"),
            10 => out.push_str("\\n"),
            12 => out.push_str("\\f"),
            13 => out.push_str("\\r"),
            control => drop(write!(out, "\\u{control:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// A document that can be changed. Scalars are kept as the text that they are shown as.
#[derive(Clone, PartialEq, Debug)]
enum Node {
    Scalar(String),
    Array(Vec<Node>),
    /// Members by name, in the server's order: by length, then by bytes.
    Object(Vec<(String, Node)>),
}

fn tree(kind: u8, body: &[u8], depth: u32, budget: &mut usize) -> Result<Node> {
    *budget = budget.checked_sub(1).ok_or_else(malformed)?;
    if kind > 3 {
        let mut text = String::new();
        scalar(kind, body, &mut text)?;
        return Ok(Node::Scalar(text));
    }
    if depth > DEEPEST {
        return Err(malformed());
    }
    let container = Container::open(kind, body)?;
    let mut member = |index| {
        let (kind, body) = container.member(index)?;
        tree(kind, body, depth + 1, budget)
    };
    if container.is_object {
        let pairs = (0..container.count).map(|index| Ok((container.key(index)?.to_owned(), member(index)?)));
        Ok(Node::Object(pairs.collect::<Result<_>>()?))
    } else {
        Ok(Node::Array((0..container.count).map(member).collect::<Result<_>>()?))
    }
}

fn show(node: &Node, out: &mut String) {
    match node {
        Node::Scalar(text) => out.push_str(text),
        Node::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                show(item, out);
            }
            out.push(']');
        }
        Node::Object(members) => {
            out.push('{');
            for (at, (name, item)) in members.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                quote(name, out);
                out.push_str(": ");
                show(item, out);
            }
            out.push('}');
        }
    }
}

/// One step of a path.
enum Leg {
    Member(String),
    Cell(usize),
}

fn path(text: &str) -> Result<Vec<Leg>> {
    let mut rest = text.strip_prefix('$').ok_or_else(malformed)?;
    let mut legs = Vec::new();
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix('[') {
            let (number, tail) = tail.split_once(']').ok_or_else(malformed)?;
            legs.push(Leg::Cell(number.trim().parse().map_err(|_| malformed())?));
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('.') {
            if tail.starts_with('"') {
                let mut names = serde_json::Deserializer::from_str(tail).into_iter::<String>();
                let name = names.next().and_then(std::result::Result::ok).ok_or_else(malformed)?;
                rest = tail.get(names.byte_offset()..).ok_or_else(malformed)?;
                legs.push(Leg::Member(name));
            } else {
                let end = tail.find(['.', '[']).unwrap_or(tail.len());
                legs.push(Leg::Member(tail[..end].to_owned()));
                rest = &tail[end..];
            }
        } else {
            return Err(malformed());
        }
    }
    Ok(legs)
}

/// Applies the changes of a partial update to the document before it and appends the text of the result.
pub(crate) fn write_changed(before: &[u8], changes: &[u8], out: &mut String) -> Result<()> {
    let parse = |bytes: &[u8]| match bytes.split_first() {
        Some((kind, body)) => tree(*kind, body, 0, &mut (bytes.len() + 1)),
        None => Ok(Node::Scalar("null".into())),
    };
    let mut document = parse(before)?;
    let mut changes = Cursor(changes);
    while !changes.is_empty() {
        let operation = changes.u8()?;
        let text = std::str::from_utf8(changes.lenenc_bytes()?).map_err(|_| malformed())?;
        let legs = path(text)?;
        let new = match operation {
            0 | 1 => Some(parse(changes.lenenc_bytes()?)?),
            2 => None,
            _ => return Err(undecodable(format!("a partial JSON update has the unknown operation {operation}"))),
        };
        change(&mut document, &legs, operation, new)?;
    }
    show(&document, out);
    Ok(())
}

fn change(node: &mut Node, legs: &[Leg], operation: u8, new: Option<Node>) -> Result<()> {
    // The change does not fit the document: the log and the row before it are not of one piece.
    let unfit = || undecodable("a partial JSON update in the log does not fit the document it changes");
    let Some((leg, rest)) = legs.split_first() else {
        *node = new.filter(|_| operation == 0).ok_or_else(unfit)?;
        return Ok(());
    };
    match (leg, node) {
        (Leg::Member(name), Node::Object(members)) => {
            let order = |(n, _): &(String, Node)| (n.len(), n.as_bytes()).cmp(&(name.len(), name.as_bytes()));
            let found = members.binary_search_by(order);
            match (found, rest.is_empty(), operation, new) {
                (Ok(at), true, 2, _) => drop(members.remove(at)),
                (Err(at), true, 1, Some(new)) => members.insert(at, (name.clone(), new)),
                (Ok(at), _, operation, new) => change(&mut members[at].1, rest, operation, new)?,
                _ => return Err(unfit()),
            }
        }
        (Leg::Cell(index), Node::Array(items)) => match (rest.is_empty(), operation, new) {
            (true, 2, _) if *index < items.len() => drop(items.remove(*index)),
            (true, 1, Some(new)) => items.insert((*index).min(items.len()), new),
            (_, operation, new) => change(items.get_mut(*index).ok_or_else(unfit)?, rest, operation, new)?,
        },
        // A scalar is its own first cell.
        (Leg::Cell(0), node) => change(node, rest, operation, new)?,
        _ => return Err(unfit()),
    }
    Ok(())
}

/// Whether a document's bytes can be read to their end; for tests and checks of untrusted input.
#[cfg(test)]
pub(crate) fn is_readable(bytes: &[u8]) -> bool {
    write(bytes, &mut String::new()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `{"a": 1, "b": [true, "x"]}` as the server stores it.
    const DOCUMENT: &[u8] = &[
        0, 2, 0, 32, 0, 18, 0, 1, 0, 19, 0, 1, 0, 5, 1, 0, 2, 20, 0, b'a', b'b', // object
        2, 0, 12, 0, 4, 1, 0, 12, 10, 0, 1, b'x', // array: literal inline, string at 10
    ];

    fn text(bytes: &[u8]) -> String {
        let mut out = String::new();
        write(bytes, &mut out).unwrap();
        out
    }

    fn changed(changes: &[u8]) -> String {
        let mut out = String::new();
        write_changed(DOCUMENT, changes, &mut out).unwrap();
        out
    }

    #[test]
    fn documents_are_shown_as_the_server_does() {
        assert_eq!(text(DOCUMENT), r#"{"a": 1, "b": [true, "x"]}"#);
        assert_eq!(text(&[12, 3, b'"', b'\n', 1]), r#""\"\n\u0001""#);
        assert_eq!(text(&[15, 246, 4, 4, 2, 0x8c, 0x32]), "12.50");
        assert_eq!(text(&[4, 0, 0]), "null");
        assert_eq!(text(&[]), "null");
        for bytes in [&[0, 255, 255, 4, 0][..], &[2, 1, 0, 4, 0], &[99], &[12, 200], &[4, 9]] {
            assert!(!is_readable(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn doubles_are_shown_as_the_server_does() {
        for (number, wanted) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e20, "1e20"),
            (1.5e-20, "1.5e-20"),
            (123456789012345.0, "123456789012345.0"),
            (1234567890123456.0, "1.234567890123456e15"),
            (0.00001, "0.00001"),
            (1e-15, "0.000000000000001"),
            (1e-16, "1e-16"),
        ] {
            let mut out = String::new();
            write_double(number, &mut out);
            assert_eq!(out, wanted);
        }
    }

    #[test]
    fn partial_updates_change_the_document() {
        // Replace $.a by 2, insert $.c, insert $.b[1], remove $.b[0].
        assert_eq!(changed(&[0, 3, b'$', b'.', b'a', 3, 5, 2, 0]), r#"{"a": 2, "b": [true, "x"]}"#);
        assert_eq!(changed(&[1, 5, b'$', b'.', b'"', b'c', b'"', 2, 4, 0]), r#"{"a": 1, "b": [true, "x"], "c": null}"#);
        assert_eq!(changed(b"\x01\x06$.b[1]\x02\x04\x02\x02\x06$.b[0]"), r#"{"a": 1, "b": [false, "x"]}"#);
        for bad in
            [&b"\x00\x03$.z\x02\x04\x00"[..], b"\x02\x03$.z", b"\x03\x01$", b"\x02\x01$", b"\x00\x02$x\x02\x04\x00"]
        {
            assert!(write_changed(DOCUMENT, bad, &mut String::new()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_document_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = is_readable(&bytes);
            let _ = write_changed(DOCUMENT, &bytes, &mut String::new());
        }

        #[test]
        fn damaged_documents_do_no_harm(at in 0..DOCUMENT.len(), byte: u8) {
            let mut bytes = DOCUMENT.to_vec();
            bytes[at] = byte;
            let _ = is_readable(&bytes);
            let _ = write_changed(&bytes, b"\x02\x03$.a", &mut String::new());
        }
    }
}
