//! Functions on text: "String Functions (Transact-SQL)", "LIKE (Transact-SQL)".

use super::add;
use crate::error::SqlError;
use crate::types::Kind;
use crate::types::collation::Collation;
use rusqlite::Connection;
use rusqlite::types::Value;

/// Length in UTF-16 units, which is how `nvarchar` counts.
fn units(t: &str) -> usize {
    t.encode_utf16().count()
}

/// Slice by UTF-16 units; a surrogate pair that would be cut is left out.
fn slice(t: &str, start: i64, length: i64) -> String {
    let begin = start.max(1) - 1;
    let end = (start - 1 + length).max(begin);
    let mut at = 0i64;
    t.chars()
        .filter(|c| {
            let here = at;
            at += c.len_utf16() as i64;
            here >= begin && at <= end
        })
        .collect()
}

pub(crate) fn register(c: &Connection) -> rusqlite::Result<()> {
    add(c, "t_len", 1, 1, |a| Ok(Value::Integer(units(a.text(0).trim_end_matches(' ')) as i64)))?;
    add(c, "t_datalength", 2, 1, |a| {
        let ty = a.ty(1);
        let n = match a.value(0) {
            Value::Text(t) if matches!(ty.kind, Kind::NChar | Kind::NVarChar | Kind::NText | Kind::Xml) => {
                units(&t) * 2
            }
            Value::Text(t) => ty.collation.encode(&t).len(),
            Value::Blob(b) if ty.is_binary() || ty.kind == Kind::Image => b.len(),
            Value::Blob(b) if matches!(ty.kind, Kind::HierarchyId | Kind::Geography | Kind::Geometry) => b.len(),
            _ => usize::try_from(ty.max_length()).unwrap_or(0),
        };
        Ok(Value::Integer(n as i64))
    })?;
    add(c, "t_substring", 3, 3, |a| {
        let (start, length) = (a.int(1), a.int(2));
        if length < 0 {
            return Err(SqlError::new(
                537,
                16,
                3,
                "Invalid length parameter passed to the LEFT or SUBSTRING function.",
            ));
        }
        Ok(match a.value(0) {
            Value::Blob(b) => {
                let begin = usize::try_from(start.max(1) - 1).unwrap_or(0).min(b.len());
                let end = usize::try_from((start - 1 + length).max(0)).unwrap_or(0).clamp(begin, b.len());
                Value::Blob(b[begin..end].to_vec())
            }
            _ => Value::Text(slice(&a.text(0), start, length)),
        })
    })?;
    add(c, "t_right", 2, 2, |a| {
        let t = a.text(0);
        let n = a.int(1);
        Ok(Value::Text(slice(&t, units(&t) as i64 - n + 1, n)))
    })?;
    add(c, "t_upper", 1, 1, |a| Ok(Value::Text(a.text(0).to_uppercase())))?;
    add(c, "t_lower", 1, 1, |a| Ok(Value::Text(a.text(0).to_lowercase())))?;
    add(c, "t_reverse", 1, 1, |a| Ok(Value::Text(a.text(0).chars().rev().collect())))?;
    add(c, "t_replicate", 2, 2, |a| {
        let n = usize::try_from(a.int(1)).unwrap_or(0);
        Ok(match a.value(0) {
            Value::Blob(b) => Value::Blob(b.repeat(n)),
            _ => Value::Text(a.text(0).repeat(n)),
        })
    })?;
    add(c, "t_replace", 4, 3, |a| {
        let (text, find, with, collation) = (a.text(0), a.text(1), a.text(2), a.collation(3));
        let find: Vec<char> = find.chars().collect();
        let text: Vec<char> = text.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        while at < text.len() {
            let hit = !find.is_empty()
                && text.len() - at >= find.len()
                && find.iter().zip(&text[at..]).all(|(x, y)| collation.same(*x, *y));
            if hit {
                out.push_str(&with);
                at += find.len();
            } else {
                out.push(text[at]);
                at += 1;
            }
        }
        Ok(Value::Text(out))
    })?;
    add(c, "t_charindex", 4, 2, |a| {
        let (find, text, start, collation) = (a.text(0), a.text(1), a.int(2), a.collation(3));
        let find: Vec<char> = find.chars().collect();
        let text: Vec<char> = text.chars().collect();
        let from = usize::try_from(start.max(1) - 1).unwrap_or(0);
        let hit = |at: usize| {
            text.len() >= at + find.len() && find.iter().zip(&text[at..]).all(|(x, y)| collation.same(*x, *y))
        };
        let at = if find.is_empty() { None } else { (from..text.len()).find(|at| hit(*at)) };
        Ok(Value::Integer(at.map_or(0, |at| at as i64 + 1)))
    })?;
    add(c, "t_stuff", 4, 3, |a| {
        let (text, start, length) = (a.text(0), a.int(1), a.int(2));
        let n = units(&text) as i64;
        if start < 1 || start > n || length < 0 {
            return Ok(Value::Null);
        }
        Ok(Value::Text(format!("{}{}{}", slice(&text, 1, start - 1), a.text(3), slice(&text, start + length, n))))
    })?;
    add(c, "t_quotename", 2, 2, |a| {
        let t = a.text(0);
        Ok(match a.text(1).chars().next() {
            _ if units(&t) > 128 => Value::Null,
            Some('[' | ']') => Value::Text(format!("[{}]", t.replace(']', "]]"))),
            Some(q @ ('\'' | '"')) => Value::Text(format!("{q}{}{q}", t.replace(q, &format!("{q}{q}")))),
            _ => Value::Null,
        })
    })?;
    add(c, "t_unicode", 1, 1, |a| {
        Ok(a.text(0).encode_utf16().next().map_or(Value::Null, |u| Value::Integer(i64::from(u))))
    })?;
    add(c, "t_ascii", 2, 1, |a| {
        Ok(a.collation(1).encode(&a.text(0)).first().map_or(Value::Null, |b| Value::Integer(i64::from(*b))))
    })?;
    add(c, "t_nchar", 1, 1, |a| {
        Ok(u32::try_from(a.int(0)).ok().and_then(char::from_u32).map_or(Value::Null, |c| Value::Text(c.into())))
    })?;
    add(c, "t_char", 2, 1, |a| {
        Ok(u8::try_from(a.int(0)).map_or(Value::Null, |b| Value::Text(a.collation(1).decode(&[b]))))
    })?;
    // value, pattern, escape ('' for none), collation
    add(c, "t_like", 4, 3, |a| {
        let (text, pattern) = (a.text(0), a.text(1));
        let text: Vec<char> = text.chars().collect();
        let pattern: Vec<char> = pattern.chars().collect();
        let escape = a.text(2).chars().next();
        Ok(Value::Integer(i64::from(like(&text, &pattern, escape, a.collation(3)))))
    })?;
    add(c, "t_catb", 2, 2, |a| Ok(Value::Blob([a.blob(0), a.blob(1)].concat())))
}

/// "LIKE (Transact-SQL)": `%`, `_`, `[a-z]`, `[^a]`; blanks at the end of the value are kept.
fn like(text: &[char], pattern: &[char], escape: Option<char>, collation: Collation) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.iter().all(|c| *c == ' ') };
    if Some(*first) == escape {
        return match (rest.split_first(), text.split_first()) {
            (Some((p, rest)), Some((t, more))) => collation.same(*p, *t) && like(more, rest, escape, collation),
            _ => false,
        };
    }
    match first {
        '%' => (0..=text.len()).any(|skip| like(&text[skip..], rest, escape, collation)) || rest.is_empty(),
        '_' => text.split_first().is_some_and(|(_, more)| like(more, rest, escape, collation)),
        '[' if rest.contains(&']') => {
            let close = rest.iter().skip(1).position(|c| *c == ']').map_or(0, |i| i + 1);
            let (set, behind) = (&rest[..close], &rest[close + 1..]);
            let Some((t, more)) = text.split_first() else { return false };
            let (negated, set) = if set.first() == Some(&'^') { (true, &set[1..]) } else { (false, set) };
            let mut hit = false;
            let mut i = 0;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == '-' {
                    let at = |c: char| collation.compare(&t.to_string(), &c.to_string());
                    hit |= at(set[i]) != std::cmp::Ordering::Less && at(set[i + 2]) != std::cmp::Ordering::Greater;
                    i += 3;
                } else {
                    hit |= collation.same(set[i], *t);
                    i += 1;
                }
            }
            hit != negated && like(more, behind, escape, collation)
        }
        p => text.split_first().is_some_and(|(t, more)| collation.same(*p, *t) && like(more, rest, escape, collation)),
    }
}
