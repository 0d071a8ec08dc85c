//! Text functions with PostgreSQL's meaning: positions and lengths count characters, `trim` takes spaces only, case is
//! changed one character at a time. They borrow where the result is a part of the argument.

use super::value::{Fault, Val, fault};
use std::borrow::Cow;

/// Longest text a function may make, in bytes. A guard against `lpad(x, 2000000000)`, not a limit on columns.
pub(crate) const MAX_TEXT: usize = 16 << 20;

const TOO_LONG: Fault = Fault { code: "text_too_long", what: "the result is longer than any text may be here" };

type Text<'a> = Cow<'a, str>;

/// The part of `s` from byte `from` to byte `to`, borrowed if `s` is.
fn part(s: Text<'_>, from: usize, to: usize) -> Text<'_> {
    match s {
        Cow::Borrowed(s) => Cow::Borrowed(s.get(from..to).unwrap_or_default()),
        Cow::Owned(mut s) => {
            s.truncate(to);
            s.drain(..from.min(s.len()));
            Cow::Owned(s)
        }
    }
}

/// Byte offset of character number `n`, or the end.
fn offset(s: &str, n: usize) -> usize {
    if s.is_ascii() {
        return n.min(s.len());
    }
    s.char_indices().nth(n).map_or(s.len(), |(at, _)| at)
}

/// Which ends to trim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ends {
    pub left: bool,
    pub right: bool,
}

pub(crate) fn trim<'a>(s: Text<'a>, chars: &str, ends: Ends) -> Text<'a> {
    let listed = |c: char| chars.contains(c);
    let mut inner: &str = &s;
    if ends.left {
        inner = inner.trim_start_matches(listed);
    }
    let from = s.len() - inner.len();
    if ends.right {
        inner = inner.trim_end_matches(listed);
    }
    let to = from + inner.len();
    part(s, from, to)
}

pub(crate) fn lower(s: Text<'_>) -> Text<'_> {
    if s.is_ascii() {
        return match s.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Cow::Owned(s.to_ascii_lowercase()),
            false => s,
        };
    }
    map_case(s, |c| c.is_ascii_lowercase() || !c.is_alphabetic(), |c| single(c, c.to_lowercase()))
}

pub(crate) fn upper(s: Text<'_>) -> Text<'_> {
    if s.is_ascii() {
        return match s.bytes().any(|b| b.is_ascii_lowercase()) {
            true => Cow::Owned(s.to_ascii_uppercase()),
            false => s,
        };
    }
    map_case(s, |c| c.is_ascii_uppercase() || !c.is_alphabetic(), |c| single(c, c.to_uppercase()))
}

/// As the C library's `towupper` does: a character whose other case is several characters stays.
fn single(c: char, mut mapped: impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

fn map_case(s: Text<'_>, unchanged: impl Fn(char) -> bool, map: impl Fn(char) -> char) -> Text<'_> {
    if s.chars().all(unchanged) {
        return s;
    }
    Cow::Owned(s.chars().map(map).collect())
}

pub(crate) fn initcap(s: &str) -> String {
    let mut inside = false;
    s.chars()
        .map(|c| {
            let mapped = if inside { single(c, c.to_lowercase()) } else { single(c, c.to_uppercase()) };
            inside = c.is_alphanumeric();
            mapped
        })
        .collect()
}

pub(crate) fn length(s: &str) -> i64 {
    let n = if s.is_ascii() { s.len() } else { s.chars().count() };
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn replace<'a>(s: Text<'a>, from: &str, to: &str) -> Result<Text<'a>, Fault> {
    if from.is_empty() || !s.contains(from) {
        return Ok(s);
    }
    let growth = to.len().saturating_sub(from.len()).saturating_mul(s.matches(from).count());
    if s.len().saturating_add(growth) > MAX_TEXT {
        return Err(TOO_LONG);
    }
    Ok(Cow::Owned(s.replace(from, to)))
}

/// Each character of `s` that is in `from` becomes the one at its place in `to`, or nothing.
pub(crate) fn translate(s: &str, from: &str, to: &str) -> String {
    s.chars()
        .filter_map(|c| match from.chars().position(|f| f == c) {
            Some(n) => to.chars().nth(n),
            None => Some(c),
        })
        .collect()
}

pub(crate) fn split_part<'a>(s: Text<'a>, separator: &str, n: i64) -> Result<Text<'a>, Fault> {
    if n == 0 {
        return fault("out_of_range", "a field's number must not be zero");
    }
    if separator.is_empty() {
        return Ok(if n.abs() == 1 { s } else { Cow::Borrowed("") });
    }
    let index = usize::try_from(n.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let field = if n > 0 { s.split(separator).nth(index) } else { s.rsplit(separator).nth(index) };
    let Some(field) = field else { return Ok(Cow::Borrowed("")) };
    // The field is a part of `s`: its place is the distance of their starts.
    let from = field.as_ptr().addr() - s.as_ptr().addr();
    let to = from + field.len();
    Ok(part(s, from, to))
}

/// `substring(s from start for count)`, where `start` counts from 1 and may lie before the text.
pub(crate) fn substring(s: Text<'_>, start: i64, count: Option<i64>) -> Result<Text<'_>, Fault> {
    let end = match count {
        Some(n) if n < 0 => return fault("out_of_range", "a length must not be negative"),
        Some(n) => start.saturating_add(n),
        None => i64::MAX,
    };
    let index = |n: i64| usize::try_from(n.saturating_sub(1).max(0)).unwrap_or(usize::MAX);
    let from = offset(&s, index(start));
    let to = offset(&s, index(end)).max(from);
    Ok(part(s, from, to))
}

/// The first `n` characters; all but the last `-n` if `n` is negative.
pub(crate) fn left(s: Text<'_>, n: i64) -> Text<'_> {
    let to = offset(&s, keep(&s, n));
    part(s, 0, to)
}

/// The last `n` characters; all but the first `-n` if `n` is negative.
pub(crate) fn right(s: Text<'_>, n: i64) -> Text<'_> {
    let skip = usize::try_from(length(&s)).unwrap_or_default() - keep(&s, n);
    let from = offset(&s, skip);
    let to = s.len();
    part(s, from, to)
}

/// How many characters `left` and `right` keep.
fn keep(s: &str, n: i64) -> usize {
    let all = length(s);
    let wanted = if n < 0 { all.saturating_add(n).max(0) } else { n.min(all) };
    usize::try_from(wanted).unwrap_or_default()
}

/// Pads (or cuts) to `n` characters on the given side.
pub(crate) fn pad<'a>(s: Text<'a>, n: i64, fill: &str, at_left: bool) -> Result<Text<'a>, Fault> {
    let wanted = usize::try_from(n.max(0)).unwrap_or(usize::MAX);
    let have = usize::try_from(length(&s)).unwrap_or_default();
    if have >= wanted || fill.is_empty() {
        return Ok(left(s, n.max(0)));
    }
    if wanted.saturating_mul(4) > MAX_TEXT {
        return Err(TOO_LONG);
    }
    let padding = fill.chars().cycle().take(wanted - have);
    let mut out = String::with_capacity(s.len() + (wanted - have) * fill.len().min(4));
    if at_left {
        out.extend(padding);
        out.push_str(&s);
    } else {
        out.push_str(&s);
        out.extend(padding);
    }
    Ok(Cow::Owned(out))
}

pub(crate) fn repeat(s: &str, n: i64) -> Result<String, Fault> {
    let n = usize::try_from(n.max(0)).unwrap_or(usize::MAX);
    if s.len().saturating_mul(n) > MAX_TEXT {
        return Err(TOO_LONG);
    }
    Ok(s.repeat(n))
}

/// Position of `part` in `s`, counted from 1; 0 if it is not there.
pub(crate) fn position(s: &str, part: &str) -> i64 {
    s.find(part).map_or(0, |at| length(&s[..at]) + 1)
}

/// `like`: `%` is any text, `_` is any character, `escape` takes the meaning from the next one.
pub(crate) fn like(s: &str, pattern: &str, escape: Option<char>, ignore_case: bool) -> Result<bool, Fault> {
    let same = |a: char, b: char| a == b || (ignore_case && single(a, a.to_lowercase()) == single(b, b.to_lowercase()));
    let mut text = s.chars();
    let mut rest = pattern.chars();
    // Where to go on when a match fails: after the last `%`, one character further in the text.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let mut pattern_after = rest.clone();
        let step = match pattern_after.next() {
            None if text.as_str().is_empty() => return Ok(true),
            None => None,
            Some(c) if Some(c) == escape => match pattern_after.next() {
                None => return fault("bad_pattern", "the pattern ends with its escape character"),
                Some(c) => text.clone().next().filter(|t| same(*t, c)),
            },
            Some('%') => {
                retry = Some((text.clone(), pattern_after.clone()));
                rest = pattern_after;
                continue;
            }
            Some('_') => text.clone().next(),
            Some(c) => text.clone().next().filter(|t| same(*t, c)),
        };
        if step.is_some() {
            text.next();
            rest = pattern_after;
            continue;
        }
        let Some((from, after)) = &mut retry else { return Ok(false) };
        if from.next().is_none() {
            return Ok(false);
        }
        text = from.clone();
        rest = after.clone();
    }
}

/// Takes the text out of an argument. Anything else is a mistake of the compiler, told as such.
pub(crate) fn take<'a>(args: &mut [Val<'a>], n: usize) -> Result<Text<'a>, Fault> {
    match args.get_mut(n).map(|v| std::mem::replace(v, Val::Null)) {
        Some(Val::Text(s)) => Ok(s),
        _ => fault("bug", "a text argument was expected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: Ends = Ends { left: true, right: true };

    #[test]
    fn trimming_takes_spaces_only() {
        assert_eq!(trim("  a\t ".into(), " ", BOTH), "a\t");
        assert_eq!(trim("xxabyx".into(), "xy", BOTH), "ab");
        assert_eq!(trim(Cow::Owned("  ü ".into()), " ", Ends { left: false, right: true }), "  ü");
    }

    #[test]
    fn parts_count_characters() {
        assert_eq!(substring("äöüß".into(), 2, Some(2)).expect("in range"), "öü");
        assert_eq!(substring("abc".into(), -1, Some(3)).expect("in range"), "a");
        assert_eq!(substring("abc".into(), 9, None).expect("in range"), "");
        assert!(substring("abc".into(), 1, Some(-1)).is_err());
        assert_eq!(left("äbc".into(), -1), "äb");
        assert_eq!(right("äbc".into(), 2), "bc");
        assert_eq!(right("äbc".into(), -1), "bc");
        assert_eq!(right("abc".into(), -9), "");
        assert_eq!(split_part("a~b~c".into(), "~", 2).expect("in range"), "b");
        assert_eq!(split_part(Cow::Owned("a~b~c".into()), "~", -1).expect("in range"), "c");
        assert_eq!(split_part("abc".into(), "", 1).expect("in range"), "abc");
    }

    #[test]
    fn padding_fills_and_cuts() {
        assert_eq!(pad("42".into(), 5, "0", true).expect("short"), "00042");
        assert_eq!(pad("ab".into(), 5, "xy", false).expect("short"), "abxyx");
        assert_eq!(pad("abcdef".into(), 3, "0", true).expect("short"), "abc");
        assert_eq!(pad("a".into(), i64::MAX, "0", true).map_err(|f| f.code), Err("text_too_long"));
    }

    #[test]
    fn case_keeps_the_number_of_characters() {
        assert_eq!(upper("straße".into()), "STRAßE");
        assert_eq!(lower("ÄPFEL".into()), "äpfel");
        assert_eq!(initcap("hello WORLD o'neil 3rd"), "Hello World O'Neil 3rd");
    }

    #[test]
    fn like_follows_sql() {
        let is = |s, p| like(s, p, Some('\\'), false).expect("a pattern");
        assert!(is("abc", "a%") && is("abc", "%b%") && is("abc", "___") && is("", "%") && is("a%c", "a\\%c"));
        assert!(!is("abc", "a") && !is("abc", "__") && !is("ABC", "abc") && !is("abc", "a\\%c"));
        assert!(is("mississippi", "%iss%ip%") && !is("mississippi", "%iss%ipx"));
        assert!(like("ÄB", "äb", None, true).expect("a pattern"));
        assert!(like("a", "a\\", Some('\\'), false).is_err());
    }

    proptest! {
        #[test]
        fn no_text_function_panics(s in "\\PC{0,12}", t in "\\PC{0,3}", n in -20_i64..20, m in -5_i64..20) {
            let c = || Cow::Borrowed(s.as_str());
            let o = || Cow::Owned(s.clone());
            prop_assert_eq!(left(c(), n), left(o(), n));
            prop_assert_eq!(right(c(), n), right(o(), n));
            prop_assert_eq!(substring(c(), n, Some(m)).ok(), substring(o(), n, Some(m)).ok());
            prop_assert_eq!(split_part(c(), &t, n).ok(), split_part(o(), &t, n).ok());
            prop_assert_eq!(pad(c(), n, &t, true).ok(), pad(o(), n, &t, true).ok());
            prop_assert_eq!(trim(c(), &t, BOTH), trim(o(), &t, BOTH));
            let _ = (like(&s, &t, Some('\\'), true), position(&s, &t), initcap(&s), translate(&s, &t, "x"));
        }
    }
}
