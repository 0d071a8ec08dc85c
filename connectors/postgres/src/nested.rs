//! Values that hold values: arrays, composite types and hstore, from PostgreSQL's text to JSON text. Pure.
//!
//! Elements follow the product's table of JSON values: integers beyond ±2^53 and exact decimals are strings, bytes are
//! base64, NaN and infinities are strings, json is put in as it is.

use crate::decode::{CompositeKind, Kind, boolean, canonical_time, numeric, unhex, uuid};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Why a nested value cannot be decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NestedError {
    /// The text is not what the type prints.
    Malformed(&'static str),
    /// The composite type of this name has another number of attributes by now.
    CompositeChanged(Box<str>),
}

use NestedError::Malformed;

/// PostgreSQL allows 6 dimensions; composite types may hold each other, but not without end.
const MAX_DEPTH: u32 = 64;

/// Appends `text`, a value of `kind`, to `out` as JSON. `text` must be UTF-8.
pub(crate) fn write_json(kind: &Kind, text: &[u8], out: &mut Vec<u8>, depth: u32) -> Result<(), NestedError> {
    if depth > MAX_DEPTH {
        return Err(Malformed("value nested too deep"));
    }
    match kind {
        Kind::Bool => {
            let value = boolean(text).ok_or(Malformed("boolean"))?;
            out.extend_from_slice(if value { b"true" } else { b"false" });
        }
        Kind::Int => {
            let number: i128 = str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(Malformed("integer"))?;
            if number.unsigned_abs() <= 1 << 53 {
                out.extend_from_slice(number.to_string().as_bytes());
            } else {
                write_string(text, out);
            }
        }
        // PostgreSQL prints the shortest digits that round-trip, in a form JSON knows too.
        Kind::Float4 | Kind::Float8 => {
            let number: f64 =
                str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(Malformed("floating-point number"))?;
            if number.is_finite() && text.first().is_some_and(|b| *b == b'-' || b.is_ascii_digit()) {
                out.extend_from_slice(text);
            } else {
                write_string(text, out);
            }
        }
        Kind::Numeric => write_string(numeric(text).ok_or(Malformed("numeric"))?.as_bytes(), out),
        Kind::Uuid => write_string(uuid(text).ok_or(Malformed("uuid"))?.as_bytes(), out),
        Kind::Text => write_string(text, out),
        Kind::Bytea => {
            let mut bytes = Vec::new();
            unhex(text, &mut bytes).ok_or(Malformed("bytea"))?;
            write_string(STANDARD.encode(bytes).as_bytes(), out);
        }
        Kind::Date | Kind::Time | Kind::TimeTz | Kind::Timestamp | Kind::TimestampTz => {
            out.push(b'"');
            canonical_time(kind, text, out).ok_or(Malformed("date or time"))?;
            out.push(b'"');
        }
        Kind::Json => out.extend_from_slice(text),
        Kind::Hstore => hstore(text, out)?,
        Kind::Array(array) => {
            let mut input = Input { rest: array_body(text)? };
            input.array(&array.element, array.delimiter, out, depth)?;
            if !input.rest.is_empty() {
                return Err(Malformed("array"));
            }
        }
        Kind::Composite(composite) => record(composite, text, out, depth)?,
    }
    Ok(())
}

/// Appends `text` as a JSON string.
fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut done = 0;
    for (i, byte) in text.iter().enumerate() {
        if !matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            continue;
        }
        out.extend_from_slice(&text[done..i]);
        done = i + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&text[done..]);
    out.push(b'"');
}

/// What follows the lower bounds (`[0:2][-1:0]=`), which appear only if one of them is not 1.
fn array_body(text: &[u8]) -> Result<&[u8], NestedError> {
    if text.first() == Some(&b'[') {
        let equals = memchr::memchr(b'=', text).ok_or(Malformed("array"))?;
        return Ok(&text[equals + 1..]);
    }
    Ok(text)
}

/// A cursor over the text of an array.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte);
        if hit {
            self.rest = &self.rest[1..];
        }
        hit
    }

    /// One `{…}`, with the arrays inside it.
    fn array(&mut self, element: &Kind, delimiter: u8, out: &mut Vec<u8>, depth: u32) -> Result<(), NestedError> {
        if depth > MAX_DEPTH {
            return Err(Malformed("array nested too deep"));
        }
        if !self.eat(b'{') {
            return Err(Malformed("array"));
        }
        out.push(b'[');
        if self.eat(b'}') {
            out.push(b']');
            return Ok(());
        }
        loop {
            match self.peek() {
                Some(b'{') => self.array(element, delimiter, out, depth + 1)?,
                Some(b'"') => {
                    self.rest = &self.rest[1..];
                    let text = self.quoted()?;
                    write_json(element, &text, out, depth + 1)?;
                }
                _ => {
                    let end = self.rest.iter().position(|b| *b == delimiter || *b == b'}').ok_or(Malformed("array"))?;
                    let text = &self.rest[..end];
                    self.rest = &self.rest[end..];
                    match text {
                        b"" => return Err(Malformed("array")),
                        b"NULL" => out.extend_from_slice(b"null"),
                        text => write_json(element, text, out, depth + 1)?,
                    }
                }
            }
            if self.eat(b'}') {
                out.push(b']');
                return Ok(());
            }
            if !self.eat(delimiter) {
                return Err(Malformed("array"));
            }
            out.push(b',');
        }
    }

    /// The rest of a quoted text, its closing quote included: a backslash takes the next character as it is.
    fn quoted(&mut self) -> Result<Vec<u8>, NestedError> {
        let mut text = Vec::new();
        loop {
            let stop = memchr::memchr2(b'"', b'\\', self.rest).ok_or(Malformed("quoted text"))?;
            text.extend_from_slice(&self.rest[..stop]);
            if self.rest[stop] == b'"' {
                self.rest = &self.rest[stop + 1..];
                return Ok(text);
            }
            text.push(*self.rest.get(stop + 1).ok_or(Malformed("quoted text"))?);
            self.rest = &self.rest[stop + 2..];
        }
    }
}

/// `(1,"a ""b""",)`: fields between commas, quoted where needed, nothing at all for null.
fn record(composite: &CompositeKind, text: &[u8], out: &mut Vec<u8>, depth: u32) -> Result<(), NestedError> {
    let body = text.strip_prefix(b"(").and_then(|t| t.strip_suffix(b")")).ok_or(Malformed("composite value"))?;
    let mut rest = body;
    out.push(b'{');
    let mut attributes = composite.attributes.iter();
    let mut field = Vec::new();
    if !(body.is_empty() && composite.attributes.is_empty()) {
        let mut first = true;
        loop {
            field.clear();
            let (present, after) = record_field(rest, &mut field)?;
            let Some((name, kind)) = attributes.next() else {
                return Err(NestedError::CompositeChanged(composite.name.clone()));
            };
            if !first {
                out.push(b',');
            }
            first = false;
            write_string(name.as_bytes(), out);
            out.push(b':');
            if present {
                write_json(kind, &field, out, depth + 1)?;
            } else {
                out.extend_from_slice(b"null");
            }
            match after.split_first() {
                None => break,
                Some((b',', tail)) => rest = tail,
                Some(_) => return Err(Malformed("composite value")),
            }
        }
    }
    if attributes.next().is_some() {
        return Err(NestedError::CompositeChanged(composite.name.clone()));
    }
    out.push(b'}');
    Ok(())
}

/// One field of a record: whether it is there at all (not null), and what follows it.
fn record_field<'a>(text: &'a [u8], field: &mut Vec<u8>) -> Result<(bool, &'a [u8]), NestedError> {
    let mut present = false;
    let mut in_quotes = false;
    let mut i = 0;
    while let Some(&byte) = text.get(i) {
        match byte {
            b',' if !in_quotes => break,
            b'"' if in_quotes && text.get(i + 1) == Some(&b'"') => {
                field.push(b'"');
                i += 1;
            }
            b'"' => {
                in_quotes = !in_quotes;
                present = true;
            }
            b'\\' => {
                field.push(*text.get(i + 1).ok_or(Malformed("composite value"))?);
                present = true;
                i += 1;
            }
            _ => {
                field.push(byte);
                present = true;
            }
        }
        i += 1;
    }
    if in_quotes {
        return Err(Malformed("composite value"));
    }
    Ok((present, &text[i..]))
}

/// `"a"=>"1", "b"=>NULL`: keys and values always quoted.
fn hstore(text: &[u8], out: &mut Vec<u8>) -> Result<(), NestedError> {
    let mut input = Input { rest: text };
    out.push(b'{');
    while !input.rest.is_empty() {
        if !input.eat(b'"') {
            return Err(Malformed("hstore"));
        }
        write_string(&input.quoted()?, out);
        out.push(b':');
        input.rest = input.rest.strip_prefix(b"=>").ok_or(Malformed("hstore"))?;
        if input.eat(b'"') {
            write_string(&input.quoted()?, out);
        } else {
            input.rest = input.rest.strip_prefix(b"NULL").ok_or(Malformed("hstore"))?;
            out.extend_from_slice(b"null");
        }
        if input.rest.is_empty() {
            break;
        }
        input.rest = input.rest.strip_prefix(b", ").ok_or(Malformed("hstore"))?;
        out.push(b',');
    }
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::decode::ArrayKind;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn array_of(element: Kind) -> Kind {
        Kind::Array(Arc::new(ArrayKind { element, delimiter: b',' }))
    }

    fn pair() -> Kind {
        let attributes = vec![("n".into(), Kind::Int), ("t".into(), Kind::Text)];
        Kind::Composite(Arc::new(CompositeKind { name: "public.pair".into(), attributes }))
    }

    pub(crate) fn all_kinds() -> Vec<Kind> {
        let mut kinds = vec![
            Kind::Bool,
            Kind::Int,
            Kind::Float4,
            Kind::Float8,
            Kind::Numeric,
            Kind::Text,
            Kind::Bytea,
            Kind::Date,
            Kind::Time,
            Kind::TimeTz,
            Kind::Timestamp,
            Kind::TimestampTz,
            Kind::Uuid,
            Kind::Json,
            Kind::Hstore,
            pair(),
        ];
        let arrays: Vec<Kind> = kinds.iter().cloned().map(array_of).collect();
        kinds.extend(arrays);
        kinds
    }

    fn json(kind: &Kind, text: &str) -> String {
        let mut out = Vec::new();
        match write_json(kind, text.as_bytes(), &mut out, 0) {
            Ok(()) => String::from_utf8(out).unwrap(),
            Err(e) => format!("{e:?}"),
        }
    }

    #[test]
    fn arrays() {
        for (kind, text, wanted) in [
            (Kind::Int, "{}", "[]"),
            (Kind::Int, "{1,NULL,-3}", "[1,null,-3]"),
            (Kind::Int, "[0:1]={7,8}", "[7,8]"),
            (Kind::Int, "[0:0][2:3]={{7,8}}", "[[7,8]]"),
            (Kind::Int, "{9007199254740992,9007199254740993}", r#"[9007199254740992,"9007199254740993"]"#),
            (Kind::Int, "{{1,2},{3,4}}", "[[1,2],[3,4]]"),
            (Kind::Text, r#"{a,"NULL","b,c","d\"e\\f","{}",""}"#, r#"["a","NULL","b,c","d\"e\\f","{}",""]"#),
            (Kind::Text, "{\"a\nb\"}", r#"["a\nb"]"#),
            (Kind::Numeric, "{1.50,NaN}", r#"["1.50","NaN"]"#),
            (Kind::Float8, "{1e+20,NaN,-Infinity}", r#"[1e+20,"NaN","-Infinity"]"#),
            (Kind::Bool, "{t,f,NULL}", "[true,false,null]"),
            (Kind::Bytea, r#"{"\\x00ff"}"#, r#"["AP8="]"#),
            (Kind::TimestampTz, r#"{"2024-01-02 03:04:05+00",infinity}"#, r#"["2024-01-02T03:04:05Z","infinity"]"#),
            (Kind::Json, r#"{"{\"a\": 1}"}"#, r#"[{"a": 1}]"#),
        ] {
            assert_eq!(json(&array_of(kind), text), wanted);
        }
    }

    #[test]
    fn boxes_are_divided_by_semicolons() {
        let kind = Kind::Array(Arc::new(ArrayKind { element: Kind::Text, delimiter: b';' }));
        assert_eq!(json(&kind, "{(1,1),(0,0);(2,2),(1,1)}"), r#"["(1,1),(0,0)","(2,2),(1,1)"]"#);
    }

    #[test]
    fn composite_values() {
        for (text, wanted) in [
            ("(1,a)", r#"{"n":1,"t":"a"}"#),
            ("(,)", r#"{"n":null,"t":null}"#),
            (r#"(2,"")"#, r#"{"n":2,"t":""}"#),
            (r#"(3,"a ""b"", (c\\d)")"#, r#"{"n":3,"t":"a \"b\", (c\\d)"}"#),
        ] {
            assert_eq!(json(&pair(), text), wanted);
        }
        for text in ["(1)", "(1,a,b)", "()"] {
            assert_eq!(json(&pair(), text), r#"CompositeChanged("public.pair")"#, "{text}");
        }
        let array = array_of(pair());
        assert_eq!(json(&array, r#"{"(1,\"x y\")",NULL}"#), r#"[{"n":1,"t":"x y"},null]"#);
    }

    #[test]
    fn hstore_values() {
        assert_eq!(json(&Kind::Hstore, ""), "{}");
        assert_eq!(
            json(&Kind::Hstore, r#""a"=>"1", "b c"=>NULL, "q\""=>"NULL""#),
            r#"{"a":"1","b c":null,"q\"":"NULL"}"#
        );
    }

    #[test]
    fn cut_and_crooked_texts_are_errors() {
        for text in ["", "{", "{1", "{1,", "{1,}", "{1}x", "[1:2", "{\"", "{\"a\\", "1,2"] {
            assert!(json(&array_of(Kind::Text), text).starts_with("Malformed"), "{text}");
        }
        for text in ["\"a\"", "\"a\"=>", "a=>b", "\"a\"=>\"b\",\"c\"=>\"d\""] {
            assert!(json(&Kind::Hstore, text).starts_with("Malformed"), "{text}");
        }
        for text in ["", "(", "1,2", "(1,\"a)"] {
            assert!(json(&pair(), text).starts_with("Malformed"), "{text}");
        }
        let deep = "{".repeat(10_000);
        assert!(json(&array_of(Kind::Int), &deep).starts_with("Malformed"));
    }

    /// PostgreSQL's own quoting of an array element.
    fn quote(text: &str) -> String {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }

    proptest! {
        #[test]
        fn any_text_survives_an_array(texts in proptest::collection::vec(any::<String>(), 1..5)) {
            let list = format!("{{{}}}", texts.iter().map(|t| quote(t)).collect::<Vec<_>>().join(","));
            let back: Vec<String> = serde_json::from_str(&json(&array_of(Kind::Text), &list)).unwrap();
            prop_assert_eq!(back, texts);
        }

        #[test]
        fn mutated_texts_do_not_panic(text in r#"[(){}",\\=>NUL0-9:\[\];. -]{0,40}"#) {
            for kind in all_kinds() {
                let mut out = Vec::new();
                let _ = write_json(&kind, text.as_bytes(), &mut out, 0);
            }
        }
    }
}
