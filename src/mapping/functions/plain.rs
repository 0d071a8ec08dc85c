//! What plain functions do.

use crate::mapping::expr::cast::{hex, to_text};
use crate::mapping::expr::civil::Date;
use crate::mapping::expr::decimal::Dec;
use crate::mapping::expr::eval::arith;
use crate::mapping::expr::ir::ArithOp;
use crate::mapping::expr::text::{self, Ends, take};
use crate::mapping::expr::value::{Fault, Val, fault};

pub(super) fn bug<'a>() -> Result<Val<'a>, Fault> {
    fault("bug", "an argument of another type was expected")
}

pub(super) fn int(args: &[Val<'_>], n: usize) -> Result<i64, Fault> {
    match args.get(n) {
        Some(Val::Int(n)) => Ok(*n),
        Some(Val::UInt(_)) => Ok(i64::MAX),
        _ => fault("bug", "an integer argument was expected"),
    }
}

pub(super) fn dec<'v>(args: &'v [Val<'_>], n: usize) -> Result<&'v Dec, Fault> {
    match args.get(n) {
        Some(Val::Dec(d)) => Ok(d),
        _ => fault("bug", "a decimal argument was expected"),
    }
}

pub(super) fn trim_ends<'a>(args: &mut [Val<'a>], ends: Ends) -> Result<Val<'a>, Fault> {
    let s = take(args, 0)?;
    match args.len() {
        1 => Ok(Val::Text(text::trim(s, " ", ends))),
        _ => {
            let chars = take(args, 1)?;
            Ok(Val::Text(text::trim(s, &chars, ends)))
        }
    }
}

pub(super) fn pad<'a>(args: &mut [Val<'a>], at_left: bool) -> Result<Val<'a>, Fault> {
    let (s, n) = (take(args, 0)?, int(args, 1)?);
    let fill = if args.len() > 2 { take(args, 2)? } else { " ".into() };
    text::pad(s, n, &fill, at_left).map(Val::Text)
}

/// The text that `concat` shows: booleans as `t` and `f`, everything else as a cast does.
pub(super) fn shown<'a>(val: Val<'a>, out: &mut String) -> Result<(), Fault> {
    match val {
        Val::Null => {}
        Val::Bool(b) => out.push(if b { 't' } else { 'f' }),
        Val::Text(s) => out.push_str(&s),
        other => out.push_str(&to_text(other)?),
    }
    Ok(())
}

pub(super) fn concat_ws<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    if args.first().is_none_or(Val::is_null) {
        return Ok(Val::Null);
    }
    let separator = take(args, 0)?;
    let mut out = String::new();
    let mut first = true;
    for val in args.iter_mut().skip(1).map(|v| std::mem::replace(v, Val::Null)).filter(|v| !v.is_null()) {
        if !std::mem::take(&mut first) {
            out.push_str(&separator);
        }
        shown(val, &mut out)?;
    }
    Ok(Val::string(out))
}

pub(super) fn abs<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    match &args[0] {
        Val::Int(n) => Val::int(i128::from(*n).abs()),
        Val::UInt(n) => Ok(Val::UInt(*n)),
        Val::Dec(d) => Ok(Val::Dec(d.abs())),
        Val::Float(x) => Ok(Val::Float(x.abs())),
        Val::Real(x) => Ok(Val::Real(x.abs())),
        _ => bug(),
    }
}

pub(super) fn sign<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    let zero = Dec::from_int(0);
    let d = dec(args, 0)?;
    Ok(if matches!(d, Dec::NaN) { Val::Dec(Dec::NaN) } else { Val::Dec(Dec::from_int(d.cmp(&zero) as i128)) })
}

/// Applies one function to doubles, another to singles widened.
pub(super) fn on_float<'a>(args: &mut [Val<'a>], f: fn(f64) -> f64) -> Result<Val<'a>, Fault> {
    match &args[0] {
        Val::Float(x) => Ok(Val::Float(f(*x))),
        Val::Real(x) => Ok(Val::Float(f(f64::from(*x)))),
        _ => bug(),
    }
}

pub(super) fn same<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    Ok(std::mem::replace(&mut args[0], Val::Null))
}

pub(super) fn sha256<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    let digest = match &args[0] {
        Val::Text(s) => ring::digest::digest(&ring::digest::SHA256, s.as_bytes()),
        Val::Bytes(b) => ring::digest::digest(&ring::digest::SHA256, b),
        _ => return bug(),
    };
    let mut out = String::with_capacity(64);
    hex(digest.as_ref(), &mut out);
    Ok(Val::string(out))
}

pub(super) fn remainder<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    let (a, b) = (std::mem::replace(&mut args[0], Val::Null), std::mem::replace(&mut args[1], Val::Null));
    arith(ArithOp::Rem, a, b)
}

/// Days from the second to the first of two dates or timestamps, without what is left of the last one.
pub(super) fn age_in_days<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    let days = match (&args[0], &args[1]) {
        (Val::Date(a), Val::Date(b)) if a.is_finite() && b.is_finite() => i64::from(a.0) - i64::from(b.0),
        (Val::Ts(a), Val::Ts(b)) | (Val::TsTz(a), Val::TsTz(b)) if a.is_finite() && b.is_finite() => {
            (a.0 - b.0) / 86_400_000_000
        }
        (Val::Date(_) | Val::Ts(_) | Val::TsTz(_), _) => return fault("out_of_range", "an infinite date has no age"),
        _ => return bug(),
    };
    Ok(Val::Int(days))
}

pub(super) fn age_in_years<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    let (Val::Date(a), Val::Date(b)) = (&args[0], &args[1]) else { return bug() };
    if !a.is_finite() || !b.is_finite() {
        return fault("out_of_range", "an infinite date has no age");
    }
    let years = |later: Date, earlier: Date| {
        let (later, earlier) = (later.ymd(), earlier.ymd());
        let had_birthday = (later.month, later.day) >= (earlier.month, earlier.day);
        later.year - earlier.year - i64::from(!had_birthday)
    };
    Ok(Val::Int(if a >= b { years(*a, *b) } else { -years(*b, *a) }))
}

/// RFC 9562, section 5.5. (SHA-1 is what the version is defined by; nothing here relies on it being hard to forge.)
pub(super) fn uuid_v5<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    let (Val::Uuid(namespace), Val::Text(name)) = (&args[0], &args[1]) else { return bug() };
    let digits: Vec<u8> = namespace.bytes().filter_map(|b| char::from(b).to_digit(16)).map(|d| d as u8).collect();
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    for pair in digits.chunks(2) {
        context.update(&[pair.iter().fold(0, |byte, digit| byte << 4 | digit)]);
    }
    context.update(name.as_bytes());
    let digest = context.finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut out = String::with_capacity(36);
    for part in [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]] {
        if !out.is_empty() {
            out.push('-');
        }
        hex(part, &mut out);
    }
    Ok(Val::Uuid(out.into()))
}
