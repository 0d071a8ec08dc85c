//! What SQLite lacks: conversions, exact arithmetic, the string and date functions of T-SQL, as functions of the connection.
//!
//! Names begin with `t_`. They take stored values (see [`crate::types`]) and type codes, and answer NULL when one of the
//! leading value arguments is NULL, as T-SQL functions do.

mod arithmetic;
mod dates;
mod strings;

use crate::error::{Result, SqlError};
use crate::types::collation::Collation;
use crate::types::convert::convert;
use crate::types::datetime::{self as dt};
use crate::types::{Kind, SqlType, clr, variant};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Arguments of a call.
pub(crate) struct Args<'a, 'c>(&'a Context<'c>);

impl Args<'_, '_> {
    pub(crate) fn value(&self, i: usize) -> Value {
        Value::try_from(self.0.get_raw(i)).unwrap_or(Value::Null)
    }

    pub(crate) fn int(&self, i: usize) -> i64 {
        match self.0.get_raw(i) {
            ValueRef::Integer(v) => v,
            ValueRef::Real(v) => v as i64,
            _ => 0,
        }
    }

    pub(crate) fn text(&self, i: usize) -> String {
        match self.0.get_raw(i) {
            ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
            _ => String::new(),
        }
    }

    pub(crate) fn blob(&self, i: usize) -> Vec<u8> {
        match self.0.get_raw(i) {
            ValueRef::Blob(b) => b.to_vec(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn ty(&self, i: usize) -> SqlType {
        SqlType::from_code(self.int(i))
    }

    pub(crate) fn collation(&self, i: usize) -> Collation {
        self.ty(i).collation
    }
}

/// Registers a function of `n` arguments, the first `strict` of which answer NULL by being NULL.
pub(crate) fn add(
    c: &Connection,
    name: &str,
    n: i32,
    strict: usize,
    f: impl Fn(&Args<'_, '_>) -> Result<Value> + Send + 'static,
) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    add_flagged(c, name, n, strict, flags, f)
}

pub(crate) fn add_flagged(
    c: &Connection,
    name: &str,
    n: i32,
    strict: usize,
    flags: FunctionFlags,
    f: impl Fn(&Args<'_, '_>) -> Result<Value> + Send + 'static,
) -> rusqlite::Result<()> {
    c.create_scalar_function(name, n, flags, move |ctx| {
        if (0..strict).any(|i| matches!(ctx.get_raw(i), ValueRef::Null)) {
            return Ok(Value::Null);
        }
        f(&Args(ctx)).map_err(|e| rusqlite::Error::UserFunctionError(e.packed().into()))
    })
}

/// Counters that functions draw from.
#[derive(Debug, Default)]
pub struct Counters {
    /// `@@DBTS`: the last rowversion of the database.
    pub rowversion: AtomicI64,
}

/// Registers everything on a connection.
pub fn register(c: &Connection, counters: &Arc<Counters>) -> rusqlite::Result<()> {
    for collation in Collation::all() {
        c.create_collation(collation.name(), move |a: &str, b: &str| collation.compare(a, b))?;
    }
    conversions(c)?;
    arithmetic::register(c)?;
    strings::register(c)?;
    dates::register(c)?;
    misc(c, counters)
}

fn conversions(c: &Connection) -> rusqlite::Result<()> {
    add(c, "t_cv", 4, 1, |a| convert(&a.value(0), a.ty(1), a.ty(2), a.int(3)))?;
    add(c, "t_try", 4, 1, |a| Ok(convert(&a.value(0), a.ty(1), a.ty(2), a.int(3)).unwrap_or(Value::Null)))?;
    // Assignment to a column: value, from, to, nullable, table, column.
    add(c, "t_set", 6, 0, |a| {
        let value = a.value(0);
        let (from, to) = (a.ty(1), a.ty(2));
        let (table, column) = (a.text(4), a.text(5));
        if value == Value::Null {
            if a.int(3) == 0 {
                let text = format!(
                    "Cannot insert the value NULL into column '{column}', table '{table}'; column does not allow nulls. The statement fails."
                );
                return Err(SqlError::new(515, 16, 2, text));
            }
            return Ok(value);
        }
        let out = convert(&value, from, to, 0)?;
        if truncated(&value, from, &out, to) {
            let text = format!("String or binary data would be truncated in table '{table}', column '{column}'.");
            return Err(SqlError::new(2628, 16, 1, text));
        }
        Ok(out)
    })?;
    add(c, "t_fail", 4, 0, |a| Err(SqlError::new(a.int(0) as i32, a.int(1) as u8, a.int(2) as u8, a.text(3))))?;
    add(c, "t_top", 1, 0, |a| match a.value(0) {
        Value::Integer(n) if n >= 0 => Ok(Value::Integer(n)),
        Value::Null => Err(SqlError::new(
            1060,
            15,
            1,
            "The number of rows provided for a TOP or FETCH clauses row count parameter must be an integer.",
        )),
        _ => Err(SqlError::new(127, 15, 1, "A TOP N or FETCH rowcount value may not be negative.")),
    })
}

/// "SET ANSI_WARNINGS": text that loses more than trailing blanks is not assigned.
fn truncated(value: &Value, from: SqlType, out: &Value, to: SqlType) -> bool {
    match (value, out) {
        (Value::Text(before), Value::Text(after)) if to.is_char() => {
            from.has_collation()
                && before.trim_end_matches(' ').chars().count() > after.trim_end_matches(' ').chars().count()
        }
        (Value::Blob(before), Value::Blob(after)) if to.is_binary() && from.is_binary() => before.len() > after.len(),
        _ => false,
    }
}

fn misc(c: &Connection, counters: &Arc<Counters>) -> rusqlite::Result<()> {
    let volatile = FunctionFlags::SQLITE_UTF8;
    add_flagged(c, "t_newid", 0, 0, volatile, |_| {
        let mut b = random_bytes();
        b[7] = b[7] & 0x0F | 0x40;
        b[8] = b[8] & 0x3F | 0x80;
        Ok(Value::Blob(crate::types::guid_store(&b)))
    })?;
    let shared = counters.clone();
    add_flagged(c, "t_rowversion", 0, 0, volatile, move |_| {
        let v = shared.rowversion.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Value::Blob(v.to_be_bytes().to_vec()))
    })?;
    add(c, "t_lsnadd", 2, 1, |a| {
        let mut b = a.blob(0);
        let up = a.int(1) > 0;
        for byte in b.iter_mut().rev() {
            (*byte, _) = if up { byte.overflowing_add(1) } else { byte.overflowing_sub(1) };
            if *byte != if up { 0 } else { 0xFF } {
                break;
            }
        }
        Ok(Value::Blob(b))
    })?;
    // A binary value for comparison with one of `n` bytes: zeros are added up to that, trailing zeros beyond it go.
    add(c, "t_binpad", 2, 1, |a| {
        let n = usize::try_from(a.int(1)).unwrap_or(0);
        let mut b = a.blob(0);
        while b.len() > n && b.last() == Some(&0) {
            b.pop();
        }
        if b.len() < n {
            b.resize(n, 0);
        }
        Ok(Value::Blob(b))
    })?;
    // "sys.fn_cdc_is_bit_set": ordinal 1 is the lowest bit of the last byte.
    add(c, "t_bitset", 2, 2, |a| {
        let (at, mask) = (a.int(0) - 1, a.blob(1));
        let byte =
            usize::try_from(at / 8).ok().and_then(|i| mask.len().checked_sub(i + 1)).and_then(|i| mask.get(i).copied());
        Ok(Value::Integer(byte.map_or(0, |b| i64::from(b >> (at % 8) & 1))))
    })?;
    // "CHANGE_TRACKING_IS_COLUMN_IN_MASK": column numbers of four bytes each.
    add(c, "t_ctmask", 2, 2, |a| {
        let column = (a.int(0) as u32).to_le_bytes();
        Ok(Value::Integer(i64::from(a.blob(1).chunks(4).any(|c| c == column))))
    })?;
    add_flagged(c, "t_now", 1, 0, volatile, |a| {
        let now = dt::now();
        Ok(Value::Integer(if a.int(0) != 0 { dt::round_datetime(now) } else { now }))
    })?;
    // Rows of the log: pairs of column number and value.
    add(c, "t_pack", -1, 0, |a| {
        let mut out = Vec::new();
        for i in (0..a.0.len()).step_by(2) {
            crate::log::pack(&mut out, a.int(i), &a.value(i + 1));
        }
        Ok(Value::Blob(out))
    })?;
    add(c, "t_join", -1, 0, |a| Ok(Value::Blob((0..a.0.len()).flat_map(|i| a.blob(i)).collect())))?;
    add(c, "t_variant", 2, 1, |a| {
        let Some((ty, _)) = variant::unpack(&a.blob(0)) else { return Ok(Value::Null) };
        let int = SqlType::of(Kind::Int);
        let (v, t) = match a.text(1).to_ascii_lowercase().as_str() {
            "basetype" => (Value::Text(ty.name().into()), SqlType::sysname()),
            "precision" => (Value::Integer(i64::from(ty.column_precision())), int),
            "scale" => (Value::Integer(i64::from(ty.column_scale())), int),
            "maxlength" => (Value::Integer(i64::from(ty.max_length())), int),
            "collation" if ty.has_collation() => (Value::Text(ty.collation.name().into()), SqlType::sysname()),
            _ => return Ok(Value::Null),
        };
        Ok(variant::pack(&v, t))
    })?;
    add(c, "t_tostring", 2, 1, |a| match a.ty(1).kind {
        Kind::HierarchyId => clr::hierarchy_text(&a.blob(0)).map(Value::Text),
        kind => clr::point_text(&a.blob(0), kind == Kind::Geography).map(Value::Text),
    })?;
    add(c, "t_wkb", 2, 1, |a| clr::point_wkb(&a.blob(0), a.ty(1).kind == Kind::Geography).map(Value::Blob))?;
    add(c, "t_point", 4, 3, |a| {
        let number = |v| match v {
            Value::Real(r) => r,
            Value::Integer(i) => i as f64,
            _ => 0.0,
        };
        Ok(Value::Blob(clr::point(a.int(2) as i32, number(a.value(0)), number(a.value(1)), a.int(3) != 0)))
    })?;
    add(c, "t_pointtext", 3, 2, |a| clr::parse_point(&a.text(0), a.int(1) as i32, a.int(2) != 0).map(Value::Blob))?;
    // Part `n` (from the right, 1 is the object) of a name that may be quoted: PARSENAME.
    add(c, "t_namepart", 2, 2, |a| {
        let name = a.text(0);
        let parts = crate::sql::lexer::lex(&name).ok().map(|tokens| {
            use crate::sql::lexer::Kind as T;
            let mut parts = vec![String::new()];
            for t in tokens {
                match t.kind {
                    T::Word(w) | T::Quoted(w) | T::Number(w) => {
                        if let Some(last) = parts.last_mut() {
                            if !last.is_empty() {
                                last.push(' ');
                            }
                            last.push_str(&w);
                        }
                    }
                    T::Op(".") => parts.push(String::new()),
                    _ => {}
                }
            }
            parts
        });
        let n = usize::try_from(a.int(1)).unwrap_or(1);
        Ok(parts
            .and_then(|p| p.len().checked_sub(n).and_then(|i| p.get(i).cloned()))
            .filter(|p| !p.is_empty())
            .map_or(Value::Null, Value::Text))
    })
}

/// Sixteen bytes nobody can foresee.
pub fn random_bytes() -> Vec<u8> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut b = vec![0; 16];
    if SystemRandom::new().fill(&mut b).is_err() {
        b.copy_from_slice(&dt::now().to_be_bytes().repeat(2));
    }
    b
}
