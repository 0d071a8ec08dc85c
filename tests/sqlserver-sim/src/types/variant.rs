//! `sql_variant`: a value that carries its own type ("sql_variant (Transact-SQL)").
//!
//! Stored as eight bytes of type code, a tag for the SQLite class and the value; the tag keeps integers, reals, text and
//! bytes apart.

use super::SqlType;
use rusqlite::types::Value;

/// Packs a value of a base type.
pub fn pack(value: &Value, ty: SqlType) -> Value {
    let mut out = ty.code().to_be_bytes().to_vec();
    match value {
        Value::Null => return Value::Null,
        Value::Integer(i) => {
            out.push(b'i');
            out.extend(i.to_be_bytes());
        }
        Value::Real(r) => {
            out.push(b'r');
            out.extend(r.to_be_bytes());
        }
        Value::Text(t) => {
            out.push(b't');
            out.extend(t.as_bytes());
        }
        Value::Blob(b) => {
            out.push(b'b');
            out.extend(b);
        }
    }
    Value::Blob(out)
}

/// The base type and the value inside.
pub fn unpack(bytes: &[u8]) -> Option<(SqlType, Value)> {
    let code = i64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    let body = bytes.get(9..)?;
    let value = match bytes.get(8)? {
        b'i' => Value::Integer(i64::from_be_bytes(body.try_into().ok()?)),
        b'r' => Value::Real(f64::from_be_bytes(body.try_into().ok()?)),
        b't' => Value::Text(String::from_utf8(body.to_vec()).ok()?),
        b'b' => Value::Blob(body.to_vec()),
        _ => return None,
    };
    Some((SqlType::from_code(code), value))
}
